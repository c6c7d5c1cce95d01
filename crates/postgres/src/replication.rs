//! A walsender: the connection that creates the slot and then streams from it.
//! <https://www.postgresql.org/docs/current/protocol-replication.html>

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use hydrant_core::capture::{Failure, Lsn};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::QUERY_TIMEOUT;
use super::error::{During, Report};
use super::quote::{identifier, literal};
use super::wire::{Purpose, Wire};
use super::{Access, ServerError};

/// How long a server that was asked for a sign of life may stay silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest time that the end of a stream takes.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// 2000-01-01 in milliseconds since the Unix epoch: where PostgreSQL's time begins.
const EPOCH_MILLIS: i64 = 946_684_800_000;

/// A replication connection to the source's database, with the same pinned session as
/// [`super::Server`]'s.
#[derive(Debug)]
pub struct Replication {
    wire: Wire,
    access: Access,
    streaming: bool,
    /// Whether anything has arrived since the last status.
    heard: bool,
    /// Since when the server owes an answer.
    asked: Option<Instant>,
}

/// Which server it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The system identifier, which `initdb` drew and every replica and base backup shares.
    pub system: String,
    /// The timeline, which a promotion or a point-in-time recovery changes.
    pub timeline: u32,
    /// Where the server writes, or as a standby has replayed.
    pub position: Lsn,
}

/// How long a slot lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotLifetime {
    /// Until it is dropped.
    Permanent,
    /// As long as its connection.
    Temporary,
}

/// A slot that was just created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Every transaction that commits after this is in the stream, none before it.
    pub consistent: Lsn,
    /// The exported snapshot that has exactly what committed before; it lives until the connection
    /// runs another command.
    pub snapshot: Option<String>,
}

/// What a stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// One `pgoutput` message.
    Wal {
        /// Where its change is in the log; zero for what describes a table.
        start: Lsn,
        /// The same as `start` in a logical stream.
        end: Lsn,
        /// When the server sent it, microseconds since 2000-01-01.
        sent: i64,
        /// The message.
        data: Bytes,
    },
    /// The server is there, and has sent everything below `end` that it has to send.
    Keepalive {
        /// The position.
        end: Lsn,
        /// When the server sent it, microseconds since 2000-01-01.
        sent: i64,
        /// Whether the server wants [`Replication::confirm`] now.
        reply: bool,
    },
}

impl Replication {
    /// Connects and logs in as a walsender. Fails with [`Failure::Permission`] if the role may not.
    pub async fn connect(access: &Access) -> Result<Self, ServerError> {
        let wire = Wire::open(access, Purpose::Replication).await.map_err(|error| match error {
            ServerError::Failed { failure: Failure::Permission, text } => {
                let role = &access.role;
                let grant = format!(
                    "role '{role}' may not replicate: run ALTER ROLE {} WITH REPLICATION; \
                         (Amazon RDS: GRANT rds_replication TO …). {text}",
                    identifier(role)
                );
                ServerError::failed(Failure::Permission, grant)
            }
            other => other,
        })?;
        Ok(Self { wire, access: access.clone(), streaming: false, heard: false, asked: None })
    }

    /// Process id of the walsender, for [`super::waiting_for`].
    pub fn pid(&self) -> i32 {
        self.wire.pid
    }

    /// Asks the server who it is. The caller's duty: before [`Self::start`].
    pub async fn identify(&mut self) -> Result<Identity, ServerError> {
        let asked = self.wire.simple("IDENTIFY_SYSTEM", During::Query);
        let Ok(rows) = timeout(QUERY_TIMEOUT, asked).await else {
            return Err(ServerError::Transient("the server does not say who it is".into()));
        };
        let rows = rows?;
        let row = rows.first().ok_or_else(|| ServerError::unexpected("no identity"))?;
        Ok(Identity { system: row.need(0)?, timeline: row.need(1)?, position: row.need(2)? })
    }

    /// Creates a logical slot for `pgoutput`. Waits for every transaction that writes now, however
    /// long they run; [`super::waiting_for`] tells which. With `export` the answer has a snapshot.
    /// The caller's duty: giving up means dropping the connection; a permanent slot may be there
    /// all the same.
    pub async fn create_slot(
        &mut self,
        name: &str,
        lifetime: SlotLifetime,
        export: bool,
    ) -> Result<CreatedSlot, ServerError> {
        let temporary = match lifetime {
            SlotLifetime::Permanent => "",
            SlotLifetime::Temporary => " TEMPORARY",
        };
        // The form before 15 serves every version.
        let snapshot = if export { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" };
        let sql = format!(
            "CREATE_REPLICATION_SLOT {}{temporary} LOGICAL pgoutput {snapshot}",
            identifier(name)
        );
        let rows = self.wire.simple(&sql, During::CreateSlot).await?;
        let row = rows.first().ok_or_else(|| ServerError::unexpected("no slot"))?;
        Ok(CreatedSlot { consistent: row.need(1)?, snapshot: row.text(2).map(str::to_owned) })
    }

    /// Begins to stream what committed after `from`, or after what the slot has confirmed if that
    /// is more: the server skips silently, so the caller's duty is to compare them before. On
    /// return the slot is held by this connection.
    pub async fn start(
        &mut self,
        slot: &str,
        publications: &[String],
        from: Lsn,
    ) -> Result<(), ServerError> {
        let names: Vec<String> = publications.iter().map(|name| identifier(name)).collect();
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {}, \
             messages 'true')",
            identifier(slot),
            literal(&names.join(","))
        );
        match timeout(QUERY_TIMEOUT, self.begin(&sql)).await {
            Ok(begun) => begun,
            Err(_) => Err(ServerError::Transient("the server does not begin to stream".into())),
        }
    }

    async fn begin(&mut self, sql: &str) -> Result<(), ServerError> {
        self.wire.ask(sql).await?;
        loop {
            let frame = self.wire.next().await?;
            match frame.tag {
                b'W' => {
                    self.streaming = true;
                    return Ok(());
                }
                b'E' => return Err(Report::read(&frame.body).classify(During::Start)),
                b'Z' => return Err(ServerError::unexpected("the stream did not begin")),
                _ => {}
            }
        }
    }

    /// What comes next. Cancelling loses nothing. Fails with [`ServerError::Transient`] when the
    /// connection ends or the server gives no sign of life, and with [`Failure::PublicationDropped`] or [`Failure::SlotLost`].
    pub async fn next(&mut self) -> Result<Arrival, ServerError> {
        loop {
            let next = self.wire.next();
            let frame = match self.asked {
                None => next.await?,
                // What has arrived already comes before the deadline, however late it is taken.
                Some(asked) => match timeout_at(asked + SILENCE_MAX, next).await {
                    Ok(frame) => frame?,
                    Err(_) => return Err(silent()),
                },
            };
            (self.heard, self.asked) = (true, None);
            match frame.tag {
                b'd' => return arrival(frame.body),
                b'E' => return Err(Report::read(&frame.body).classify(During::Stream)),
                b'c' | b'C' | b'Z' => {
                    return Err(ServerError::Transient("the server ended the stream".into()));
                }
                _ => {}
            }
        }
    }

    /// Tells the server what has arrived and what is durable: it may forget what is before
    /// `flushed`. Never waits. With `reply`, or if nothing has arrived since the last time, the server
    /// answers with a keepalive. The caller's duty: call it far more often than the server's
    /// `wal_sender_timeout`, also while nothing is read, and store `flushed` before.
    pub async fn confirm(
        &mut self,
        received: Lsn,
        flushed: Lsn,
        reply: bool,
    ) -> Result<(), ServerError> {
        let reply = reply || !std::mem::take(&mut self.heard);
        if reply {
            self.asked.get_or_insert_with(Instant::now);
        }
        let now = i64::try_from(self.access.clock.now().as_millis()).unwrap_or(i64::MAX);
        let now = now.saturating_sub(EPOCH_MILLIS).saturating_mul(1_000);
        self.wire
            .queue(|out| {
                out.put_u8(b'd');
                out.put_u32(4 + 1 + 8 * 4 + 1);
                out.put_u8(b'r');
                // Applied is flushed: nobody waits for us to apply anything.
                for position in [received.max(flushed), flushed, flushed] {
                    out.put_u64(position.0);
                }
                out.put_i64(now);
                out.put_u8(u8::from(reply));
                Ok(())
            })
            .await
    }

    /// Ends the stream and the session, so that the slot is free at once. What still arrives is
    /// thrown away. Dropping the connection instead frees the slot when the server notices.
    pub async fn stop(mut self) {
        if self.streaming {
            let drained = async {
                self.wire.copy_done().await?;
                while self.wire.next().await?.tag != b'Z' {}
                Ok::<(), ServerError>(())
            };
            let _ = timeout(STOP_TIMEOUT, drained).await;
        }
        self.wire.close().await;
    }
}

fn silent() -> ServerError {
    let text = format!("the server has given no sign of life for {} s", SILENCE_MAX.as_secs());
    ServerError::Transient(text)
}

fn arrival(mut body: Bytes) -> Result<Arrival, ServerError> {
    const WAL_HEADER_BYTES: usize = 1 + 8 * 3;
    const KEEPALIVE_BYTES: usize = 1 + 8 * 2 + 1;
    match body.first() {
        Some(b'w') if body.len() >= WAL_HEADER_BYTES => {
            body.advance(1);
            let (start, end, sent) = (Lsn(body.get_u64()), Lsn(body.get_u64()), body.get_i64());
            Ok(Arrival::Wal { start, end, sent, data: body })
        }
        Some(b'k') if body.len() >= KEEPALIVE_BYTES => {
            body.advance(1);
            let (end, sent) = (Lsn(body.get_u64()), body.get_i64());
            Ok(Arrival::Keepalive { end, sent, reply: body.get_u8() != 0 })
        }
        _ => Err(ServerError::unexpected("a stream brought something unknown")),
    }
}
