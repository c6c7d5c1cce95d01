//! The extended query protocol: Parse, Bind, Describe, Execute.
//!
//! `$1` is a parameter only where a Bind brings a value for it; else it is the engine's, a column of
//! a staged file.

use std::sync::Arc;

use super::connection::{Connection, Fault};
use super::lex::{bare, parameters, plain_strings};
use super::query::{Cursor, fields_of, has_rows};
use super::settings::{Local, recognise};
use super::value::{TEXT, field, format_of, parameter};
use super::wire::{Bind, Field, Frontend, Report};

/// Most prepared statements of a connection.
const STATEMENTS_MAX: usize = 1_024;
/// Most open portals of a connection.
const PORTALS_MAX: usize = 64;

/// A statement of a Parse.
pub(super) struct Prepared {
    sql: String,
    types: Vec<u32>,
    /// What a Describe has told: later executions keep to it. `Some(None)` is no rows.
    told: Option<Option<Arc<[Field]>>>,
}

/// A statement with its values.
pub(super) struct Portal {
    statement: Arc<Prepared>,
    values: Vec<Option<String>>,
    formats: Vec<i16>,
    told: Option<Option<Arc<[Field]>>>,
    cursor: Option<Cursor>,
    done: bool,
}

impl Connection {
    /// Serves one message of the extended protocol; an error skips the rest up to Sync.
    pub(super) async fn extended(&mut self, message: Frontend) -> Result<(), Fault> {
        if let Some(waiting) = self.describing.take() {
            match &message {
                Frontend::Execute { portal, .. } if *portal == waiting => {
                    self.describing = Some(waiting);
                }
                _ => self.describe_portal(&waiting).await?,
            }
        }
        match message {
            Frontend::Parse { statement, sql, types } => self.parse(statement, sql, types),
            Frontend::Bind(bind) => self.bind(bind),
            Frontend::Describe { portal: true, name } => {
                self.portal(&name)?;
                self.describing = Some(name);
                Ok(())
            }
            Frontend::Describe { portal: false, name } => self.describe_statement(&name).await,
            Frontend::Execute { portal, rows_max } => self.execute(portal, rows_max).await,
            Frontend::Close { portal, name } => {
                if portal {
                    self.portals.remove(&name);
                } else {
                    self.statements.remove(&name);
                }
                self.out.bare(b'3');
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn parse(&mut self, name: String, sql: String, types: Vec<u32>) -> Result<(), Fault> {
        let statements = self.entered.server.sessions.split(&sql)?;
        let mut statements = statements.into_iter().filter(|one| !bare(one).is_empty());
        let sql = statements.next().unwrap_or_default();
        if statements.next().is_some() {
            let text = "cannot insert multiple commands into a prepared statement";
            return Err(Report::new("42601", text).into());
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            let text = format!("prepared statement \"{name}\" already exists");
            return Err(Report::new("42P05", text).into());
        }
        if self.statements.len() >= STATEMENTS_MAX && !name.is_empty() {
            let text = format!("more than {STATEMENTS_MAX} prepared statements");
            return Err(Report::new("53400", text).into());
        }
        let sql = plain_strings(&sql).into_owned();
        self.statements.insert(name, Arc::new(Prepared { sql, types, told: None }));
        self.out.bare(b'1');
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Fault> {
        let Some(statement) = self.statements.get(&bind.statement).map(Arc::clone) else {
            return Err(no_statement(&bind.statement).into());
        };
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            let text = format!("cursor \"{}\" already exists", bind.portal);
            return Err(Report::new("42P03", text).into());
        }
        if self.portals.len() >= PORTALS_MAX && !bind.portal.is_empty() {
            return Err(Report::new("53400", format!("more than {PORTALS_MAX} cursors")).into());
        }
        let mut values = Vec::with_capacity(bind.values.len());
        for (index, value) in bind.values.into_iter().enumerate() {
            let oid = statement.types.get(index).copied().unwrap_or_default();
            let format = format_of(&bind.formats, index)?;
            values.push(value.map(|value| parameter(oid, format, value)).transpose()?);
        }
        let told = match &statement.told {
            Some(Some(fields)) => Some(Some(with_formats(fields, &bind.results)?)),
            told => told.clone(),
        };
        let formats = bind.results;
        let portal = Portal { statement, values, formats, told, cursor: None, done: false };
        self.portals.insert(bind.portal, portal);
        self.out.bare(b'2');
        Ok(())
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Fault> {
        let Some(statement) = self.statements.get(name).map(Arc::clone) else {
            return Err(no_statement(name).into());
        };
        let count = statement.types.len().max(parameters(&statement.sql));
        let given = |index: usize| statement.types.get(index).copied().filter(|&oid| oid != 0);
        let types: Vec<u32> = (0..count).map(|index| given(index).unwrap_or(TEXT)).collect();
        let told = match &statement.told {
            Some(told) => told.clone(),
            None => self.columns(&statement.sql).await?,
        };
        self.out.parameter_types(&types);
        self.tell_fields(told.as_ref());
        let sql = statement.sql.clone();
        let prepared = Prepared { sql, types, told: Some(told) };
        self.statements.insert(name.to_owned(), Arc::new(prepared));
        Ok(())
    }

    /// Describes a portal that is not executed at once.
    pub(super) async fn describe_portal(&mut self, name: &str) -> Result<(), Fault> {
        let portal = self.portal(name)?;
        let told = match &portal.told {
            Some(told) => told.clone(),
            None => {
                let (statement, formats) = (Arc::clone(&portal.statement), portal.formats.clone());
                match self.columns(&statement.sql).await? {
                    Some(fields) => Some(with_formats(&fields, &formats)?),
                    None => None,
                }
            }
        };
        self.tell_fields(told.as_ref());
        self.portal(name)?.told = Some(told);
        Ok(())
    }

    /// The columns of a statement that has not run.
    async fn columns(&mut self, sql: &str) -> Result<Option<Arc<[Field]>>, Fault> {
        let columns = match recognise(sql) {
            Some(Local::Show(_) | Local::Version) => {
                let Some(local) = recognise(sql) else { return Ok(None) };
                Some(self.local(local).await?.columns)
            }
            Some(_) => None,
            None if sql.is_empty() => None,
            None => self.session.describe(sql).await?,
        };
        Ok(columns.map(|columns| columns.iter().map(|column| field(column, false)).collect()))
    }

    fn tell_fields(&mut self, told: Option<&Arc<[Field]>>) {
        match told {
            Some(fields) => self.out.fields(fields),
            None => self.out.bare(b'n'),
        }
    }

    async fn execute(&mut self, name: String, rows_max: usize) -> Result<(), Fault> {
        let describing = self.describing.take().is_some();
        let rows_max = if rows_max == 0 { usize::MAX } else { rows_max };
        // Taken out while it runs: an error leaves no half-read portal behind.
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        if portal.statement.sql.is_empty() {
            if describing {
                self.tell_fields(None);
            }
            self.out.bare(b'I');
            self.portals.insert(name, portal);
            return Ok(());
        }
        if portal.done {
            let text = format!("portal \"{name}\" cannot be run");
            return Err(Report::new("55000", text).into());
        }
        if portal.cursor.is_none() {
            portal.cursor = Some(self.begin(&mut portal, describing).await?);
        } else if describing {
            self.tell_fields(portal.told.clone().flatten().as_ref());
        }
        if let Some(cursor) = &mut portal.cursor
            && self.send(cursor, rows_max).await?
        {
            portal.done = true;
            portal.cursor = None;
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    /// Runs a portal's statement, and tells its columns if they were asked for just before.
    async fn begin(&mut self, portal: &mut Portal, describing: bool) -> Result<Cursor, Fault> {
        let statement = Arc::clone(&portal.statement);
        let answer = match recognise(&statement.sql) {
            Some(local) => self.local(local).await?,
            None => self.run(&statement.sql, &portal.values).await?,
        };
        let fields = match &portal.told {
            Some(Some(told)) if told.len() == answer.columns.len() || !has_rows(&answer) => {
                Arc::clone(told)
            }
            Some(_) if has_rows(&answer) => {
                let text = "the columns of this statement are known only after it has run, and the \
                            client was told otherwise: use the simple query protocol";
                return Err(Report::new("0A000", text).into());
            }
            _ => fields_of(&answer, &portal.formats)?,
        };
        if describing {
            let told = has_rows(&answer).then(|| Arc::clone(&fields));
            self.tell_fields(told.as_ref());
            portal.told = Some(told);
        }
        Ok(Cursor::new(answer, fields))
    }

    fn portal(&mut self, name: &str) -> Result<&mut Portal, Report> {
        self.portals.get_mut(name).ok_or_else(|| no_portal(name))
    }
}

fn with_formats(fields: &[Field], formats: &[i16]) -> Result<Arc<[Field]>, Report> {
    let each = fields.iter().enumerate();
    each.map(|(index, field)| Ok(Field { format: format_of(formats, index)?, ..field.clone() }))
        .collect()
}

fn no_statement(name: &str) -> Report {
    Report::new("26000", format!("prepared statement \"{name}\" does not exist"))
}

fn no_portal(name: &str) -> Report {
    Report::new("34000", format!("portal \"{name}\" does not exist"))
}
