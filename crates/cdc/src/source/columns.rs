//! A table's columns: what the stream tells of them, with what only the catalog knows.
//!
//! The stream tells of a table's columns with its next change, and only their names and types. The
//! catalog tells at once which column is which (`attnum`) and what those that were added are in the
//! rows that were there; but it tells of now, which may be long after the change that is read.

use std::collections::BTreeMap;

use hydrant_core::capture::{CapturedTable, PgColumn};
use hydrant_postgres::TableColumns;

use crate::relation::Relation;
use crate::value::Kind;

/// Most names of dropped columns that are kept: as many columns as a table of PostgreSQL has.
const DROPPED_MAX: usize = 1_600;

/// What is known of a table's columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) columns: Vec<PgColumn>,
    pub(crate) dropped: Vec<String>,
    pub(crate) filenode: u32,
}

impl Columns {
    /// Those of a table, for want of anything newer.
    pub(crate) fn of(table: &CapturedTable) -> Self {
        let CapturedTable { columns, dropped, filenode, .. } = table;
        Self { columns: columns.clone(), dropped: dropped.clone(), filenode: *filenode }
    }

    pub(crate) fn put(self, table: &mut CapturedTable) {
        (table.columns, table.dropped, table.filenode) =
            (self.columns, self.dropped, self.filenode);
    }
}

/// A value as records have it.
fn written(text: &str, type_oid: u32) -> Option<String> {
    let mut out = Vec::new();
    Kind::of(type_oid).write(text.as_bytes(), &mut out).ok()?;
    String::from_utf8(out).ok()
}

/// The columns of a primary key, in its order.
pub(crate) fn keyed(columns: &[PgColumn]) -> Vec<&PgColumn> {
    let keyed = columns.iter().filter_map(|column| Some((column.key?, column)));
    keyed.collect::<BTreeMap<u16, &PgColumn>>().into_values().collect()
}

/// Whether the rows of two states of a table are told apart by the same columns.
pub(crate) fn is_same_key(before: &[PgColumn], now: &[PgColumn]) -> bool {
    let same = |(a, b): (&&PgColumn, &&PgColumn)| match (a.attnum, b.attnum) {
        (Some(a), Some(b)) => a == b,
        _ => a.name == b.name,
    };
    let (before, now) = (keyed(before), keyed(now));
    before.len() == now.len() && before.iter().zip(&now).all(same)
}

/// The column before, if `now` is no new one.
fn before<'a>(known: &'a CapturedTable, now: &PgColumn) -> Option<&'a PgColumn> {
    let by_number = known.columns.iter().find(|c| c.attnum.is_some() && c.attnum == now.attnum);
    let by_name = || {
        let same = |c: &&PgColumn| c.name == now.name;
        known.columns.iter().filter(|c| c.attnum.is_none() || now.attnum.is_none()).find(same)
    };
    by_number.or_else(by_name)
}

/// What a column that is new is in the rows that were there.
fn first_seen(known: &CapturedTable, catalog: &TableColumns, column: &mut PgColumn) {
    let Some(found) = catalog.columns.iter().find(|c| c.attnum == column.attnum) else { return };
    column.missing = found.missing.as_ref().and_then(|text| written(text, column.type_oid));
    let same_file = catalog.filenode != 0 && catalog.filenode == known.filenode;
    // A constant default is told unless the rows were written anew since, others write them anew.
    let has_default = catalog.defaults.contains(&column.name);
    column.rewritten = column.missing.is_none() && has_default && !same_file;
}

/// Which columns of `known` were dropped: those the catalog had and has no more. One that it was not
/// seen to have was dropped if no column is new, so that none can be what it was renamed to.
fn gone<'a>(known: &'a CapturedTable, catalog: &TableColumns) -> Vec<&'a PgColumn> {
    let is_live = |attnum: u16| catalog.columns.iter().any(|c| c.attnum == Some(attnum));
    let is_known = |now: &PgColumn| before(known, now).is_some();
    let all_known = catalog.columns.iter().all(is_known);
    let is_named = |name: &str| catalog.columns.iter().any(|c| c.name == name);
    let is_gone = |c: &&PgColumn| match c.attnum {
        Some(attnum) => !is_live(attnum),
        None => all_known && !is_named(&c.name),
    };
    known.columns.iter().filter(is_gone).collect()
}

/// All names of dropped columns that no column has now.
fn dropped<'a>(
    known: &CapturedTable,
    gone: impl Iterator<Item = &'a PgColumn>,
    columns: &[PgColumn],
) -> Vec<String> {
    let mut names = known.dropped.clone();
    for column in gone.filter(|c| !known.dropped.contains(&c.name)) {
        names.push(column.name.clone());
    }
    names.retain(|name| !columns.iter().any(|c| c.name == *name));
    names.drain(..names.len().saturating_sub(DROPPED_MAX));
    names
}

/// Columns as the stream tells them. The names of their types may be missing.
pub(crate) fn told(relation: &Relation, known: &CapturedTable, catalog: &TableColumns) -> Columns {
    let column = |column: &crate::relation::Column| {
        let found = catalog.columns.iter().find(|found| found.name == column.name);
        let same_name = known.columns.iter().find(|before| before.name == column.name);
        let mut now = PgColumn {
            name: column.name.clone(),
            type_oid: column.type_oid,
            type_name: String::new(),
            type_modifier: column.type_modifier,
            // Renamed or gone since, if the catalog does not have it.
            key: found.map_or_else(|| same_name.and_then(|c| c.key), |found| found.key),
            nullable: found.or(same_name).is_none_or(|c| c.nullable),
            attnum: found.map_or_else(|| same_name.and_then(|c| c.attnum), |found| found.attnum),
            ..PgColumn::default()
        };
        let is_type =
            |c: &&PgColumn| (c.type_oid, c.type_modifier) == (now.type_oid, now.type_modifier);
        let typed = found.filter(is_type).or(same_name.filter(is_type));
        now.type_name = typed.map(|c| c.type_name.clone()).unwrap_or_default();
        match before(known, &now) {
            Some(before) => {
                (now.missing, now.rewritten) = (before.missing.clone(), before.rewritten);
            }
            None => first_seen(known, catalog, &mut now),
        }
        now
    };
    let columns: Vec<PgColumn> = relation.columns.iter().map(column).collect();
    let dropped = dropped(known, gone(known, catalog).into_iter(), &columns);
    Columns { columns, dropped, filenode: catalog.filenode }
}

/// Columns as the catalog has them now, of a table that no change may have told of since. A column
/// that the catalog does not have counts as dropped only if it once had it: a transaction may be in
/// the stream before others see it.
pub(crate) fn seen(
    known: &CapturedTable,
    published: &[PgColumn],
    catalog: &TableColumns,
) -> Columns {
    let gone = gone(known, catalog);
    let now = |c: &PgColumn| published.iter().find(|p| c.attnum.is_some() && p.attnum == c.attnum);
    // One that is published no more is as good as dropped.
    let (kept, gone): (Vec<_>, Vec<_>) = known
        .columns
        .iter()
        .partition(|c| !gone.contains(c) && (c.attnum.is_none() || now(c).is_some()));
    let kept = kept.into_iter().map(|c| {
        let Some(now) = now(c) else { return c.clone() };
        let (missing, rewritten) = (c.missing.clone(), c.rewritten);
        PgColumn { key: c.key, missing, rewritten, ..now.clone() }
    });
    let mut columns: Vec<PgColumn> = kept.collect();
    for new in published.iter().filter(|p| before(known, p).is_none()) {
        let mut new = new.clone();
        first_seen(known, catalog, &mut new);
        columns.push(new);
    }
    let dropped = dropped(known, gone.into_iter(), &columns);
    Columns { columns, dropped, filenode: known.filenode }
}

#[cfg(test)]
mod tests;
