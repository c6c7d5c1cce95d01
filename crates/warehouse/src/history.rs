//! The memory of what was loaded, and its rows.
//!
//! | row | content | kept |
//! |---|---|---|
//! | `warehouse/load/U/E/<url>␁<etag>` | [`LoadRow`]: this version of the file, in the table U | 64 days |
//! | `warehouse/pipe-load/P/<url>` | [`PipeLoad`]: this name, by the pipe P | 14 days |

use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::warehouse::{FileLoad, FileStatus};
use serde::{Deserialize, Serialize};

/// How long COPY remembers a file (Snowflake: 64 days).
pub(crate) const LOAD_HISTORY_LIFE: Duration = Duration::from_secs(64 * 86_400);
/// How long a pipe remembers a name (Snowflake: 14 days).
pub(crate) const PIPE_HISTORY_LIFE: Duration = Duration::from_secs(14 * 86_400);

/// Status of a file, as the rows spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    Loaded,
    PartiallyLoaded,
    LoadFailed,
    LoadSkipped,
}

impl Status {
    /// As COPY shows it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "LOADED",
            Self::PartiallyLoaded => "PARTIALLY_LOADED",
            Self::LoadFailed => "LOAD_FAILED",
            Self::LoadSkipped => "LOAD_SKIPPED",
        }
    }

    /// As COPY_HISTORY shows it.
    pub(crate) fn in_history(self) -> &'static str {
        match self {
            Self::Loaded => "Loaded",
            Self::PartiallyLoaded => "Partially loaded",
            Self::LoadFailed => "Load failed",
            Self::LoadSkipped => "Load skipped",
        }
    }

    /// Whether rows of the file are in the table, so that it must not be loaded again.
    pub(crate) fn is_in(self) -> bool {
        matches!(self, Self::Loaded | Self::PartiallyLoaded)
    }
}

/// The first error of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstError {
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) character: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) byte: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<String>,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadRow {
    pub(crate) url: String,
    pub(crate) etag: String,
    pub(crate) size_bytes: u64,
    pub(crate) status: Status,
    pub(crate) rows_parsed: u64,
    pub(crate) rows_loaded: u64,
    pub(crate) errors_seen: u64,
    /// How many errors would have been too many.
    pub(crate) error_limit: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_error: Option<FirstError>,
    /// When it was done.
    pub(crate) at: Timestamp,
    /// Full name of the pipe, if one did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pipe: Option<String>,
}

impl From<LoadRow> for FileLoad {
    fn from(row: LoadRow) -> Self {
        let status = match row.status {
            Status::Loaded => FileStatus::Loaded,
            Status::PartiallyLoaded => FileStatus::PartiallyLoaded,
            Status::LoadFailed => FileStatus::LoadFailed,
            Status::LoadSkipped => FileStatus::LoadSkipped,
        };
        let first_error = row.first_error.map(|e| match (e.line, e.character) {
            (Some(line), Some(character)) => {
                format!("{}, line {line}, character {character}", e.text)
            }
            _ => e.text,
        });
        Self {
            url: row.url,
            status,
            rows_parsed: row.rows_parsed,
            rows_loaded: row.rows_loaded,
            errors_seen: row.errors_seen,
            first_error,
        }
    }
}

/// A name that a pipe has dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PipeLoad {
    pub(crate) at: Timestamp,
}

/// `epoch` is the table's: TRUNCATE begins a new one, with nothing loaded in it.
pub(crate) fn load_prefix(uid: &str, epoch: u64) -> String {
    format!("warehouse/load/{uid}/{epoch}/")
}

pub(crate) fn load_key(uid: &str, epoch: u64, url: &str, etag: &str) -> String {
    format!("{}{url}\u{1}{etag}", load_prefix(uid, epoch))
}

pub(crate) fn pipe_load_key(pipe: &str, url: &str) -> String {
    format!("warehouse/pipe-load/{pipe}/{url}")
}
