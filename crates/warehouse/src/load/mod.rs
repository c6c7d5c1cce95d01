//! Loads staged files into tables: each file into rows, the rows into Parquet, all of it in one
//! commit with the memory of it.

mod documents;
mod plan;
mod rows;
pub(crate) mod scan;

use std::sync::Arc;

use hydrant_core::warehouse::OnError;
use object_store::ObjectStore;

use crate::catalog::{ObjectName, Table};
use crate::error::{SqlResult, control, error};
use crate::history::{FirstError, LoadRow, Status, load_key};
use crate::query::provider::schema_of;
use crate::session::SqlError;
use crate::stage::{Listed, Resolved};
use crate::table::commit::{Append, Committed, FILES_PER_COMMIT_MAX, PipeRows};
use crate::table::{ParquetFile, Tables};

pub(crate) use plan::{RowSource, plan_copy, targets, to_column};
use rows::FileRows;

/// Most bytes of files, as stored, in one commit of a load that may be cut into several.
pub(crate) const COMMIT_BYTES: u64 = 128 << 20;
/// Most files in one commit of such a load.
pub(crate) const COMMIT_FILES: usize = 1_000;

/// What to load into, and how.
pub(crate) struct Load<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) name: &'a ObjectName,
    pub(crate) table: &'a Table,
    pub(crate) bucket: &'a str,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) format: Resolved,
    /// How rows are made of documents.
    pub(crate) rows: &'a RowSource,
    pub(crate) on_error: OnError,
    pub(crate) force: bool,
    pub(crate) clock: &'a dyn hydrant_core::Clock,
    /// Names of new files.
    pub(crate) random: &'a hydrant_core::Random,
    /// Full name of the pipe, if one loads.
    pub(crate) pipe: Option<String>,
}

/// Why a load did not take place. Nothing of the batch is in the table.
pub(crate) enum Failed {
    /// ON_ERROR = ABORT_STATEMENT, and a file was bad.
    Aborted(Box<LoadRow>, SqlError),
    /// The bucket, the disk or the store.
    Error(SqlError),
}

impl From<SqlError> for Failed {
    fn from(e: SqlError) -> Self {
        Self::Error(e)
    }
}

impl Failed {
    pub(crate) fn into_error(self, name: &ObjectName) -> SqlError {
        match self {
            Self::Error(e) => e,
            Self::Aborted(row, e) => {
                let first = row.first_error.unwrap_or_default();
                let place = |n: Option<u64>| n.map_or("?".to_owned(), |n| n.to_string());
                error(
                    e.code,
                    e.sqlstate,
                    format!(
                        "{}\n  File '{}', line {}, character {}\n  Table \"{}\"\n  If you would like \
                         to continue loading when an error is encountered, use other values such as \
                         'SKIP_FILE' or 'CONTINUE' for the ON_ERROR option.",
                        first.text,
                        row.url,
                        place(first.line),
                        place(first.character),
                        name.name,
                    ),
                )
            }
        }
    }
}

impl Load<'_> {
    /// Loads files in as few commits as the options and the limits allow. One row each, in order.
    pub(crate) async fn files(&self, files: &[Listed]) -> Result<Vec<LoadRow>, Failed> {
        if self.on_error == OnError::AbortStatement {
            if files.len() > FILES_PER_COMMIT_MAX {
                return Err(Failed::Error(crate::error::unsupported(format!(
                    "more than {FILES_PER_COMMIT_MAX} files in one COPY with ON_ERROR = \
                     ABORT_STATEMENT; use SKIP_FILE, or name fewer files with PATTERN or FILES"
                ))));
            }
            return self.batch(files, None).await;
        }
        let mut rows = Vec::new();
        let mut rest = files;
        while !rest.is_empty() {
            let (batch, more) = rest.split_at(batch_len(rest));
            rows.extend(self.batch(batch, None).await?);
            rest = more;
        }
        Ok(rows)
    }

    /// Loads files in one commit. With a pipe, its queue entries go in the same commit.
    pub(crate) async fn batch(
        &self,
        files: &[Listed],
        pipe: Option<&PipeRows>,
    ) -> Result<Vec<LoadRow>, Failed> {
        // Somebody else may load the same files meanwhile; then they are decided on again.
        for _ in 0..10 {
            let (rows, written) = self.read(files).await?;
            let news: Vec<LoadRow> =
                rows.iter().filter(|r| r.status != Status::LoadSkipped).cloned().collect();
            if news.is_empty() && pipe.is_none() {
                return Ok(rows);
            }
            let change = Append {
                uid: &self.table.uid,
                files: &written,
                loads: &news,
                force: self.force,
                pipe: pipe.map(|p| PipeRows { uid: p.uid.clone(), writes: p.writes.clone() }),
            };
            let committed = self.tables.append(&change).await;
            if !matches!(committed, Ok(Committed::Done)) {
                // What was written is in no row, unless the answer was lost; then it must stay.
                if matches!(committed, Ok(Committed::Overtaken)) {
                    self.discard(&written).await;
                }
            }
            match committed? {
                Committed::Done => {
                    self.report(&news);
                    return Ok(rows);
                }
                Committed::Overtaken if pipe.is_some() => {
                    return Err(Failed::Error(crate::error::internal("the queue changed")));
                }
                Committed::Overtaken => {}
            }
        }
        Err(Failed::Error(crate::error::internal("the same files are loaded by others")))
    }

    async fn discard(&self, files: &[crate::table::NewFile]) {
        for file in files {
            let path = self.tables.dir.join(&self.table.uid).join(&file.name);
            if let Err(e) = tokio::fs::remove_file(&path).await {
                tracing::warn!(file = %path.display(), error = %e, "cannot remove an orphan file");
            }
        }
    }

    /// Says aloud what was not loaded: a COPY that succeeds with rows missing is what users fear.
    fn report(&self, rows: &[LoadRow]) {
        for row in rows {
            metrics::counter!("hydrant_warehouse_rows_loaded_total").increment(row.rows_loaded);
            metrics::counter!("hydrant_warehouse_files_total", "status" => row.status.as_str())
                .increment(1);
            if row.errors_seen > 0 {
                metrics::counter!("hydrant_warehouse_load_errors_total").increment(row.errors_seen);
                let first = row.first_error.clone().unwrap_or_default();
                tracing::warn!(
                    file = row.url,
                    table = %self.name,
                    pipe = row.pipe,
                    status = row.status.as_str(),
                    errors = row.errors_seen,
                    line = first.line,
                    error = first.text,
                    "a staged file has errors"
                );
            }
        }
    }

    /// Reads the files into Parquet, without a commit.
    async fn read(
        &self,
        files: &[Listed],
    ) -> Result<(Vec<LoadRow>, Vec<crate::table::NewFile>), Failed> {
        let epoch = self.tables.head(&self.table.uid).await?.0.epoch;
        let mut shared: Option<ParquetFile> = None;
        let mut written = Vec::new();
        let mut rows = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for listed in files {
            let again = !seen.insert((&listed.file.url, &listed.file.etag));
            if again || (!self.force && self.is_in(listed, epoch).await?) {
                rows.push(self.skipped(listed));
                continue;
            }
            let mut into = FileRows::new(self);
            let row = into.read(listed).await?;
            if self.on_error == OnError::AbortStatement
                && let Some(e) = into.first.take()
            {
                return Err(Failed::Aborted(Box::new(row), e));
            }
            if row.status.is_in() && row.rows_loaded > 0 {
                let (batches, own) = into.take().await?;
                written.extend(own);
                for batch in batches {
                    let file = shared.get_or_insert_with(|| self.new_file());
                    file.write(batch).await?;
                }
            }
            rows.push(row);
        }
        if let Some(file) = shared {
            written.push(file.finish().await?);
        }
        Ok((rows, written))
    }

    fn new_file(&self) -> ParquetFile {
        let name = hex::encode(self.random.bytes::<16>());
        let dir = self.tables.dir.join(&self.table.uid);
        ParquetFile::create(dir, &name, schema_of(&self.table.columns))
    }

    async fn is_in(&self, listed: &Listed, epoch: u64) -> SqlResult<bool> {
        let key = load_key(&self.table.uid, epoch, &listed.file.url, &listed.file.etag);
        let Some(entry) = self.tables.control.get(&key).await.map_err(control)? else {
            return Ok(false);
        };
        let row: LoadRow = entry.json(&key).map_err(control)?;
        Ok(row.status.is_in())
    }

    fn skipped(&self, listed: &Listed) -> LoadRow {
        LoadRow {
            url: listed.file.url.clone(),
            etag: listed.file.etag.clone(),
            size_bytes: listed.file.size_bytes,
            status: Status::LoadSkipped,
            rows_parsed: 0,
            rows_loaded: 0,
            errors_seen: 0,
            error_limit: 0,
            first_error: Some(FirstError {
                text: "File was loaded before.".to_owned(),
                ..FirstError::default()
            }),
            at: self.clock.now(),
            pipe: self.pipe.clone(),
        }
    }
}

/// How many of the first files go into one commit.
pub(crate) fn batch_len(files: &[Listed]) -> usize {
    let mut bytes = 0_u64;
    let fits = |f: &&Listed| {
        bytes = bytes.saturating_add(f.file.size_bytes);
        bytes <= COMMIT_BYTES
    };
    files.iter().take(COMMIT_FILES).take_while(fits).count().max(1).min(files.len())
}
