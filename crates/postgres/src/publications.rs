//! What publications publish: their relations, with the columns and rows of each.

use std::collections::BTreeMap;
use std::str::FromStr;

use hydrant_core::capture::{Failure, PgTable, SOURCE_TABLES_MAX};

use super::error::During;
use super::quote::text_array;
use super::wire::Row;
use super::{Server, ServerError};

/// Most relations that are looked at: with every leaf of every partitioned table.
const RELATIONS_MAX: usize = 4 * SOURCE_TABLES_MAX;

/// A publication.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) name: String,
    /// What it publishes of insert, update, delete and truncate.
    pub(super) operations: [bool; 4],
}

pub(super) const OPERATIONS: [&str; 4] = ["insert", "update", "delete", "truncate"];

/// A relation as the publications together publish it.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) table: PgTable,
    pub(super) kind: char,
    pub(super) identity: char,
    pub(super) tuples: f64,
    /// Numbers of its published columns; `None` where the server means all but the generated ones.
    pub(super) columns: Option<Vec<i16>>,
    /// Which rows are published: one of these holds. Empty if all of them are.
    pub(super) filters: Vec<String>,
    pub(super) ancestors: Vec<u32>,
    /// Names of the publications it is in.
    pub(super) publications: Vec<String>,
    /// Rows of the catalog that put it there.
    pub(super) memberships: Vec<u32>,
}

/// The publications of these names that are there.
pub(super) async fn named(
    server: &mut Server,
    names: &[String],
) -> Result<Vec<Publication>, ServerError> {
    let sql = format!(
        "SELECT pubname, pubinsert, pubupdate, pubdelete, pubtruncate \
         FROM pg_catalog.pg_publication WHERE pubname = ANY ({}) ORDER BY pubname",
        text_array(names)
    );
    let rows = server.ask(&sql, During::Query).await?;
    let read = |row: &Row| Publication {
        name: row.string(0),
        operations: [row.is(1), row.is(2), row.is(3), row.is(4)],
    };
    Ok(rows.iter().map(read).collect())
}

/// Those of the names that no publication has.
pub(super) async fn missing(
    server: &mut Server,
    names: &[String],
) -> Result<Vec<String>, ServerError> {
    let there = named(server, names).await?;
    let gone = names.iter().filter(|name| there.iter().all(|p| p.name != **name));
    Ok(gone.cloned().collect())
}

/// The relations that the publications publish, under the name that the stream gives them: a
/// partitioned table where a publication says `publish_via_partition_root`, else its leaves.
pub(super) async fn relations(
    server: &mut Server,
    names: &[String],
) -> Result<Vec<Relation>, ServerError> {
    // Column lists and row filters came with 15.
    let (alias, parts) = match server.version() {
        ..150_000 => ("g(relid)", "NULL, NULL"),
        _ => ("g", "g.attrs::text, pg_catalog.pg_get_expr(g.qual, g.relid)"),
    };
    let members = members_of(server, "g.relid");
    let sql = format!(
        "SELECT g.relid, n.nspname, c.relname, c.relkind, c.relreplident, c.reltuples, p.pubname, \
           (SELECT string_agg(a::oid::text, ' ') FROM pg_catalog.pg_partition_ancestors(g.relid) a \
             WHERE a <> g.relid), {parts}, \
           (SELECT string_agg(m.oid::text, ' ') FROM ({members}) m(oid)) \
         FROM pg_catalog.pg_publication p \
         CROSS JOIN LATERAL pg_catalog.pg_get_publication_tables(p.pubname) {alias} \
         JOIN pg_catalog.pg_class c ON c.oid = g.relid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE p.pubname = ANY ({}) ORDER BY n.nspname, c.relname, p.pubname LIMIT {}",
        text_array(names),
        RELATIONS_MAX + 1
    );
    let rows = server.ask(&sql, During::Query).await?;
    if rows.len() > RELATIONS_MAX {
        let text = format!(
            "the publications have more than {RELATIONS_MAX} tables and partitions: publish fewer, \
             or WITH (publish_via_partition_root)"
        );
        return Err(ServerError::failed(Failure::Other, text));
    }
    let mut found: BTreeMap<u32, Relation> = BTreeMap::new();
    for row in &rows {
        let relation = relation(row)?;
        match found.get_mut(&relation.oid) {
            None => drop(found.insert(relation.oid, relation)),
            Some(there) => join(there, relation)?,
        }
    }
    let roots: Vec<u32> = found.keys().copied().collect();
    // A leaf whose root is published too arrives as the root.
    found.retain(|_, it| it.ancestors.iter().all(|root| roots.binary_search(root).is_err()));
    let mut found: Vec<Relation> = found.into_values().collect();
    found.sort_by(|a, b| a.table.cmp(&b.table));
    Ok(found)
}

/// Selects the rows of the catalog by which the publication `p` has a relation: itself or what it is a
/// partition of, its schema, or all tables.
fn members_of(server: &Server, relid: &str) -> String {
    let line = format!(
        "(SELECT l.oid FROM pg_catalog.pg_class l WHERE l.oid = {relid} OR l.oid IN \
           (SELECT a::oid FROM pg_catalog.pg_partition_ancestors({relid}) a))"
    );
    let schemas = match server.version() {
        ..150_000 => String::new(),
        _ => format!(
            " UNION ALL SELECT DISTINCT s.oid FROM pg_catalog.pg_publication_namespace s \
               JOIN pg_catalog.pg_class l ON l.relnamespace = s.pnnspid \
             WHERE s.pnpubid = p.oid AND l.oid IN {line}"
        ),
    };
    format!(
        "SELECT r.oid FROM pg_catalog.pg_publication_rel r \
         WHERE r.prpubid = p.oid AND r.prrelid IN {line}{schemas} \
         UNION ALL SELECT p.oid WHERE p.puballtables"
    )
}

/// The rows of the catalog by which the publications have a table; empty if they do not have it. A
/// table that is taken out of a publication and put in again has another one.
pub async fn memberships(
    server: &mut Server,
    names: &[String],
    table: u32,
) -> Result<Vec<u32>, ServerError> {
    let members = members_of(server, &format!("{table}::oid"));
    let sql = format!(
        "SELECT DISTINCT m.oid FROM pg_catalog.pg_publication p \
         CROSS JOIN LATERAL ({members}) m(oid) WHERE p.pubname = ANY ({}) ORDER BY 1",
        text_array(names)
    );
    let rows = server.ask(&sql, During::Query).await?;
    rows.iter().map(|row| row.need(0)).collect()
}

/// What is another text as soon as one of the publications was altered: a table or schema was put into
/// it or taken out of it, or it publishes other operations.
pub async fn members(server: &mut Server, names: &[String]) -> Result<String, ServerError> {
    let schemas = match server.version() {
        ..150_000 => "",
        _ => {
            " UNION ALL SELECT s.oid FROM pg_catalog.pg_publication_namespace s \
             WHERE s.pnpubid = p.oid"
        }
    };
    let sql = format!(
        "SELECT string_agg(p.oid || ' ' || p.xmin || ' ' || \
           (SELECT count(m.oid) || ' ' || coalesce(sum(m.oid::int8), 0) FROM \
             (SELECT r.oid FROM pg_catalog.pg_publication_rel r \
               WHERE r.prpubid = p.oid{schemas}) m(oid)), ', ' ORDER BY p.oid) \
         FROM pg_catalog.pg_publication p WHERE p.pubname = ANY ({})",
        text_array(names)
    );
    let rows = server.ask(&sql, During::Query).await?;
    Ok(rows.first().map(|row| row.string(0)).unwrap_or_default())
}

fn numbers_of<T: FromStr>(text: &str) -> Vec<T> {
    text.split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

fn relation(row: &Row) -> Result<Relation, ServerError> {
    let mut columns: Option<Vec<i16>> = row.text(8).map(numbers_of);
    if let Some(columns) = &mut columns {
        columns.sort_unstable();
    }
    Ok(Relation {
        oid: row.need(0)?,
        table: PgTable { schema: row.string(1), table: row.string(2) },
        kind: row.need(3)?,
        identity: row.need(4)?,
        tuples: row.need(5)?,
        columns,
        filters: row.text(9).map(str::to_owned).into_iter().collect(),
        ancestors: row.text(7).map(numbers_of).unwrap_or_default(),
        publications: vec![row.string(6)],
        memberships: row.text(10).map(numbers_of).unwrap_or_default(),
    })
}

/// A table in several publications: rows that any of them publishes, and one list of columns.
fn join(there: &mut Relation, other: Relation) -> Result<(), ServerError> {
    if there.columns != other.columns {
        let text = format!(
            "table {} has another list of columns in publication '{}' than in '{}', which \
             PostgreSQL refuses to stream: make them the same",
            there.table,
            other.publications.join("', '"),
            there.publications.join("', '")
        );
        return Err(ServerError::failed(Failure::Other, text));
    }
    match there.filters.is_empty() || other.filters.is_empty() {
        true => there.filters.clear(),
        false => there.filters.extend(other.filters),
    }
    there.publications.extend(other.publications);
    there.memberships.extend(other.memberships);
    Ok(())
}
