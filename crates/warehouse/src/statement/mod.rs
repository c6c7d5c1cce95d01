//! One connection's session: takes a statement, does it, answers.

mod ddl;
mod dml;
mod select;

use std::sync::Arc;

use async_trait::async_trait;

use crate::answer;
use crate::capture;
use crate::catalog::{Names, PUBLIC};
use crate::engine::Engine;
use crate::error::{CONFLICT, SqlResult, error, no_such, unsupported};
use crate::session::{Answer, Column, Session, SqlError};
use crate::show;
use crate::sql::ast::{Kind, SessionStatement, Statement};
use crate::sql::front::{self, Parsed};
use crate::sql::options::fold;

/// Parameters that drivers set and that change nothing hydrant does differently anyway.
const HARMLESS_PARAMETERS: &[&str] = &[
    "QUERY_TAG",
    "AUTOCOMMIT",
    "CLIENT_SESSION_KEEP_ALIVE",
    "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY",
    "CLIENT_TELEMETRY_ENABLED",
    "CLIENT_PREFETCH_THREADS",
    "CLIENT_METADATA_REQUEST_USE_CONNECTION_CTX",
    "GO_QUERY_RESULT_FORMAT",
    "JDBC_QUERY_RESULT_FORMAT",
    "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT",
    "PYTHON_CONNECTOR_USE_NANOARROW",
];

/// How often DDL that somebody else came before is tried again.
const DDL_TRIES_MAX: usize = 20;

/// A session.
pub(crate) struct SqlSession {
    engine: Arc<Engine>,
    user: String,
    names: Names,
}

impl SqlSession {
    /// Names as a client gives them fold like names in a statement.
    pub(crate) fn new(engine: Arc<Engine>, user: &str, names: Names) -> Self {
        let folded = |name: Option<String>| name.filter(|n| !n.is_empty()).map(|n| fold(&n));
        let database = folded(names.database);
        let schema = folded(names.schema).or_else(|| database.as_ref().map(|_| PUBLIC.to_owned()));
        let names = Names {
            database,
            schema,
            warehouse: folded(names.warehouse),
            role: folded(names.role).or_else(|| Some("SYSADMIN".to_owned())),
        };
        Self { engine, user: user.to_owned(), names }
    }

    /// Who owns what is created: the role, as in Snowflake.
    fn owner(&self) -> String {
        self.names.role.clone().unwrap_or_else(|| "SYSADMIN".to_owned())
    }

    async fn run(&mut self, parsed: Parsed) -> SqlResult<Answer> {
        let Parsed { statement, prepared } = parsed;
        match statement {
            Statement::Query(query) => Box::pin(self.select(*query, &prepared)).await,
            Statement::Insert(insert) => Box::pin(self.insert(*insert, &prepared)).await,
            Statement::Copy(copy) => Box::pin(self.copy(*copy, &prepared)).await,
            Statement::List { location, pattern } => {
                self.engine.list(&location, pattern.as_deref(), &self.names).await
            }
            Statement::Show(show) => self.engine.show(&show, &self.names).await,
            Statement::Describe { kind, name } => {
                self.engine.describe(kind, &name, &self.names).await
            }
            Statement::CreateDatabase { name, create, comment } => {
                self.create_database(&name, create, comment).await
            }
            Statement::CreateSchema { name, create, comment } => {
                self.create_schema(&name, create, comment).await
            }
            Statement::CreateTable(table) => Box::pin(self.create_table(*table, &prepared)).await,
            Statement::CreateStateTable(table) => Box::pin(self.create_state_table(*table)).await,
            Statement::CreateStage(stage) => self.create_stage(*stage).await,
            Statement::CreateFormat { name, create, format, comment } => {
                self.create_format(&name, create, format, comment).await
            }
            Statement::CreatePipe(pipe) => self.create_pipe(*pipe).await,
            Statement::Drop { kind, name, if_exists } => self.drop(kind, &name, if_exists).await,
            Statement::Truncate { name, if_exists } => self.truncate(&name, if_exists).await,
            Statement::AlterPipe { name, if_exists, what } => {
                self.alter_pipe(&name, if_exists, what).await
            }
            Statement::Capture(statement) => self.engine.run_capture(statement).await,
            Statement::Use { kind, name } => self.use_(kind, &name).await,
            Statement::Session(statement) => self.session(statement),
        }
    }

    async fn use_(&mut self, kind: Kind, name: &[String]) -> SqlResult<Answer> {
        let catalog = &self.engine.catalog;
        match kind {
            Kind::Database => {
                let [database] = name else { return Err(no_such("Database", &name.join("."))) };
                if catalog.database(database).await?.is_none() {
                    return Err(missing(database));
                }
                self.names.database = Some(database.clone());
                self.names.schema = Some(PUBLIC.to_owned());
            }
            Kind::Schema => {
                let (database, schema) = catalog.resolve_schema(name, &self.names, "USE")?;
                if catalog.schema(&database, &schema).await?.is_none() {
                    return Err(missing(&schema));
                }
                self.names.database = Some(database);
                self.names.schema = Some(schema);
            }
            Kind::Warehouse => self.names.warehouse = Some(name.join(".")),
            Kind::Role => self.names.role = Some(name.join(".")),
            other => return Err(unsupported(format!("USE {}", other.noun().to_uppercase()))),
        }
        answer::done("USE", "Statement executed successfully.")
    }

    fn session(&mut self, statement: SessionStatement) -> SqlResult<Answer> {
        match statement {
            SessionStatement::Transaction("ROLLBACK") => answer::done(
                "ROLLBACK",
                "Nothing to roll back: every statement was committed when it ended.",
            ),
            SessionStatement::Transaction(words) => {
                answer::done(words, "Every statement is committed when it ends.")
            }
            SessionStatement::Alter(parameters) => {
                for (name, value) in parameters {
                    let value = value.unwrap_or_default().to_uppercase();
                    let utc = matches!(value.as_str(), "UTC" | "ETC/UTC" | "GMT" | "");
                    let known = match name.as_str() {
                        "TIMEZONE" => utc,
                        "TIMESTAMP_TYPE_MAPPING" => value == "TIMESTAMP_NTZ" || value.is_empty(),
                        "AUTOCOMMIT" => value != "FALSE",
                        other => HARMLESS_PARAMETERS.contains(&other),
                    };
                    if !known {
                        return Err(unsupported(format!("session parameter {name} = {value}")));
                    }
                }
                answer::done("ALTER SESSION", "Statement executed successfully.")
            }
        }
    }
}

fn missing(name: &str) -> SqlError {
    let text = format!(
        "SQL compilation error:\nObject does not exist, or operation cannot be performed: '{name}'."
    );
    error(2043, "02000", text)
}

#[async_trait]
impl Session for SqlSession {
    async fn execute(
        &mut self,
        sql: &str,
        parameters: &[Option<String>],
    ) -> Result<Answer, SqlError> {
        let mut tries = 0;
        loop {
            let parsed = front::parse(sql, parameters)?;
            let again = parsed.statement.is_ddl() && tries < DDL_TRIES_MAX;
            // The statements' futures are large; one place on the heap for all of them.
            match Box::pin(self.run(parsed)).await {
                Err(e) if again && e.code == CONFLICT => tries += 1,
                outcome => return outcome,
            }
        }
    }

    async fn describe(&mut self, sql: &str) -> Result<Option<Vec<Column>>, SqlError> {
        let Parsed { statement, prepared } = front::parse_unbound(sql)?;
        let head = match statement {
            Statement::Query(query) => {
                return Box::pin(self.describe_select(*query, &prepared)).await.map(Some);
            }
            Statement::Show(show) => show::show_head(show.what),
            Statement::Describe { kind, .. } => show::describe_head(kind),
            Statement::Capture(statement) => match capture::head(&statement) {
                Some(head) => head,
                None => return Ok(None),
            },
            Statement::List { .. } => show::LIST,
            Statement::Copy(_) => dml::COPY,
            _ => return Ok(None),
        };
        Ok(Some(answer::table(head, &[])?.0))
    }

    fn names(&self) -> Names {
        self.names.clone()
    }
}
