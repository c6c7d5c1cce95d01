//! PostgreSQL's frontend protocol, as much of it as a source needs: log in, ask in text, and read
//! what a COPY or a replication stream sends. <https://www.postgresql.org/docs/current/protocol.html>

mod login;
mod pace;
mod socket;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hydrant_core::capture::Failure;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{sleep_until, timeout};

use self::pace::Pace;
use self::socket::Socket;
use super::ServerError;
use super::error::{During, Report};

/// Bytes that are read from a socket at once.
const READ_BYTES: usize = 128 * 1024;
/// A read buffer that has grown past this is given back once it is empty.
const READ_BYTES_KEPT_MAX: usize = 4 * 1024 * 1024;
/// With less room than this in the read buffer it gets more.
const READ_ROOM_MIN: usize = 4 * 1024;
/// Longest frame of a server, in bytes: PostgreSQL's own bound of an allocation.
const FRAME_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Longest frame of whoever answers, until it has let us in.
const LOGIN_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of an answer's rows that are kept.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes waiting to be sent. A server that takes none of it is stuck.
const OUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest time that saying goodbye takes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Statements and COPY.
    Queries,
    /// A walsender for the database: replication commands, statements too.
    Replication,
}

/// A connection that has logged in.
pub(super) struct Wire {
    socket: Socket,
    pace: Pace,
    read: BytesMut,
    out: BytesMut,
    frame_bytes_max: usize,
    /// Of the server process.
    pub(super) pid: i32,
    pub(super) version: u32,
    /// Whether an answer has begun that nobody has read to its end.
    asked: bool,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire(server process {}, version {})", self.pid, self.version)
    }
}

/// A message of the server.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// A row of an answer, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Vec<Option<String>>);

impl Row {
    /// The value of a column, from 0; `None` for NULL and for a column that is not there.
    pub fn text(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    pub(super) fn string(&self, column: usize) -> String {
        self.text(column).unwrap_or_default().to_owned()
    }

    /// A boolean; NULL is false.
    pub(super) fn is(&self, column: usize) -> bool {
        self.text(column) == Some("t")
    }

    /// A number or an LSN, whatever is read from text; NULL is `None`.
    pub(super) fn parsed<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }

    /// As [`Self::parsed`], where the server never sends NULL.
    pub(super) fn need<T: std::str::FromStr>(&self, column: usize) -> Result<T, ServerError> {
        let found = self.parsed(column);
        found.ok_or_else(|| ServerError::unexpected("a value has another type than its catalog's"))
    }

    fn read(mut body: Bytes) -> Result<Self, ServerError> {
        let short = || ServerError::unexpected("a row ends early");
        let count = body.try_get_u16().map_err(|_| short())?;
        let mut values = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let length = body.try_get_i32().map_err(|_| short())?;
            let Ok(length) = usize::try_from(length) else {
                values.push(None);
                continue;
            };
            if body.len() < length {
                return Err(short());
            }
            let value = String::from_utf8(body.split_to(length).to_vec()).map_err(|_| {
                let text = "a name in the server's catalogs is not UTF-8: rename it";
                ServerError::failed(Failure::Other, text)
            })?;
            values.push(Some(value));
        }
        Ok(Self(values))
    }
}

impl Wire {
    /// The next message. Cancelling loses nothing: what has arrived stays in the buffer. What waits
    /// to be sent goes out meanwhile.
    pub(super) async fn next(&mut self) -> Result<Frame, ServerError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            if self.fill().await? == 0 {
                return Err(ServerError::Transient("the server closed the connection".into()));
            }
        }
    }

    /// A whole message that has already arrived.
    fn buffered(&mut self) -> Result<Option<Frame>, ServerError> {
        let Some(header) = self.read.first_chunk::<5>() else {
            if self.read.capacity() - self.read.len() < READ_ROOM_MIN {
                self.read.reserve(READ_BYTES);
            }
            return Ok(None);
        };
        let [tag, length @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(4..=self.frame_bytes_max).contains(&length) {
            return Err(ServerError::unexpected("a message has an impossible length"));
        }
        if self.read.len() <= length {
            // Once for the whole frame: a long one is not copied from buffer to buffer.
            let rest = length + 1 - self.read.len();
            if self.read.capacity() - self.read.len() < rest {
                self.read.reserve(rest.max(READ_BYTES));
            }
            return Ok(None);
        }
        let mut body = self.read.split_to(length + 1);
        body.advance(5);
        if self.read.is_empty() && self.read.capacity() > READ_BYTES_KEPT_MAX {
            self.read = BytesMut::new();
        }
        Ok(Some(Frame { tag, body: body.freeze() }))
    }

    /// Reads what has arrived, or what comes first, or from a fast server what comes for a moment.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.pace.until().is_none() {
            let there = poll_fn(|cx| Poll::Ready(self.poll_traffic(cx))).await;
            if let Poll::Ready(read) = there {
                return read;
            }
            if self.pace.waits().is_some() && self.out.is_empty() {
                self.socket.leave()?;
            }
        }
        if let Some(until) = self.pace.until() {
            sleep_until(until).await;
            self.pace.over();
        }
        poll_fn(|cx| self.poll_traffic(cx)).await
    }

    fn poll_traffic(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_send(cx);
        let read = pin!(self.socket.read_buf(&mut self.read)).poll(cx);
        if let Poll::Ready(Ok(bytes)) = read {
            self.pace.read(bytes);
        }
        read
    }

    /// Sends what it can. An error shows in the next read, behind the server's last words.
    fn poll_send(&mut self, cx: &mut Context<'_>) {
        while !self.out.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.out) {
                Poll::Ready(Ok(sent)) if sent > 0 => self.out.advance(sent),
                Poll::Ready(_) => return self.out.clear(),
                Poll::Pending => return,
            }
        }
        let _ = Pin::new(&mut self.socket).poll_flush(cx);
    }

    /// Queues bytes and sends as much as goes at once; the rest goes with the next read. Never
    /// waits, so nothing is lost by cancelling it.
    pub(super) async fn queue(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), ServerError> {
        if self.out.len() > OUT_BYTES_MAX {
            return Err(ServerError::Transient("the server takes nothing any more".into()));
        }
        write(&mut self.out).map_err(|error| {
            ServerError::failed(Failure::Other, format!("cannot be said to a server: {error}"))
        })?;
        poll_fn(|cx| {
            self.poll_send(cx);
            Poll::Ready(())
        })
        .await;
        Ok(())
    }

    /// Begins a statement; what follows is read with [`Self::next`], up to the server's
    /// ReadyForQuery, with which comes [`Self::ready`].
    pub(super) async fn ask(&mut self, sql: &str) -> Result<(), ServerError> {
        if self.asked {
            return Err(ServerError::Transient("the connection was left in an answer".into()));
        }
        self.queue(|out| frontend::query(sql, out)).await?;
        self.asked = true;
        Ok(())
    }

    /// An answer is read to its end.
    pub(super) fn ready(&mut self) {
        self.asked = false;
    }

    /// Runs a statement and collects the rows of its answer.
    pub(super) async fn simple(
        &mut self,
        sql: &str,
        during: During,
    ) -> Result<Vec<Row>, ServerError> {
        self.ask(sql).await?;
        let (mut rows, mut bytes, mut error) = (Vec::new(), 0, None);
        loop {
            let frame = match self.next().await {
                Ok(frame) => frame,
                // What a server says before it hangs up is the better reason.
                Err(hung_up) => return Err(error.unwrap_or(hung_up)),
            };
            match frame.tag {
                b'D' => {
                    bytes += frame.body.len();
                    if bytes > ANSWER_BYTES_MAX {
                        let text = format!("an answer has more than {ANSWER_BYTES_MAX} bytes");
                        return Err(ServerError::failed(Failure::Other, text));
                    }
                    rows.push(Row::read(frame.body)?);
                }
                b'E' => error = Some(Report::read(&frame.body).classify(during)),
                b'Z' => {
                    self.ready();
                    return error.map_or(Ok(rows), Err);
                }
                _ => {}
            }
        }
    }

    /// Tells the server that a stream is wanted no longer.
    pub(super) async fn copy_done(&mut self) -> Result<(), ServerError> {
        let write = |out: &mut BytesMut| {
            frontend::copy_done(out);
            Ok(())
        };
        self.queue(write).await
    }

    /// Says goodbye and closes.
    pub(super) async fn close(mut self) {
        frontend::terminate(&mut self.out);
        let sent = poll_fn(|cx| {
            self.poll_send(cx);
            if self.out.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = timeout(CLOSE_TIMEOUT, sent).await;
        let _ = timeout(CLOSE_TIMEOUT, tokio::io::AsyncWriteExt::shutdown(&mut self.socket)).await;
    }
}
