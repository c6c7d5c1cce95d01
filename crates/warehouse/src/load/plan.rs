//! How the rows of a table are made of a file's documents.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, LargeStringArray, RecordBatch, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::sqlparser::ast::Query;

use crate::catalog::{ColumnDef, Names, Table};
use crate::error::{SqlResult, datafusion, error, internal, invalid_identifier, unsupported};
use crate::functions::cast;
use crate::json::raw::{field, field_any_case};
use crate::query::provider::{memory, schema_of};
use crate::query::{self, QueryEngine};
use crate::session::{ColumnType, SqlError};
use crate::sql::ast::{Copy, MatchBy};
use crate::sql::functions::Context;
use crate::sql::rewrite::rewrite_query;
use crate::sql::scan::Prepared;
use crate::sql::types::{self, Written};

/// The columns of a staged file.
const STAGE_COLUMNS: [&str; 4] =
    ["$1", "METADATA$FILENAME", "METADATA$FILE_ROW_NUMBER", "METADATA$FILE_LAST_MODIFIED"];

/// A staged file as a table: a document a row.
pub(crate) fn stage_schema() -> SchemaRef {
    let [document, name, row, modified] = STAGE_COLUMNS;
    Arc::new(Schema::new(vec![
        Field::new(document, DataType::LargeUtf8, true),
        Field::new(name, DataType::Utf8, true),
        Field::new(row, DataType::Int64, true),
        Field::new(modified, DataType::Timestamp(TimeUnit::Nanosecond, None), true),
    ]))
}

enum Source {
    /// The document itself.
    Document,
    /// The value under the column's name.
    Field { any_case: bool },
    /// An item of the SELECT.
    Item(Arc<dyn PhysicalExpr>),
}

/// How each column is made; columns without a source are NULL.
pub(crate) struct RowSource {
    columns: Vec<ColumnDef>,
    schema: SchemaRef,
    sources: Vec<Option<Source>>,
    /// Whether the sources read more than `$1`.
    pub(crate) metadata: bool,
}

impl RowSource {
    /// The plain copy of documents into the one column that can hold them.
    pub(crate) fn documents(table: &Table, columns: Option<&[String]>) -> SqlResult<Self> {
        let targets = targets(table, columns)?;
        let [target] = targets.as_slice() else {
            let text = "SQL compilation error:\nJSON file format can produce one and only one \
                column of variant, object, or array type. Load data into separate columns using \
                the MATCH_BY_COLUMN_NAME copy option or copy with transformation.";
            return Err(error(2019, "0A000", text));
        };
        let mut sources: Vec<Option<Source>> = table.columns.iter().map(|_| None).collect();
        sources[*target] = Some(Source::Document);
        Ok(Self::new(table, sources, false))
    }

    fn new(table: &Table, sources: Vec<Option<Source>>, metadata: bool) -> Self {
        let schema = schema_of(&table.columns);
        Self { columns: table.columns.clone(), schema, sources, metadata }
    }

    /// Rows of documents. An error is of at least one of the rows; `Err` names the column.
    pub(crate) fn rows(
        &self,
        stage: &RecordBatch,
    ) -> Result<RecordBatch, (SqlError, Option<String>)> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, source) in self.columns.iter().zip(&self.sources) {
            let array = self.column(column, source.as_ref(), stage);
            arrays.push(array.map_err(|e| (e, Some(column.name.clone())))?);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(|e| (internal(e), None))
    }

    fn column(
        &self,
        column: &ColumnDef,
        source: Option<&Source>,
        stage: &RecordBatch,
    ) -> SqlResult<ArrayRef> {
        let value = match source {
            None => new_null_array(&types::arrow(column.kind), stage.num_rows()),
            Some(Source::Document) => Arc::clone(stage.column(0)),
            Some(Source::Item(item)) => item
                .evaluate(stage)
                .and_then(|v| v.into_array(stage.num_rows()))
                .map_err(datafusion)?,
            Some(Source::Field { any_case }) => {
                let get = |json| match any_case {
                    true => field_any_case(json, &column.name),
                    false => field(json, &column.name),
                };
                let documents = stage.column(0).as_string::<i64>();
                let found: LargeStringArray = documents.iter().map(|d| d.and_then(get)).collect();
                Arc::new(found)
            }
        };
        to_column(&value, column)
    }
}

/// Makes an array fit a column: its type, its length, and NOT NULL.
pub(crate) fn to_column(value: &ArrayRef, column: &ColumnDef) -> SqlResult<ArrayRef> {
    let whole = column.kind == ColumnType::Variant && value.data_type() == &DataType::LargeUtf8;
    let array = match whole {
        true => Arc::clone(value),
        false => {
            let to = Written { kind: column.kind, length: column.length };
            let same = value.data_type() == &types::arrow(column.kind);
            match same && column.length.is_none() && !is_shaped(column.kind) {
                true => Arc::clone(value),
                false => cast::cast(value, to, false)?,
            }
        }
    };
    if !column.nullable && array.null_count() > 0 {
        return Err(error(100_072, "22000", "NULL result in a non-nullable column"));
    }
    Ok(array)
}

fn is_shaped(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::Object | ColumnType::Array)
}

/// Places of the named columns, or of all.
pub(crate) fn targets(table: &Table, columns: Option<&[String]>) -> SqlResult<Vec<usize>> {
    let Some(names) = columns else { return Ok((0..table.columns.len()).collect()) };
    names
        .iter()
        .map(|name| {
            let place = table.columns.iter().position(|c| c.name == *name);
            place.ok_or_else(|| invalid_identifier(name))
        })
        .collect()
}

/// Plans a COPY.
pub(crate) async fn plan_copy(
    engine: &QueryEngine,
    copy: &Copy,
    prepared: &Prepared,
    table: &Table,
    context: &Context,
) -> SqlResult<RowSource> {
    let columns = copy.columns.as_deref();
    if copy.match_by != MatchBy::None {
        let any_case = copy.match_by == MatchBy::CaseInsensitive;
        let sources = table.columns.iter().map(|_| Some(Source::Field { any_case })).collect();
        if columns.is_some() {
            return Err(unsupported("a column list with MATCH_BY_COLUMN_NAME"));
        }
        return Ok(RowSource::new(table, sources, false));
    }
    let Some(query) = &copy.transform else {
        return RowSource::documents(table, columns);
    };
    let items = plan_items(engine, query.as_ref().clone(), prepared, context).await?;
    let targets = targets(table, columns)?;
    if items.len() != targets.len() {
        let text = format!(
            "SQL compilation error:\nInsert value list does not match column list expecting {} \
             but got {}",
            targets.len(),
            items.len()
        );
        return Err(error(2020, "21S01", text));
    }
    let mut sources: Vec<Option<Source>> = table.columns.iter().map(|_| None).collect();
    for (target, item) in targets.into_iter().zip(items) {
        sources[target] = Some(Source::Item(item));
    }
    Ok(RowSource::new(table, sources, true))
}

async fn plan_items(
    engine: &QueryEngine,
    query: Query,
    prepared: &Prepared,
    context: &Context,
) -> SqlResult<Vec<Arc<dyn PhysicalExpr>>> {
    let (query, sources) = rewrite_query(query, prepared, context).await?;
    if !sources.tables.is_empty() || sources.flattens {
        return Err(unsupported("tables and FLATTEN in a COPY transformation"));
    }
    let names: &Names = &context.names;
    let tables = sources
        .stages
        .iter()
        .map(|s| Ok((QueryEngine::local(names, &s.table), memory(stage_schema(), Vec::new())?)))
        .collect::<SqlResult<Vec<_>>>()?;
    let state = engine.state(names, tables)?;
    let LogicalPlan::Projection(projection) = query::plan(&state, query).await? else {
        return Err(unsupported("aggregates and window functions in a COPY transformation"));
    };
    if !matches!(
        projection.input.as_ref(),
        LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_)
    ) {
        return Err(unsupported("aggregates and window functions in a COPY transformation"));
    }
    let schema = projection.input.schema();
    projection
        .expr
        .iter()
        .map(|e| state.create_physical_expr(e.clone(), schema).map_err(datafusion))
        .collect()
}
