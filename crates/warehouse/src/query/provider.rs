//! Tables as DataFusion reads them: a snapshot's Parquet files, or rows made on the way.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, project_schema};
use datafusion::datasource::MemTable;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DfResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use crate::catalog::{ColumnDef, Table};
use crate::error::{SqlResult, datafusion, internal};
use crate::sql::types;
use crate::table::Snapshot;

/// The Arrow schema of a table's files. Columns are nullable there whatever the table says, so that
/// the check is made once, when rows are written.
pub(crate) fn schema_of(columns: &[ColumnDef]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|c| Field::new(&c.name, types::arrow(c.kind), true)).collect();
    Arc::new(Schema::new(fields))
}

/// A table at one moment.
#[derive(Debug)]
pub(crate) struct SnapshotTable {
    schema: SchemaRef,
    files: Vec<PartitionedFile>,
    rows: usize,
}

impl SnapshotTable {
    pub(crate) fn new(table: &Table, snapshot: &Snapshot, dir: &Path) -> SqlResult<Self> {
        let schema = schema_of(&table.columns);
        let mut files = Vec::with_capacity(snapshot.files.len());
        let mut rows = 0_usize;
        for file in snapshot.files.iter() {
            let path = dir.join(&table.uid).join(&file.name);
            let path = object_store::path::Path::from_absolute_path(&path).map_err(internal)?;
            rows = rows.saturating_add(usize::try_from(file.rows).unwrap_or(usize::MAX));
            files.push(PartitionedFile::new(path.to_string(), file.bytes));
        }
        Ok(Self { schema, files, rows })
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let unknown = Statistics::new_unknown(&self.schema);
        Some(Statistics { num_rows: Precision::Exact(self.rows), ..unknown })
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            // A scan of no files has no partitions, which the plans above it do not expect.
            let schema = project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let statistics = self.statistics().unwrap_or_else(|| Statistics::new_unknown(&self.schema));
        let source = Arc::new(ParquetSource::new(Arc::clone(&self.schema)));
        let groups: Vec<FileGroup> = FileGroup::new(self.files.clone())
            .split_files(state.config().target_partitions().max(1));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_limit(limit)
            .with_projection_indices(projection.cloned())?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// A table in memory.
pub(crate) fn memory(
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) -> SqlResult<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(schema, vec![batches]).map_err(datafusion)?))
}

/// What a FLATTEN's columns are planned from; its rows are never read.
pub(crate) fn flatten_marker() -> SqlResult<Arc<dyn TableProvider>> {
    let field = |name: &str, t: DataType| Field::new(name, t, true);
    let schema = Schema::new(vec![
        field("KEY", DataType::Utf8),
        field("PATH", DataType::Utf8),
        field("INDEX", DataType::Int64),
        field("VALUE", DataType::LargeUtf8),
        field("THIS", DataType::LargeUtf8),
    ]);
    memory(Arc::new(schema), Vec::new())
}

/// One row without columns, for a FLATTEN that stands alone in FROM.
pub(crate) fn one_row() -> SqlResult<Arc<dyn TableProvider>> {
    let schema = Arc::new(Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), Vec::new(), &options)
        .map_err(internal)?;
    memory(schema, vec![batch])
}
