//! A connection with a session: reads messages, runs statements, writes answers.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::extended::{Portal, Prepared};
use super::lex::plain_strings;
use super::settings::Settings;
use super::wire::{Backend, CLIENT_BYTES_MAX, Frontend, Report, Severity, WireError, read_message};
use super::{Entered, IDLE_TIME};
use crate::session::{Answer, Session, Tag};

pub(super) type Reader = BufReader<OwnedReadHalf>;

/// Bytes of answers that make a flush; what a slow client does not take is not written further.
const FLUSH_BYTES: usize = 64 << 10;

/// Why a message could not be served.
#[derive(Debug)]
pub(super) enum Fault {
    /// The client is told, and may go on.
    Report(Report),
    /// The client is told, and the connection ends.
    Fatal(Report),
    /// There is nobody to tell.
    Gone,
}

impl From<Report> for Fault {
    fn from(report: Report) -> Self {
        Self::Report(report)
    }
}

impl From<crate::session::SqlError> for Fault {
    fn from(e: crate::session::SqlError) -> Self {
        Self::Report(e.into())
    }
}

/// Statements in a BEGIN … COMMIT, each of which has committed by itself.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) changes: u64,
}

/// One connection.
pub(super) struct Connection {
    pub(super) entered: Entered,
    pub(super) session: Box<dyn Session>,
    pub(super) settings: Settings,
    pub(super) out: Backend,
    writer: OwnedWriteHalf,
    pub(super) block: Option<Block>,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    /// A portal whose Describe waits for the next message: an Execute tells more.
    pub(super) describing: Option<String>,
    /// After an error in the extended protocol everything up to Sync is skipped.
    skipping: bool,
}

impl Connection {
    pub(super) fn new(
        entered: Entered,
        session: Box<dyn Session>,
        settings: Settings,
        out: Backend,
        writer: OwnedWriteHalf,
    ) -> Self {
        Self {
            entered,
            session,
            settings,
            out,
            writer,
            block: None,
            statements: HashMap::new(),
            portals: HashMap::new(),
            describing: None,
            skipping: false,
        }
    }

    /// Serves until the client leaves, is idle for too long, or the server stops.
    pub(super) async fn serve(mut self, mut reader: Reader) {
        let ended = self.messages(&mut reader).await;
        if let Err(Fault::Fatal(report)) = ended {
            self.out.diagnostic(Severity::Fatal, &report);
            let _ = self.flush().await;
        }
    }

    async fn messages(&mut self, reader: &mut Reader) -> Result<(), Fault> {
        loop {
            // What is already here is answered before anything is sent: a pipeline costs one write.
            if reader.buffer().is_empty() {
                self.flush().await?;
            } else {
                self.flush_if_full().await?;
            }
            let Some(message) = self.next(reader).await? else { return Ok(()) };
            match message {
                Frontend::Terminate => return Ok(()),
                Frontend::Sync => {
                    self.pending_describe().await?;
                    self.skipping = false;
                    self.sync();
                }
                Frontend::Query(sql) => {
                    self.pending_describe().await?;
                    self.skipping = false;
                    let served = self.simple(&sql).await;
                    self.tell(served)?;
                    self.sync();
                }
                Frontend::Password(_) | Frontend::Copy => {}
                _ if self.skipping => {}
                Frontend::Flush => {
                    self.pending_describe().await?;
                    self.flush().await?;
                }
                message => {
                    let served = self.extended(message).await;
                    self.skipping = self.tell(served)?;
                }
            }
        }
    }

    /// Answers a Describe that waited for an Execute which did not come.
    async fn pending_describe(&mut self) -> Result<(), Fault> {
        if let Some(portal) = self.describing.take()
            && !self.skipping
        {
            let served = self.describe_portal(&portal).await;
            self.skipping = self.tell(served)?;
        }
        Ok(())
    }

    async fn next(&mut self, reader: &mut Reader) -> Result<Option<Frontend>, Fault> {
        let shutdown = self.entered.server.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(stopping()),
            read = timeout(IDLE_TIME, read_message(reader, CLIENT_BYTES_MAX)) => match read {
                Ok(Ok(message)) => Ok(message),
                Ok(Err(WireError::Io(_))) => Err(Fault::Gone),
                Ok(Err(e)) => Err(Fault::Fatal(Report::new("08P01", e.to_string()))),
                Err(_) => {
                    let text = "terminating connection due to idle-session timeout";
                    Err(Fault::Fatal(Report::new("57P05", text)))
                }
            },
        }
    }

    /// Writes an error the client can go on from; true if there was one.
    fn tell(&mut self, served: Result<(), Fault>) -> Result<bool, Fault> {
        match served {
            Ok(()) => Ok(false),
            Err(Fault::Report(report)) => {
                self.out.diagnostic(Severity::Error, &report);
                Ok(true)
            }
            Err(fault) => Err(fault),
        }
    }

    fn sync(&mut self) {
        if self.block.is_none() {
            self.portals.clear();
        }
        self.out.ready(self.block.is_some());
    }

    /// Hands what has been written to the client. One that takes nothing for [`IDLE_TIME`] is gone.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        let shutdown = self.entered.server.shutdown.clone();
        if self.out.buffer.is_empty() {
            return Ok(());
        }
        let write = timeout(IDLE_TIME, self.writer.write_all(&self.out.buffer));
        let written = tokio::select! {
            written = write => matches!(written, Ok(Ok(()))),
            // A client that reads gets its last words; one that does not is not waited for.
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            } => false,
        };
        self.out.buffer.clear();
        if written { Ok(()) } else { Err(Fault::Gone) }
    }

    /// Flushes if much has gathered.
    pub(super) async fn flush_if_full(&mut self) -> Result<(), Fault> {
        if self.out.buffer.len() < FLUSH_BYTES {
            return Ok(());
        }
        self.flush().await
    }

    /// Runs one statement of the engine's, unless it is cancelled or takes too long.
    pub(super) async fn run(
        &mut self,
        sql: &str,
        parameters: &[Option<String>],
    ) -> Result<Answer, Fault> {
        let sql = plain_strings(sql);
        let shutdown = self.entered.server.shutdown.clone();
        let limit = self.settings.statement_timeout;
        let out_of_time = async {
            if limit.is_zero() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(limit).await;
        };
        let answer = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(stopping()),
            () = self.entered.wake.notified() => {
                let text = "canceling statement due to user request";
                return Err(Report::new("57014", text).into());
            }
            () = out_of_time => {
                let text = "canceling statement due to statement timeout";
                return Err(Report::new("57014", text).into());
            }
            answer = self.session.execute(&sql, parameters) => answer?,
        };
        if !matches!(answer.tag, Tag::Rows)
            && let Some(block) = &mut self.block
        {
            block.changes += 1;
        }
        Ok(answer)
    }
}

fn stopping() -> Fault {
    Fault::Fatal(Report::new("57P01", "terminating connection due to administrator command"))
}
