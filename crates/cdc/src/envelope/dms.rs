//! The form of AWS Database Migration Service ("Using Amazon Kinesis Data Streams as a target"),
//! with its `IncludeTransactionDetails`, `IncludeControlDetails`, `IncludeTableAlterOperations` and
//! `IncludeNullAndEmpty`, and its before image under the name `before-image`.
//!
//! Rows: `data`, `before-image`, `metadata`. `commit-lsn`, `seq`, `epoch`, `source-name` and
//! `unavailable` in `metadata` are hydrant's. A value that is not known is left out. An update that
//! changes the key is a delete and an insert, so that each is under its own partition key. Control
//! records: `create-table`, and `change-columns` with the whole table for every change of its
//! columns. DMS has none for the others; they are control records with the operations
//! `truncate-table`, `snapshot-begin`, `snapshot-end`, `transaction-begin`, `transaction-end` and
//! `logical-message`.

use hydrant_core::capture::{CapturedTable, Lsn, Op, PgColumn};

use super::debezium::{list, unavailable};
use super::write::{hex, moment, number, signed};
use super::{At, Change, EncodeError, Encoder, Gone, Notice, object, text};
use crate::key::By;
use crate::pgoutput::Old;
use crate::row::Row;
use crate::value::base64;

/// What ends `metadata`, but for its brace.
pub(super) fn fixed(source: &str, epoch: u64) -> Vec<u8> {
    let mut out = b",\"epoch\":".to_vec();
    number(epoch, &mut out);
    out.extend_from_slice(b",\"source-name\":");
    text(source, &mut out);
    out
}

/// Appends `metadata`, but for its closing brace.
fn metadata(
    encoder: &Encoder,
    (record_type, operation): (&str, &str),
    names: &[u8],
    by: By,
    at: &At,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"\"metadata\":{\"timestamp\":");
    moment(i64::try_from(at.now_ms).unwrap_or(i64::MAX).saturating_mul(1_000), out);
    out.extend_from_slice(b",\"record-type\":\"");
    out.extend_from_slice(record_type.as_bytes());
    out.extend_from_slice(b"\",\"operation\":\"");
    out.extend_from_slice(operation.as_bytes());
    out.extend_from_slice(b"\",\"partition-key-type\":\"");
    out.extend_from_slice(match by {
        By::Table => b"schema-table",
        By::PrimaryKey => b"primary-key",
        By::Columns => b"attribute-name",
    });
    out.extend_from_slice(b"\",");
    out.extend_from_slice(names);
    if let Some(transaction) = at.transaction {
        out.extend_from_slice(b",\"transaction-id\":");
        number(transaction.xid.into(), out);
        out.extend_from_slice(b",\"transaction-record-id\":");
        number(transaction.total_order, out);
        out.extend_from_slice(b",\"commit-timestamp\":");
        moment(transaction.commit_time_us, out);
        out.extend_from_slice(b",\"stream-position\":\"");
        position(at.lsn, out);
        out.push(b'.');
        number(at.position.seq, out);
        out.push(b'.');
        position(at.position.commit_lsn, out);
        out.push(b'"');
    }
    out.extend_from_slice(b",\"commit-lsn\":");
    number(at.position.commit_lsn.0, out);
    out.extend_from_slice(b",\"seq\":");
    number(at.position.seq, out);
    out.extend_from_slice(&encoder.fixed);
}

/// As DMS writes positions: both halves with all digits.
fn position(Lsn(lsn): Lsn, out: &mut Vec<u8>) {
    hex((lsn >> 32) as u32, out);
    out.push(b'/');
    hex(lsn as u32, out);
}

pub(super) fn change(
    encoder: &Encoder,
    change: &Change<'_>,
    at: &At,
    omitted: &[usize],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let relation = change.relation;
    let gone = (omitted, Gone::Left);
    let before = |old: Old<'_>, out: &mut Vec<u8>| {
        let row = Row::Tuple(old.tuple());
        object(relation, row.iter(), matches!(old, Old::Key(_)), gone, out)
    };
    let operation = match change.op {
        Op::Read => "load",
        Op::Create => "insert",
        Op::Update => "update",
        Op::Delete => "delete",
        Op::Truncate => "truncate-table",
    };
    out.push(b'{');
    match (change.op, change.values(), change.before()) {
        (Op::Truncate, ..) => out.extend_from_slice(b"\"control\":{},"),
        (_, Some(values), old) => {
            out.extend_from_slice(b"\"data\":");
            object(relation, values, false, gone, out)?;
            out.push(b',');
            if let Some(old) = old {
                out.extend_from_slice(b"\"before-image\":");
                before(old, out)?;
                out.push(b',');
            }
        }
        (_, None, Some(old)) => {
            out.extend_from_slice(b"\"data\":");
            before(old, out)?;
            out.push(b',');
        }
        (_, None, None) => {}
    }
    let (kind, by) = match change.op {
        Op::Truncate => ("control", By::Table),
        _ => ("data", change.key.by()),
    };
    metadata(encoder, (kind, operation), &relation.dms_names, by, at, out);
    unavailable(change, omitted, out);
    out.extend_from_slice(b"}}");
    Ok(())
}

const NO_TABLE: &[u8] = b"\"schema-name\":\"\",\"table-name\":\"\"";

pub(super) fn notice(encoder: &Encoder, notice: &Notice<'_>, at: &At, out: &mut Vec<u8>) {
    let mut names = NO_TABLE.to_vec();
    out.extend_from_slice(b"{\"control\":{");
    let operation = match notice {
        Notice::SnapshotBegin => "snapshot-begin",
        Notice::SnapshotEnd => "snapshot-end",
        Notice::TransactionBegin => "transaction-begin",
        Notice::TransactionEnd { changes, tables } => {
            out.extend_from_slice(b"\"record-count\":");
            number(*changes, out);
            out.extend_from_slice(b",\"tables\":[");
            for (n, (relation, changes)) in tables.iter().enumerate() {
                out.extend_from_slice(if n > 0 { b",{" } else { b"{" });
                out.extend_from_slice(&relation.dms_names);
                out.extend_from_slice(b",\"record-count\":");
                number(*changes, out);
                out.push(b'}');
            }
            out.push(b']');
            "transaction-end"
        }
        Notice::Emitted(emitted) => {
            out.extend_from_slice(b"\"prefix\":");
            text(emitted.prefix, out);
            out.extend_from_slice(b",\"content\":\"");
            base64(emitted.content, out);
            out.push(b'"');
            "logical-message"
        }
        Notice::Schema { table, difference } => {
            names = b"\"schema-name\":".to_vec();
            text(&table.table.schema, &mut names);
            names.extend_from_slice(b",\"table-name\":");
            text(&table.table.table, &mut names);
            definition(table, out);
            if difference.is_some() { "change-columns" } else { "create-table" }
        }
    };
    out.extend_from_slice(b"},");
    metadata(encoder, ("control", operation), &names, By::Table, at, out);
    out.extend_from_slice(b"}}");
}

fn definition(table: &CapturedTable, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"table-def\":{\"columns\":{");
    for (n, column) in table.columns.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        text(&column.name, out);
        out.extend_from_slice(b":{\"type\":");
        kind(column, out);
        out.extend_from_slice(b",\"nullable\":");
        out.extend_from_slice(if column.nullable { b"true}" } else { b"false}" });
    }
    out.push(b'}');
    let mut key: Vec<_> = table.columns.iter().filter(|column| column.key.is_some()).collect();
    key.sort_by_key(|column| column.key);
    if !key.is_empty() {
        out.extend_from_slice(b",\"primary-key\":");
        list(key.iter().map(|column| column.name.as_str()), out);
    }
    out.push(b'}');
}

/// DMS's name of a column's type, with what belongs to it.
fn kind(column: &PgColumn, out: &mut Vec<u8>) {
    /// PostgreSQL keeps the length of a text with that of its own header.
    const HEADER_BYTES: i32 = 4;
    let name = match column.type_oid {
        16 => "BOOLEAN",
        21 => "INT16",
        23 => "INT32",
        20 => "INT64",
        700 => "REAL4",
        701 => "REAL8",
        1082 => "DATE",
        1083 => "TIME",
        1114 | 1184 => "TIMESTAMP",
        1700 => "NUMERIC",
        17 => "BYTES",
        _ => "STRING",
    };
    text(name, out);
    let detail = u64::try_from(column.type_modifier.saturating_sub(HEADER_BYTES));
    match (column.type_oid, detail) {
        (1042 | 1043, Ok(length)) => {
            out.extend_from_slice(b",\"length\":");
            number(length, out);
        }
        (1700, Ok(packed)) => {
            out.extend_from_slice(b",\"precision\":");
            number(packed >> 16, out);
            // Eleven bits with a sign.
            let scale = (packed & 0x7ff) as i64;
            out.extend_from_slice(b",\"scale\":");
            signed((scale ^ 0x400) - 0x400, out);
        }
        _ => {}
    }
}
