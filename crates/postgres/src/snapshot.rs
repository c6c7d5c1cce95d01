//! Reading the rows that were there when a slot was created, by several connections at once.

mod plan;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::plan::Range;
use super::error::{During, Report};
use super::quote::literal;
use super::tables::PublishedTable;
use super::{Access, Server, ServerError};

/// Most connections that read a snapshot.
pub const READERS_MAX: usize = 16;
/// Bytes of a piece, unless one line has more.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait for who takes them, besides the one that each connection is filling.
const PIECES_WAITING_MAX: usize = 8;

/// Connections that all see the database as of one exported snapshot.
///
/// The caller's duty: keep the connection that exported it until [`Self::open`] has returned, and
/// take any error, one that passes too, as the end of this snapshot: what was read has to be read
/// again under a new one.
#[derive(Debug)]
pub struct Snapshot {
    first: Server,
    others: Vec<Server>,
}

/// What reading brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Rows of a table, in no order.
    Rows {
        /// Place of the table in the list that was given.
        table: usize,
        /// Number of lines.
        rows: u64,
        /// Whole lines of COPY's text format, the columns in the order of the table's.
        lines: Bytes,
    },
    /// Every row of the table was in a piece before.
    Done {
        /// Place of the table in the list that was given.
        table: usize,
    },
}

/// A snapshot that is being read. Dropping it closes the connections.
#[derive(Debug)]
pub struct Reading {
    pieces: mpsc::Receiver<Result<Piece, ServerError>>,
    /// Tables that are not done.
    left: usize,
    _readers: JoinSet<()>,
}

impl Snapshot {
    /// Connects `readers` times, 1 to [`READERS_MAX`], and takes the snapshot over. With fewer if the
    /// server has no more connections to give, but never with none.
    pub async fn open(
        access: &Access,
        exported: &str,
        readers: usize,
    ) -> Result<Self, ServerError> {
        let first = import(access, exported).await?;
        let mut others = Vec::new();
        for _ in 1..readers.clamp(1, READERS_MAX) {
            match import(access, exported).await {
                Ok(server) => others.push(server),
                Err(ServerError::Transient(text)) => {
                    tracing::warn!(text, readers = others.len() + 1, "fewer snapshot readers");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { first, others })
    }

    /// A connection that sees the catalogs as of the snapshot, so that columns are those of the
    /// rows: [`super::published`] is to be asked here.
    pub fn server(&mut self) -> &mut Server {
        &mut self.first
    }

    /// Begins to read every row of the tables that is published.
    pub async fn read(mut self, tables: &[PublishedTable]) -> Result<Reading, ServerError> {
        let ranges = plan::ranges(&mut self.first, tables).await?;
        let mut left: Vec<usize> = vec![0; tables.len()];
        ranges.iter().for_each(|range| left[range.table] += 1);
        let empty: Vec<usize> = (0..left.len()).filter(|table| left[*table] == 0).collect();
        let work = Arc::new(Work {
            ranges: Mutex::new(ranges.into()),
            left: left.into_iter().map(AtomicUsize::new).collect(),
        });
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let mut readers = JoinSet::new();
        for server in std::iter::once(self.first).chain(self.others) {
            readers.spawn(reader(server, work.clone(), sender.clone()));
        }
        readers.spawn(async move {
            for table in empty {
                let _ = sender.send(Ok(Piece::Done { table })).await;
            }
        });
        Ok(Reading { pieces, left: tables.len(), _readers: readers })
    }
}

impl Reading {
    /// The next piece; `None` once every table is done. Cancelling loses nothing. After an error
    /// there is nothing more to take.
    pub async fn next(&mut self) -> Option<Result<Piece, ServerError>> {
        let piece = self.pieces.recv().await;
        match &piece {
            Some(Ok(Piece::Rows { .. })) => {}
            Some(Ok(Piece::Done { .. })) => self.left -= 1,
            Some(Err(_)) => {
                self.left = 0;
                self.pieces.close();
                while self.pieces.try_recv().is_ok() {}
            }
            // Nothing but the end of all tables is the end.
            None if self.left > 0 => {
                self.left = 0;
                let text = "a reader of the snapshot ended before its tables were read";
                return Some(Err(ServerError::Transient(text.into())));
            }
            None => {}
        }
        piece
    }
}

async fn import(access: &Access, exported: &str) -> Result<Server, ServerError> {
    let mut server = Server::connect(access).await?;
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        literal(exported)
    );
    server.ask(&sql, During::Query).await.map_err(|error| {
        ServerError::Transient(format!("the exported snapshot cannot be used any more: {error}"))
    })?;
    Ok(server)
}

/// What the readers share.
struct Work {
    ranges: Mutex<VecDeque<Range>>,
    /// Ranges of each table that are not read.
    left: Vec<AtomicUsize>,
}

async fn reader(
    mut server: Server,
    work: Arc<Work>,
    out: mpsc::Sender<Result<Piece, ServerError>>,
) {
    loop {
        let Some(range) = work.ranges.lock().pop_front() else { break };
        if let Err(error) = read(&mut server, &range, &out).await {
            // No other reader begins anything that nobody will use.
            work.ranges.lock().clear();
            let _ = out.send(Err(error)).await;
            return;
        }
        if work.left[range.table].fetch_sub(1, Ordering::AcqRel) == 1 {
            let _ = out.send(Ok(Piece::Done { table: range.table })).await;
        }
    }
    server.close().await;
}

async fn read(
    server: &mut Server,
    range: &Range,
    out: &mpsc::Sender<Result<Piece, ServerError>>,
) -> Result<(), ServerError> {
    // The savepoint gives the lock back, so that reading many tables holds few locks.
    let rows = server.ask(&range.lock, During::Snapshot).await?;
    if !rows.last().is_some_and(|row| row.is(0)) {
        return Err(ServerError::Transient(
            "a table was rewritten, truncated or replaced after the snapshot was taken, so its rows \
             can be seen no more"
                .into(),
        ));
    }
    copy(server, range, out).await?;
    server.ask("ROLLBACK TO SAVEPOINT range; RELEASE SAVEPOINT range", During::Snapshot).await?;
    Ok(())
}

/// Runs the COPY of a range. Who is not taken from waits here, and so does the server.
async fn copy(
    server: &mut Server,
    range: &Range,
    out: &mpsc::Sender<Result<Piece, ServerError>>,
) -> Result<(), ServerError> {
    let gone = || ServerError::Transient("nobody takes the snapshot's rows any more".into());
    let table = range.table;
    let (mut lines, mut rows) = (BytesMut::new(), 0);
    server.wire.ask(&range.copy).await?;
    loop {
        let frame = server.wire.next().await?;
        match frame.tag {
            b'd' => {
                let whole = frame.body.last() == Some(&b'\n');
                lines.extend_from_slice(&frame.body);
                rows += u64::from(whole);
                if whole && lines.len() >= PIECE_BYTES {
                    let lines = std::mem::take(&mut lines).freeze();
                    let piece = Piece::Rows { table, rows: std::mem::take(&mut rows), lines };
                    out.send(Ok(piece)).await.map_err(|_| gone())?;
                }
            }
            b'E' => {
                let report = Report::read(&frame.body).within(&format!("table {}", range.name));
                return Err(report.classify(During::Snapshot));
            }
            b'Z' => break,
            _ => {}
        }
    }
    server.wire.ready();
    if !lines.is_empty() {
        let piece = Piece::Rows { table, rows, lines: lines.freeze() };
        out.send(Ok(piece)).await.map_err(|_| gone())?;
    }
    Ok(())
}
