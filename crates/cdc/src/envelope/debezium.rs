//! Debezium's form, without a schema ("Debezium connector for PostgreSQL", "Data change events";
//! JSON converter with `schemas.enable=false`).
//!
//! Rows: `before`, `after`, `source`, `transaction`, `op`, `ts_ms`. In `source`, `commit_lsn`, `seq`,
//! `epoch` and `unavailable` are hydrant's. What is about no row has the form that Debezium has for
//! it, with the same `source`, which makes it a record of this source:
//! - a snapshot's begin and end: a notification (`aggregate_type` "Initial Snapshot", `type`
//!   STARTED or COMPLETED),
//! - a change of columns: a schema change (`databaseName`, `schemaName`, `ddl`, `tableChanges`); the
//!   stream does not tell the statement, so `ddl` is null and the differences stand beside the table,
//! - begin and end of a transaction: transaction metadata (`status`, `id`, `event_count`,
//!   `data_collections`),
//! - `pg_logical_emit_message`: `op` "m" with `message` {`prefix`, `content` in base64}.

use hydrant_core::capture::{CONNECTOR, CapturedTable, Lsn, Op};

use super::write::{number, signed, three};
use super::{At, Change, EncodeError, Encoder, Gone, Notice, object, text};
use crate::pgoutput::{Emitted, Old};
use crate::relation::{Difference, Relation};
use crate::value::base64;

/// From the brace on to the name.
pub(super) fn fixed(source: &str) -> Vec<u8> {
    let mut out = b"{\"version\":".to_vec();
    text(env!("CARGO_PKG_VERSION"), &mut out);
    out.extend_from_slice(b",\"connector\":");
    text(CONNECTOR, &mut out);
    out.extend_from_slice(b",\"name\":");
    text(source, &mut out);
    out
}

/// The database's name, as `source` has it.
pub(super) fn database(name: &str) -> Vec<u8> {
    let mut out = b",\"db\":".to_vec();
    text(name, &mut out);
    out
}

fn member(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a moment as Debezium does, three times over.
fn moments(us: i64, out: &mut Vec<u8>) {
    three(us, [b",\"ts_ms\":", b",\"ts_us\":", b",\"ts_ns\":"], out);
}

fn now(at: &At, out: &mut Vec<u8>) {
    moments(i64::try_from(at.now_ms).unwrap_or(i64::MAX).saturating_mul(1_000), out);
}

/// Appends `source`, but for its closing brace.
fn source(encoder: &Encoder, names: &[u8], snapshot: bool, at: &At, out: &mut Vec<u8>) {
    out.extend_from_slice(&encoder.fixed);
    match at.transaction {
        Some(transaction) => moments(transaction.commit_time_us, out),
        None => now(at, out),
    }
    out.extend_from_slice(if snapshot {
        b",\"snapshot\":\"true\""
    } else {
        b",\"snapshot\":\"false\""
    });
    out.extend_from_slice(&encoder.database_json);
    // A JSON array within a string.
    out.extend_from_slice(b",\"sequence\":\"[");
    match at.last_commit {
        Some(Lsn(last)) => {
            out.extend_from_slice(b"\\\"");
            number(last, out);
            out.extend_from_slice(b"\\\"");
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\\\"");
    number(at.lsn.0, out);
    out.extend_from_slice(b"\\\"]\",");
    out.extend_from_slice(names);
    out.extend_from_slice(b",\"txId\":");
    match at.transaction {
        Some(transaction) => number(transaction.xid.into(), out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"lsn\":");
    number(at.lsn.0, out);
    out.extend_from_slice(b",\"xmin\":null,\"commit_lsn\":");
    number(at.position.commit_lsn.0, out);
    out.extend_from_slice(b",\"seq\":");
    number(at.position.seq, out);
    out.extend_from_slice(b",\"epoch\":");
    number(encoder.epoch, out);
}

/// Debezium's name of a transaction: its number and where it was committed.
fn transaction_id(xid: u32, at: &At, out: &mut Vec<u8>) {
    out.push(b'"');
    number(xid.into(), out);
    out.push(b':');
    number(at.position.commit_lsn.0, out);
    out.push(b'"');
}

fn transaction(at: &At, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"transaction\":");
    let Some(transaction) = at.transaction else {
        out.extend_from_slice(b"null");
        return;
    };
    out.extend_from_slice(b"{\"id\":");
    transaction_id(transaction.xid, at, out);
    out.extend_from_slice(b",\"total_order\":");
    number(transaction.total_order, out);
    out.extend_from_slice(b",\"data_collection_order\":");
    number(transaction.data_collection_order, out);
    out.push(b'}');
}

fn letter(op: Op) -> &'static [u8] {
    match op {
        Op::Read => b"r",
        Op::Create => b"c",
        Op::Update => b"u",
        Op::Delete => b"d",
        Op::Truncate => b"t",
    }
}

fn op(letter: &[u8], at: &At, out: &mut Vec<u8>) {
    transaction(at, out);
    out.extend_from_slice(b",\"op\":\"");
    out.extend_from_slice(letter);
    out.push(b'"');
    now(at, out);
}

pub(super) fn change(
    encoder: &Encoder,
    change: &Change<'_>,
    at: &At,
    omitted: &[usize],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let relation = change.relation;
    let gone = (omitted, Gone::Placeholder);
    out.extend_from_slice(b"{\"before\":");
    match change.before() {
        Some(old) => {
            let key_only = matches!(old, Old::Key(_));
            let row = crate::row::Row::Tuple(old.tuple());
            object(relation, row.iter(), key_only, gone, out)?;
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"after\":");
    match change.values() {
        Some(values) => object(relation, values, false, gone, out)?,
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"source\":");
    source(encoder, &relation.names, change.op == Op::Read, at, out);
    unavailable(change, omitted, out);
    out.push(b'}');
    op(letter(change.op), at, out);
    out.push(b'}');
    Ok(())
}

/// Appends the names of columns whose value is not known, if there are any.
pub(super) fn unavailable(change: &Change<'_>, omitted: &[usize], out: &mut Vec<u8>) {
    let mut any = false;
    change.unavailable(omitted, &mut |name| {
        out.extend_from_slice(if any { b"," } else { b",\"unavailable\":[" });
        out.extend_from_slice(name.strip_suffix(b":").unwrap_or(name));
        any = true;
    });
    if any {
        out.push(b']');
    }
}

const NO_TABLE: &[u8] = b"\"schema\":\"\",\"table\":\"\"";

pub(super) fn notice(encoder: &Encoder, notice: &Notice<'_>, at: &At, out: &mut Vec<u8>) {
    match notice {
        Notice::SnapshotBegin => notification(encoder, "STARTED", at, out),
        Notice::SnapshotEnd => notification(encoder, "COMPLETED", at, out),
        Notice::Schema { table, difference } => schema(encoder, table, *difference, at, out),
        Notice::TransactionBegin => {
            status(encoder, "BEGIN", at, out);
            out.extend_from_slice(b",\"event_count\":null,\"data_collections\":null}");
        }
        Notice::TransactionEnd { changes, tables } => {
            status(encoder, "END", at, out);
            member("event_count", out);
            number(*changes, out);
            collections(tables, out);
            out.push(b'}');
        }
        Notice::Emitted(emitted) => message(encoder, emitted, at, out),
    }
}

fn notification(encoder: &Encoder, kind: &str, at: &At, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    // The same record again has the same name.
    text(&format!("{}:{}:{kind}", encoder.source, encoder.epoch), out);
    member("aggregate_type", out);
    text("Initial Snapshot", out);
    member("type", out);
    text(kind, out);
    out.extend_from_slice(b",\"additional_data\":{\"connector_name\":");
    text(&encoder.source, out);
    out.push(b'}');
    member("timestamp", out);
    number(at.now_ms, out);
    member("source", out);
    source(encoder, NO_TABLE, true, at, out);
    out.extend_from_slice(b"}}");
}

fn status(encoder: &Encoder, status: &str, at: &At, out: &mut Vec<u8>) {
    let transaction = at.transaction.unwrap_or_default();
    out.extend_from_slice(b"{\"status\":");
    text(status, out);
    member("id", out);
    transaction_id(transaction.xid, at, out);
    member("ts_ms", out);
    signed(transaction.commit_time_us.div_euclid(1_000), out);
    member("source", out);
    source(encoder, NO_TABLE, false, at, out);
    out.push(b'}');
}

fn collections(tables: &[(&Relation, u64)], out: &mut Vec<u8>) {
    member("data_collections", out);
    out.push(b'[');
    for (n, (relation, changes)) in tables.iter().enumerate() {
        out.extend_from_slice(if n > 0 { b",{" } else { b"{" });
        out.extend_from_slice(b"\"data_collection\":");
        text(&relation.table.to_string(), out);
        member("event_count", out);
        number(*changes, out);
        out.push(b'}');
    }
    out.push(b']');
}

fn message(encoder: &Encoder, emitted: &Emitted<'_>, at: &At, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"source\":");
    source(encoder, NO_TABLE, false, at, out);
    out.push(b'}');
    op(b"m", at, out);
    out.extend_from_slice(b",\"message\":{\"prefix\":");
    text(emitted.prefix, out);
    out.extend_from_slice(b",\"content\":\"");
    base64(emitted.content, out);
    out.extend_from_slice(b"\"}}");
}

fn schema(
    encoder: &Encoder,
    table: &CapturedTable,
    difference: Option<&Difference>,
    at: &At,
    out: &mut Vec<u8>,
) {
    let (schema, name) = (&table.table.schema, &table.table.table);
    let mut names = b"\"schema\":".to_vec();
    text(schema, &mut names);
    member("table", &mut names);
    text(name, &mut names);
    out.extend_from_slice(b"{\"source\":");
    source(encoder, &names, false, at, out);
    out.push(b'}');
    now(at, out);
    member("databaseName", out);
    text(&encoder.database, out);
    member("schemaName", out);
    text(schema, out);
    out.extend_from_slice(b",\"ddl\":null,\"tableChanges\":[{\"type\":");
    text(if difference.is_some() { "ALTER" } else { "CREATE" }, out);
    member("id", out);
    let quoted = |name: &str| name.replace('"', "\"\"");
    text(&format!("\"{}\".\"{}\"", quoted(schema), quoted(name)), out);
    member("table", out);
    columns(table, out);
    if let Some(difference) = difference {
        self::difference(difference, out);
    }
    out.extend_from_slice(b"}]}");
}

fn columns(table: &CapturedTable, out: &mut Vec<u8>) {
    let mut key: Vec<_> = table.columns.iter().filter(|column| column.key.is_some()).collect();
    key.sort_by_key(|column| column.key);
    out.extend_from_slice(b"{\"version\":");
    number(table.version, out);
    member("primaryKeyColumnNames", out);
    list(key.iter().map(|column| column.name.as_str()), out);
    member("columns", out);
    out.push(b'[');
    for (n, column) in table.columns.iter().enumerate() {
        out.extend_from_slice(if n > 0 { b",{" } else { b"{" });
        out.extend_from_slice(b"\"name\":");
        text(&column.name, out);
        member("nativeType", out);
        number(column.type_oid.into(), out);
        member("typeName", out);
        text(&column.type_name, out);
        member("typeModifier", out);
        signed(column.type_modifier.into(), out);
        member("position", out);
        number(n as u64 + 1, out);
        member("optional", out);
        out.extend_from_slice(if column.nullable { b"true" } else { b"false" });
        if let Some(value) = &column.missing {
            member("missingValue", out);
            out.extend_from_slice(value.as_bytes());
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

fn difference(difference: &Difference, out: &mut Vec<u8>) {
    if let Some(before) = &difference.renamed {
        member("renamedFrom", out);
        text(&before.to_string(), out);
    }
    member("added", out);
    list(difference.added.iter().map(String::as_str), out);
    member("dropped", out);
    list(difference.dropped.iter().map(String::as_str), out);
    member("retyped", out);
    list(difference.retyped.iter().map(|column| column.name.as_str()), out);
}

/// Appends texts as an array.
pub(super) fn list<'a>(texts: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (n, one) in texts.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        text(one, out);
    }
    out.push(b']');
}
