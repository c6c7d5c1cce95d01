//! A record's data: what changed, where and when, in the form that the source was created with.
//!
//! Every record, whatever it tells, says which source wrote it, in which epoch and at which
//! position: [`hydrant_core::capture::read_back`] finds that again, so that nothing is written twice
//! after a restart, and [`hydrant_core::capture::read`] reads the rest.

mod debezium;
mod dms;
mod write;

use hydrant_core::capture::{CapturedTable, Envelope, Lsn, Op, Position};

use crate::key::Key;
use crate::pgoutput::{Emitted, Old};
use crate::relation::{Difference, Relation};
use crate::row::{Row, Value, filled};
use crate::value::{BadValue, string};

/// A record cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A row has not as many values as its table has columns.
    #[error("{table}: a row of {found} values, where there are {wanted} columns")]
    Columns {
        /// Table.
        table: String,
        /// Values in the row.
        found: usize,
        /// Columns of the table.
        wanted: usize,
    },
    /// A value is none of its type.
    #[error("{table}: a value of '{column}' (type {type_oid}) is {bad}")]
    Value {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// OID of the column's type.
        type_oid: u32,
        /// What is wrong with it.
        bad: BadValue,
    },
    /// The change has not the row that its operation is about.
    #[error("{table}: a change {op:?} without its row")]
    NoRow {
        /// Table.
        table: String,
        /// Operation.
        op: Op,
    },
}

/// The transaction that a change belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Its number.
    pub xid: u32,
    /// When it was committed, microseconds since the Unix epoch.
    pub commit_time_us: i64,
    /// Which change of the transaction it is, from 1, over all tables.
    pub total_order: u64,
    /// Which change of its table within the transaction it is, from 1.
    pub data_collection_order: u64,
}

/// When and where a record belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Its place among the source's records; also the commit position of its transaction, or the
    /// consistent point of its snapshot.
    pub position: Position,
    /// Where the change itself is in the write-ahead log.
    pub lsn: Lsn,
    /// Commit position of the transaction before, if it is known.
    pub last_commit: Option<Lsn>,
    /// The transaction; `None` in a snapshot.
    pub transaction: Option<Transaction>,
    /// Now, milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// A change of a row, or a truncation.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The table.
    pub relation: &'a Relation,
    /// What happened. An update that made the row another one ([`crate::key::Key::replaced`]) is
    /// written as [`Op::Delete`] with `old`, then [`Op::Create`] with both.
    pub op: Op,
    /// What is told of the row before.
    pub old: Option<Old<'a>>,
    /// The row after.
    pub new: Option<Row<'a>>,
    /// How its partition key is made. What is in it is never left out.
    pub key: &'a Key,
}

/// A record that is about no row.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// A snapshot begins; what earlier epochs told no longer holds.
    SnapshotBegin,
    /// The snapshot is complete.
    SnapshotEnd,
    /// A table is new, or its columns are others from here on.
    Schema {
        /// The table as it is now.
        table: &'a CapturedTable,
        /// How it became so; `None` if it is new.
        difference: Option<&'a Difference>,
    },
    /// A transaction begins.
    TransactionBegin,
    /// A transaction is complete.
    TransactionEnd {
        /// Changes in it.
        changes: u64,
        /// Tables with the changes of each.
        tables: &'a [(&'a Relation, u64)],
    },
    /// Somebody called `pg_logical_emit_message`.
    Emitted(Emitted<'a>),
}

/// Writes the records of a source.
#[derive(Clone, Debug)]
pub struct Encoder {
    envelope: Envelope,
    /// What does not change from record to record, as JSON.
    fixed: Vec<u8>,
    database_json: Vec<u8>,
    source: String,
    database: String,
    epoch: u64,
}

impl Encoder {
    /// For a source, of a database, in an epoch.
    pub fn new(envelope: Envelope, source: &str, database: &str, epoch: u64) -> Self {
        let fixed = match envelope {
            Envelope::Debezium => debezium::fixed(source),
            Envelope::Dms => dms::fixed(source, epoch),
        };
        let database_json = debezium::database(database);
        let (source, database) = (source.to_owned(), database.to_owned());
        Self { envelope, fixed, database_json, source, database, epoch }
    }

    /// Appends the data of a change. Allocates nothing but in `out`; after an error, `out` is as it
    /// was. A value that was not sent and that the row before does not tell either is no error: the
    /// record names its column as unavailable.
    pub fn change(
        &self,
        change: &Change<'_>,
        at: &At,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.change_without(change, at, &[], out)
    }

    /// As [`Self::change`], but at most `bytes_max` long: the longest values outside of the key are
    /// left out, and named as unavailable, until it fits. `false`, and nothing written, if it cannot.
    pub fn change_within(
        &self,
        change: &Change<'_>,
        at: &At,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, EncodeError> {
        let start = out.len();
        let mut omitted = Vec::new();
        let mut longest = longest(change);
        loop {
            self.change_without(change, at, &omitted, out)?;
            if out.len() - start <= bytes_max {
                return Ok(true);
            }
            out.truncate(start);
            match longest.pop() {
                Some((_, column)) => omitted.push(column),
                None => return Ok(false),
            }
        }
    }

    fn change_without(
        &self,
        change: &Change<'_>,
        at: &At,
        omitted: &[usize],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let written = change.check().and_then(|()| match self.envelope {
            Envelope::Debezium => debezium::change(self, change, at, omitted, out),
            Envelope::Dms => dms::change(self, change, at, omitted, out),
        });
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// Appends the data of a record that is about no row.
    pub fn notice(&self, notice: &Notice<'_>, at: &At, out: &mut Vec<u8>) {
        match self.envelope {
            Envelope::Debezium => debezium::notice(self, notice, at, out),
            Envelope::Dms => dms::notice(self, notice, at, out),
        }
    }
}

/// Columns outside of the key, each behind the length of its values; the longest last. With `FULL`
/// every column is of the replica identity, and only those of the partition key stay.
fn longest(change: &Change<'_>) -> Vec<(usize, usize)> {
    let relation = change.relation;
    let everything = relation.columns.iter().all(|column| column.identity);
    let mut lengths = vec![0; relation.columns.len()];
    for row in [change.old.map(|old| Row::Tuple(old.tuple())), change.new].into_iter().flatten() {
        for (length, value) in lengths.iter_mut().zip(row.iter()) {
            if let Value::Text(text) = value {
                *length += text.len();
            }
        }
    }
    let lengths = lengths.into_iter().enumerate();
    let spare = |(at, length): &(usize, usize)| {
        let identity = !everything && relation.columns[*at].identity;
        *length > 0 && !identity && !change.key.has(*at)
    };
    let mut found: Vec<_> = lengths.filter(spare).map(|(at, length)| (length, at)).collect();
    found.sort_unstable();
    found
}

impl<'a> Change<'a> {
    fn check(&self) -> Result<(), EncodeError> {
        let table = || self.relation.table.to_string();
        let wanted = self.relation.columns.len();
        let old = self.old.map(|old| Row::Tuple(old.tuple()));
        for row in [old, self.new].into_iter().flatten() {
            if row.len() != wanted {
                return Err(EncodeError::Columns { table: table(), found: row.len(), wanted });
            }
        }
        let there = match self.op {
            Op::Read | Op::Create | Op::Update => self.new.is_some(),
            Op::Delete => self.old.is_some(),
            Op::Truncate => true,
        };
        match there {
            true => Ok(()),
            false => Err(EncodeError::NoRow { table: table(), op: self.op }),
        }
    }

    /// The row before, where a record of this operation tells it.
    fn before(&self) -> Option<Old<'a>> {
        match self.op {
            Op::Update | Op::Delete => self.old,
            Op::Read | Op::Create | Op::Truncate => None,
        }
    }

    /// The row after, where a record of this operation tells it.
    fn after(&self) -> Option<Row<'a>> {
        match self.op {
            Op::Read | Op::Create | Op::Update => self.new,
            Op::Delete | Op::Truncate => None,
        }
    }

    /// The values of the row after.
    fn values(&self) -> Option<impl Iterator<Item = Value<'a>> + use<'a>> {
        self.after().map(|new| filled(self.relation, new, self.old))
    }

    /// Calls `write` with the name of each column whose value is not known.
    fn unavailable(&self, omitted: &[usize], write: &mut dyn FnMut(&[u8])) {
        let values = self.values().into_iter().flatten().map(Some).chain(std::iter::repeat(None));
        for ((at, column), value) in self.relation.columns.iter().enumerate().zip(values) {
            let gone = value == Some(Value::Unchanged);
            if gone || (!omitted.is_empty() && omitted.contains(&at)) {
                write(&column.json);
            }
        }
    }
}

/// What is written for a value that is not known.
#[derive(Clone, Copy)]
enum Gone {
    /// A text in its place.
    Placeholder,
    /// Not even its name.
    Left,
}

/// Appends a row as an object.
fn object<'v>(
    relation: &Relation,
    values: impl Iterator<Item = Value<'v>>,
    key_only: bool,
    (omitted, gone): (&[usize], Gone),
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    for ((at, column), value) in relation.columns.iter().enumerate().zip(values) {
        if key_only && !column.identity {
            continue;
        }
        let known = value != Value::Unchanged && (omitted.is_empty() || !omitted.contains(&at));
        if !known && matches!(gone, Gone::Left) {
            continue;
        }
        out.push(b',');
        out.extend_from_slice(&column.json);
        match value {
            _ if !known => {
                out.push(b'"');
                out.extend_from_slice(hydrant_core::capture::UNAVAILABLE.as_bytes());
                out.push(b'"');
            }
            Value::Text(text) => column.kind.write(&text, out).map_err(|bad| {
                let (table, column_name) = (relation.table.to_string(), column.name.clone());
                EncodeError::Value { table, column: column_name, type_oid: column.type_oid, bad }
            })?,
            Value::Null | Value::Unchanged => out.extend_from_slice(b"null"),
        }
    }
    match out.get_mut(start) {
        Some(first) => *first = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
    Ok(())
}

/// Appends a text as a JSON string.
fn text(text: &str, out: &mut Vec<u8>) {
    // A `str` is UTF-8, which is all that can be wrong.
    let _: Result<(), BadValue> = string(text.as_bytes(), out);
}
