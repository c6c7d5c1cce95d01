//! CREATE, DROP and ALTER.

use hydrant_core::control::Write;

use super::SqlSession;
use crate::answer::{self, Cell, TEXT};
use crate::catalog::{
    ColumnDef, Database, Dropped, Format, FormatOptions, Held, ObjectName, PUBLIC, Pipe, Reach,
    Schema, Stage, Table, shown, split_url,
};
use crate::error::{SqlResult, invalid_value, no_such, unsupported};
use crate::pipe::{check_copy, queue_prefix, state_key};
use crate::query;
use crate::query::provider::schema_of;
use crate::session::Answer;
use crate::sql::ast::{AlterPipe, Create, CreatePipe, CreateStage, CreateTable, Kind};
use crate::sql::scan::Prepared;
use crate::stage;
use crate::state::{CreateStateTable, refuse};
use crate::table::{FileRow, Head, file_key, head_key, new_head};

impl SqlSession {
    pub(super) async fn create_database(
        &mut self,
        name: &[String],
        create: Create,
        comment: String,
    ) -> SqlResult<Answer> {
        let [name] = name else { return Err(no_such("Database", &name.join("."))) };
        let row = Database {
            name: name.clone(),
            created: self.engine.clock.now(),
            owner: self.owner(),
            comment,
        };
        let created = self.engine.catalog.create_database(row, create).await?;
        let status = match created {
            None => format!("{} already exists, statement succeeded.", shown(name)),
            Some(dropped) => {
                self.retire(dropped).await?;
                self.names.database = Some(name.clone());
                self.names.schema = Some(PUBLIC.to_owned());
                format!("Database {} successfully created.", shown(name))
            }
        };
        answer::done("CREATE DATABASE", status)
    }

    pub(super) async fn create_schema(
        &mut self,
        name: &[String],
        create: Create,
        comment: String,
    ) -> SqlResult<Answer> {
        let (database, name) =
            self.engine.catalog.resolve_schema(name, &self.names, "CREATE SCHEMA")?;
        let row = Schema {
            name: name.clone(),
            created: self.engine.clock.now(),
            owner: self.owner(),
            comment,
        };
        let status = match self.engine.catalog.create_schema(&database, row, create).await? {
            None => format!("{} already exists, statement succeeded.", shown(&name)),
            Some(dropped) => {
                self.retire(dropped).await?;
                let status = format!("Schema {} successfully created.", shown(&name));
                self.names.database = Some(database);
                self.names.schema = Some(name);
                status
            }
        };
        answer::done("CREATE SCHEMA", status)
    }

    pub(super) async fn create_table(
        &self,
        create: CreateTable,
        prepared: &Prepared,
    ) -> SqlResult<Answer> {
        let name = self.engine.catalog.resolve(&create.name, &self.names, "CREATE TABLE")?;
        let mut row = Table {
            name: name.name.clone(),
            uid: self.engine.catalog.uid(),
            created: self.engine.clock.now(),
            owner: self.owner(),
            columns: create.columns,
            comment: create.comment,
            follows: None,
        };
        let mut extra = Vec::new();
        match create.query {
            None => extra.push(new_head(&row.uid)),
            Some(query) => {
                let (state, plan) = self.plan(*query, prepared).await?;
                let selected = query::columns(plan.schema().as_arrow())?;
                if row.columns.is_empty() {
                    row.columns = selected.into_iter().map(selected_column).collect();
                } else if row.columns.len() != selected.len() {
                    let text = "SQL compilation error:\nInvalid column definition list";
                    return Err(crate::error::error(2026, "42601", text));
                }
                let targets: Vec<usize> = (0..row.columns.len()).collect();
                let schema = schema_of(&row.columns);
                let file = self.write_rows(&state, plan, &row, &targets, schema).await?;
                extra.extend(filled_head(&row.uid, file));
            }
        }
        let (made, old) = self.engine.catalog.create(&name, &row, create.create, extra).await?;
        if !made {
            // The rows of a CREATE … AS that was not needed.
            self.engine.tables.retire(&row.uid).await?;
        }
        if let Some(old) = old {
            self.engine.tables.retire(&old.uid).await?;
        }
        answer::done("CREATE TABLE", created("Table", &name, made))
    }

    pub(super) async fn create_state_table(&self, create: CreateStateTable) -> SqlResult<Answer> {
        let name = self.engine.catalog.resolve(&create.name, &self.names, "CREATE TABLE")?;
        let (made, old) = self.engine.create_state_table(&name, create, self.owner()).await?;
        if let Some(old) = old {
            self.engine.tables.retire(&old.uid).await?;
        }
        answer::done("CREATE TABLE", created("Table", &name, made))
    }

    pub(super) async fn create_stage(&self, create: CreateStage) -> SqlResult<Answer> {
        let name = self.engine.catalog.resolve(&create.name, &self.names, "CREATE STAGE")?;
        if split_url(&create.url).is_none() {
            return Err(invalid_value(&create.url, "URL"));
        }
        let mut row = Stage {
            name: name.name.clone(),
            created: self.engine.clock.now(),
            owner: self.owner(),
            url: create.url,
            endpoint: create.endpoint,
            region: create.region,
            credentials: None,
            format: create.format,
            comment: create.comment,
        };
        if let Some((id, secret)) = create.credentials {
            row.seal(self.engine.catalog.seal.as_ref(), id, &secret)?;
        }
        let (made, _) = self.engine.catalog.create(&name, &row, create.create, Vec::new()).await?;
        let status = match made {
            true => format!("Stage area {} successfully created.", shown(&name.name)),
            false => created("Stage", &name, false),
        };
        answer::done("CREATE STAGE", status)
    }

    pub(super) async fn create_format(
        &self,
        name: &[String],
        create: Create,
        format: FormatOptions,
        comment: String,
    ) -> SqlResult<Answer> {
        let name = self.engine.catalog.resolve(name, &self.names, "CREATE FILE FORMAT")?;
        if format.json != Some(true) {
            return Err(unsupported(
                "FILE FORMAT TYPE = CSV, which is the default; say TYPE = JSON",
            ));
        }
        let row = Format {
            name: name.name.clone(),
            created: self.engine.clock.now(),
            owner: self.owner(),
            format,
            comment,
        };
        let (made, _) = self.engine.catalog.create(&name, &row, create, Vec::new()).await?;
        answer::done("CREATE FILE FORMAT", created("File format", &name, made))
    }

    pub(super) async fn create_pipe(&self, create: CreatePipe) -> SqlResult<Answer> {
        let catalog = &self.engine.catalog;
        let name = catalog.resolve(&create.name, &self.names, "CREATE PIPE")?;
        check_copy(&create.copy)?;
        let mut row = Pipe {
            database: name.database.clone(),
            schema: name.schema.clone(),
            name: name.name.clone(),
            uid: catalog.uid(),
            created: self.engine.clock.now(),
            owner: self.owner(),
            auto_ingest: create.auto_ingest,
            paused: false,
            definition: create.definition,
            comment: create.comment,
            reach: None,
        };
        row.reach = self.check_pipe(&row).await?;
        let (made, old) = catalog.create(&name, &row, create.create, Vec::new()).await?;
        if let Some(old) = old {
            self.retire(Dropped { tables: Vec::new(), pipes: vec![old.uid] }).await?;
        }
        self.engine.doorbell.ring();
        answer::done("CREATE PIPE", created("Pipe", &name, made))
    }

    /// Table, stage, format and transformation have to be there when a pipe is made. Answers with
    /// what it takes.
    async fn check_pipe(&self, pipe: &Pipe) -> SqlResult<Option<Reach>> {
        let engine = &self.engine;
        let names = pipe.names();
        let (copy, prepared) = pipe.copy()?;
        let name = engine.catalog.resolve(&copy.table, &names, "CREATE PIPE")?;
        let table: Table = engine.catalog.expect(Kind::Table, &name).await?.row;
        refuse(&table, "CREATE PIPE")?;
        let place = stage::place(&engine.catalog, &copy.from, &names, "CREATE PIPE").await?;
        stage::resolve_format(&engine.catalog, &copy.format, &place.format, &names).await?;
        if let Some(pattern) = &copy.pattern {
            stage::pattern(pattern)?;
        }
        let context = engine.context(&names, &self.user);
        crate::load::plan_copy(&engine.queries, &copy, &prepared, &table, &context).await?;
        Ok(place.reach(copy.pattern))
    }

    pub(super) async fn drop(
        &mut self,
        kind: Kind,
        name: &[String],
        if_exists: bool,
    ) -> SqlResult<Answer> {
        let catalog = &self.engine.catalog;
        let (found, last, words) = match kind {
            Kind::Database => {
                let name = name.join(".");
                let dropped = catalog.drop_database(&name).await?;
                if dropped.is_some() && self.names.database.as_ref() == Some(&name) {
                    (self.names.database, self.names.schema) = (None, None);
                }
                (dropped, name, "DROP DATABASE")
            }
            Kind::Schema => {
                let (database, schema) = catalog.resolve_schema(name, &self.names, "DROP")?;
                let dropped = catalog.drop_schema(&database, &schema).await?;
                if dropped.is_some() && self.names.schema.as_ref() == Some(&schema) {
                    self.names.schema = None;
                }
                (dropped, schema, "DROP SCHEMA")
            }
            _ => {
                let name = catalog.resolve(name, &self.names, "DROP")?;
                let (dropped, words) = self.drop_object(kind, &name).await?;
                (dropped, name.name, words)
            }
        };
        let status = match found {
            Some(dropped) => {
                self.retire(dropped).await?;
                format!("{} successfully dropped.", shown(&last))
            }
            None if if_exists => {
                "Drop statement executed successfully (object already dropped).".to_owned()
            }
            None => return Err(no_such(kind.noun(), &name.join("."))),
        };
        answer::done(words, status)
    }

    async fn drop_object(
        &self,
        kind: Kind,
        name: &ObjectName,
    ) -> SqlResult<(Option<Dropped>, &'static str)> {
        let catalog = &self.engine.catalog;
        Ok(match kind {
            Kind::Table => {
                let old = catalog.remove::<Table>(name).await?;
                let gone = |t: Table| Dropped { tables: vec![t.uid], pipes: Vec::new() };
                (old.map(gone), "DROP TABLE")
            }
            Kind::Pipe => {
                let old = catalog.remove::<Pipe>(name).await?;
                let gone = |p: Pipe| Dropped { tables: Vec::new(), pipes: vec![p.uid] };
                (old.map(gone), "DROP PIPE")
            }
            Kind::Stage => {
                let old = catalog.remove::<Stage>(name).await?;
                (old.map(|_| Dropped::default()), "DROP STAGE")
            }
            _ => {
                let old = catalog.remove::<Format>(name).await?;
                (old.map(|_| Dropped::default()), "DROP FILE FORMAT")
            }
        })
    }

    /// Removes what dropped tables and pipes held.
    async fn retire(&self, dropped: Dropped) -> SqlResult<()> {
        for uid in dropped.tables {
            self.engine.tables.retire(&uid).await?;
        }
        for uid in dropped.pipes {
            self.engine.pipe_trouble.lock().remove(&uid);
            let history = crate::history::pipe_load_key(&uid, "");
            for prefix in [queue_prefix(&uid), history, state_key(&uid)] {
                self.engine.tables.remove_rows(&prefix, None).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn alter_pipe(
        &self,
        name: &[String],
        if_exists: bool,
        what: AlterPipe,
    ) -> SqlResult<Answer> {
        let catalog = &self.engine.catalog;
        let name = catalog.resolve(name, &self.names, "ALTER PIPE")?;
        let Some(Held { row: mut pipe, version }) = catalog.get::<Pipe>(&name).await? else {
            if if_exists {
                return answer::done("ALTER PIPE", "Statement executed successfully.");
            }
            return Err(no_such("Pipe", &name.to_string()));
        };
        match what {
            AlterPipe::Refresh { prefix, modified_after } => {
                let after = match modified_after {
                    None => None,
                    Some(text) => {
                        let nanos = crate::functions::moment::parse_timestamp(&text, false)?;
                        let ms = u64::try_from(nanos / 1_000_000).unwrap_or_default();
                        Some(hydrant_core::Timestamp::from_millis(ms))
                    }
                };
                let queued = self.engine.refresh(&pipe, &prefix, after).await?;
                let rows = queued
                    .into_iter()
                    .map(|(file, sent)| {
                        let status = if sent { "SENT" } else { "ALREADY_PRESENT" };
                        vec![Cell::text(file), Cell::text(status)]
                    })
                    .collect();
                return answer::rows(&[("File", TEXT), ("Status", TEXT)], rows);
            }
            AlterPipe::Paused(paused) => pipe.paused = paused,
            AlterPipe::Comment(comment) => pipe.comment = comment,
        }
        catalog.replace(&name, version, &pipe).await?;
        self.engine.doorbell.ring();
        answer::done("ALTER PIPE", "Statement executed successfully.")
    }
}

fn created(kind: &str, name: &ObjectName, made: bool) -> String {
    match made {
        true => format!("{kind} {} successfully created.", shown(&name.name)),
        false => format!("{} already exists, statement succeeded.", shown(&name.name)),
    }
}

fn selected_column(column: crate::session::Column) -> ColumnDef {
    ColumnDef {
        name: column.name,
        kind: column.kind,
        length: None,
        nullable: true,
        primary_key: false,
        comment: String::new(),
    }
}

/// The head of a table that begins with rows.
fn filled_head(uid: &str, file: Option<crate::table::NewFile>) -> Vec<Write> {
    let Some(file) = file else { return vec![new_head(uid)] };
    let head = Head { next: 1, files: 1, rows: file.rows, bytes: file.bytes, ..Head::default() };
    let row = FileRow { name: file.name, rows: file.rows, bytes: file.bytes };
    vec![Write::insert(head_key(uid), &head), Write::insert(file_key(uid, 0), &row)]
}
