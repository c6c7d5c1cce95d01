//! What a source tells of itself: its state, its tables, how far it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Lsn, PgTable, SourceSettings};
use crate::clock::Timestamp;
use crate::log::ShardUid;
use crate::sequence::RecordIndex;

/// Why a source has failed. What ends it is in the text that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// `wal_level` is not `logical`.
    WalLevel,
    /// The role may not replicate or read a table, or row security hides rows from it.
    Permission,
    /// There is no such publication.
    PublicationMissing,
    /// The publication was dropped while the source used it.
    PublicationDropped,
    /// The server has no replication slot left.
    SlotsExhausted,
    /// The slot is there and not this source's.
    SlotNotOurs,
    /// The slot is gone or was invalidated.
    SlotLost,
    /// The server has confirmed more than is stored here.
    PositionSkipped,
    /// The server is another one.
    SystemChanged,
    /// The server was promoted or restored to another timeline.
    TimelineChanged,
    /// The login was refused.
    Authentication,
    /// The certificate was refused, or the server has no TLS.
    Tls,
    /// A change could not be read. It is never skipped.
    Undecodable,
    /// The stream is gone, or takes no records.
    Stream,
    /// Something else that trying again does not mend.
    Other,
}

/// What a source is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceState {
    /// Looking whether the server lets it work.
    Validating,
    /// Waiting for the slot's consistent point.
    CreatingSlot,
    /// Reading the rows that are there.
    Snapshotting,
    /// Following changes.
    Streaming,
    /// Trying again after an error that passes.
    Retrying,
    /// Told to stop.
    Paused,
    /// Stopped by something that somebody has to mend.
    Failed(Failure),
}

impl SourceState {
    /// As `SHOW SOURCES` and `/metrics` show it: `streaming`, `failed(slot-lost)`.
    pub fn name(&self) -> String {
        let word = |value: serde_json::Value| match value {
            serde_json::Value::String(word) => word,
            other => other.to_string(),
        };
        match self {
            Self::Failed(failure) => {
                let failure = serde_json::to_value(failure).map(word).unwrap_or_default();
                format!("failed({failure})")
            }
            other => serde_json::to_value(other).map(word).unwrap_or_default(),
        }
    }
}

/// What a table of a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableState {
    /// Its rows will be read.
    Pending,
    /// Its rows are being read.
    Snapshotting,
    /// Its changes follow.
    Live,
    /// Stopped by something that is said beside it; the other tables go on.
    Errored,
}

/// A column of a captured table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgColumn {
    /// Its name, as PostgreSQL spells it.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Its type as `format_type` writes it: `numeric(10,2)`, `timestamp with time zone`.
    pub type_name: String,
    /// Type modifier, -1 if there is none.
    pub type_modifier: i32,
    /// Place in the primary key, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u16>,
    /// Whether it may hold NULL.
    pub nullable: bool,
    /// `pg_attribute.attnum`, which tells a column that was renamed from another one. `None` if the
    /// catalog did not have the column when it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attnum: Option<u16>,
    /// What it is in the rows that were there when it was added (`pg_attribute.attmissingval`), as
    /// records have the value; `None` is NULL. No change tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Whether those rows have values of their own, which no change tells: they were written anew,
    /// as by a default that is not the same for all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rewritten: bool,
}

/// A table of a source, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedTable {
    /// The table.
    pub table: PgTable,
    /// Its OID.
    pub oid: u32,
    /// `REPLICA IDENTITY` as `pg_class.relreplident` has it: d, n, f or i.
    pub identity: char,
    /// Its published columns, in order.
    pub columns: Vec<PgColumn>,
    /// Whether the columns are those the catalog has, or at least had a moment ago: then columns that
    /// are not among them are gone. Otherwise they are those that the stream told of last, to which
    /// columns may have been added since.
    #[serde(skip)]
    pub seen: bool,
    /// Names of columns that it had and that were dropped, not renamed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// `pg_class.relfilenode` when the columns were looked at: another one means that the rows were
    /// written anew since. 0 if it has no file of its own.
    #[serde(default)]
    pub filenode: u32,
    /// Grows with every change of its columns.
    pub version: u64,
    /// What it is doing.
    pub state: TableState,
    /// Why, where it is errored, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Rows read by the snapshot.
    pub snapshot_rows: u64,
    /// Rows the server expected to have (`pg_class.reltuples`); `None` if it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_rows_estimated: Option<u64>,
}

/// A state of a source that all of its shards have reached: every record up to it is below the
/// shard's mark, nothing after it is. Always between two transactions, so that who reads just this
/// far sees whole ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Which snapshot the records follow from; grows by one with each `RESNAPSHOT`.
    pub epoch: u64,
    /// Where the source reads on: end of the last transaction that is in the stream.
    pub resume: Lsn,
    /// The first index past the source's records, by shard; no shard without a record of this epoch.
    pub shards: BTreeMap<ShardUid, RecordIndex>,
    /// Whether the epoch's snapshot is complete. Before that the records are only part of the tables.
    pub complete: bool,
}

/// A source as `SHOW SOURCES` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceReport {
    /// What it was created with, and altered to.
    pub settings: SourceSettings,
    /// When it was created.
    pub created: Timestamp,
    /// What it is doing.
    pub state: SourceState,
    /// Why, in words that say what to do; warnings while it works.
    pub reason: String,
    /// Since when it does that.
    pub since: Timestamp,
    /// Which snapshot its records follow from.
    pub epoch: u64,
    /// Its slot.
    pub slot: String,
    /// What the server may forget.
    pub confirmed: Lsn,
    /// What has arrived.
    pub received: Lsn,
    /// Where the server writes.
    pub server: Lsn,
    /// Bytes of write-ahead log between `confirmed` and `server`.
    pub lag_bytes: u64,
    /// Age of the oldest change that is not in the stream yet, seconds.
    pub lag_seconds: f64,
    /// Bytes of write-ahead log that the slot holds; `None` while the server is not asked.
    pub retained_wal_bytes: Option<u64>,
    /// `pg_replication_slots.wal_status`.
    pub wal_status: Option<String>,
    /// `pg_replication_slots.safe_wal_size`.
    pub safe_wal_bytes: Option<i64>,
    /// Its tables.
    pub tables: Vec<CapturedTable>,
    /// Changes written since the process began.
    pub records: u64,
    /// Connections lost since the process began.
    pub reconnects: u64,
}
