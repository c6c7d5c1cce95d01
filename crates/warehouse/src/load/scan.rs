//! SELECT from a stage: its files as a stream of rows.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Int64Array, LargeStringBuilder, RecordBatch, StringArray, TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use object_store::ObjectStore;

use super::documents::{Documents, Item, OpenError};
use super::plan::stage_schema;
use crate::error::{SqlResult, carried, datafusion, internal};
use crate::stage::{Listed, Resolved};

/// Rows of one batch.
const BATCH_ROWS: usize = 4_096;
/// Bytes of documents in one batch.
const BATCH_BYTES: usize = 8 << 20;

/// Staged files as a table.
pub(crate) fn table(
    store: Arc<dyn ObjectStore>,
    bucket: String,
    files: Vec<Listed>,
    format: Resolved,
) -> SqlResult<Arc<dyn TableProvider>> {
    let schema = stage_schema();
    let partition = StageFiles { store, bucket, files, format, schema: Arc::clone(&schema) };
    let table = StreamingTable::try_new(schema, vec![Arc::new(partition)]).map_err(datafusion)?;
    Ok(Arc::new(table))
}

struct StageFiles {
    store: Arc<dyn ObjectStore>,
    bucket: String,
    files: Vec<Listed>,
    format: Resolved,
    schema: SchemaRef,
}

impl std::fmt::Debug for StageFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files of bucket {}", self.files.len(), self.bucket)
    }
}

/// The file being read, and those that follow.
struct Reading {
    store: Arc<dyn ObjectStore>,
    bucket: String,
    format: Resolved,
    rest: VecDeque<Listed>,
    open: Option<(Listed, Documents, i64)>,
}

impl PartitionStream for StageFiles {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reading = Reading {
            store: Arc::clone(&self.store),
            bucket: self.bucket.clone(),
            format: self.format,
            rest: self.files.clone().into(),
            open: None,
        };
        let stream = futures::stream::try_unfold(reading, |mut reading| async move {
            let batch = reading.next().await.map_err(carried)?;
            Ok(batch.map(|b| (b, reading)))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

impl Reading {
    async fn next(&mut self) -> SqlResult<Option<RecordBatch>> {
        loop {
            if self.open.is_none() {
                let Some(listed) = self.rest.pop_front() else { return Ok(None) };
                let store = self.store.as_ref();
                let opened = Documents::open(store, &self.bucket, &listed.key, self.format).await;
                let documents = match opened {
                    Ok(documents) => documents,
                    Err(OpenError::File(e) | OpenError::Gone(e) | OpenError::Bucket(e)) => {
                        return Err(e);
                    }
                };
                self.open = Some((listed, documents, 0));
            }
            if let Some(batch) = self.batch().await? {
                return Ok(Some(batch));
            }
            self.open = None;
        }
    }

    /// The next rows of the open file, if it has any more.
    async fn batch(&mut self) -> SqlResult<Option<RecordBatch>> {
        let Some((listed, documents, number)) = &mut self.open else { return Ok(None) };
        let first = *number;
        let mut out = LargeStringBuilder::new();
        let mut bytes = 0;
        while ((*number - first) as usize) < BATCH_ROWS && bytes < BATCH_BYTES {
            match documents.next().await? {
                None => break,
                Some(Item::Document(_, text)) => {
                    bytes += text.len();
                    *number += 1;
                    out.append_value(text);
                }
                Some(Item::Bad(place, mut e) | Item::Broken(place, mut e)) => {
                    e.message = format!(
                        "{}\n  File '{}', line {}, character {}",
                        e.message, listed.key, place.line, place.character
                    );
                    return Err(e);
                }
            }
        }
        let count = (*number - first) as usize;
        if count == 0 {
            return Ok(None);
        }
        let modified = i64::try_from(listed.modified.as_millis()).unwrap_or_default();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(out.finish()),
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&listed.key, count))),
            Arc::new(Int64Array::from_iter_values(first + 1..=*number)),
            Arc::new(TimestampNanosecondArray::from_iter_values(std::iter::repeat_n(
                modified.saturating_mul(1_000_000),
                count,
            ))),
        ];
        RecordBatch::try_new(stage_schema(), columns).map(Some).map_err(internal)
    }
}
