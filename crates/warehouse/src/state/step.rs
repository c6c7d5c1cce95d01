//! Merges what was folded in memory into a table's files.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use hydrant_core::Random;
use parking_lot::Mutex;

use super::bucket::{Failed, Merge};
use super::fold::{Changes, Fold};
use super::schema::{RowKey, Schema, bucket_of};
use super::{BucketFile, Folded};
use crate::error::{SqlResult, internal};
use crate::table::sync_dir;

/// How many times more buckets one merge makes at most: each is a file being written.
const GROWTH_MAX: usize = 16;
/// Buckets of a table that are merged at the same time: one waits for the disk while another is read.
const BUCKETS_AT_ONCE: usize = 4;

/// Where files go, and where their names are from.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) random: Arc<Random>,
    /// Rows that a bucket has, more or less.
    pub(super) bucket_rows: u64,
}

impl Changes {
    fn len(&self) -> usize {
        match self {
            Self::Keyed(rows) => rows.len(),
            Self::Counted(rows) => rows.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The changes of each bucket.
    fn split(self, buckets: usize) -> Vec<Self> {
        fn parts<T>(rows: HashMap<RowKey, T>, buckets: usize) -> Vec<HashMap<RowKey, T>> {
            let mut parts: Vec<_> = std::iter::repeat_with(HashMap::new).take(buckets).collect();
            for (key, row) in rows {
                parts[bucket_of(&key, buckets)].insert(key, row);
            }
            parts
        }
        match self {
            Self::Keyed(rows) => parts(rows, buckets).into_iter().map(Self::Keyed).collect(),
            Self::Counted(rows) => parts(rows, buckets).into_iter().map(Self::Counted).collect(),
        }
    }
}

/// How many buckets a table of so many rows should have. There are twice as many as it needs when
/// they become more, so that they seldom do.
fn buckets_for(have: usize, rows: u64, bucket_rows: u64) -> usize {
    let have = have.max(1);
    let needed =
        usize::try_from(rows.div_ceil(bucket_rows.max(1))).unwrap_or(usize::MAX >> 2).max(1);
    if needed <= have {
        return have;
    }
    let wanted = if needed > 1 { needed.next_power_of_two() * 2 } else { 1 };
    wanted.min(have * GROWTH_MAX)
}

/// Merges changes into the files of `at`, bucket by bucket. With `rewrite` every file is written
/// anew, with the columns of the schema. The new files are durable on return, and named by nothing
/// but `at`; an error leaves none.
pub(super) async fn merge(
    at: &mut Folded,
    schema: &Arc<Schema>,
    fold: Fold<'_>,
    rewrite: bool,
    place: &Place,
) -> Result<(), Failed> {
    let made: Arc<Mutex<Vec<String>>> = Arc::default();
    let merged = merge_buckets(at, schema, fold, rewrite, place, &made).await;
    if merged.is_err() {
        let names = std::mem::take(&mut *made.lock());
        for name in names {
            // The sweeper gets it if this does not.
            let _ = tokio::fs::remove_file(place.dir.join(format!("{name}.parquet"))).await;
        }
    }
    merged
}

async fn merge_buckets(
    at: &mut Folded,
    schema: &Arc<Schema>,
    fold: Fold<'_>,
    rewrite: bool,
    place: &Place,
    made: &Arc<Mutex<Vec<String>>>,
) -> Result<(), Failed> {
    let Fold { changes, truncated_at, only_reads, .. } = fold;
    let old = at.buckets.len().max(1);
    at.buckets.resize(old, Vec::new());
    let count = buckets_for(old, at.rows() + changes.len() as u64, place.bucket_rows);
    let grows = count > old;
    // Rows of a snapshot are each read once, so that those of the same snapshot need no look.
    let same_snapshot = |f: &BucketFile| f.first >= truncated_at && f.last <= truncated_at;
    let append = only_reads && !grows && !rewrite && at.files().all(same_snapshot);
    let mut buckets: Vec<Vec<BucketFile>> = vec![Vec::new(); count];
    let mut merges = Vec::new();
    for (n, (files, changes)) in
        std::mem::take(&mut at.buckets).into_iter().zip(changes.split(old)).enumerate()
    {
        let stale = files.iter().any(|f| f.first < truncated_at);
        if !(grows || rewrite || stale) && changes.is_empty() {
            buckets[n] = files;
            continue;
        }
        let read = if append { Vec::new() } else { files.clone() };
        if append {
            buckets[n] = files;
        }
        let (place, schema, made) = (place.clone(), Arc::clone(schema), Arc::clone(made));
        merges.push(async move {
            let merge = move || {
                let Place { dir, random, .. } = place;
                std::fs::create_dir_all(&dir).map_err(internal)?;
                let mut name = || {
                    let name = hex::encode(random.bytes::<16>());
                    made.lock().push(name.clone());
                    name
                };
                let (dir, schema) = (dir.as_path(), schema.as_ref());
                Merge { dir, schema, truncated_at, buckets: count, name: &mut name }
                    .run(&read, changes)
            };
            tokio::task::spawn_blocking(merge).await.unwrap_or_else(|e| Err(internal(e).into()))
        });
    }
    // One that grows writes many files itself.
    let at_once = if grows { 1 } else { BUCKETS_AT_ONCE };
    // All of them end before an error is told, so that none writes a file after they were removed.
    let new: Vec<_> = stream::iter(merges).buffered(at_once).collect().await;
    let mut written = false;
    for files in new {
        for (bucket, file) in files? {
            buckets[bucket].push(file);
            written = true;
        }
    }
    if written {
        let dir = place.dir.clone();
        tokio::task::spawn_blocking(move || -> SqlResult<()> {
            sync_dir(&dir)?;
            dir.parent().map_or(Ok(()), sync_dir)
        })
        .await
        .map_err(internal)??;
    }
    at.buckets = buckets;
    at.truncated_at = truncated_at;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double_as_rows_do() {
        let buckets = |have, rows| buckets_for(have, rows, 32 << 10);
        assert_eq!((buckets(0, 0), buckets(0, 1), buckets(1, 32_768)), (1, 1, 1));
        assert_eq!((buckets(1, 32_769), buckets(4, 100_000)), (4, 4));
        assert_eq!(buckets(1, 1_000_000), 16);
        assert_eq!(buckets(16, 1_000_000), 64);
    }
}
