//! Runs queries on DataFusion: the planner's extensions, and the tables a query reads.

mod analyze;
mod deep;
mod operators;
pub(crate) mod provider;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider, TableProvider,
};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;

use crate::catalog::{Names, ObjectName};
use crate::error::{SqlResult, datafusion, error, internal, syntax, unsupported};
use crate::json::write;
use crate::session::{Answer, Column, ColumnType, Tag};
use crate::sql::rewrite::TWIN;
use crate::sql::types;

pub(crate) use deep::deep;

/// Most bytes of one answer's rows, which are held until the client has them.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Most operators of a plan that feed each other: rows are pulled through them by recursion.
const PLAN_DEPTH_MAX: usize = 120;
/// Name of the database or schema in the engine when the session has none.
const NONE: &str = "";

/// The engine that all sessions share: functions, rules, memory and a place to spill to.
pub(crate) struct QueryEngine {
    base: SessionState,
}

/// A table as a query names it.
pub(crate) type Registered = (ObjectName, Arc<dyn TableProvider>);

impl QueryEngine {
    /// `memory_bytes` bounds what all running statements hold in sorts, joins and groupings; what
    /// does not fit is spilled under `spill`.
    pub(crate) fn new(memory_bytes: usize, spill: std::path::PathBuf) -> SqlResult<Self> {
        let top = std::num::NonZeroUsize::new(3).unwrap_or(std::num::NonZeroUsize::MIN);
        let pool = TrackConsumersPool::new(GreedyMemoryPool::new(memory_bytes), top);
        let runtime: Arc<RuntimeEnv> = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_temp_file_path(spill)
            .build_arc()
            .map_err(datafusion)?;
        let mut config = SessionConfig::new();
        let options = config.options_mut();
        options.sql_parser.enable_ident_normalization = false;
        options.sql_parser.parse_float_as_decimal = true;
        options.catalog.information_schema = false;
        options.execution.parquet.schema_force_view_types = false;
        options.execution.time_zone = Some("UTC".into());
        let mut base = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .build();
        let mut planners = base.expr_planners().to_vec();
        planners.insert(0, Arc::new(operators::Operators));
        base = SessionStateBuilder::new_from_existing(base)
            .with_expr_planners(planners)
            .with_analyzer_rule(Arc::new(analyze::Variants))
            .build();
        let context = SessionContext::new_with_state(base);
        for function in crate::functions::all() {
            context.register_udf(function.as_ref().clone());
        }
        Ok(Self { base: context.state() })
    }

    /// A state in which exactly the given tables exist.
    pub(crate) fn state(&self, names: &Names, tables: Vec<Registered>) -> SqlResult<SessionState> {
        let database = names.database.clone().unwrap_or_else(|| NONE.to_owned());
        let schema = names.schema.clone().unwrap_or_else(|| NONE.to_owned());
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        let place = |database: &str, schema: &str| -> SqlResult<Arc<dyn SchemaProvider>> {
            use datafusion::catalog::CatalogProviderList;
            let catalog = match catalogs.catalog(database) {
                Some(catalog) => catalog,
                None => {
                    let catalog: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
                    catalogs.register_catalog(database.to_owned(), Arc::clone(&catalog));
                    catalog
                }
            };
            match catalog.schema(schema) {
                Some(schema) => Ok(schema),
                None => {
                    let new: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                    catalog.register_schema(schema, Arc::clone(&new)).map_err(datafusion)?;
                    Ok(new)
                }
            }
        };
        place(&database, &schema)?;
        for (name, table) in tables {
            place(&name.database, &name.schema)?
                .register_table(name.name.clone(), table)
                .map_err(datafusion)?;
        }
        let config = self.base.config().clone().with_default_catalog_and_schema(&database, &schema);
        Ok(SessionStateBuilder::new_from_existing(self.base.clone())
            .with_config(config)
            .with_catalog_list(catalogs)
            .build())
    }

    /// The name under which something that is not in the catalog is registered.
    pub(crate) fn local(names: &Names, table: &str) -> ObjectName {
        ObjectName {
            database: names.database.clone().unwrap_or_else(|| NONE.to_owned()),
            schema: names.schema.clone().unwrap_or_else(|| NONE.to_owned()),
            name: table.to_owned(),
        }
    }
}

/// Plans a rewritten query.
pub(crate) async fn plan(state: &SessionState, query: ast::Query) -> SqlResult<LogicalPlan> {
    let state = state.clone();
    deep(async move {
        let statement = ast::Statement::Query(Box::new(query));
        let statement = EngineStatement::Statement(Box::new(statement));
        state.statement_to_plan(statement).await.map_err(datafusion)
    })
    .await?
}

/// Starts a plan.
pub(crate) async fn stream(
    state: &SessionState,
    plan: LogicalPlan,
) -> SqlResult<SendableRecordBatchStream> {
    let state = state.clone();
    deep(async move {
        let context = state.task_ctx();
        let plan = state.create_physical_plan(&plan).await.map_err(datafusion)?;
        if depth(&plan) > PLAN_DEPTH_MAX {
            return Err(syntax("the statement is nested too deeply; use intermediate tables"));
        }
        execute_stream(plan, context).map_err(datafusion)
    })
    .await?
}

/// How many operators feed each other in the longest line of a plan.
fn depth(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let mut open = vec![(Arc::clone(plan), 1)];
    let mut deepest = 0;
    while let Some((plan, at)) = open.pop() {
        deepest = deepest.max(at);
        open.extend(plan.children().into_iter().map(|child| (Arc::clone(child), at + 1)));
    }
    deepest
}

/// The columns a schema shows as.
pub(crate) fn columns(schema: &Schema) -> SqlResult<Vec<Column>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let kind = types::of_arrow(field.data_type())
                .ok_or_else(|| unsupported(format!("results of type {}", field.data_type())))?;
            let name = field.name().split(TWIN).next().unwrap_or_default().to_owned();
            Ok(Column { name, kind, nullable: field.is_nullable() })
        })
        .collect()
}

/// Runs a plan and holds its rows, VARIANT written as Snowflake shows it.
pub(crate) async fn collect(state: &SessionState, plan: LogicalPlan) -> SqlResult<Answer> {
    let mut rows = stream(state, plan).await?;
    let columns = columns(&rows.schema())?;
    let mut batches = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = rows.next().await {
        let batch = answer_batch(&batch.map_err(datafusion)?, &columns)?;
        bytes += batch.get_array_memory_size();
        if bytes > ANSWER_BYTES_MAX {
            let text = format!(
                "The result is larger than {ANSWER_BYTES_MAX} bytes. Select less, or add a LIMIT."
            );
            return Err(error(603, "54000", text));
        }
        batches.push(batch);
    }
    Ok(Answer { columns, batches, tag: Tag::Rows })
}

fn answer_batch(batch: &RecordBatch, columns: &[Column]) -> SqlResult<RecordBatch> {
    let arrays: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(columns)
        .map(|(array, column)| answer_array(array, column.kind))
        .collect::<SqlResult<_>>()?;
    let fields: Vec<_> = arrays
        .iter()
        .zip(columns)
        .map(|(a, c)| {
            datafusion::arrow::datatypes::Field::new(c.name.clone(), a.data_type().clone(), true)
        })
        .collect();
    let options =
        datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(internal)
}

fn answer_array(array: &ArrayRef, kind: ColumnType) -> SqlResult<ArrayRef> {
    use datafusion::arrow::array::AsArray;
    if array.data_type() == &DataType::LargeUtf8 {
        let shown: datafusion::arrow::array::StringArray =
            array.as_string::<i64>().iter().map(|v| v.map(write::pretty)).collect();
        return Ok(Arc::new(shown));
    }
    let wanted = types::answer_arrow(array.data_type(), kind);
    if array.data_type() == &wanted {
        return Ok(Arc::clone(array));
    }
    datafusion::arrow::compute::cast(array, &wanted)
        .map_err(|e| datafusion(DataFusionError::from(e)))
}
