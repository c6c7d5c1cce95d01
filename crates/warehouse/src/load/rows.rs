//! One file's rows, held back until the file is known to be good.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Int64Array, LargeStringBuilder, RecordBatch, StringArray, TimestampNanosecondArray,
};
use datafusion::arrow::compute::concat_batches;
use hydrant_core::warehouse::OnError;

use super::documents::{Documents, Item, OpenError};
use super::plan::stage_schema;
use super::{Failed, Load};
use crate::error::{SqlResult, internal};
use crate::history::{FirstError, LoadRow, Status};
use crate::json::frame::Place;
use crate::session::SqlError;
use crate::stage::Listed;
use crate::table::{NewFile, ParquetFile};

/// Rows turned at once.
const BATCH_ROWS: usize = 4_096;
/// Bytes of documents turned at once, whatever their number.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes of one file's rows held in memory; a larger file is written out on the way, into a Parquet
/// file of its own.
const HELD_BYTES: usize = 32 << 20;

pub(super) struct FileRows<'a> {
    load: &'a Load<'a>,
    held: Vec<RecordBatch>,
    held_bytes: usize,
    own: Option<ParquetFile>,
    documents: LargeStringBuilder,
    places: Vec<(Place, u64)>,
    bytes: usize,
    rows_parsed: u64,
    rows_loaded: u64,
    errors_seen: u64,
    first_error: Option<FirstError>,
    /// The first error with its number, for a statement that ends with it.
    pub(super) first: Option<SqlError>,
}

impl<'a> FileRows<'a> {
    pub(super) fn new(load: &'a Load<'a>) -> Self {
        Self {
            load,
            held: Vec::new(),
            held_bytes: 0,
            own: None,
            documents: LargeStringBuilder::new(),
            places: Vec::new(),
            bytes: 0,
            rows_parsed: 0,
            rows_loaded: 0,
            errors_seen: 0,
            first_error: None,
            first: None,
        }
    }

    /// Reads the file to its end, or to where the options let it go. Fails only if the bucket does.
    pub(super) async fn read(&mut self, listed: &Listed) -> Result<LoadRow, Failed> {
        let store = self.load.store.as_ref();
        let opened = Documents::open(store, self.load.bucket, &listed.key, self.load.format).await;
        let mut etag = listed.file.etag.clone();
        let mut size_bytes = listed.file.size_bytes;
        match opened {
            Err(OpenError::Bucket(e)) => return Err(Failed::Error(e)),
            Err(OpenError::Gone(e)) => {
                self.bucket_is_there(&listed.key, e.clone()).await?;
                self.fail(None, None, e);
            }
            Err(OpenError::File(e)) => self.fail(None, None, e),
            Ok(mut documents) => {
                size_bytes = documents.size_bytes;
                etag = documents.etag.clone().unwrap_or(etag);
                self.read_documents(&mut documents, listed).await?;
            }
        }
        Ok(self.outcome(listed, etag, size_bytes))
    }

    /// Tells an object that is gone from a bucket that is.
    async fn bucket_is_there(&self, key: &str, gone: SqlError) -> Result<(), Failed> {
        use futures::StreamExt;
        let directory = key.rfind('/').map(|end| object_store::path::Path::from(&key[..end]));
        match self.load.store.list(directory.as_ref()).next().await {
            Some(Err(_)) => Err(Failed::Error(gone)),
            _ => Ok(()),
        }
    }

    async fn read_documents(
        &mut self,
        documents: &mut Documents,
        listed: &Listed,
    ) -> Result<(), Failed> {
        while let Some(item) = documents.next().await? {
            match item {
                Item::Document(place, text) => {
                    self.rows_parsed += 1;
                    self.bytes += text.len();
                    self.documents.append_value(text);
                    self.places.push((place, self.rows_parsed));
                    if self.places.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
                        self.turn(listed).await?;
                    }
                }
                Item::Bad(place, e) => {
                    self.rows_parsed += 1;
                    self.fail(Some(place), None, e);
                }
                Item::Broken(place, e) => {
                    self.rows_parsed += 1;
                    self.fail(Some(place), None, e);
                    break;
                }
            }
            if self.is_lost() {
                return Ok(());
            }
        }
        self.turn(listed).await?;
        Ok(())
    }

    /// Whether nothing that follows can put the file into the table.
    fn is_lost(&self) -> bool {
        match self.load.on_error {
            OnError::AbortStatement | OnError::SkipFile => self.errors_seen > 0,
            OnError::SkipFileCount(limit) => self.errors_seen >= limit,
            OnError::SkipFilePercent(_) | OnError::Continue => false,
        }
    }

    /// Turns the documents so far into rows of the table.
    async fn turn(&mut self, listed: &Listed) -> SqlResult<()> {
        if self.places.is_empty() {
            return Ok(());
        }
        let stage = self.stage_batch(listed)?;
        let places = std::mem::take(&mut self.places);
        self.bytes = 0;
        let rows = match self.load.rows.rows(&stage) {
            Ok(rows) => rows,
            Err(_) => {
                // At least one row is bad: find out which.
                let mut good = Vec::new();
                for (nth, (place, _)) in places.iter().enumerate() {
                    match self.load.rows.rows(&stage.slice(nth, 1)) {
                        Ok(row) => good.push(row),
                        Err((e, column)) => self.fail(Some(*place), column, e),
                    }
                    if self.is_lost() {
                        return Ok(());
                    }
                }
                match good.first() {
                    Some(first) => concat_batches(&first.schema(), &good).map_err(internal)?,
                    None => return Ok(()),
                }
            }
        };
        self.hold(rows).await
    }

    fn stage_batch(&mut self, listed: &Listed) -> SqlResult<RecordBatch> {
        let documents = Arc::new(self.documents.finish());
        let count = self.places.len();
        if !self.load.rows.metadata {
            let schema = stage_schema().project(&[0]).map_err(internal)?;
            return RecordBatch::try_new(Arc::new(schema), vec![documents]).map_err(internal);
        }
        let numbers = self.places.iter().map(|(_, n)| i64::try_from(*n).unwrap_or(i64::MAX));
        let modified = i64::try_from(listed.modified.as_millis()).unwrap_or_default();
        let columns: Vec<ArrayRef> = vec![
            documents,
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&listed.key, count))),
            Arc::new(Int64Array::from_iter_values(numbers)),
            Arc::new(TimestampNanosecondArray::from_iter_values(std::iter::repeat_n(
                modified.saturating_mul(1_000_000),
                count,
            ))),
        ];
        RecordBatch::try_new(stage_schema(), columns).map_err(internal)
    }

    async fn hold(&mut self, rows: RecordBatch) -> SqlResult<()> {
        self.rows_loaded += rows.num_rows() as u64;
        if let Some(own) = &mut self.own {
            return own.write(rows).await;
        }
        self.held_bytes += rows.get_array_memory_size();
        self.held.push(rows);
        if self.held_bytes > HELD_BYTES {
            let mut own = self.load.new_file();
            for batch in self.held.drain(..) {
                own.write(batch).await?;
            }
            self.own = Some(own);
        }
        Ok(())
    }

    /// The rows of a good file: batches, or a Parquet file of its own.
    pub(super) async fn take(self) -> SqlResult<(Vec<RecordBatch>, Option<NewFile>)> {
        match self.own {
            Some(own) => Ok((self.held, Some(own.finish().await?))),
            None => Ok((self.held, None)),
        }
    }

    fn fail(&mut self, place: Option<Place>, column: Option<String>, e: SqlError) {
        self.errors_seen += 1;
        self.first.get_or_insert_with(|| e.clone());
        self.first_error.get_or_insert_with(|| FirstError {
            text: e.message,
            line: place.map(|p| p.line),
            character: place.map(|p| p.character),
            byte: place.map(|p| p.byte),
            column,
        });
    }

    fn outcome(&self, listed: &Listed, etag: String, size_bytes: u64) -> LoadRow {
        let (errors, parsed) = (self.errors_seen, self.rows_parsed);
        let (skip, limit) = match self.load.on_error {
            OnError::AbortStatement | OnError::SkipFile => (errors > 0, 1),
            OnError::SkipFileCount(limit) => (errors >= limit, limit),
            OnError::SkipFilePercent(percent) => {
                let over = u128::from(errors) * 100 > u128::from(percent) * u128::from(parsed);
                (over, parsed * u64::from(percent) / 100)
            }
            OnError::Continue => (false, parsed),
        };
        let status = match (errors, self.rows_loaded) {
            (0, _) => Status::Loaded,
            (_, 0) => Status::LoadFailed,
            _ if skip => Status::LoadFailed,
            _ => Status::PartiallyLoaded,
        };
        LoadRow {
            url: listed.file.url.clone(),
            etag,
            size_bytes,
            status,
            rows_parsed: parsed,
            rows_loaded: if status.is_in() { self.rows_loaded } else { 0 },
            errors_seen: errors,
            error_limit: limit,
            first_error: self.first_error.clone(),
            at: self.load.clock.now(),
            pipe: self.load.pipe.clone(),
        }
    }
}
