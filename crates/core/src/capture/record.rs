//! Reading back what a source wrote, in either envelope.
//!
//! `cdc` writes; who follows a source's stream (a current-state table, the source itself after a
//! restart) reads with this. Anybody may put into the same stream, so whatever is not a source's
//! record is told apart and never trusted further than its own fields.

use std::borrow::Cow;

use super::json;
use super::{Lsn, Position};

/// Stands for a value that the server did not send and that nothing held (Debezium:
/// `unavailable.value.placeholder`). The columns it stands in are also listed by name.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// How Debezium names the connector to PostgreSQL.
pub const CONNECTOR: &str = "postgresql";

/// Which source wrote a record, and which of its records it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp<'a> {
    /// The source's name.
    pub source: Cow<'a, str>,
    /// Which snapshot the record follows from.
    pub epoch: u64,
    /// Its place among the source's records of that epoch.
    pub position: Position,
}

/// What happened to a row or a table (Debezium: `op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The row was there when the snapshot was taken (`r`).
    Read,
    /// It was inserted, or has a new key (`c`).
    Create,
    /// It was updated (`u`).
    Update,
    /// It was deleted, or had the old key (`d`).
    Delete,
    /// All rows of the table were removed (`t`).
    Truncate,
}

/// Values of a row by the names of their columns, as the texts of JSON values, in the table's order.
/// A column whose value is not known is not among them.
pub type Fields<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// A change of a row, or a truncation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// Who wrote it, and its place.
    pub stamp: Stamp<'a>,
    /// The table's schema.
    pub schema: Cow<'a, str>,
    /// The table.
    pub table: Cow<'a, str>,
    /// What happened.
    pub op: Op,
    /// What is known of the row before: all of it with `REPLICA IDENTITY FULL`, else its key, if the
    /// key changed or the row was deleted.
    pub before: Option<Fields<'a>>,
    /// The row after, of a read, create or update.
    pub after: Option<Fields<'a>>,
    /// Columns whose value is not known: it did not change, and is not in `after` (nor in `before`).
    pub unavailable: Vec<Cow<'a, str>>,
}

/// A record of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceRecord<'a> {
    /// A row or a table changed.
    Change(Captured<'a>),
    /// A snapshot begins: what was read of earlier epochs no longer holds.
    SnapshotBegin(Stamp<'a>),
    /// The snapshot is complete; changes follow.
    SnapshotEnd(Stamp<'a>),
    /// A table's columns are now others, from the next record on.
    Schema {
        /// Who wrote it, and its place.
        stamp: Stamp<'a>,
        /// The table's schema.
        schema: Cow<'a, str>,
        /// The table.
        table: Cow<'a, str>,
    },
    /// A transaction begins or ends, or somebody called `pg_logical_emit_message`.
    Other(Stamp<'a>),
}

impl<'a> SourceRecord<'a> {
    /// Who wrote it, and its place.
    pub fn stamp(&self) -> &Stamp<'a> {
        match self {
            Self::Change(captured) => &captured.stamp,
            Self::SnapshotBegin(stamp) | Self::SnapshotEnd(stamp) | Self::Other(stamp) => stamp,
            Self::Schema { stamp, .. } => stamp,
        }
    }
}

/// Whose record this is, and its place. `None` if no source wrote it.
pub fn read_back(data: &[u8]) -> Option<Stamp<'_>> {
    Raw::find(data)?.stamp()
}

/// The record that a source wrote. `None` if none did, or not one of this kind of program.
pub fn read(data: &[u8]) -> Option<SourceRecord<'_>> {
    let raw = Raw::find(data)?;
    let stamp = raw.stamp()?;
    match raw.envelope {
        Form::Debezium => debezium(&raw, stamp),
        Form::Dms => dms(&raw, stamp),
    }
}

#[derive(Clone, Copy)]
enum Form {
    Debezium,
    Dms,
}

/// The members of a record, and those of its part that says where it is from.
struct Raw<'a> {
    envelope: Form,
    members: Fields<'a>,
    origin: Fields<'a>,
}

fn get<'a>(members: &Fields<'a>, name: &str) -> Option<&'a str> {
    let mut found = members.iter().filter(|(member, _)| member == name);
    let (_, value) = found.next()?;
    // Two of a name mean whatever a reader takes them for.
    found.next().is_none().then_some(*value)
}

fn text<'a>(members: &Fields<'a>, name: &str) -> Option<Cow<'a, str>> {
    json::string(get(members, name)?)
}

fn number(members: &Fields<'_>, name: &str) -> Option<u64> {
    get(members, name)?.parse().ok()
}

impl<'a> Raw<'a> {
    fn find(data: &'a [u8]) -> Option<Self> {
        let members = json::members(std::str::from_utf8(data).ok()?)?;
        if let Some(source) = get(&members, "source") {
            let origin = json::members(source)?;
            let ours = text(&origin, "connector")? == CONNECTOR;
            return ours.then_some(Self { envelope: Form::Debezium, members, origin });
        }
        let origin = json::members(get(&members, "metadata")?)?;
        Some(Self { envelope: Form::Dms, members, origin })
    }

    fn stamp(&self) -> Option<Stamp<'a>> {
        let (source, commit_lsn) = match self.envelope {
            Form::Debezium => ("name", "commit_lsn"),
            Form::Dms => ("source-name", "commit-lsn"),
        };
        Some(Stamp {
            source: text(&self.origin, source)?,
            epoch: number(&self.origin, "epoch")?,
            position: Position {
                commit_lsn: Lsn(number(&self.origin, commit_lsn)?),
                seq: number(&self.origin, "seq")?,
            },
        })
    }

    fn unavailable(&self) -> Option<Vec<Cow<'a, str>>> {
        let Some(list) = get(&self.origin, "unavailable") else { return Some(Vec::new()) };
        json::elements(list)?.into_iter().map(json::string).collect()
    }

    /// A row of it, without what is unavailable.
    fn row(&self, name: &str, unavailable: &[Cow<'a, str>]) -> Option<Option<Fields<'a>>> {
        let Some(row) = get(&self.members, name).filter(|row| *row != "null") else {
            return Some(None);
        };
        let mut fields = json::members(row)?;
        if !unavailable.is_empty() {
            fields.retain(|(column, _)| !unavailable.contains(column));
        }
        Some(Some(fields))
    }
}

fn debezium<'a>(raw: &Raw<'a>, stamp: Stamp<'a>) -> Option<SourceRecord<'a>> {
    let Some(op) = text(&raw.members, "op") else {
        if get(&raw.members, "tableChanges").is_some() {
            let (schema, table) = (text(&raw.origin, "schema")?, text(&raw.origin, "table")?);
            return Some(SourceRecord::Schema { stamp, schema, table });
        }
        return Some(match text(&raw.members, "type").as_deref() {
            Some("STARTED") => SourceRecord::SnapshotBegin(stamp),
            Some("COMPLETED") => SourceRecord::SnapshotEnd(stamp),
            _ => SourceRecord::Other(stamp),
        });
    };
    let op = match op.as_ref() {
        "r" => Op::Read,
        "c" => Op::Create,
        "u" => Op::Update,
        "d" => Op::Delete,
        "t" => Op::Truncate,
        _ => return Some(SourceRecord::Other(stamp)),
    };
    let unavailable = raw.unavailable()?;
    Some(SourceRecord::Change(Captured {
        schema: text(&raw.origin, "schema")?,
        table: text(&raw.origin, "table")?,
        op,
        before: raw.row("before", &unavailable)?,
        after: raw.row("after", &unavailable)?,
        unavailable,
        stamp,
    }))
}

fn dms<'a>(raw: &Raw<'a>, stamp: Stamp<'a>) -> Option<SourceRecord<'a>> {
    let operation = text(&raw.origin, "operation")?;
    let (schema, table) = (text(&raw.origin, "schema-name"), text(&raw.origin, "table-name"));
    let op = match operation.as_ref() {
        "load" => Op::Read,
        "insert" => Op::Create,
        "update" => Op::Update,
        "delete" => Op::Delete,
        "truncate-table" => Op::Truncate,
        "snapshot-begin" => return Some(SourceRecord::SnapshotBegin(stamp)),
        "snapshot-end" => return Some(SourceRecord::SnapshotEnd(stamp)),
        "create-table" | "change-columns" => {
            return Some(SourceRecord::Schema { stamp, schema: schema?, table: table? });
        }
        _ => return Some(SourceRecord::Other(stamp)),
    };
    let unavailable = raw.unavailable()?;
    let data = raw.row("data", &unavailable)?;
    let (before, after) = match op {
        Op::Delete => (data, None),
        _ => (raw.row("before-image", &unavailable)?, data),
    };
    let (schema, table) = (schema?, table?);
    Some(SourceRecord::Change(Captured { stamp, schema, table, op, before, after, unavailable }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHANGE: &str = r#"{"before":{"id":1,"body":"__debezium_unavailable_value"},
        "after":{"id":1,"name":"a\"b","body":"__debezium_unavailable_value"},
        "source":{"connector":"postgresql","name":"s","db":"d","schema":"p","table":"t","lsn":9,
        "commit_lsn":12,"seq":3,"epoch":2,"unavailable":["body"]},"op":"u","ts_ms":1}"#;

    #[test]
    fn a_change_is_read() {
        let Some(SourceRecord::Change(change)) = read(CHANGE.as_bytes()) else { panic!() };
        let position = Position { commit_lsn: Lsn(12), seq: 3 };
        assert_eq!(change.stamp, Stamp { source: "s".into(), epoch: 2, position });
        assert_eq!((change.schema.as_ref(), change.table.as_ref()), ("p", "t"));
        assert_eq!(change.op, Op::Update);
        assert_eq!(change.before.unwrap(), [("id".into(), "1")]);
        let after = [("id".into(), "1"), ("name".into(), r#""a\"b""#)];
        assert_eq!(change.after.unwrap(), after);
        assert_eq!(change.unavailable, ["body"]);
        assert_eq!(read_back(CHANGE.as_bytes()), Some(change.stamp));
    }

    #[test]
    fn what_no_source_wrote_is_none() {
        for other in [
            "",
            "null",
            "[]",
            "{}",
            "{\"source\":1}",
            "{\"metadata\":{\"epoch\":1,\"seq\":1}}",
            // Debezium's own: no epoch.
            r#"{"source":{"connector":"postgresql","name":"s","lsn":9},"op":"c"}"#,
            r#"{"source":{"connector":"mysql","name":"s","commit_lsn":1,"seq":1,"epoch":1},"op":"c"}"#,
            r#"{"source":{"connector":"postgresql","name":"s","commit_lsn":-1,"seq":1,"epoch":1}}"#,
            r#"{"source":{"connector":"postgresql","name":"s","commit_lsn":1,"seq":1,"seq":2,"epoch":1}}"#,
        ] {
            assert_eq!(read_back(other.as_bytes()), None, "{other}");
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn dms_is_read() {
        let record = r#"{"data":{"id":7},"metadata":{"record-type":"data","operation":"delete",
            "schema-name":"p","table-name":"t","commit-lsn":5,"seq":1,"epoch":1,"source-name":"s"}}"#;
        let Some(SourceRecord::Change(change)) = read(record.as_bytes()) else { panic!() };
        assert_eq!((change.op, change.after), (Op::Delete, None));
        assert_eq!(change.before.unwrap(), [("id".into(), "7")]);
    }

    proptest! {
        #[test]
        fn a_cut_or_changed_record_never_panics(at in 0..CHANGE.len(), byte: u8) {
            let _ = read(&CHANGE.as_bytes()[..at]);
            let mut changed = CHANGE.as_bytes().to_vec();
            changed[at] = byte;
            let _ = read(&changed);
        }
    }
}
