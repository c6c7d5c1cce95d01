//! Writes one Parquet file of a table, durable before anyone may name it.

use std::fs::File;
use std::path::PathBuf;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{SqlResult, internal};

/// Batches that may wait for the writing thread.
const BATCHES_WAITING: usize = 2;
/// Most bytes of a row group before it is written out, which bounds the writer's memory.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// A file that is complete and synced, and that no row names yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewFile {
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// A Parquet file being written on a thread of its own. Dropped before [`ParquetFile::finish`], it
/// leaves no file.
pub(crate) struct ParquetFile {
    batches: mpsc::Sender<RecordBatch>,
    done: JoinHandle<SqlResult<Option<NewFile>>>,
    finished: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl ParquetFile {
    /// Opens `<dir>/<name>.parquet`, under another name until it is complete.
    pub(crate) fn create(dir: PathBuf, name: &str, schema: SchemaRef) -> Self {
        let (batches, mut waiting) = mpsc::channel::<RecordBatch>(BATCHES_WAITING);
        let finished = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let keep = std::sync::Arc::clone(&finished);
        let name = format!("{name}.parquet");
        let done = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&dir).map_err(internal)?;
            let unfinished = dir.join(format!("{name}.tmp"));
            let written = write(&unfinished, &schema, &mut waiting);
            let rows = match written {
                Ok(rows) if keep.load(std::sync::atomic::Ordering::Acquire) => rows,
                other => {
                    // Nothing names the file; the sweeper gets it if this does not.
                    let _ = std::fs::remove_file(&unfinished);
                    return other.map(|_| None);
                }
            };
            let path = dir.join(&name);
            std::fs::rename(&unfinished, &path).map_err(internal)?;
            sync_dir(&dir)?;
            if let Some(parent) = dir.parent() {
                sync_dir(parent)?;
            }
            let bytes = std::fs::metadata(&path).map_err(internal)?.len();
            Ok(Some(NewFile { name, rows, bytes }))
        });
        Self { batches, done, finished }
    }

    /// Adds rows; waits while the disk is behind.
    pub(crate) async fn write(&mut self, batch: RecordBatch) -> SqlResult<()> {
        // A closed channel means the writer failed; `finish` says how.
        let _ = self.batches.send(batch).await;
        Ok(())
    }

    /// Completes and syncs the file.
    pub(crate) async fn finish(self) -> SqlResult<NewFile> {
        self.finished.store(true, std::sync::atomic::Ordering::Release);
        drop(self.batches);
        let file = self.done.await.map_err(internal)??;
        file.ok_or_else(|| internal("the file was given up"))
    }
}

fn write(
    path: &std::path::Path,
    schema: &SchemaRef,
    batches: &mut mpsc::Receiver<RecordBatch>,
) -> SqlResult<u64> {
    let level = ZstdLevel::try_new(1).map_err(internal)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let file = File::create(path).map_err(internal)?;
    let clone = file.try_clone().map_err(internal)?;
    let mut writer =
        ArrowWriter::try_new(clone, schema.clone(), Some(properties)).map_err(internal)?;
    let mut rows = 0;
    while let Some(batch) = batches.blocking_recv() {
        rows += batch.num_rows() as u64;
        writer.write(&batch).map_err(internal)?;
        if writer.in_progress_size() > ROW_GROUP_BYTES {
            writer.flush().map_err(internal)?;
        }
    }
    writer.close().map_err(internal)?;
    sync_file(&file, path);
    Ok(rows)
}

/// Makes a file's contents durable. Where that fails the process ends: a second try may be called a
/// success without anything having been written.
pub(crate) fn sync_file(file: &File, path: &std::path::Path) {
    if let Err(error) = file.sync_all() {
        let path = path.display();
        tracing::error!(%path, %error, "a sync failed, what was written may be lost: stopping");
        std::process::abort();
    }
}

/// Makes a directory's names durable, or ends the process.
pub(crate) fn sync_dir(dir: &std::path::Path) -> SqlResult<()> {
    sync_file(&File::open(dir).map_err(internal)?, dir);
    Ok(())
}
