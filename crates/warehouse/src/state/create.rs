//! `CREATE TABLE … FROM SOURCE …`, and what cannot be done to such a table.

use std::collections::BTreeSet;

use hydrant_core::capture::{CapturedTable, Envelope, PgTable, SnapshotMode, SourceReport};
use hydrant_core::control::Write;

use super::schema::HIDDEN;
use super::{Followed, State, columns};
use crate::catalog::{ObjectName, Table, shown};
use crate::engine::Engine;
use crate::error::{SqlResult, internal, no_such, syntax as invalid, unsupported};
use crate::sql::ast::{Create, Name};
use crate::table::{Head, head_key};

/// The statement.
#[derive(Debug)]
pub(crate) struct CreateStateTable {
    pub(crate) name: Name,
    pub(crate) create: Create,
    /// The source's name, and whether it was written in quotes.
    pub(crate) source: (String, bool),
    /// REFERENCE, as PostgreSQL spells it.
    pub(crate) reference: PgTable,
    /// TEXT COLUMNS, as PostgreSQL spells them.
    pub(crate) text: Vec<String>,
    /// EXCLUDE COLUMNS, likewise.
    pub(crate) exclude: Vec<String>,
    pub(crate) comment: String,
}

/// Refuses a statement that would change a current-state table.
pub(crate) fn refuse(table: &Table, statement: &str) -> SqlResult<()> {
    match &table.follows {
        None => Ok(()),
        Some(followed) => Err(unsupported(format!(
            "{statement} of table {}, which is the current state of {} from source {}; change it in \
             PostgreSQL",
            shown(&table.name),
            followed.table,
            followed.source
        ))),
    }
}

impl Engine {
    /// Creates a current-state table. False if it was there and may stay; with true comes the table it
    /// replaced, if any.
    pub(crate) async fn create_state_table(
        &self,
        name: &ObjectName,
        statement: CreateStateTable,
        owner: String,
    ) -> SqlResult<(bool, Option<Table>)> {
        let Some(follow) = &self.following.follow else {
            return Err(unsupported("CREATE TABLE … FROM SOURCE without change data capture"));
        };
        let reports = follow.capture.sources().await.map_err(internal)?;
        let (source, is_quoted) = &statement.source;
        let same = |name: &str| match is_quoted {
            true => name == source,
            false => name.eq_ignore_ascii_case(source),
        };
        let exact = reports.iter().find(|r| r.settings.name == *source);
        let report = exact.or_else(|| reports.iter().find(|r| same(&r.settings.name)));
        let report = report.ok_or_else(|| no_such("Source", source))?;
        let captured = captured(report, &statement.reference)?;
        let followed = Followed {
            source: report.settings.name.clone(),
            source_created: report.created,
            table: statement.reference,
            text: statement.text,
            exclude: statement.exclude,
        };
        check(captured, &followed)?;
        let row = Table {
            name: name.name.clone(),
            uid: self.catalog.uid(),
            created: self.clock.now(),
            owner,
            columns: columns::define(&columns::taken(captured, &followed), &followed),
            comment: statement.comment,
            follows: Some(followed),
        };
        let state = Some(Box::new(State::default()));
        let head = Write::insert(head_key(&row.uid), &Head { state, ..Head::default() });
        let made = self.catalog.create(name, &row, statement.create, vec![head]).await?;
        self.following.bell.ring();
        Ok(made)
    }
}

/// The table of the source, if a table here can be like it.
fn captured<'a>(report: &'a SourceReport, reference: &PgTable) -> SqlResult<&'a CapturedTable> {
    let settings = &report.settings;
    let source = &settings.name;
    if settings.envelope != Envelope::Debezium {
        return Err(unsupported(format!(
            "CREATE TABLE … FROM SOURCE {source}, which has ENVELOPE 'dms'; a source with ENVELOPE \
             'debezium' is needed"
        )));
    }
    if settings.snapshot != SnapshotMode::Initial {
        return Err(unsupported(format!(
            "CREATE TABLE … FROM SOURCE {source}, which has SNAPSHOT 'never': the rows from before it \
             are not in the stream. A source with SNAPSHOT 'initial' is needed"
        )));
    }
    let found = report.tables.iter().find(|t| t.table == *reference);
    let captured = found.ok_or_else(|| {
        let all: Vec<String> = report.tables.iter().map(|t| t.table.to_string()).collect();
        let all = if all.is_empty() { "none yet".to_owned() } else { all.join(", ") };
        invalid(format_args!(
            "table '{reference}' is not captured by source {source}; it has {all}"
        ))
    })?;
    let keyed = captured.columns.iter().any(|c| c.key.is_some());
    match (captured.identity, keyed) {
        ('i', _) => Err(invalid(format_args!(
            "table '{reference}' has REPLICA IDENTITY USING INDEX, by which its rows cannot be told \
             apart here; run ALTER TABLE {reference} REPLICA IDENTITY {} in PostgreSQL",
            if keyed { "DEFAULT" } else { "FULL" }
        ))),
        ('d' | 'n', false) => Err(invalid(format_args!(
            "table '{reference}' has no primary key; run ALTER TABLE {reference} REPLICA IDENTITY FULL \
             in PostgreSQL, so that its updates and deletes tell the row"
        ))),
        _ => Ok(captured),
    }
}

fn check(captured: &CapturedTable, followed: &Followed) -> SqlResult<()> {
    let table = &followed.table;
    for column in followed.text.iter().chain(&followed.exclude) {
        let Some(found) = captured.columns.iter().find(|c| c.name == *column) else {
            return Err(invalid(format_args!("table '{table}' has no column '{column}'")));
        };
        if found.key.is_some() && followed.exclude.contains(column) {
            return Err(invalid(format_args!(
                "column '{column}' of '{table}' is part of the primary key and cannot be excluded"
            )));
        }
    }
    let taken = columns::taken(captured, followed);
    if taken.is_empty() {
        return Err(invalid(format_args!("table '{table}' has no column")));
    }
    let mut names = BTreeSet::new();
    for column in &taken {
        if HIDDEN.contains(&column.name.as_str())
            || HIDDEN.contains(&columns::name(&column.name).as_str())
        {
            return Err(invalid(format_args!(
                "column '{}' has a name that is kept for hydrant; use EXCLUDE COLUMNS",
                column.name
            )));
        }
        if !names.insert(columns::name(&column.name)) {
            return Err(invalid(format_args!(
                "two columns of '{table}' would be called {}; use EXCLUDE COLUMNS",
                columns::name(&column.name)
            )));
        }
    }
    Ok(())
}
