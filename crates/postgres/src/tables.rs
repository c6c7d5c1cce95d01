//! The tables of a source: their columns, keys and types as the stream and a snapshot have them.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_core::capture::{
    CapturedTable, Failure, PgColumn, PgTable, SOURCE_TABLES_MAX, SourceSettings, TableState,
};

use super::error::During;
use super::publications::{self, Relation};
use super::wire::Row;
use super::{Server, ServerError};

/// Tables whose columns are asked for at once.
const TABLES_PER_QUESTION: usize = 100;
/// Most columns that all tables of a source have together.
const COLUMNS_MAX: usize = 250_000;
/// Most tables that a warning names.
const NAMED_MAX: usize = 10;

/// What a source captures.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Its tables, by schema and name.
    pub tables: Vec<PublishedTable>,
    /// Tables that it lists and that no publication has.
    pub missing: Vec<PgTable>,
    /// Every type of their columns, and the types behind them.
    pub types: BTreeMap<u32, PgType>,
    /// What works otherwise than somebody may expect, in words that say what to do.
    pub warnings: Vec<String>,
}

/// A table, and what reading its rows takes.
#[derive(Clone, Debug)]
pub struct PublishedTable {
    /// As the source keeps it: pending, in its first version.
    pub captured: CapturedTable,
    /// By which rows of the server's catalog it is published.
    pub memberships: Vec<u32>,
    /// All of its columns.
    pub catalog: TableColumns,
    pub(super) heaps: Vec<Heap>,
    /// Which rows are published: one of these conditions holds. Empty if all of them are.
    pub(super) filters: Vec<String>,
    /// Published columns that the role may not read.
    pub(super) unreadable: Vec<String>,
    pub(super) schema_usable: bool,
    pub(super) row_security: bool,
    pub(super) publications: Vec<String>,
    pub(super) partitioned: bool,
}

/// A table's columns as its catalog has them, published or not.
#[derive(Clone, Debug, Default)]
pub struct TableColumns {
    /// Its columns, with [`PgColumn::missing`] as PostgreSQL writes it.
    pub columns: Vec<PgColumn>,
    /// Names of those that have a default, or are generated.
    pub defaults: Vec<String>,
    /// `pg_class.relfilenode`; 0 if the table has no file of its own.
    pub filenode: u32,
}

/// Where rows of a table are: the table itself, or a leaf of a partitioned one.
#[derive(Clone, Debug)]
pub(super) struct Heap {
    pub(super) oid: u32,
    pub(super) table: PgTable,
    /// Whether it can be read on its own, cut by `ctid`.
    pub(super) direct: bool,
    /// Of another server: it publishes no changes.
    pub(super) foreign: bool,
    pub(super) identity: char,
    /// Whether an UPDATE or DELETE can say which row it means.
    pub(super) identified: bool,
}

/// What a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// One of its own, arrays too.
    Base,
    /// A row.
    Composite,
    /// Labels.
    Enum,
    /// A range.
    Range,
    /// Several ranges.
    Multirange,
    /// No type of a column.
    Pseudo,
}

/// A type, seen through domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgType {
    /// Its OID.
    pub oid: u32,
    /// What it is, or what the domain is made of.
    pub kind: TypeKind,
    /// The type itself, or the one that the domain is made of.
    pub base: u32,
    /// Type of the elements, seen through domains, if it is an array.
    pub element: Option<u32>,
}

/// The tables of the publications that a source takes. Fails with [`Failure::Other`] when there are
/// more than [`SOURCE_TABLES_MAX`], or too many columns.
pub async fn published(
    server: &mut Server,
    settings: &SourceSettings,
) -> Result<Published, ServerError> {
    let mut relations = publications::relations(server, &settings.publications).await?;
    let mut missing = Vec::new();
    if let Some(listed) = &settings.tables {
        let wanted: BTreeSet<&PgTable> = listed.iter().map(|listed| &listed.table).collect();
        relations.retain(|relation| wanted.contains(&relation.table));
        let there = |table: &PgTable| relations.iter().any(|relation| relation.table == *table);
        missing = wanted.into_iter().filter(|table| !there(table)).cloned().collect();
    }
    let left_out: BTreeSet<&PgTable> = settings.left_out.iter().collect();
    relations.retain(|relation| !left_out.contains(&relation.table));
    if relations.len() > SOURCE_TABLES_MAX {
        let text = format!(
            "the publications have {} tables, a source takes {SOURCE_TABLES_MAX}: list the tables",
            relations.len()
        );
        return Err(ServerError::failed(Failure::Other, text));
    }
    let mut found = Published { missing, ..Published::default() };
    let mut held = 0;
    for batch in relations.chunks(TABLES_PER_QUESTION) {
        let oids: Vec<u32> = batch.iter().map(|relation| relation.oid).collect();
        let mut columns = columns(server, &oids).await?;
        held += columns.values().map(Vec::len).sum::<usize>();
        if held > COLUMNS_MAX {
            let text = format!(
                "the tables have more than {COLUMNS_MAX} columns together: list fewer tables"
            );
            return Err(ServerError::failed(Failure::Other, text));
        }
        let mut heaps = heaps(server, &oids).await?;
        for relation in batch {
            let columns = columns.remove(&relation.oid).unwrap_or_default();
            let heaps = heaps.remove(&relation.oid).unwrap_or_default();
            found.tables.push(table(relation, columns, heaps));
        }
    }
    let oids: BTreeSet<u32> = found
        .tables
        .iter()
        .flat_map(|table| table.captured.columns.iter().map(|column| column.type_oid))
        .collect();
    found.types = types(server, &oids.into_iter().collect::<Vec<_>>()).await?;
    found.warnings = warnings(&found);
    Ok(found)
}

/// A column with what is asked about it besides.
struct Asked {
    number: i16,
    column: PgColumn,
    generated: bool,
    readable: bool,
    has_default: bool,
    filenode: u32,
}

async fn columns(
    server: &mut Server,
    tables: &[u32],
) -> Result<BTreeMap<u32, Vec<Asked>>, ServerError> {
    let sql = format!(
        "SELECT a.attrelid, a.attnum, a.attname, a.atttypid, \
           pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypmod, a.attnotnull, \
           (SELECT k.place FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place) \
             WHERE k.number = a.attnum AND k.place <= i.indnkeyatts), \
           a.attgenerated <> '', \
           pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'), \
           a.atthasdef, c.relfilenode, \
           CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] \
             WHEN c.relkind = 'p' THEN (SELECT (l.attmissingval::text::text[])[1] \
               FROM pg_catalog.pg_partition_tree(c.oid) t \
               JOIN pg_catalog.pg_attribute l ON l.attrelid = t.relid AND l.attname = a.attname \
               WHERE l.atthasmissing LIMIT 1) END \
         FROM pg_catalog.pg_attribute a \
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
         WHERE a.attrelid = ANY ({}) AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY a.attrelid, a.attnum",
        oid_array(tables)
    );
    let mut found: BTreeMap<u32, Vec<Asked>> = BTreeMap::new();
    for row in server.ask(&sql, During::Query).await? {
        found.entry(row.need(0)?).or_default().push(asked(&row)?);
    }
    Ok(found)
}

fn asked(row: &Row) -> Result<Asked, ServerError> {
    Ok(Asked {
        number: row.need(1)?,
        column: PgColumn {
            name: row.string(2),
            type_oid: row.need(3)?,
            type_name: row.string(4),
            type_modifier: row.need(5)?,
            key: row.parsed(7),
            nullable: !row.is(6),
            attnum: row.parsed(1),
            missing: row.text(12).map(str::to_owned),
            rewritten: false,
        },
        generated: row.is(8),
        readable: row.is(9),
        has_default: row.is(10),
        filenode: row.need(11)?,
    })
}

/// The heaps by table, and about the table itself what its heaps are asked too.
async fn heaps(
    server: &mut Server,
    tables: &[u32],
) -> Result<BTreeMap<u32, Vec<(Heap, bool, bool)>>, ServerError> {
    let sql = format!(
        "SELECT r.oid, c.oid, n.nspname, c.relname, c.relkind, c.relreplident, \
           pg_catalog.has_table_privilege(c.oid, 'SELECT') \
             AND NOT pg_catalog.row_security_active(c.oid) AND coalesce(m.amname, '') = 'heap' \
             AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'), \
           EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid \
             AND CASE c.relreplident WHEN 'i' THEN i.indisreplident \
               WHEN 'd' THEN i.indisprimary ELSE false END), \
           pg_catalog.has_schema_privilege(root.relnamespace, 'USAGE'), \
           pg_catalog.row_security_active(root.oid) \
         FROM unnest({}) r(oid) \
         JOIN pg_catalog.pg_class root ON root.oid = r.oid \
         CROSS JOIN LATERAL (SELECT r.oid AS oid WHERE root.relkind <> 'p' UNION ALL \
           SELECT t.relid FROM pg_catalog.pg_partition_tree(r.oid) t \
             WHERE root.relkind = 'p' AND t.isleaf) leaf \
         JOIN pg_catalog.pg_class c ON c.oid = leaf.oid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam \
         ORDER BY r.oid, n.nspname, c.relname",
        oid_array(tables)
    );
    let mut found: BTreeMap<u32, Vec<(Heap, bool, bool)>> = BTreeMap::new();
    for row in server.ask(&sql, During::Query).await? {
        let kind: char = row.need(4)?;
        let identity: char = row.need(5)?;
        let heap = Heap {
            oid: row.need(1)?,
            table: PgTable { schema: row.string(2), table: row.string(3) },
            direct: row.is(6),
            foreign: kind == 'f',
            identity,
            identified: identity == 'f' || row.is(7),
        };
        // An empty partitioned table is its own tree's only leaf, and has no rows to read.
        if kind != 'p' {
            found.entry(row.need(0)?).or_default().push((heap, row.is(8), row.is(9)));
        }
    }
    Ok(found)
}

fn table(
    relation: &Relation,
    columns: Vec<Asked>,
    heaps: Vec<(Heap, bool, bool)>,
) -> PublishedTable {
    let is_published = |asked: &Asked| match &relation.columns {
        Some(numbers) => numbers.binary_search(&asked.number).is_ok(),
        None => !asked.generated,
    };
    let catalog = catalog_of(&columns);
    let (taken, left): (Vec<Asked>, Vec<Asked>) = columns.into_iter().partition(is_published);
    let key_cut = left.iter().any(|asked| asked.column.key.is_some());
    let unreadable = taken.iter().filter(|asked| !asked.readable);
    let unreadable = unreadable.map(|asked| asked.column.name.clone()).collect();
    let mut columns: Vec<PgColumn> = taken.into_iter().map(|asked| asked.column).collect();
    // Every row of a snapshot says what it has.
    columns.iter_mut().for_each(|column| column.missing = None);
    if key_cut {
        // Part of a key tells no row from another.
        columns.iter_mut().for_each(|column| column.key = None);
    }
    let identities: BTreeSet<char> = heaps.iter().map(|(heap, ..)| heap.identity).collect();
    let identity = match identities.len() {
        1 => identities.first().copied().unwrap_or(relation.identity),
        _ => relation.identity,
    };
    PublishedTable {
        captured: CapturedTable {
            table: relation.table.clone(),
            oid: relation.oid,
            identity,
            columns,
            seen: false,
            dropped: Vec::new(),
            filenode: catalog.filenode,
            version: 1,
            state: TableState::Pending,
            reason: None,
            snapshot_rows: 0,
            snapshot_rows_estimated: (relation.tuples >= 0.0).then_some(relation.tuples as u64),
        },
        memberships: relation.memberships.clone(),
        catalog,
        schema_usable: heaps.iter().all(|(_, usable, _)| *usable),
        row_security: heaps.iter().any(|(.., active)| *active),
        heaps: heaps.into_iter().map(|(heap, ..)| heap).collect(),
        filters: relation.filters.clone(),
        unreadable,
        publications: relation.publications.clone(),
        partitioned: relation.kind == 'p',
    }
}

fn warnings(found: &Published) -> Vec<String> {
    let mut warnings = Vec::new();
    if !found.missing.is_empty() {
        let missing = names(found.missing.iter());
        warnings.push(format!(
            "no publication of the source has {missing}: ALTER PUBLICATION … ADD TABLE …"
        ));
    }
    let foreign = found.tables.iter().flat_map(|table| &table.heaps).filter(|heap| heap.foreign);
    let foreign: Vec<&PgTable> = foreign.map(|heap| &heap.table).collect();
    if !foreign.is_empty() {
        warnings.push(format!(
            "{} is a foreign table: PostgreSQL publishes none of its changes, and its rows are left \
             out",
            names(foreign.into_iter())
        ));
    }
    warnings
}

/// A list of tables for a person, not longer than one can read.
pub(super) fn names<'a>(tables: impl ExactSizeIterator<Item = &'a PgTable>) -> String {
    let more = tables.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = tables.take(NAMED_MAX).map(ToString::to_string).collect();
    match more {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The columns of a table's primary key, in the key's order; none if it has no key.
pub async fn primary_key(server: &mut Server, table: u32) -> Result<Vec<String>, ServerError> {
    let columns = columns(server, &[table]).await?.remove(&table).unwrap_or_default();
    let keyed =
        columns.into_iter().filter_map(|asked| Some((asked.column.key?, asked.column.name)));
    let key: BTreeMap<u16, String> = keyed.collect();
    Ok(key.into_values().collect())
}

/// The columns of a table as its catalog has them now; none if it is gone.
pub async fn table_columns(server: &mut Server, table: u32) -> Result<TableColumns, ServerError> {
    let columns = columns(server, &[table]).await?.remove(&table).unwrap_or_default();
    Ok(catalog_of(&columns))
}

fn catalog_of(columns: &[Asked]) -> TableColumns {
    let defaults = columns.iter().filter(|asked| asked.has_default);
    TableColumns {
        columns: columns.iter().map(|asked| asked.column.clone()).collect(),
        defaults: defaults.map(|asked| asked.column.name.clone()).collect(),
        filenode: columns.first().map_or(0, |asked| asked.filenode),
    }
}

/// These types and those behind them: what a domain is made of, the elements of an array.
pub async fn types(
    server: &mut Server,
    oids: &[u32],
) -> Result<BTreeMap<u32, PgType>, ServerError> {
    let sql = format!(
        "WITH RECURSIVE behind(oid) AS (SELECT unnest({}) UNION \
           SELECT v.oid FROM behind b JOIN pg_catalog.pg_type t ON t.oid = b.oid \
           CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) v(oid) WHERE v.oid <> 0) \
         SELECT t.oid, t.typtype, t.typbasetype, \
           (SELECT e.oid FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) \
         FROM behind b JOIN pg_catalog.pg_type t ON t.oid = b.oid",
        oid_array(oids)
    );
    let mut rows: BTreeMap<u32, (char, u32, Option<u32>)> = BTreeMap::new();
    for row in server.ask(&sql, During::Query).await? {
        rows.insert(row.need(0)?, (row.need(1)?, row.need(2)?, row.parsed(3)));
    }
    Ok(rows.keys().map(|oid| (*oid, seen_through(*oid, &rows))).collect())
}

fn seen_through(oid: u32, rows: &BTreeMap<u32, (char, u32, Option<u32>)>) -> PgType {
    let base = |mut oid: u32| {
        // A domain of domains ends, or the server would not have made it.
        for _ in 0..rows.len() {
            match rows.get(&oid) {
                Some(('d', behind, _)) => oid = *behind,
                _ => break,
            }
        }
        oid
    };
    let base_oid = base(oid);
    let (kind, element) = match rows.get(&base_oid) {
        Some((kind, _, element)) => (*kind, element.map(base)),
        None => ('b', None),
    };
    let kind = match kind {
        'c' => TypeKind::Composite,
        'e' => TypeKind::Enum,
        'r' => TypeKind::Range,
        'm' => TypeKind::Multirange,
        'p' => TypeKind::Pseudo,
        _ => TypeKind::Base,
    };
    PgType { oid, kind, base: base_oid, element }
}

fn oid_array(oids: &[u32]) -> String {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    format!("'{{{}}}'::oid[]", oids.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_arrays_are_seen_through() {
        // A domain (100) over an array (101) of a domain (102) over an enum (103).
        let rows = BTreeMap::from([
            (100, ('d', 101, None)),
            (101, ('b', 0, Some(102))),
            (102, ('d', 103, None)),
            (103, ('e', 0, None)),
        ]);
        let kind = TypeKind::Base;
        assert_eq!(
            seen_through(100, &rows),
            PgType { oid: 100, kind, base: 101, element: Some(103) }
        );
        let kind = TypeKind::Enum;
        assert_eq!(seen_through(102, &rows), PgType { oid: 102, kind, base: 103, element: None });
    }
}
