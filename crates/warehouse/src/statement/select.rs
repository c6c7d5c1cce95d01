//! Queries: which tables they read, and their answers.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Value, Visit, Visitor,
};
use hydrant_core::Timestamp;

use super::SqlSession;
use crate::answer::{self, Cell, Head, INT, TEXT, TIME};
use crate::catalog::{FormatOptions, ObjectName, Table};
use crate::error::{SqlResult, control, no_such, syntax, unsupported};
use crate::history::{LoadRow, load_prefix};
use crate::query::provider::{SnapshotTable, flatten_marker, memory, one_row};
use crate::query::{self, QueryEngine, Registered};
use crate::session::{Answer, Column};
use crate::sql::ast::Kind;
use crate::sql::front::{location, name_of};
use crate::sql::functions::Context;
use crate::sql::options::fold;
use crate::sql::rewrite::{FunctionUse, StageUse, rewrite_query};
use crate::sql::scan::Prepared;
use crate::stage;

/// Most rows COPY_HISTORY answers with (Snowflake).
const COPY_HISTORY_ROWS_MAX: usize = 10_000;

const COPY_HISTORY: &[Head] = &[
    ("FILE_NAME", TEXT),
    ("STAGE_LOCATION", TEXT),
    ("LAST_LOAD_TIME", TIME),
    ("ROW_COUNT", INT),
    ("ROW_PARSED", INT),
    ("FILE_SIZE", INT),
    ("FIRST_ERROR_MESSAGE", TEXT),
    ("FIRST_ERROR_LINE_NUMBER", INT),
    ("FIRST_ERROR_CHARACTER_POS", INT),
    ("FIRST_ERROR_COLUMN_NAME", TEXT),
    ("ERROR_COUNT", INT),
    ("ERROR_LIMIT", INT),
    ("STATUS", TEXT),
    ("TABLE_CATALOG_NAME", TEXT),
    ("TABLE_SCHEMA_NAME", TEXT),
    ("TABLE_NAME", TEXT),
    ("PIPE_CATALOG_NAME", TEXT),
    ("PIPE_SCHEMA_NAME", TEXT),
    ("PIPE_NAME", TEXT),
    ("PIPE_RECEIVED_TIME", TIME),
];

impl SqlSession {
    pub(super) async fn select(&self, query: Query, prepared: &Prepared) -> SqlResult<Answer> {
        let (state, plan) = self.plan(query, prepared).await?;
        query::collect(&state, plan).await
    }

    pub(super) async fn describe_select(
        &self,
        query: Query,
        prepared: &Prepared,
    ) -> SqlResult<Vec<Column>> {
        let (_, plan) = self.plan(query, prepared).await?;
        query::columns(plan.schema().as_arrow())
    }

    /// Plans a query over the tables it names, as they are now.
    pub(super) async fn plan(
        &self,
        query: Query,
        prepared: &Prepared,
    ) -> SqlResult<(SessionState, LogicalPlan)> {
        let context = self.context(&query, prepared).await?;
        let (query, sources) = rewrite_query(query, prepared, &context).await?;
        let mut tables: Vec<Registered> = Vec::new();
        for name in &sources.tables {
            let written = name_of(name)?;
            let name = self.engine.catalog.resolve(&written, &self.names, "SELECT")?;
            if tables.iter().any(|(n, _)| *n == name) {
                continue;
            }
            let table = self.engine.catalog.get::<Table>(&name).await?;
            let table = table.ok_or_else(|| no_such("Object", &written.join(".")))?.row;
            let snapshot = self.engine.tables.snapshot(&table.uid).await?;
            let provider = SnapshotTable::new(&table, &snapshot, &self.engine.tables.dir)?;
            tables.push((name, Arc::new(provider)));
        }
        let local = |table: &str| QueryEngine::local(&self.names, table);
        for used in &sources.stages {
            tables.push((local(&used.table), self.stage_table(used).await?));
        }
        for used in &sources.functions {
            tables.push((local(&used.table), self.function_table(used).await?));
        }
        if sources.flattens {
            tables.push((local("flatten$"), flatten_marker()?));
        }
        if sources.one {
            tables.push((local("one$"), one_row()?));
        }
        let state = self.engine.queries.state(&self.names, tables)?;
        let plan = query::plan(&state, query).await?;
        Ok((state, plan))
    }

    /// The session's values, with the status of every pipe the query asks for.
    async fn context(&self, query: &Query, prepared: &Prepared) -> SqlResult<Context> {
        let mut context = self.engine.context(&self.names, &self.user);
        let mut asked = PipeNames::default();
        if prepared.text.to_uppercase().contains("SYSTEM$PIPE_STATUS") {
            let _ = query.visit(&mut asked);
        }
        for (key, text) in asked.0 {
            let parts: Vec<String> = split_name(&text);
            let name = self.engine.catalog.resolve(&parts, &self.names, "SELECT")?;
            let status = self.engine.pipe_status(&name).await?;
            context.pipe_status.insert(key, status);
        }
        Ok(context)
    }

    async fn stage_table(
        &self,
        used: &StageUse,
    ) -> SqlResult<Arc<dyn datafusion::catalog::TableProvider>> {
        let catalog = &self.engine.catalog;
        let place = stage::place(catalog, &location(&used.stage)?, &self.names, "SELECT").await?;
        let pattern = used.pattern.as_deref().map(stage::pattern).transpose()?;
        let named = used.format.as_deref().map(split_name);
        let options = FormatOptions { named, ..FormatOptions::default() };
        let format = stage::resolve_format(catalog, &options, &place.format, &self.names).await?;
        let files = stage::list(&self.engine.open_bucket, &place, pattern.as_ref()).await?;
        let bucket = place.bucket.bucket.clone();
        let store = (self.engine.open_bucket)(&place.bucket)
            .map_err(|e| stage::cannot_open(&bucket, &e))?;
        crate::load::scan::table(store, bucket, files, format)
    }

    async fn function_table(
        &self,
        used: &FunctionUse,
    ) -> SqlResult<Arc<dyn datafusion::catalog::TableProvider>> {
        if used.name != "COPY_HISTORY" {
            return Err(unsupported(format!("table function {}", used.name)));
        }
        let (mut table, mut start, mut end) = (None, None, None);
        for (name, value) in &used.arguments {
            match name.as_str() {
                "TABLE_NAME" => table = Some(self.constant(value, "VARCHAR").await?),
                "START_TIME" => start = Some(self.moment(value).await?),
                "END_TIME" => end = Some(self.moment(value).await?),
                other => return Err(syntax(format!("COPY_HISTORY has no argument '{other}'"))),
            }
        }
        let table = table.ok_or_else(|| syntax("COPY_HISTORY needs TABLE_NAME => '…'"))?;
        let start = start.ok_or_else(|| syntax("COPY_HISTORY needs START_TIME => …"))?;
        let name = self.engine.catalog.resolve(&split_name(&table), &self.names, "SELECT")?;
        let rows = self.copy_history(&name, start, end.unwrap_or(Timestamp::MAX)).await?;
        let (_, batch) = answer::table(COPY_HISTORY, &rows)?;
        memory(batch.schema(), vec![batch])
    }

    async fn copy_history(
        &self,
        name: &ObjectName,
        start: Timestamp,
        end: Timestamp,
    ) -> SqlResult<Vec<Vec<Cell>>> {
        let table: Table = self.engine.catalog.expect(Kind::Table, name).await?.row;
        let (head, _) = self.engine.tables.head(&table.uid).await?;
        let prefix = load_prefix(&table.uid, head.epoch);
        let store = self.engine.catalog.control.as_ref();
        let mut loads: Vec<LoadRow> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = store.scan(&prefix, after.as_deref(), COPY_HISTORY_ROWS_MAX).await;
            let page = page.map_err(control)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, entry) in page {
                let row: LoadRow = entry.json(&key).map_err(control)?;
                if row.at >= start && row.at <= end {
                    loads.push(row);
                }
            }
            loads.sort_by_key(|r| std::cmp::Reverse(r.at));
            loads.truncate(COPY_HISTORY_ROWS_MAX);
        }
        Ok(loads.into_iter().map(|row| history_row(row, name)).collect())
    }

    /// The moment a constant expression gives.
    async fn moment(&self, value: &Expr) -> SqlResult<Timestamp> {
        let text = self.constant(value, "TIMESTAMP_LTZ").await?;
        let nanos = crate::functions::moment::parse_timestamp(&text, false)?;
        Ok(Timestamp::from_millis(u64::try_from(nanos / 1_000_000).unwrap_or_default()))
    }

    /// The text of a constant expression.
    async fn constant(&self, value: &Expr, written: &str) -> SqlResult<String> {
        use crate::sql::build::cast_call;
        let value = cast_call(cast_call(value.clone(), written, false), "VARCHAR", false);
        let state = self.engine.queries.state(&self.names, Vec::new())?;
        let query = format!("SELECT {value}");
        let parsed = crate::sql::front::parse(&query, &[])?;
        let crate::sql::ast::Statement::Query(mut query) = parsed.statement else {
            return Err(syntax("a constant is needed"));
        };
        if let datafusion::sql::sqlparser::ast::SetExpr::Select(select) = query.body.as_mut() {
            select.projection =
                vec![datafusion::sql::sqlparser::ast::SelectItem::UnnamedExpr(value)];
        }
        let plan = query::plan(&state, *query).await?;
        let answer = query::collect(&state, plan).await?;
        let cell = answer.batches.first().and_then(|b| {
            let array = b.columns().first()?;
            crate::functions::row_text(array, 0).map(|t| t.into_owned())
        });
        cell.ok_or_else(|| syntax("NULL is no value for this argument"))
    }
}

/// A name given as text: `db.schema."n"`.
pub(super) fn split_name(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '.' if !quoted => parts.push(String::new()),
            _ => {
                quoted ^= c == '"';
                if let Some(part) = parts.last_mut() {
                    part.push(c);
                }
            }
        }
    }
    parts.iter().map(|p| fold(p)).collect()
}

fn history_row(row: LoadRow, name: &ObjectName) -> Vec<Cell> {
    let (bucket, key) = crate::catalog::split_url(&row.url).unwrap_or_default();
    let first = row.first_error.clone().unwrap_or_default();
    let line = |n: Option<u64>| n.map_or(Cell::Null, Cell::count);
    let pipe: Vec<String> = row.pipe.as_deref().map(split_name).unwrap_or_default();
    let part = |nth: usize| Cell::optional(pipe.get(nth).cloned());
    let received = if row.pipe.is_some() { Cell::Time(row.at) } else { Cell::Null };
    vec![
        Cell::text(key),
        Cell::text(format!("s3://{bucket}/")),
        Cell::Time(row.at),
        Cell::count(row.rows_loaded),
        Cell::count(row.rows_parsed),
        Cell::count(row.size_bytes),
        if first.text.is_empty() { Cell::Null } else { Cell::text(first.text) },
        line(first.line),
        line(first.character),
        Cell::optional(first.column),
        Cell::count(row.errors_seen),
        Cell::count(row.error_limit),
        Cell::text(row.status.in_history()),
        Cell::text(&name.database),
        Cell::text(&name.schema),
        Cell::text(&name.name),
        part(0),
        part(1),
        part(2),
        received,
    ]
}

/// Arguments of SYSTEM$PIPE_STATUS in a query: as written, and their text.
#[derive(Default)]
struct PipeNames(Vec<(String, String)>);

impl Visitor for PipeNames {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(f) = expr
            && f.name.to_string().eq_ignore_ascii_case("SYSTEM$PIPE_STATUS")
            && let FunctionArguments::List(list) = &f.args
            && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(v)))] =
                list.args.as_slice()
            && let Value::SingleQuotedString(text) = &v.value
        {
            self.0.push((v.to_string(), text.clone()));
        }
        ControlFlow::Continue(())
    }
}
