//! One bucket's files, with changes merged into them.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, UInt32Array, UInt64Array, new_null_array,
};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::UInt64Type;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use hydrant_core::capture::{Lsn, Position};

use super::BucketFile;
use super::fold::{Changes, Counted, Latest, missing};
use super::schema::{Fault, HIDDEN, RowKey, Schema, anew, bucket_of, shown};
use super::value::{self, Value};
use crate::error::{SqlResult, internal};
use crate::session::SqlError;
use crate::table::sync_file;

/// Rows read and written at once.
const BATCH_ROWS: usize = 8_192;
/// Most bytes of a row group before it is written out.
const ROW_GROUP_BYTES: usize = 8 << 20;

/// Why a merge did not take place.
#[derive(Debug)]
pub(super) enum Failed {
    /// The changes do not fit the rows.
    Fault(Fault),
    /// The disk.
    Error(SqlError),
}

impl From<SqlError> for Failed {
    fn from(e: SqlError) -> Self {
        Self::Error(e)
    }
}

/// How to merge.
pub(super) struct Merge<'a> {
    pub(super) dir: &'a Path,
    pub(super) schema: &'a Schema,
    /// Rows from before this are gone.
    pub(super) truncated_at: Position,
    /// How many buckets there are afterwards: as many as before, or a power of two times more.
    pub(super) buckets: usize,
    /// Names for new files.
    pub(super) name: &'a mut (dyn FnMut() -> String + Send),
}

impl Merge<'_> {
    /// Writes the rows of `files`, as `changes` leave them, into new files: each with the bucket it
    /// belongs to. Holds one batch of the old rows at a time. What it wrote before it failed is left
    /// to the sweeper.
    pub(super) fn run(
        &mut self,
        files: &[BucketFile],
        mut changes: Changes,
    ) -> Result<Vec<(usize, BucketFile)>, Failed> {
        let mut outputs: HashMap<usize, Output> = HashMap::new();
        for file in files {
            if file.last < self.truncated_at {
                continue;
            }
            let open = File::open(self.dir.join(&file.name)).map_err(internal)?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(open)
                .and_then(|b| b.with_batch_size(BATCH_ROWS).build())
                .map_err(internal)?;
            for batch in reader {
                let batch = self.as_now(&batch.map_err(internal)?)?;
                self.keep(&batch, &mut changes, &mut outputs)?;
            }
        }
        match changes {
            Changes::Keyed(rows) => self.add_latest(rows, &mut outputs)?,
            Changes::Counted(rows) => self.add_counted(rows, &mut outputs)?,
        }
        let mut written = Vec::new();
        for (bucket, output) in outputs {
            written.push((bucket, output.finish()?));
        }
        Ok(written)
    }

    /// A file's rows with the columns the table has now.
    fn as_now(&self, batch: &RecordBatch) -> SqlResult<RecordBatch> {
        let arrow = &self.schema.arrow;
        if batch.schema_ref() == arrow {
            return Ok(batch.clone());
        }
        let rows = batch.num_rows();
        let column = |(at, field): (usize, &Arc<datafusion::arrow::datatypes::Field>)| {
            if let Some(array) = batch.column_by_name(field.name()) {
                return Ok(Arc::clone(array));
            }
            match self.schema.columns.get(at) {
                Some(added) if added.missing != Value::Null => {
                    value::array(std::iter::repeat_n(&added.missing, rows), added.kind)
                }
                _ => Ok(new_null_array(field.data_type(), rows)),
            }
        };
        let arrays: SqlResult<Vec<ArrayRef>> =
            arrow.fields().iter().enumerate().map(column).collect();
        RecordBatch::try_new(Arc::clone(arrow), arrays?).map_err(internal)
    }

    /// Writes the old rows that stay.
    fn keep(
        &mut self,
        batch: &RecordBatch,
        changes: &mut Changes,
        outputs: &mut HashMap<usize, Output>,
    ) -> Result<(), Failed> {
        let width = self.schema.columns.len();
        let keys = batch.column(width).as_fixed_size_binary();
        let lsns = batch.column(width + 1).as_primitive::<UInt64Type>();
        let seqs = batch.column(width + 2).as_primitive::<UInt64Type>();
        let mut kept: HashMap<usize, (Vec<u32>, Span)> = HashMap::new();
        for row in 0..batch.num_rows() {
            let position = Position { commit_lsn: Lsn(lsns.value(row)), seq: seqs.value(row) };
            if position < self.truncated_at {
                continue;
            }
            let key: RowKey = keys.value(row).try_into().map_err(internal)?;
            if !stays(batch, row, &key, position, changes)? {
                continue;
            }
            let (rows, span) = kept.entry(bucket_of(&key, self.buckets)).or_default();
            rows.push(row as u32);
            span.add(position);
        }
        for (bucket, (rows, span)) in kept {
            let part = match rows.len() == batch.num_rows() {
                true => batch.clone(),
                false => take_record_batch(batch, &UInt32Array::from(rows)).map_err(internal)?,
            };
            self.output(bucket, outputs)?.write(&part, span)?;
        }
        Ok(())
    }

    fn output<'o>(
        &mut self,
        bucket: usize,
        outputs: &'o mut HashMap<usize, Output>,
    ) -> SqlResult<&'o mut Output> {
        use std::collections::hash_map::Entry;
        Ok(match outputs.entry(bucket) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let name = format!("{}.parquet", (self.name)());
                entry.insert(Output::create(self.dir, name, self.schema)?)
            }
        })
    }

    fn add_latest(
        &mut self,
        rows: HashMap<RowKey, Latest>,
        outputs: &mut HashMap<usize, Output>,
    ) -> Result<(), Failed> {
        let mut new = Vec::new();
        for (key, Latest { position, row }) in rows {
            let Some(row) = row else { continue };
            if row.contains(&Value::Unchanged) {
                return Err(Failed::Fault(missing(position)));
            }
            new.push((key, position, row));
        }
        let view: Vec<NewRow<'_>> = new.iter().map(|(k, p, row)| (*k, *p, row)).collect();
        self.add(view, outputs)
    }

    fn add_counted(
        &mut self,
        rows: HashMap<RowKey, Counted>,
        outputs: &mut HashMap<usize, Output>,
    ) -> Result<(), Failed> {
        let mut new: Vec<NewRow<'_>> = Vec::new();
        for (key, counted) in &rows {
            if let Some(position) = counted.removed.first() {
                return Err(Failed::Fault(anew(format_args!(
                    "{}: the row that was removed is not in the table",
                    shown(*position)
                ))));
            }
            new.extend(counted.added.iter().map(|position| (*key, *position, &counted.row)));
        }
        self.add(new, outputs)
    }

    /// Writes new rows.
    fn add(
        &mut self,
        mut rows: Vec<NewRow<'_>>,
        outputs: &mut HashMap<usize, Output>,
    ) -> Result<(), Failed> {
        let buckets = self.buckets;
        rows.sort_unstable_by_key(|(key, position, _)| (bucket_of(key, buckets), *position));
        for same in rows.chunk_by(|a, b| bucket_of(&a.0, buckets) == bucket_of(&b.0, buckets)) {
            for part in same.chunks(BATCH_ROWS) {
                let mut span = Span::default();
                part.iter().for_each(|(_, position, _)| span.add(*position));
                let batch = new_batch(self.schema, part)?;
                self.output(bucket_of(&part[0].0, buckets), outputs)?.write(&batch, span)?;
            }
        }
        Ok(())
    }
}

/// A row that is in no file yet.
type NewRow<'a> = (RowKey, Position, &'a Vec<Value>);

/// Whether an old row stays as it is. A change of it that leaves values as they were takes them.
fn stays(
    batch: &RecordBatch,
    row: usize,
    key: &RowKey,
    position: Position,
    changes: &mut Changes,
) -> SqlResult<bool> {
    match changes {
        Changes::Keyed(rows) => {
            let Some(latest) = rows.get_mut(key) else { return Ok(true) };
            if latest.position < position {
                rows.remove(key);
                return Ok(true);
            }
            for (at, value) in latest.row.iter_mut().flatten().enumerate() {
                if *value == Value::Unchanged {
                    *value = value::at(batch.column(at), row)?;
                }
            }
            Ok(false)
        }
        Changes::Counted(rows) => {
            Ok(rows.get_mut(key).and_then(|counted| counted.removed.pop()).is_none())
        }
    }
}

fn new_batch(schema: &Schema, rows: &[NewRow<'_>]) -> SqlResult<RecordBatch> {
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.columns.len() + HIDDEN.len());
    for (at, column) in schema.columns.iter().enumerate() {
        arrays.push(value::array(rows.iter().map(|(_, _, row)| &row[at]), column.kind)?);
    }
    let keys = FixedSizeBinaryArray::try_from_iter(rows.iter().map(|(key, _, _)| key));
    arrays.push(Arc::new(keys.map_err(internal)?));
    let numbers = |of: fn(&Position) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(_, p, _)| of(p))))
    };
    arrays.push(numbers(|p| p.commit_lsn.0));
    arrays.push(numbers(|p| p.seq));
    RecordBatch::try_new(Arc::clone(&schema.arrow), arrays).map_err(internal)
}

/// The lowest and the highest of positions.
#[derive(Clone, Copy, Default)]
struct Span(Option<(Position, Position)>);

impl Span {
    fn add(&mut self, position: Position) {
        self.join(Self(Some((position, position))));
    }

    fn join(&mut self, other: Self) {
        self.0 = match (self.0, other.0) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }
}

/// A file being written.
struct Output {
    writer: ArrowWriter<File>,
    file: File,
    name: String,
    rows: u64,
    span: Span,
}

impl Output {
    fn create(dir: &Path, name: String, schema: &Schema) -> SqlResult<Self> {
        let level = ZstdLevel::try_new(1).map_err(internal)?;
        let properties =
            WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let file = File::create_new(dir.join(&name)).map_err(internal)?;
        let clone = file.try_clone().map_err(internal)?;
        let writer = ArrowWriter::try_new(clone, Arc::clone(&schema.arrow), Some(properties))
            .map_err(internal)?;
        Ok(Self { writer, file, name, rows: 0, span: Span::default() })
    }

    fn write(&mut self, batch: &RecordBatch, span: Span) -> SqlResult<()> {
        self.rows += batch.num_rows() as u64;
        self.span.join(span);
        self.writer.write(batch).map_err(internal)?;
        if self.writer.in_progress_size() > ROW_GROUP_BYTES {
            self.writer.flush().map_err(internal)?;
        }
        Ok(())
    }

    /// Completes and syncs the file; the caller syncs the directory.
    fn finish(self) -> SqlResult<BucketFile> {
        self.writer.close().map_err(internal)?;
        sync_file(&self.file, Path::new(&self.name));
        let bytes = self.file.metadata().map_err(internal)?.len();
        let (first, last) = self.span.0.unwrap_or_default();
        Ok(BucketFile { name: self.name, rows: self.rows, bytes, first, last })
    }
}
