//! The port to a warehouse: copy staged files into a table, each once.

use async_trait::async_trait;

/// A table: database, schema and name, in the case they are stored in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Database.
    pub database: String,
    /// Schema.
    pub schema: String,
    /// Table.
    pub table: String,
}

/// A file in a bucket, as a listing or a notification named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// Full URL, `s3://bucket/key`.
    pub url: String,
    /// Size in bytes, as listed.
    pub size_bytes: u64,
    /// ETag, as listed: a changed file under the same name is another file for COPY.
    pub etag: String,
}

/// What to do with a file that has an error (Snowflake: `ON_ERROR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Load nothing of the statement. The default of COPY.
    AbortStatement,
    /// Load the good rows of the file.
    Continue,
    /// Leave out the file. The default of a pipe.
    SkipFile,
    /// Leave out the file at this many errors or more.
    SkipFileCount(u64),
    /// Leave out the file when more than this percentage of its rows are errors.
    SkipFilePercent(u8),
}

/// Options of one copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// What an error in a file does.
    pub on_error: OnError,
    /// Load files that were loaded before (Snowflake: `FORCE = TRUE`).
    pub force: bool,
}

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileStatus {
    /// All rows are in the table.
    Loaded,
    /// The good rows are in the table.
    PartiallyLoaded,
    /// No row is in the table.
    LoadFailed,
    /// It was loaded before; nothing was done.
    LoadSkipped,
}

/// The outcome of one file, in the columns COPY shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLoad {
    /// Full URL of the file.
    pub url: String,
    /// What became of it.
    pub status: FileStatus,
    /// Rows found.
    pub rows_parsed: u64,
    /// Rows now in the table.
    pub rows_loaded: u64,
    /// Errors found.
    pub errors_seen: u64,
    /// The first of them, in words, with line and character where known.
    pub first_error: Option<String>,
}

/// Why a copy did not take place. Nothing of it is in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No such table. Do not retry.
    #[error("table {0} does not exist or not authorized")]
    NoTable(String),
    /// A file was bad and the options say to abort. Do not retry.
    #[error("{0}")]
    Aborted(String),
    /// It may work later.
    #[error("{0}")]
    Retry(String),
}

/// Something that loads staged files into tables: hydrant's own warehouse, Redshift, Snowflake.
///
/// Guarantee, for every implementation: a file that one call reported as loaded into a table is
/// skipped by every later call for the same table unless forced, whatever crashed in between; rows
/// and the memory of having loaded them appear together.
#[async_trait]
pub trait Warehouse: Send + Sync + 'static {
    /// Loads the files; one [`FileLoad`] for each, in the order given.
    async fn copy_into(
        &self,
        table: &TableName,
        files: &[StagedFile],
        options: &CopyOptions,
    ) -> Result<Vec<FileLoad>, LoadError>;
}
