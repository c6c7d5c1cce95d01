//! The port to change data capture: PostgreSQL publications that become streams.
//!
//! `cdc` implements [`Capture`]; the warehouse's statements and the Firehose API's
//! `DatabaseAsSource` call it, and current-state tables follow its [`Cut`]s. The words are those of
//! PostgreSQL's "Logical Replication" chapter and of the products around it: a *connection* says how
//! to reach a server, a *source* turns publications into records of a stream.

mod json;
mod lsn;
mod record;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::log::ShardUid;
use crate::names::{Scope, StreamName};
use crate::sequence::RecordIndex;

pub use lsn::{InvalidLsn, Lsn, Position};
pub use record::{
    CONNECTOR, Captured, Fields, Op, SourceRecord, Stamp, UNAVAILABLE, read, read_back,
};

/// Most sources of an installation.
pub const SOURCES_MAX: usize = 256;
/// Most tables that a source lists by name.
pub const SOURCE_TABLES_MAX: usize = 10_000;
/// Longest name of a secret, connection or source, in bytes.
pub const CAPTURE_NAME_BYTES_MAX: usize = 255;

/// A text that is never shown: `Debug` hides it, and only who needs it calls [`Self::reveal`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text. The caller's duty: neither log nor answer with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A secret: a password, with the user it belongs to if the secret says so (Snowflake:
/// `CREATE SECRET … TYPE = PASSWORD` and `TYPE = GENERIC_STRING`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name, in the case it is stored in.
    pub name: String,
    /// `USERNAME` of a secret of type PASSWORD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password.
    pub password: SecretText,
    /// When it was created.
    pub created: Timestamp,
    /// A word about it.
    #[serde(default)]
    pub comment: String,
}

/// How far a server's certificate is trusted (PostgreSQL: libpq's `sslmode`, those without fallback).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Plaintext.
    Disable,
    /// TLS, whoever answers.
    Require,
    /// TLS, with a certificate of the given or a public authority.
    VerifyCa,
    /// As `verify-ca`, and the certificate has the host's name.
    #[default]
    VerifyFull,
}

/// How to reach a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its name, in the case it is stored in.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// Port, by default 5432.
    pub port: u16,
    /// Database.
    pub database: String,
    /// User; if none is given, the secret's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the secret with the password, unless the server asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How far the server's certificate is trusted.
    pub ssl_mode: SslMode,
    /// Certificates of the authorities to trust, PEM, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_authority: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// A word about it.
    #[serde(default)]
    pub comment: String,
}

/// A table of a PostgreSQL database, as PostgreSQL spells its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PgTable {
    /// Schema.
    pub schema: String,
    /// Table.
    pub table: String,
}

impl std::fmt::Display for PgTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// A table that a source lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTable {
    /// The table.
    pub table: PgTable,
    /// Columns that make the partition key, instead of the primary key (`PARTITION BY`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
}

/// How a change is written into a record's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// Debezium's, without a schema.
    #[default]
    Debezium,
    /// That of AWS Database Migration Service's Kinesis target.
    Dms,
}

/// What is done with the rows that are there before the first change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotMode {
    /// They are read once, as of the moment from which changes follow.
    #[default]
    Initial,
    /// They are left out.
    Never,
}

/// What a change that is too large for the stream does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Oversize {
    /// Stops its table, with the position and the key.
    #[default]
    Fail,
    /// Leaves out its longest values and names them as unavailable.
    Truncate,
}

/// What losing the slot does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnSlotLoss {
    /// The source fails and waits for `RESNAPSHOT`.
    #[default]
    Fail,
    /// A new slot and a new snapshot, at most three an hour.
    Resnapshot,
}

/// The replication slot of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotChoice {
    /// Its name, 1 to 63 of a-z, 0-9 and _.
    pub name: String,
    /// Whether one that is there already, and not made by this source, may be used (`ADOPT`).
    #[serde(default)]
    pub adopt: bool,
}

/// What `CREATE SOURCE` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSettings {
    /// Its name, in the case it is stored in.
    pub name: String,
    /// Name of the connection.
    pub connection: String,
    /// Publications, at least one.
    pub publications: Vec<String>,
    /// The slot; by default one named after the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotChoice>,
    /// The tables; every table of the publications if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<SourceTable>>,
    /// The stream's account and region.
    pub scope: Scope,
    /// The stream; made if it is not there.
    pub stream: StreamName,
    /// Number of shards of a stream that is made, by default 1.
    pub shards: u32,
    /// How a change is written.
    pub envelope: Envelope,
    /// What is done with the rows that are there before.
    pub snapshot: SnapshotMode,
    /// What a change that is too large does.
    pub oversize: Oversize,
    /// Whether the begin and end of each transaction are records too (Debezium:
    /// `provide.transaction.metadata`).
    pub transactions: bool,
    /// What losing the slot does.
    pub on_slot_loss: OnSlotLoss,
    /// A word about it.
    #[serde(default)]
    pub comment: String,
}

/// A change of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterSource {
    /// Takes a further table of its publications, with its rows (`ADD TABLE`).
    AddTable(SourceTable),
    /// Leaves a table out from here on (`DROP TABLE`).
    DropTable(PgTable),
    /// Begins a new epoch: a new slot, a new snapshot (`RESNAPSHOT`).
    Resnapshot,
    /// Stops reading; the slot stays and holds the write-ahead log.
    Pause,
    /// Reads on.
    Resume,
    /// Another word about it.
    Comment(String),
}

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a statement about capture could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// There is no such secret, connection, source or table: its kind and name.
    #[error("{kind} '{name}' does not exist")]
    NotFound {
        /// `Secret`, `Connection`, `Source` or `Table`.
        kind: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// There is one already.
    #[error("{kind} '{name}' already exists")]
    Exists {
        /// See [`Self::NotFound`].
        kind: &'static str,
        /// As it was given.
        name: String,
    },
    /// Something else needs it.
    #[error("{kind} '{name}' is used by {by}; drop that first")]
    InUse {
        /// See [`Self::NotFound`].
        kind: &'static str,
        /// Its name.
        name: String,
        /// What uses it.
        by: String,
    },
    /// A setting cannot be. The text says which and what can.
    #[error("{0}")]
    Invalid(String),
    /// Nothing can be stored now. Retry.
    #[error("not now: {0}")]
    Unavailable(String),
}

/// Whether a `CREATE` may find its object there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfExists {
    /// It is an error.
    #[default]
    Fail,
    /// The one that is there stays (`IF NOT EXISTS`).
    Keep,
    /// The new one takes its place (`OR REPLACE`). A source that is replaced loses its slot.
    Replace,
}

/// Sources, and what they need. Every change is durable on return and can be repeated.
///
/// A source runs on its own once created: a server that cannot be reached is a state of the source,
/// not an error of the statement.
#[async_trait]
pub trait Capture: Send + Sync + 'static {
    /// Stores a secret. Sources that use it log in with it the next time.
    async fn create_secret(&self, secret: Secret, there: IfExists) -> Result<(), CaptureError>;

    /// Removes a secret that no connection uses. `false` if there is none.
    async fn drop_secret(&self, name: &str) -> Result<bool, CaptureError>;

    /// Every secret by name. The caller's duty: never show the password.
    async fn secrets(&self) -> Result<Vec<Secret>, CaptureError>;

    /// Stores a connection. Its secret must be there. Sources that use it connect so the next time.
    async fn create_connection(
        &self,
        connection: Connection,
        there: IfExists,
    ) -> Result<(), CaptureError>;

    /// Removes a connection that no source uses. `false` if there is none.
    async fn drop_connection(&self, name: &str) -> Result<bool, CaptureError>;

    /// Every connection by name.
    async fn connections(&self) -> Result<Vec<Connection>, CaptureError>;

    /// Stores a source and starts it. Waits a few seconds for what validation finds, so that the
    /// report already tells of a server that does not let it work; the source is there all the same.
    async fn create_source(
        &self,
        settings: SourceSettings,
        there: IfExists,
    ) -> Result<SourceReport, CaptureError>;

    /// Changes a source.
    async fn alter_source(
        &self,
        name: &str,
        change: AlterSource,
    ) -> Result<SourceReport, CaptureError>;

    /// Stops a source, drops its slot and forgets it; the stream stays. A slot on a server that
    /// cannot be reached is dropped when it can be, or by hand: the text of the answer says so.
    /// `None` if there is no such source.
    async fn drop_source(&self, name: &str) -> Result<Option<String>, CaptureError>;

    /// Every source by name.
    async fn sources(&self) -> Result<Vec<SourceReport>, CaptureError>;

    /// How far the source's stream can be read as a whole. It is stored before it is told, so it
    /// never goes back.
    async fn cut(&self, source: &str) -> Result<Cut, CaptureError>;

    /// Sees a new value whenever a source has a new cut, table or state.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Makes the streams of sources: Data Streams' own way of creating one.
#[async_trait]
pub trait MakeStream: Send + Sync + 'static {
    /// A provisioned stream of `shards` shards, ready for records on return. One that is there
    /// already stays as it is. The error says why there can be none.
    async fn make(&self, scope: &Scope, name: &StreamName, shards: u32)
    -> Result<(), CaptureError>;
}
