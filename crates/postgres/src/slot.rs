//! Replication slots as the server's views show them, and taking them back from who holds them.

use std::time::Duration;

use hydrant_core::capture::{Failure, Lsn};
use tokio::time::sleep;

use super::error::{During, LOST_ADVICE};
use super::quote::{literal, text_array};
use super::{Server, ServerError};

/// How often, and how long apart, a slot that is being released is tried.
const DROP_TRIES: u32 = 20;
const DROP_PAUSE: Duration = Duration::from_millis(250);

/// A slot (PostgreSQL: `pg_replication_slots`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotRow {
    /// Its name.
    pub name: String,
    /// Its output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    /// Its database; `None` for a physical slot.
    pub database: Option<String>,
    /// Whether it ends with its connection.
    pub temporary: bool,
    /// The server process that holds it.
    pub active_pid: Option<i32>,
    /// `application_name` of that process.
    pub active_application: Option<String>,
    /// From where on the server keeps its log for it.
    pub restart: Option<Lsn>,
    /// What it has confirmed.
    pub confirmed: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that can still be written before it is in danger; `None` if there is no limit.
    pub safe_wal_bytes: Option<i64>,
    /// Bytes of log between `restart` and the server's end.
    pub retained_wal_bytes: Option<u64>,
    /// Whether prepared transactions are decoded when they are prepared.
    pub two_phase: bool,
    /// Whether standbys keep a copy (17 or later).
    pub failover: bool,
    /// Whether a standby keeps it as a copy of the primary's, which cannot be read until the standby
    /// is promoted (17 or later).
    pub synced: bool,
    /// Why it cannot be read any more.
    pub lost: Option<String>,
}

/// How a source's slot is, from a connection beside the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The end of the server's log; on a standby, of what it has received.
    pub server: Lsn,
    /// The slot, if it is there.
    pub slot: Option<SlotRow>,
    /// Publications that are gone. From 18 on the stream says nothing about them and brings no
    /// changes, so the caller's duty is to look here.
    pub publications_missing: Vec<String>,
}

const SERVER_LSN: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN coalesce(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) \
     ELSE pg_catalog.pg_current_wal_lsn() END";

/// The end of the server's log; on a standby, of what it has received.
pub(super) async fn log_end(server: &mut Server) -> Result<Lsn, ServerError> {
    let rows = server.ask(&format!("SELECT {SERVER_LSN}"), During::Query).await?;
    let row = rows.first().ok_or_else(|| ServerError::unexpected("no answer about the log"))?;
    row.need(0)
}

/// Looks at a slot and its publications.
pub async fn status(
    server: &mut Server,
    slot: &str,
    publications: &[String],
) -> Result<Status, ServerError> {
    // As JSON, because the views of older servers have fewer columns.
    let sql = format!(
        "SELECT w.lsn, s.slot_name, s.plugin, s.database, s.temporary, s.active_pid, \
           (SELECT a.application_name FROM pg_catalog.pg_stat_activity a \
             WHERE a.pid = s.active_pid), \
           s.restart_lsn, s.confirmed_flush_lsn, s.wal_status, s.safe_wal_size, \
           greatest(pg_catalog.pg_wal_lsn_diff(w.lsn, s.restart_lsn), 0)::int8, \
           s.j ->> 'two_phase' = 'true', s.j ->> 'failover' = 'true', \
           s.j ->> 'synced' = 'true' AND pg_catalog.pg_is_in_recovery(), \
           CASE WHEN s.j ->> 'invalidation_reason' IS NOT NULL THEN s.j ->> 'invalidation_reason' \
             WHEN s.wal_status = 'lost' THEN 'wal_removed' \
             WHEN s.j ->> 'conflicting' = 'true' THEN 'conflict with recovery' END, \
           ARRAY(SELECT n FROM unnest({}) n WHERE NOT EXISTS \
             (SELECT FROM pg_catalog.pg_publication p WHERE p.pubname = n))::text \
         FROM (SELECT {SERVER_LSN} AS lsn) w \
         LEFT JOIN (SELECT s.*, to_jsonb(s) AS j FROM pg_catalog.pg_replication_slots s \
           WHERE s.slot_name = {}) s ON true",
        text_array(publications),
        literal(slot)
    );
    let rows = server.ask(&sql, During::Query).await?;
    let row = rows.first().ok_or_else(|| ServerError::unexpected("no answer about the slot"))?;
    let found = row.text(1).map(|name| SlotRow {
        name: name.to_owned(),
        plugin: row.text(2).map(str::to_owned),
        database: row.text(3).map(str::to_owned),
        temporary: row.is(4),
        active_pid: row.parsed(5),
        active_application: row.text(6).map(str::to_owned),
        restart: row.parsed(7),
        confirmed: row.parsed(8),
        wal_status: row.text(9).map(str::to_owned),
        safe_wal_bytes: row.parsed(10),
        retained_wal_bytes: row.parsed(11),
        two_phase: row.is(12),
        failover: row.is(13),
        synced: row.is(14),
        lost: row.text(15).map(str::to_owned),
    });
    let publications_missing = match row.text(16) {
        None | Some("{}") => Vec::new(),
        Some(_) => super::publications::missing(server, publications).await?,
    };
    Ok(Status { server: row.parsed(0).unwrap_or_default(), slot: found, publications_missing })
}

/// What the creation of a slot waits for, in words that say how to end it; `None` if it waits for
/// nothing that can be seen. `walsender` is [`super::Replication::pid`]. Of somebody's statement only
/// the first word is told: the rest may hold anything, a password too.
pub async fn waiting_for(
    server: &mut Server,
    walsender: i32,
) -> Result<Option<String>, ServerError> {
    let sql = format!(
        "SELECT b.pid, a.usename, a.application_name, a.state, \
           extract(epoch FROM clock_timestamp() - a.xact_start)::int8, \
           upper(substring(a.query FROM '^ *([A-Za-z]{{1,20}})')), \
           (SELECT x.gid FROM pg_catalog.pg_prepared_xacts x WHERE b.pid = 0 \
             ORDER BY x.prepared LIMIT 1), \
           (SELECT x.owner FROM pg_catalog.pg_prepared_xacts x WHERE b.pid = 0 \
             ORDER BY x.prepared LIMIT 1), \
           pg_catalog.pg_is_in_recovery() \
         FROM (SELECT 1) one \
         LEFT JOIN unnest(pg_catalog.pg_blocking_pids({walsender})) b(pid) ON true \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid \
         ORDER BY a.xact_start LIMIT 1"
    );
    let rows = server.ask(&sql, During::Query).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(match (row.parsed::<i32>(0), row.text(6)) {
        (Some(0), Some(prepared)) => Some(format!(
            "waits for the prepared transaction {} of role '{}': COMMIT PREPARED or ROLLBACK \
             PREPARED it",
            literal(prepared),
            row.string(7)
        )),
        (Some(0) | None, _) => row.is(8).then(|| {
            "waits for a record of the primary's: run SELECT pg_log_standby_snapshot() there"
                .to_owned()
        }),
        (Some(pid), _) => Some(format!(
            "waits for the transaction of process {pid} (role '{}', application '{}', {} for {} \
             seconds; last statement {}): end it, or run SELECT pg_terminate_backend({pid})",
            row.string(1),
            row.string(2),
            row.text(3).unwrap_or("open"),
            row.text(4).unwrap_or("?"),
            row.text(5).unwrap_or("hidden")
        )),
    })
}

/// Ends the walsender that holds a slot, if it goes by our own `application_name`: one whose
/// connection broke without the server's noticing. Who holds it, in words; `None` if nobody does.
pub async fn release(
    server: &mut Server,
    slot: &str,
    application: &str,
) -> Result<Option<String>, ServerError> {
    let sql = format!(
        "SELECT s.active_pid, a.application_name, a.usename, a.client_addr, \
           CASE WHEN a.application_name = {} THEN pg_catalog.pg_terminate_backend(s.active_pid) END \
         FROM pg_catalog.pg_replication_slots s \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid \
         WHERE s.slot_name = {} AND s.active_pid IS NOT NULL",
        literal(application),
        literal(slot)
    );
    let rows = server.ask(&sql, During::Query).await?;
    Ok(rows.first().map(|row| {
        let pid = row.string(0);
        if row.is(4) {
            return format!("slot '{slot}' was held by a connection of before, which was ended");
        }
        format!(
            "slot '{slot}' is read by process {pid} (application '{}', role '{}', from {}): end that \
             program, or run SELECT pg_terminate_backend({pid})",
            row.string(1),
            row.string(2),
            row.text(3).unwrap_or("the server itself")
        )
    }))
}

/// Drops a slot, taking it back from a walsender of our own first. `false` if there is none. Fails
/// with [`ServerError::SlotBusy`] when somebody else holds it. The caller's duty: know that it is
/// the source's own.
pub async fn drop_slot(
    server: &mut Server,
    slot: &str,
    application: &str,
) -> Result<bool, ServerError> {
    let sql = format!(
        "SELECT pg_catalog.pg_drop_replication_slot(slot_name) \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        literal(slot)
    );
    let mut tries = 0;
    loop {
        match server.ask(&sql, During::DropSlot).await {
            Ok(rows) => return Ok(!rows.is_empty()),
            Err(ServerError::SlotBusy(_)) if tries < DROP_TRIES => {
                tries += 1;
                release(server, slot, application).await?;
                sleep(DROP_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What to say of a slot that is not there any more.
pub fn gone(slot: &str) -> String {
    format!("slot '{slot}' is gone. {LOST_ADVICE}")
}

/// What to say of a slot that the server does not keep the log for any more.
pub fn lost(slot: &str, why: &str) -> String {
    format!("the server has invalidated slot '{slot}' ({why}). {LOST_ADVICE}")
}

/// Whether a name can be a slot's. <https://www.postgresql.org/docs/current/warm-standby.html#STREAMING-REPLICATION-SLOTS>
pub(super) fn valid_name(name: &str) -> Result<(), ServerError> {
    let kept = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    if (1..=63).contains(&name.len()) && name.bytes().all(kept) {
        return Ok(());
    }
    let text = format!("'{name}' cannot be a slot: 1 to 63 of a-z, 0-9 and _ are needed");
    Err(ServerError::failed(Failure::Other, text))
}

#[cfg(test)]
mod tests {
    use super::valid_name;

    #[test]
    fn slots_have_plain_names() {
        assert!(valid_name("mz_source_2").is_ok());
        for name in ["", "Mz", "a-b", &"a".repeat(64)] {
            assert!(valid_name(name).is_err(), "{name}");
        }
    }
}
