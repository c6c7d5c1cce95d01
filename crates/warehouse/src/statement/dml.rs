//! INSERT, COPY INTO and TRUNCATE.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, new_null_array};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Insert, TableObject};
use futures::StreamExt;
use hydrant_core::warehouse::OnError;

use super::SqlSession;
use crate::answer::{self, Cell, Head, INT, TEXT};
use crate::catalog::{Table, shown};
use crate::error::{SqlResult, datafusion, error, internal, syntax, unsupported};
use crate::history::{LoadRow, Status};
use crate::load::{Load, plan_copy, targets, to_column};
use crate::query;
use crate::query::provider::schema_of;
use crate::session::{Answer, ColumnType, Tag};
use crate::sql::ast::{Copy, Kind};
use crate::sql::front::name_of;
use crate::sql::scan::Prepared;
use crate::sql::types;
use crate::stage::{self, Listed, Place};
use crate::state::refuse;
use crate::table::commit::{Append, Committed};
use crate::table::{NewFile, ParquetFile};

/// The columns of COPY's report.
pub(super) const COPY: &[Head] = &[
    ("file", TEXT),
    ("status", TEXT),
    ("rows_parsed", INT),
    ("rows_loaded", INT),
    ("error_limit", INT),
    ("errors_seen", INT),
    ("first_error", TEXT),
    ("first_error_line", INT),
    ("first_error_character", INT),
    ("first_error_column_name", TEXT),
];

impl SqlSession {
    pub(super) async fn insert(&self, insert: Insert, prepared: &Prepared) -> SqlResult<Answer> {
        if insert.overwrite || insert.on.is_some() || insert.returning.is_some() {
            return Err(unsupported("INSERT OVERWRITE, ON CONFLICT and RETURNING"));
        }
        let TableObject::TableName(written) = &insert.table else {
            return Err(unsupported("INSERT into anything but a table"));
        };
        let catalog = &self.engine.catalog;
        let name = catalog.resolve(&name_of(written)?, &self.names, "INSERT")?;
        let table: Table = catalog.expect(Kind::Table, &name).await?.row;
        refuse(&table, "INSERT")?;
        let mut columns = Vec::new();
        for column in &insert.columns {
            let column = name_of(column)?.pop().unwrap_or_default();
            if columns.contains(&column) {
                return Err(syntax(format!("duplicate column name '{column}'")));
            }
            columns.push(column);
        }
        let columns = (!columns.is_empty()).then_some(columns);
        let targets = targets(&table, columns.as_deref())?;
        let source = insert.source.ok_or_else(|| unsupported("INSERT without VALUES or SELECT"))?;
        let (state, plan) = self.plan(*source, prepared).await?;
        check_types(&plan, &targets, &table)?;
        let schema = schema_of(&table.columns);
        let file = self.write_rows(&state, plan, &table, &targets, schema).await?;
        let rows = file.as_ref().map_or(0, |f| f.rows);
        if let Some(file) = file {
            let files = [file];
            let change =
                Append { uid: &table.uid, files: &files, loads: &[], force: false, pipe: None };
            if self.engine.tables.append(&change).await? == Committed::Overtaken {
                return Err(internal("the table changed; run the statement again"));
            }
        }
        let head: &[Head] = &[("number of rows inserted", INT)];
        let answer = answer::rows(head, vec![vec![Cell::count(rows)]])?;
        Ok(Answer { tag: Tag::Changed("INSERT", rows), ..answer })
    }

    /// Runs a plan into a new file of a table. `None` if there are no rows.
    pub(super) async fn write_rows(
        &self,
        state: &datafusion::execution::session_state::SessionState,
        plan: LogicalPlan,
        table: &Table,
        targets: &[usize],
        schema: SchemaRef,
    ) -> SqlResult<Option<NewFile>> {
        let mut stream = query::stream(state, plan).await?;
        let mut file: Option<ParquetFile> = None;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(datafusion)?;
            if batch.num_rows() == 0 {
                continue;
            }
            let batch = table_rows(&batch, table, targets, &schema)?;
            let file = file.get_or_insert_with(|| {
                let dir = self.engine.tables.dir.join(&table.uid);
                ParquetFile::create(dir, &self.engine.catalog.uid(), Arc::clone(&schema))
            });
            file.write(batch).await?;
        }
        match file {
            Some(file) => Ok(Some(file.finish().await?)),
            None => Ok(None),
        }
    }

    pub(super) async fn copy(&self, copy: Copy, prepared: &Prepared) -> SqlResult<Answer> {
        let engine = &self.engine;
        let name = engine.catalog.resolve(&copy.table, &self.names, "COPY")?;
        let table: Table = engine.catalog.expect(Kind::Table, &name).await?.row;
        refuse(&table, "COPY")?;
        let place = stage::place(&engine.catalog, &copy.from, &self.names, "COPY").await?;
        let context = engine.context(&self.names, &self.user);
        let rows = plan_copy(&engine.queries, &copy, prepared, &table, &context).await?;
        let format =
            stage::resolve_format(&engine.catalog, &copy.format, &place.format, &self.names)
                .await?;
        let files = self.copy_files(&copy, &place).await?;
        let bucket = &place.bucket;
        let store =
            (engine.open_bucket)(bucket).map_err(|e| stage::cannot_open(&bucket.bucket, &e))?;
        let load = Load {
            tables: &engine.tables,
            name: &name,
            table: &table,
            bucket: &bucket.bucket,
            store,
            format,
            rows: &rows,
            on_error: copy.on_error.unwrap_or(OnError::AbortStatement),
            force: copy.force,
            clock: engine.clock.as_ref(),
            random: &engine.catalog.random,
            pipe: None,
        };
        let done = load.files(&files).await.map_err(|e| e.into_error(&name))?;
        // Files that were loaded before are only shown when they were asked for by name.
        let shown: Vec<Vec<Cell>> = done
            .into_iter()
            .filter(|r| r.status != Status::LoadSkipped || !copy.files.is_empty())
            .map(report)
            .collect();
        if shown.is_empty() {
            let status = "Copy executed with 0 files processed.";
            return answer::rows(&[("status", TEXT)], vec![vec![Cell::text(status)]]);
        }
        answer::rows(COPY, shown)
    }

    async fn copy_files(&self, copy: &Copy, place: &Place) -> SqlResult<Vec<Listed>> {
        let pattern = copy.pattern.as_deref().map(stage::pattern).transpose()?;
        if copy.files.is_empty() {
            return stage::list(&self.engine.open_bucket, place, pattern.as_ref()).await;
        }
        let mut found = Vec::new();
        for file in &copy.files {
            let mut one = place.clone();
            let slash = if one.prefix.is_empty() || one.prefix.ends_with('/') { "" } else { "/" };
            one.prefix = format!("{}{slash}{}", one.prefix, file.trim_start_matches('/'));
            let listed = stage::list(&self.engine.open_bucket, &one, pattern.as_ref()).await?;
            let exact = listed.into_iter().find(|l| l.key == one.prefix);
            found.push(exact.ok_or_else(|| {
                let text = format!(
                    "Remote file '{}' was not found. If you are running a copy command, please \
                     make sure files are not deleted when they are being loaded.",
                    one.url(&one.prefix)
                );
                error(91_016, "02000", text)
            })?);
        }
        Ok(found)
    }

    pub(super) async fn truncate(&self, name: &[String], if_exists: bool) -> SqlResult<Answer> {
        let name = self.engine.catalog.resolve(name, &self.names, "TRUNCATE")?;
        match self.engine.catalog.get::<Table>(&name).await? {
            Some(table) => {
                refuse(&table.row, "TRUNCATE")?;
                self.engine.tables.truncate(&table.row.uid).await?;
            }
            None if if_exists => {}
            None => return Err(crate::error::no_such("Table", &name.to_string())),
        }
        answer::done("TRUNCATE TABLE", "Statement executed successfully.")
    }
}

fn report(row: LoadRow) -> Vec<Cell> {
    let first = row.first_error.unwrap_or_default();
    let number = |n: Option<u64>| n.map_or(Cell::Null, Cell::count);
    let skipped = row.status == Status::LoadSkipped;
    vec![
        Cell::text(row.url),
        Cell::text(row.status.as_str()),
        Cell::count(row.rows_parsed),
        Cell::count(row.rows_loaded),
        if skipped { Cell::Null } else { Cell::count(row.error_limit) },
        Cell::count(row.errors_seen),
        if first.text.is_empty() { Cell::Null } else { Cell::text(first.text) },
        number(first.line),
        number(first.character),
        Cell::optional(first.column),
    ]
}

/// Whether each value may go into its column: VARIANT takes no text that is not JSON.
fn check_types(plan: &LogicalPlan, targets: &[usize], table: &Table) -> SqlResult<()> {
    let fields = plan.schema().fields();
    if fields.len() != targets.len() {
        let text = format!(
            "SQL compilation error:\nInsert value list does not match column list expecting {} \
             but got {}",
            targets.len(),
            fields.len()
        );
        return Err(error(2020, "21S01", text));
    }
    for (field, target) in fields.iter().zip(targets) {
        let column = &table.columns[*target];
        let json =
            matches!(column.kind, ColumnType::Variant | ColumnType::Object | ColumnType::Array);
        let text = matches!(field.data_type(), DataType::Utf8 | DataType::Utf8View);
        if json && text {
            let kind = types::name(column.kind, None);
            let text = format!(
                "SQL compilation error:\nExpression type does not match column data type, \
                 expecting {kind} but got VARCHAR for column {}",
                shown(&column.name)
            );
            return Err(error(2023, "22000", text));
        }
    }
    Ok(())
}

/// A query's rows as the table's.
fn table_rows(
    batch: &RecordBatch,
    table: &Table,
    targets: &[usize],
    schema: &SchemaRef,
) -> SqlResult<RecordBatch> {
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(table.columns.len());
    for (place, column) in table.columns.iter().enumerate() {
        let value = match targets.iter().position(|t| *t == place) {
            Some(nth) => Arc::clone(batch.column(nth)),
            None => new_null_array(&types::arrow(column.kind), batch.num_rows()),
        };
        arrays.push(to_column(&value, column)?);
    }
    RecordBatch::try_new(Arc::clone(schema), arrays).map_err(internal)
}
