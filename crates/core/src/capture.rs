//! The port to change data capture: PostgreSQL publications that become streams.
//!
//! `cdc` implements [`Capture`]; the warehouse's statements and the Firehose API's
//! `DatabaseAsSource` call it, and current-state tables follow its [`Cut`]s. The words are those of
//! PostgreSQL's "Logical Replication" chapter and of the products around it: a *connection* says how
//! to reach a server, a *source* turns publications into records of a stream.

mod json;
mod lsn;
mod record;
mod report;
mod settings;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::names::{Scope, StreamName};

pub use lsn::{InvalidLsn, Lsn, Position};
pub use record::{
    CONNECTOR, Captured, Fields, Op, SourceRecord, Stamp, UNAVAILABLE, read, read_back,
};
pub use report::{CapturedTable, Cut, Failure, PgColumn, SourceReport, SourceState, TableState};
pub use settings::{
    Connection, Envelope, OnSlotLoss, Oversize, PgTable, Secret, SecretReport, SecretText,
    SlotChoice, SnapshotMode, SourceSettings, SourceTable, SslMode,
};

/// Most sources of an installation.
pub const SOURCES_MAX: usize = 256;
/// Most tables that a source lists by name.
pub const SOURCE_TABLES_MAX: usize = 10_000;
/// Longest name of a secret, connection or source, in bytes.
pub const CAPTURE_NAME_BYTES_MAX: usize = 255;

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
    /// The new one takes its place (`OR REPLACE`). A secret or a connection that says the same stays as
    /// it is. A source that is replaced loses its slot.
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

    /// Every secret by name, without its password.
    async fn secrets(&self) -> Result<Vec<SecretReport>, CaptureError>;

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
