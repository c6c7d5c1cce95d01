//! Partition keys: which records stay in order with each other.
//!
//! `schema.table|` and the values of the primary key, or of the columns a user chose; without either
//! `schema.table`, so that the whole table is in order, on one shard. `|`, `.` in names and `\` are
//! written with a backslash before them and NULL is `\N`, so that different rows have different keys.

use hydrant_core::limits::PARTITION_KEY_CHARS_MAX;
use sha2::{Digest, Sha256};

use crate::pgoutput::{Identity, Old};
use crate::relation::Relation;
use crate::row::{Row, Value, filled};

/// A partition key cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The table has no such column.
    #[error("{table} has no published column '{column}' to partition by")]
    NoColumn {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// Deletes do not tell the column, so they could not follow their row.
    #[error(
        "deletes in {table} do not tell '{column}': partition by columns of its replica identity, or \
         run ALTER TABLE … REPLICA IDENTITY FULL"
    )]
    NotIdentity {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// The row was sent without the value.
    #[error("a row of {table} was sent without '{column}', which its partition key needs")]
    Unavailable {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// The value is not UTF-8: the session's `client_encoding` is not UTF8.
    #[error("{table}: '{column}' is not UTF-8")]
    NotUtf8 {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
}

/// How the partition keys of a table are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    by: By,
    /// Places of the columns whose values are in it.
    columns: Vec<usize>,
    /// Places of the columns whose change makes the row another one.
    identity: Vec<usize>,
    /// `schema.table`, escaped.
    table: String,
}

/// What a partition key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The table's name alone.
    Table,
    /// The primary key, or the unique index that is the replica identity.
    PrimaryKey,
    /// Columns that a user chose.
    Columns,
}

impl Key {
    /// The key of a table by its primary key (from the catalog, in order; `FULL` flags every column,
    /// so the stream does not tell it), or by `chosen` columns unless there are none.
    pub fn new(relation: &Relation, primary: &[&str], chosen: &[&str]) -> Result<Self, KeyError> {
        let told = |column: &usize| relation.columns[*column].identity;
        // A primary key with a column that is not published identifies nothing here.
        let places = primary.iter().map(|name| relation.column(name)).collect::<Option<Vec<_>>>();
        let mut identity = places.unwrap_or_default();
        let deletes_tell = identity.iter().all(told) || relation.identity == Identity::Nothing;
        if relation.identity == Identity::Index && (identity.is_empty() || !deletes_tell) {
            identity = (0..relation.columns.len()).filter(told).collect();
        }
        let mut columns = identity.clone();
        let mut by = if columns.is_empty() { By::Table } else { By::PrimaryKey };
        if !chosen.is_empty() {
            by = By::Columns;
            columns = Self::chosen(relation, chosen)?;
            if !identity.is_empty() {
                identity.extend(&columns);
            } else {
                identity.clone_from(&columns);
            }
        }
        let mut table = String::new();
        escape(&relation.table.schema, &['\\', '|', '.'], &mut table);
        table.push('.');
        escape(&relation.table.table, &['\\', '|', '.'], &mut table);
        Ok(Self { by, columns, identity, table })
    }

    fn chosen(relation: &Relation, chosen: &[&str]) -> Result<Vec<usize>, KeyError> {
        let table = || relation.table.to_string();
        let place = |name: &&str| {
            let column = (*name).to_owned();
            let Some(at) = relation.column(name) else {
                return Err(KeyError::NoColumn { table: table(), column });
            };
            match relation.columns[at].identity || relation.identity == Identity::Nothing {
                true => Ok(at),
                false => Err(KeyError::NotIdentity { table: table(), column }),
            }
        };
        chosen.iter().map(place).collect()
    }

    /// What it is made of.
    pub fn by(&self) -> By {
        self.by
    }

    /// Whether the column at this place makes the row the one it is.
    pub(crate) fn has(&self, column: usize) -> bool {
        self.columns.contains(&column) || self.identity.contains(&column)
    }

    /// That of the whole table: of truncations and changes of its columns.
    pub fn table(&self, out: &mut String) {
        out.clear();
        out.push_str(&self.table);
        shorten(out);
    }

    /// Writes the partition key of a row over `out`. `old` is what is told of the row before, where
    /// what did not change is.
    pub fn of(
        &self,
        relation: &Relation,
        row: Row<'_>,
        old: Option<Old<'_>>,
        out: &mut String,
    ) -> Result<(), KeyError> {
        self.table(out);
        if self.columns.is_empty() {
            return Ok(());
        }
        out.clear();
        out.push_str(&self.table);
        for column in &self.columns {
            out.push('|');
            let name = || {
                let column = relation.columns.get(*column);
                let column = column.map(|column| column.name.clone()).unwrap_or_default();
                (relation.table.to_string(), column)
            };
            match filled(relation, row, old).nth(*column) {
                Some(Value::Null) => out.push_str("\\N"),
                Some(Value::Text(text)) => {
                    let Ok(text) = std::str::from_utf8(&text) else {
                        let (table, column) = name();
                        return Err(KeyError::NotUtf8 { table, column });
                    };
                    escape(text, &['\\', '|'], out);
                }
                Some(Value::Unchanged) | None => {
                    let (table, column) = name();
                    return Err(KeyError::Unavailable { table, column });
                }
            }
        }
        shorten(out);
        Ok(())
    }

    /// Whether an update made the row another one: then it is a delete of the old and a create of
    /// the new, each under its own partition key.
    pub fn replaced(&self, old: Option<Old<'_>>, new: Row<'_>) -> bool {
        let Some(old) = old else { return false };
        let old = Row::Tuple(old.tuple());
        let differs = |column: &usize| match new.iter().nth(*column) {
            None | Some(Value::Unchanged) => false,
            after => after != old.iter().nth(*column),
        };
        self.identity.iter().any(differs)
    }
}

fn escape(text: &str, special: &[char], out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(special) {
        out.push_str(&rest[..at]);
        out.push('\\');
        let behind = at + 1;
        out.push_str(&rest[at..behind]);
        rest = &rest[behind..];
    }
    out.push_str(rest);
}

/// A key that is longer than one may be becomes its digest.
fn shorten(key: &mut String) {
    // No character has more than four bytes, none less than one.
    if key.len() > PARTITION_KEY_CHARS_MAX && key.chars().count() > PARTITION_KEY_CHARS_MAX {
        *key = hex::encode(Sha256::digest(key.as_bytes()));
    }
}
