//! Current-state tables: the changes of a captured table, folded so that `SELECT` here equals
//! `SELECT` in PostgreSQL.
//!
//! | row | content |
//! |---|---|
//! | `warehouse/head/U` | the table's head, with [`State`] in it: what queries read |
//! | `warehouse/work/U` | a [`Folded`] on its way to the next cut, which no query reads |
//!
//! A table follows the source's cuts. What is between the last cut and the next is folded in memory
//! ([`fold`]) and merged into Parquet files, which are in buckets by a hash of the key ([`bucket`]):
//! files of the buckets that changed are written anew, and one commit swaps the head. More changes
//! than memory may hold are merged in steps, into the row of work; it becomes the head when the cut is
//! reached, so a query never sees a part of a transaction. A crash repeats what was not committed.

mod bucket;
mod columns;
mod commit;
mod create;
mod fold;
mod following;
mod reading;
mod schema;
mod step;
#[cfg(test)]
mod tests;
mod value;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use hydrant_core::Timestamp;
use hydrant_core::capture::{Capture, Lsn, PgColumn, PgTable, Position};
use hydrant_core::log::{LogEngine, ShardUid};
use hydrant_core::sequence::RecordIndex;
use serde::{Deserialize, Serialize};

pub(crate) use create::{CreateStateTable, refuse};
pub(crate) use following::{Following, run, run_once};

/// What current-state tables follow: the sources, and the log with their streams.
#[derive(Clone)]
pub struct Follow {
    /// Where the streams are.
    pub log: Arc<dyn LogEngine>,
    /// The sources.
    pub capture: Arc<dyn Capture>,
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Follow")
    }
}

/// Sizes by which current-state tables are kept.
#[derive(Clone, Copy, Debug)]
pub struct StateOptions {
    /// Bytes of records folded in memory before they are merged; two tables may do so at a time.
    pub fold_bytes: usize,
    /// Rows of a bucket, more or less: what one changed row has written anew.
    pub bucket_rows: u64,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self { fold_bytes: 32 << 20, bucket_rows: 32 << 10 }
    }
}

/// What a current-state table was made from; a part of the table's row in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Followed {
    /// Name of the source.
    pub(crate) source: String,
    /// When that source was created: one of the same name is not the same.
    pub(crate) source_created: Timestamp,
    pub(crate) table: PgTable,
    /// Columns kept as the text they came as (TEXT COLUMNS).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) text: Vec<String>,
    /// Columns left out (EXCLUDE COLUMNS).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) exclude: Vec<String>,
}

/// What a current-state table's head has beside that of other tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What queries read; `None` before the first cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) published: Option<Folded>,
    /// Why nothing more is folded in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) errored: Option<Errored>,
}

/// Why a table stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Errored {
    /// In words that say what to do.
    pub(crate) reason: String,
    /// A later epoch begins the table anew.
    pub(crate) epoch: u64,
    pub(crate) at: Timestamp,
}

/// Rows as of a place in every shard of the source's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folded {
    /// The snapshot that the rows follow from.
    pub(crate) epoch: u64,
    /// Where the source was at the cut.
    pub(crate) resume: Lsn,
    /// The columns the files have, as PostgreSQL has them.
    pub(crate) columns: Vec<PgColumn>,
    /// Columns that the table had and that were dropped, by `attnum`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) gone: BTreeMap<u16, String>,
    /// The next record of each shard.
    pub(crate) shards: BTreeMap<ShardUid, RecordIndex>,
    /// No row was changed last before this (TRUNCATE, or a new snapshot of the table alone).
    pub(crate) truncated_at: Position,
    /// Files of each bucket. A power of two of them, or none yet.
    pub(crate) buckets: Vec<Vec<BucketFile>>,
    /// Where the epoch's begin was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begin: Option<RecordIndex>,
    /// The highest horizon of a shard that was read from its begin.
    #[serde(default)]
    pub(crate) horizon: RecordIndex,
}

impl Folded {
    fn fresh(epoch: u64, columns: Vec<PgColumn>) -> Self {
        Self { epoch, columns, ..Self::default() }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &BucketFile> {
        self.buckets.iter().flatten()
    }

    fn rows(&self) -> u64 {
        self.files().map(|f| f.rows).sum()
    }
}

/// A Parquet file of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BucketFile {
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// The lowest position of its rows' last changes.
    pub(crate) first: Position,
    /// The highest.
    pub(crate) last: Position,
}

pub(crate) fn work_key(uid: &str) -> String {
    format!("warehouse/work/{uid}")
}
