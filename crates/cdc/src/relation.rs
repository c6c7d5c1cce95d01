//! What a captured table looks like, and how that changes.

use std::collections::HashMap;
use std::sync::Arc;

use hydrant_core::capture::{CapturedTable, PgTable};

use crate::pgoutput::{self, Identity};
use crate::value::{BadValue, Kind, string};

/// Most tables of a source that are known at once.
pub const RELATIONS_MAX: usize = 1 << 17;

/// There is no room for another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {RELATIONS_MAX} tables")]
pub struct TooMany;

/// A table, with what is needed to write its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub table: PgTable,
    /// What is told of rows before their change.
    pub identity: Identity,
    /// Its published columns, in order.
    pub columns: Vec<Column>,
    /// Grows with every change of the columns.
    pub version: u64,
    /// `"schema":…,"table":…` of records.
    pub(crate) names: Vec<u8>,
    /// `"schema-name":…,"table-name":…` of records in the DMS form.
    pub(crate) dms_names: Vec<u8>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Type modifier, -1 if there is none.
    pub type_modifier: i32,
    /// Whether it is part of the replica identity; with `FULL` every column is.
    pub identity: bool,
    /// How its values become JSON.
    pub kind: Kind,
    /// `"name":`
    pub(crate) json: Vec<u8>,
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    // A `str` is UTF-8, which is all that can be wrong.
    let _: Result<(), BadValue> = string(text.as_bytes(), &mut out);
    out
}

impl Column {
    fn new(name: &str, type_oid: u32, type_modifier: i32, identity: bool) -> Self {
        let mut json = quoted(name);
        json.push(b':');
        let kind = Kind::of(type_oid);
        Self { name: name.to_owned(), type_oid, type_modifier, identity, kind, json }
    }
}

impl Relation {
    /// A table as the stream tells of it.
    pub fn new(told: &pgoutput::Relation<'_>, version: u64) -> Self {
        let column = |column: &pgoutput::Column<'_>| {
            Column::new(column.name, column.type_oid, column.type_modifier, column.key)
        };
        let table = PgTable { schema: told.schema.to_owned(), table: told.name.to_owned() };
        let columns = told.columns.iter().map(column).collect();
        Self::of(told.oid, table, told.identity, columns, version)
    }

    /// A table as it is stored. Which columns an index identifies rows by is not stored: with
    /// identity `i` no column counts as identity until the stream tells.
    pub fn stored(table: &CapturedTable) -> Self {
        let identity = Identity::of(table.identity).unwrap_or(Identity::Nothing);
        let columns = table.columns.iter().map(|column| {
            let known = match identity {
                Identity::Full => true,
                Identity::Default => column.key.is_some(),
                Identity::Nothing | Identity::Index => false,
            };
            Column::new(&column.name, column.type_oid, column.type_modifier, known)
        });
        let columns = columns.collect();
        Self::of(table.oid, table.table.clone(), identity, columns, table.version)
    }

    fn of(
        oid: u32,
        table: PgTable,
        identity: Identity,
        columns: Vec<Column>,
        version: u64,
    ) -> Self {
        let (schema, name) = (quoted(&table.schema), quoted(&table.table));
        let names = [b"\"schema\":", &schema[..], b",\"table\":", &name].concat();
        let dms_names = [b"\"schema-name\":", &schema[..], b",\"table-name\":", &name].concat();
        Self { oid, table, identity, columns, version, names, dms_names }
    }

    /// Place of the column with this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// How `self` differs from what the table was before.
    pub fn difference(&self, before: &Self) -> Difference {
        let mut found = Difference {
            renamed: (self.table != before.table).then(|| before.table.clone()),
            identity: (self.identity != before.identity).then_some(before.identity),
            ..Difference::default()
        };
        for column in &self.columns {
            match before.column(&column.name).map(|at| &before.columns[at]) {
                None => found.added.push(column.name.clone()),
                Some(old)
                    if (old.type_oid, old.type_modifier)
                        != (column.type_oid, column.type_modifier) =>
                {
                    found.retyped.push(Retyped {
                        name: column.name.clone(),
                        type_oid: old.type_oid,
                        type_modifier: old.type_modifier,
                    });
                }
                Some(_) => {}
            }
        }
        let gone = before.columns.iter().filter(|old| self.column(&old.name).is_none());
        found.dropped = gone.map(|old| old.name.clone()).collect();
        let kept = |columns: &[Column], other: &Self| -> Vec<String> {
            let kept = columns.iter().filter(|column| other.column(&column.name).is_some());
            kept.map(|column| column.name.clone()).collect()
        };
        found.reordered = kept(&self.columns, before) != kept(&before.columns, self);
        found
    }
}

/// How a table's columns became others. A column that was renamed is dropped under its old name and
/// added under its new one: the stream does not tell the two apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The table's name before.
    pub renamed: Option<PgTable>,
    /// The replica identity before. It changes what is told of rows, not the rows.
    pub identity: Option<Identity>,
    /// Names of columns that were not there.
    pub added: Vec<String>,
    /// Names of columns that are not there any more.
    pub dropped: Vec<String>,
    /// Columns whose type was another.
    pub retyped: Vec<Retyped>,
    /// Whether columns that stayed are in another order.
    pub reordered: bool,
}

/// A column whose type changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retyped {
    /// Its name.
    pub name: String,
    /// OID of its type before.
    pub type_oid: u32,
    /// Type modifier before.
    pub type_modifier: i32,
}

impl Difference {
    /// Whether rows are of another form than before: a new version.
    pub fn changes_rows(&self) -> bool {
        let columns = self.added.len() + self.dropped.len() + self.retyped.len();
        self.renamed.is_some() || columns > 0 || self.reordered
    }
}

/// What a `Relation` message was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A table that was not known.
    New(Arc<Relation>),
    /// A table that is as it was, or that only tells more or less of its rows before a change.
    Same(Arc<Relation>),
    /// A table with other columns, or another name; its version is one higher.
    Changed(Arc<Relation>, Difference),
}

impl Told {
    /// The table as it is now.
    pub fn relation(&self) -> &Arc<Relation> {
        match self {
            Self::New(relation) | Self::Same(relation) | Self::Changed(relation, _) => relation,
        }
    }
}

/// The tables of a source, by OID.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    by_oid: HashMap<u32, Arc<Relation>>,
}

impl Relations {
    /// Those that are stored.
    pub fn stored<'a>(
        tables: impl IntoIterator<Item = &'a CapturedTable>,
    ) -> Result<Self, TooMany> {
        let mut known = Self::default();
        for table in tables {
            known.put(Relation::stored(table))?;
        }
        Ok(known)
    }

    /// The table with this OID. The server tells of a table before its first change, so one that is
    /// not known at a change means that the stream is not what it should be.
    pub fn get(&self, oid: u32) -> Option<&Arc<Relation>> {
        self.by_oid.get(&oid)
    }

    /// Takes in what the stream tells of a table.
    pub fn tell(&mut self, told: &pgoutput::Relation<'_>) -> Result<Told, TooMany> {
        let Some(before) = self.by_oid.get(&told.oid).cloned() else {
            return Ok(Told::New(self.put(Relation::new(told, 1))?));
        };
        let mut now = Relation::new(told, before.version);
        if now == *before {
            return Ok(Told::Same(before));
        }
        let difference = now.difference(&before);
        if !difference.changes_rows() {
            return Ok(Told::Same(self.put(now)?));
        }
        now.version += 1;
        Ok(Told::Changed(self.put(now)?, difference))
    }

    /// Forgets a table.
    pub fn forget(&mut self, oid: u32) {
        self.by_oid.remove(&oid);
    }

    fn put(&mut self, relation: Relation) -> Result<Arc<Relation>, TooMany> {
        if self.by_oid.len() >= RELATIONS_MAX && !self.by_oid.contains_key(&relation.oid) {
            return Err(TooMany);
        }
        let relation = Arc::new(relation);
        self.by_oid.insert(relation.oid, relation.clone());
        Ok(relation)
    }
}
