//! What the endpoints (PostgreSQL wire, Snowflake's driver protocol) and the SQL engine agree on.

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;

/// A column's type, in Snowflake's terms; the Arrow type of the column's array goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// NUMBER(precision, scale). Arrays: Int64 when the scale is 0 and it fits, else Decimal128.
    Number {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// FLOAT. Array: Float64.
    Real,
    /// VARCHAR, TEXT, STRING. Array: Utf8.
    Text,
    /// BOOLEAN. Array: Boolean.
    Boolean,
    /// DATE. Array: Date32.
    Date,
    /// TIME. Array: Time64 in nanoseconds.
    Time,
    /// TIMESTAMP_NTZ. Array: Timestamp in nanoseconds, no zone.
    TimestampNtz,
    /// TIMESTAMP_LTZ, TIMESTAMP_TZ. Array: Timestamp in nanoseconds, UTC.
    TimestampLtz,
    /// BINARY. Array: Binary.
    Binary,
    /// VARIANT: JSON text. Array: Utf8.
    Variant,
    /// OBJECT: JSON text. Array: Utf8.
    Object,
    /// ARRAY: JSON text. Array: Utf8.
    Array,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, as Snowflake shows it (upper case unless quoted).
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

/// What a statement did, for the endpoints' command tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A query: rows are the answer (SELECT, SHOW, DESC, LIST, COPY's report).
    Rows,
    /// DDL and session statements; one row with a `status` column says what was done. Carries the
    /// words of the command, such as `CREATE PIPE`.
    Done(&'static str),
    /// INSERT, DELETE, UPDATE: the number of rows.
    Changed(&'static str, u64),
}

/// The answer to one statement.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows; every batch has the columns' arrays in order.
    pub batches: Vec<RecordBatch>,
    /// What was done.
    pub tag: Tag,
}

/// An error, with what every driver shows of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:06} ({sqlstate}): {message}")]
pub struct SqlError {
    /// Snowflake's error number, such as 2003 for an object that does not exist.
    pub code: u32,
    /// SQLSTATE, five characters.
    pub sqlstate: &'static str,
    /// Snowflake's wording where it is known.
    pub message: String,
}

/// The names a session resolves unqualified objects with. A client may name a database that does
/// not exist yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Current database.
    pub database: Option<String>,
    /// Current schema.
    pub schema: Option<String>,
    /// Current warehouse: stored and shown, without effect.
    pub warehouse: Option<String>,
    /// Current role: stored and shown, without effect.
    pub role: Option<String>,
}

/// One connection's session with the SQL engine. Statements run one at a time.
#[async_trait]
pub trait Session: Send {
    /// Runs one statement. `parameters` are the values of a prepared statement's `$1`, `$2`, … or
    /// `?`, as text; without any, `$1` is a column of a staged file.
    async fn execute(
        &mut self,
        sql: &str,
        parameters: &[Option<String>],
    ) -> Result<Answer, SqlError>;

    /// The columns a statement will answer with, without running it: for drivers that prepare first.
    /// `None` where it answers with no rows or cannot be known before it runs.
    async fn describe(&mut self, sql: &str) -> Result<Option<Vec<Column>>, SqlError>;

    /// The current names, which USE and CREATE DATABASE change.
    fn names(&self) -> Names;
}

/// How a user proves who they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// No users are configured: every name and password is taken (and the server is on loopback).
    Anyone,
    /// The password to know. Compare in constant time; never log it.
    Password(String),
    /// No such user: refuse, after the same work as for a wrong password.
    Unknown,
}

/// What opens sessions: the SQL engine, or a stand-in in the endpoints' tests.
pub trait Sessions: Send + Sync + 'static {
    /// A new session for an authenticated user. A database that does not exist yet is no error.
    fn open(&self, user: &str, names: Names) -> Box<dyn Session>;

    /// How a user proves who they are.
    fn login(&self, user: &str) -> Login;

    /// Splits a text into its statements, as written; an unfinished one is the last.
    fn split(&self, sql: &str) -> Result<Vec<String>, SqlError>;
}
