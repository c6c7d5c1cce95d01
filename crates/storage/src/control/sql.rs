//! What the control store says to SQLite.

use std::path::Path;

use hydrant_core::control::{ControlError, Entry, Expected, Write};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, ffi, params};

use crate::error::{Fatal, OpenError};

/// `PRAGMA user_version`.
const FORMAT: u32 = 1;
/// `PRAGMA application_id`: `hydr`, so that `file` can tell.
const APPLICATION_ID: u32 = u32::from_be_bytes(*b"hydr");
/// Pages written, by a rough count, after which the write-ahead log goes into the database.
const CHECKPOINT_PAGES: usize = 1_000;
const BUSY_MS_MAX: u32 = 5_000;

const SCHEMA: &str = "
    create table rows (
        key text not null primary key,
        version integer not null,
        value text not null
    ) strict;
    create table meta (name text not null primary key, value integer not null) strict;
    insert into meta (name, value) values ('version', 0);
";

/// The one connection that writes.
pub(super) struct Writer {
    connection: Connection,
    fatal: Fatal,
    /// Version of the last commit.
    version: u64,
    pages_since_checkpoint: usize,
    /// A sync failed: nothing is acknowledged any more.
    dead: bool,
}

/// A connection with these rights.
pub(super) fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS_MAX.into()))?;
    Ok(connection)
}

/// A connection that reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, ControlError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|e| describe(&e))
}

impl Writer {
    /// Opens the database, makes its tables if it is empty, and refuses to go on unless SQLite says
    /// that it syncs each commit.
    pub(super) fn open(path: &Path, fatal: Fatal) -> Result<Self, OpenError> {
        let failed = |e: rusqlite::Error| open_error(path, &e);
        let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        let format: u32 = pragma(&connection, "user_version").map_err(failed)?;
        let application: u32 = pragma(&connection, "application_id").map_err(failed)?;
        let tables: u32 = connection
            .query_row("select count(*) from sqlite_schema", [], |row| row.get(0))
            .map_err(failed)?;
        if (format, application) != (FORMAT, APPLICATION_ID) && tables > 0 {
            let found = match application {
                APPLICATION_ID => format.to_string(),
                _ => format!("of another program ({application:#x})"),
            };
            return Err(OpenError::UnknownFormat { path: path.to_owned(), found, known: FORMAT });
        }
        let set = |name: &str, value: &str| connection.pragma_update(None, name, value);
        connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))
            .map_err(failed)?;
        set("synchronous", "full").map_err(failed)?;
        // Checkpoints are ours, because SQLite's automatic one ignores a failed sync.
        set("wal_autocheckpoint", "0").map_err(failed)?;
        let mode: String = pragma(&connection, "journal_mode").map_err(failed)?;
        let synchronous: u32 = pragma(&connection, "synchronous").map_err(failed)?;
        if mode != "wal" || synchronous != 2 {
            let what = format!(
                "SQLite answers journal_mode={mode}, synchronous={synchronous}, and anything but \
                 wal and 2 loses commits in a power cut; put the data directory on a local disk"
            );
            return Err(OpenError::Control { path: path.to_owned(), what });
        }
        if tables == 0 {
            let make = format!(
                "begin immediate; {SCHEMA} pragma application_id = {APPLICATION_ID}; \
                 pragma user_version = {FORMAT}; commit;"
            );
            connection.execute_batch(&make).map_err(failed)?;
        }
        let version = connection
            .query_row("select value from meta where name = 'version'", [], |row| row.get(0))
            .map_err(failed)?;
        Ok(Self { connection, fatal, version, pages_since_checkpoint: 0, dead: false })
    }

    /// Applies each commit, or fails it alone if it conflicts; one sync for all of them.
    pub(super) fn commit_group(&mut self, group: &[Vec<Write>]) -> Vec<Result<u64, ControlError>> {
        if self.dead {
            return fail_all(group, &ControlError::Unavailable("a sync failed".to_owned()));
        }
        let before = self.version;
        let start = tokio::time::Instant::now();
        let done = self.transact(group);
        metrics::histogram!("hydrant_control_group_seconds").record(start.elapsed().as_secs_f64());
        metrics::histogram!("hydrant_control_group_commits").record(group.len() as f64);
        match done {
            Ok(answers) => answers,
            Err(e) => {
                self.version = before;
                self.rollback();
                self.die_if_unsynced(&e);
                fail_all(group, &describe(&e))
            }
        }
    }

    fn transact(
        &mut self,
        group: &[Vec<Write>],
    ) -> rusqlite::Result<Vec<Result<u64, ControlError>>> {
        self.connection.execute_batch("begin immediate")?;
        let mut answers = Vec::with_capacity(group.len());
        let before = self.version;
        for writes in group {
            answers.push(self.apply(writes)?);
        }
        if self.version == before {
            self.rollback();
            return Ok(answers);
        }
        self.connection
            .prepare_cached("update meta set value = ?1 where name = 'version'")?
            .execute([self.version])?;
        self.connection.execute_batch("commit")?;
        self.pages_since_checkpoint += 4;
        Ok(answers)
    }

    /// One commit within the transaction. Everything is checked before anything is written, so a
    /// conflict leaves nothing to take back.
    fn apply(&mut self, writes: &[Write]) -> rusqlite::Result<Result<u64, ControlError>> {
        for write in writes {
            let mut version = self.connection.prepare_cached(SELECT_VERSION)?;
            let seen = version.query_row([&write.key], |row| row.get(0)).optional()?;
            if seen.map_or(Expected::Absent, Expected::Version) != write.expected {
                return Ok(Err(ControlError::Conflict { key: write.key.clone() }));
            }
        }
        if writes.iter().all(Write::is_check) {
            return Ok(Ok(self.version));
        }
        self.version += 1;
        for write in writes {
            match (&write.value, write.expected) {
                (Some(value), Expected::Absent) => self
                    .connection
                    .prepare_cached("insert into rows (key, version, value) values (?1, ?2, ?3)")?
                    .execute(params![write.key, self.version, value])?,
                (Some(value), Expected::Version(_)) => self
                    .connection
                    .prepare_cached("update rows set version = ?2, value = ?3 where key = ?1")?
                    .execute(params![write.key, self.version, value])?,
                (None, _) => self
                    .connection
                    .prepare_cached("delete from rows where key = ?1")?
                    .execute([&write.key])?,
            };
            self.pages_since_checkpoint += 1 + write.value.as_ref().map_or(0, String::len) / 4_096;
        }
        Ok(Ok(self.version))
    }

    fn rollback(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("rollback")
        {
            tracing::warn!(%error, "rolling back in the control store");
        }
    }

    /// Moves the write-ahead log into the database once it has grown. Never waits for readers.
    pub(super) fn checkpoint_if_due(&mut self) {
        if self.pages_since_checkpoint >= CHECKPOINT_PAGES {
            self.pages_since_checkpoint = 0;
            self.checkpoint("passive");
        }
    }

    /// Moves all of the write-ahead log into the database.
    pub(super) fn close(mut self) {
        self.checkpoint("truncate");
    }

    fn checkpoint(&mut self, how: &str) {
        let sql = format!("pragma wal_checkpoint({how})");
        if let Err(error) = self.connection.query_row(&sql, [], |_| Ok(())) {
            self.die_if_unsynced(&error);
            tracing::warn!(%error, "the control store's log stays as it is until the next try");
        }
    }

    fn die_if_unsynced(&mut self, error: &rusqlite::Error) {
        const UNSYNCED: [i32; 2] = [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC];
        if error.sqlite_extended_error_code().is_some_and(|code| UNSYNCED.contains(&code)) {
            self.dead = true;
            (self.fatal)(&format!("syncing the control store: {error}"));
        }
    }
}

const SELECT_VERSION: &str = "select version from rows where key = ?1";

/// The row, or `None`.
pub(super) fn get(connection: &Connection, key: &str) -> Result<Option<Entry>, ControlError> {
    let find = || {
        connection
            .prepare_cached("select version, value from rows where key = ?1")?
            .query_row([key], |row| Ok(Entry { version: row.get(0)?, value: row.get(1)? }))
            .optional()
    };
    find().map_err(|e| describe(&e))
}

/// Rows by key: those that start with `prefix` and come after `after`.
pub(super) fn scan(
    connection: &Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Entry)>, ControlError> {
    let (start, sql) = match after {
        Some(after) if after >= prefix => {
            (after, "select key, version, value from rows where key > ?1 order by key")
        }
        _ => (prefix, "select key, version, value from rows where key >= ?1 order by key"),
    };
    let find = || {
        let mut found = Vec::new();
        let mut select = connection.prepare_cached(sql)?;
        let mut rows = select.query([start])?;
        while found.len() < limit
            && let Some(row) = rows.next()?
        {
            let key: String = row.get(0)?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key, Entry { version: row.get(1)?, value: row.get(2)? }));
        }
        Ok(found)
    };
    find().map_err(|e: rusqlite::Error| describe(&e))
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

fn fail_all(group: &[Vec<Write>], error: &ControlError) -> Vec<Result<u64, ControlError>> {
    group.iter().map(|_| Err(error.clone())).collect()
}

/// The error in the words of the port.
pub(super) fn describe(error: &rusqlite::Error) -> ControlError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ControlError::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ControlError::Corrupt(error.to_string())
        }
        _ => ControlError::Unavailable(error.to_string()),
    }
}

fn open_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => OpenError::Full { action: "open", path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged {
            path,
            at: 0,
            what: error.to_string(),
            way_on: "recover what `sqlite3 hydrant.db .recover` can still read into a new file and \
                     put that in its place; what it cannot read is gone",
        },
        _ => OpenError::Control { path, what: error.to_string() },
    }
}
