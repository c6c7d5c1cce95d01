//! What the rows of a table are made of: in records, in memory and in files.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use hydrant_core::capture::{Fields, PgColumn, Position};
use sha2::{Digest, Sha256};

use super::value::{self, Value};
use super::{Followed, columns};
use crate::query::provider::schema_of;
use crate::session::ColumnType;
use crate::sql::types;

/// Columns of the files that no query sees. A table of PostgreSQL that has such a name is refused.
pub(super) const HIDDEN: [&str; 3] = ["hydrant$key", "hydrant$commit_lsn", "hydrant$seq"];
/// Bytes of a key.
const KEY_BYTES: usize = 16;

/// What tells rows apart: a hash of the primary key's values, or of the whole row if there is none.
pub(super) type RowKey = [u8; KEY_BYTES];

/// A column, with what its values become.
pub(super) struct Column {
    name: String,
    pub(super) kind: ColumnType,
    is_list: bool,
    /// Whether a record that does not have the column says that it is `missing`.
    optional: bool,
    /// Its value in rows from before it was there.
    pub(super) missing: Value,
    /// The same as records have it.
    missing_raw: Option<String>,
}

/// The columns of a table, by which its records are read and its files are written.
pub(super) struct Schema {
    pub(super) columns: Vec<Column>,
    /// Places of the primary key's columns. Without any, rows are counted.
    pub(super) key: Vec<usize>,
    /// Names of columns that may be in records and are none of the table's.
    ignored: Vec<String>,
    /// Schema of the files.
    pub(super) arrow: SchemaRef,
}

/// Why the records cannot be followed, and what to do about it.
pub(super) type Fault = String;

impl Schema {
    /// `dropped` has the names of columns that records may still have. Fails where the rows that were
    /// there when a column was added have a value that the table cannot hold.
    pub(super) fn new(
        pg: &[PgColumn],
        followed: &Followed,
        dropped: &[String],
    ) -> Result<Self, Fault> {
        let defined = columns::define(pg, followed);
        let column = |(pg, ours): (&PgColumn, &crate::catalog::ColumnDef)| {
            let mut column = Column {
                name: pg.name.clone(),
                kind: ours.kind,
                is_list: pg.type_name.ends_with("[]"),
                optional: pg.missing.is_some() || (pg.nullable && !pg.rewritten),
                missing: Value::Null,
                missing_raw: pg.missing.clone(),
            };
            if let Some(raw) = &pg.missing {
                let value = value::read(raw, column.kind, column.is_list);
                column.missing = value.ok_or_else(|| cannot_hold(&column, raw))?;
            }
            Ok(column)
        };
        let mut fields: Vec<Arc<Field>> = schema_of(&defined).fields().iter().cloned().collect();
        let [key, lsn, seq] = HIDDEN;
        fields.push(Arc::new(Field::new(key, DataType::FixedSizeBinary(KEY_BYTES as i32), false)));
        fields.push(Arc::new(Field::new(lsn, DataType::UInt64, false)));
        fields.push(Arc::new(Field::new(seq, DataType::UInt64, false)));
        Ok(Self {
            columns: pg.iter().zip(&defined).map(column).collect::<Result<_, Fault>>()?,
            key: columns::key(pg),
            ignored: followed.exclude.iter().chain(dropped).cloned().collect(),
            arrow: Arc::new(ArrowSchema::new(fields)),
        })
    }

    pub(super) fn is_keyed(&self) -> bool {
        !self.key.is_empty()
    }

    /// A row's values. What the record does not tell is unchanged; a column that is younger than the
    /// record has the value there that it had in all rows when it was added.
    pub(super) fn row(
        &self,
        fields: &Fields<'_>,
        unavailable: &[Cow<'_, str>],
    ) -> Result<Vec<Value>, Fault> {
        let mut row: Vec<Option<Value>> = vec![None; self.columns.len()];
        let (mut next, mut unknown) = (0, None);
        for (name, raw) in fields {
            let at = match self.columns.get(next) {
                Some(column) if column.name == *name => Some(next),
                _ => self.columns.iter().position(|c| c.name == *name),
            };
            let Some(at) = at else {
                if !self.ignored.iter().any(|e| e == name) {
                    unknown = Some(name);
                }
                continue;
            };
            let column = &self.columns[at];
            let value = value::read(raw, column.kind, column.is_list);
            row[at] = Some(value.ok_or_else(|| cannot_hold(column, raw))?);
            next = at + 1;
        }
        let fill = |(column, value): (&Column, Option<Value>)| match value {
            Some(value) => Ok(value),
            None if unavailable.iter().any(|u| *u == column.name) => Ok(Value::Unchanged),
            None if !column.optional => Err(anew(format_args!(
                "the record is older than column '{}', and the stream does not tell its values in the \
                 rows that were there",
                column.name
            ))),
            None => match unknown {
                None => Ok(column.missing.clone()),
                Some(gone) => Err(anew(format_args!(
                    "the record has column '{gone}', which is gone, and not '{}': whether it was \
                     renamed, the stream does not tell",
                    column.name
                ))),
            },
        };
        self.columns.iter().zip(row).map(fill).collect()
    }

    /// The key of a row. `None` if a value of the key is not told.
    pub(super) fn key_of(&self, fields: &Fields<'_>) -> Option<RowKey> {
        let mut hash = Sha256::new();
        let find = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, raw)| *raw);
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        if self.is_keyed() {
            for at in &self.key {
                add(find(&self.columns[*at].name)?);
            }
        } else {
            // What a column that is added later is in the rows before counts for nothing, be it NULL or
            // a default, so that those rows stay the same.
            for column in &self.columns {
                let missing = column.missing_raw.as_deref().unwrap_or("null");
                if let Some(raw) = find(&column.name).filter(|raw| *raw != missing) {
                    add(&column.name);
                    add(raw);
                }
            }
        }
        let mut key = RowKey::default();
        key.copy_from_slice(&hash.finalize()[..KEY_BYTES]);
        Some(key)
    }
}

/// A fault that a new snapshot mends.
pub(super) fn anew(what: impl std::fmt::Display) -> Fault {
    format!("{what}. ALTER SOURCE … RESNAPSHOT begins the table anew")
}

/// A name as PostgreSQL and TEXT COLUMNS take it.
fn quoted(pg: &str) -> String {
    match super::columns::name(pg) == pg {
        false => pg.to_owned(),
        true => format!("\"{}\"", pg.replace('"', "\"\"")),
    }
}

fn cannot_hold(column: &Column, raw: &str) -> Fault {
    const SHOWN_CHARS_MAX: usize = 100;
    let shown: String = raw.chars().take(SHOWN_CHARS_MAX).collect();
    format!(
        "column '{}' has the value {shown}, which {kind} cannot hold; create the table again with TEXT \
         COLUMNS ({})",
        column.name,
        quoted(&column.name),
        kind = types::name(column.kind, None)
    )
}

/// Which of `count` buckets a row is in; `count` is a power of two.
pub(super) fn bucket_of(key: &RowKey, count: usize) -> usize {
    let low = u32::from_le_bytes([key[0], key[1], key[2], key[3]]);
    low as usize & (count - 1)
}

/// As `16/B374D848 (3)`.
pub(super) fn shown(position: Position) -> String {
    format!("{} ({})", position.commit_lsn, position.seq)
}
