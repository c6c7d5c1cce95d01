//! What secrets, connections and sources are created with.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::names::{Scope, StreamName};

/// A text that is never shown: `Debug` hides it, nothing writes it out, and only who needs it calls
/// [`Self::reveal`].
#[derive(Clone, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its name, in the case it is stored in.
    pub name: String,
    /// `USERNAME` of a secret of type PASSWORD.
    pub user: Option<String>,
    /// The password.
    pub password: SecretText,
    /// When it was created.
    pub created: Timestamp,
    /// A word about it.
    pub comment: String,
}

impl Secret {
    /// What may be shown of it.
    pub fn report(&self) -> SecretReport {
        SecretReport {
            name: self.name.clone(),
            user: self.user.clone(),
            created: self.created,
            comment: self.comment.clone(),
        }
    }
}

/// What may be shown of a [`Secret`]: everything but the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretReport {
    /// See [`Secret::name`].
    pub name: String,
    /// See [`Secret::user`].
    pub user: Option<String>,
    /// See [`Secret::created`].
    pub created: Timestamp,
    /// See [`Secret::comment`].
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
    /// Tables of the publications that a source of every table leaves out (`EXCEPT`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<PgTable>,
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

impl SourceSettings {
    /// Whether a table of the publications is the source's.
    pub fn takes(&self, table: &PgTable) -> bool {
        match &self.tables {
            Some(listed) => listed.iter().any(|listed| listed.table == *table),
            None => !self.left_out.contains(table),
        }
    }
}
