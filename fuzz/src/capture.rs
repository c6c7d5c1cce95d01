//! What a PostgreSQL server sends to change data capture, and what is read back from a stream.
//!
//! The first byte of the input chooses: 0 the rest is a message of `pgoutput`, 1 a line of COPY, 2 a
//! value, whose type the next four bytes say, and 3 a record.

use hydrant_cdc::copy::{Line, lines};
use hydrant_cdc::envelope::{At, Change, Encoder};
use hydrant_cdc::key::Key;
use hydrant_cdc::pgoutput::{Column, Identity, Message, Old, Relation as Told, decode};
use hydrant_cdc::relation::{Relation, Relations};
use hydrant_cdc::row::Row;
use hydrant_cdc::value::Kind;
use hydrant_core::capture::{Envelope, Lsn, Op, Position, read, read_back};
use serde::de::IgnoredAny;

pub(crate) fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        0 => message(rest),
        1 => copied(rest),
        2 => {
            if let Some((oid, text)) = rest.split_first_chunk() {
                value(Kind::of(u32::from_be_bytes(*oid)), text);
            }
        }
        _ => record(rest),
    }
}

fn message(bytes: &[u8]) {
    match decode(bytes) {
        Ok(Message::Insert { new, .. }) => {
            assert_eq!(new.iter().count(), new.len());
            change(Op::Create, None, Some(Row::Tuple(new)));
        }
        Ok(Message::Update { old, new, .. }) => change(Op::Update, old, Some(Row::Tuple(new))),
        Ok(Message::Delete { old, .. }) => change(Op::Delete, Some(old), None),
        Ok(Message::Relation(relation)) => {
            let mut relations = Relations::default();
            let first = relations.tell(&relation).unwrap();
            // Told twice, nothing changed.
            let again = relations.tell(&relation).unwrap();
            assert_eq!(first.relation(), again.relation());
        }
        Ok(_) | Err(_) => {}
    }
}

/// A table as wide as the row, with a column of every kind.
fn table(columns: usize, identity: Identity) -> Relation {
    const TYPES: [u32; 8] = [25, 23, 16, 701, 1184, 17, 1009, 1007];
    let column = |n: usize| {
        let key = n == 0 || identity == Identity::Full;
        Column { key, name: "c\"", type_oid: TYPES[n % TYPES.len()], type_modifier: -1 }
    };
    let columns = (0..columns).map(column).collect();
    Relation::new(&Told { oid: 1, schema: "s", name: "t", identity, columns }, 1)
}

fn change(op: Op, old: Option<Old<'_>>, new: Option<Row<'_>>) {
    let before = old.map(|old| Row::Tuple(old.tuple()));
    let columns = new.or(before).map_or(0, |row| row.len());
    let identity =
        if matches!(old, Some(Old::Full(_))) { Identity::Full } else { Identity::Default };
    let relation = table(columns, identity);
    let key = Key::new(&relation, if columns > 0 { &["c\""] } else { &[] }, &[]).unwrap();
    let mut partition_key = String::new();
    if let Some(row) = new.or(before)
        && key.of(&relation, row, old, &mut partition_key).is_ok()
    {
        assert!((1..=256).contains(&partition_key.chars().count()));
    }
    let at = At { position: Position { commit_lsn: Lsn(u64::MAX), seq: 2 }, ..At::default() };
    for envelope in [Envelope::Debezium, Envelope::Dms] {
        let encoder = Encoder::new(envelope, "so\"urce", "d", u64::MAX);
        let change = Change { relation: &relation, op, old, new, key: &key };
        let mut data = Vec::new();
        if encoder.change(&change, &at, &mut data).is_err() {
            assert!(data.is_empty());
            continue;
        }
        serde_json::from_slice::<IgnoredAny>(&data).unwrap();
        let stamp = read_back(&data).unwrap();
        assert_eq!((stamp.source.as_ref(), stamp.position), ("so\"urce", at.position));
        assert_eq!(read(&data).unwrap().stamp(), &stamp);
        let mut short = Vec::new();
        if encoder.change_within(&change, &at, 700, &mut short) == Ok(true) {
            assert!(short.len() <= 700 && read(&short).is_some());
        }
    }
}

fn copied(bytes: &[u8]) {
    for line in lines(bytes) {
        let columns = line.iter().filter(|byte| **byte == b'\t').count() + 1;
        let line = Line::new(line, columns).unwrap();
        assert_eq!(line.values().count(), columns);
        change(Op::Read, None, Some(Row::Line(line)));
    }
}

fn value(kind: Kind, text: &[u8]) {
    let mut out = Vec::new();
    if kind.write(text, &mut out).is_ok() {
        serde_json::from_slice::<IgnoredAny>(&out).unwrap();
        if kind == Kind::Text {
            let read: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(read.as_bytes(), text);
        }
    }
}

fn record(bytes: &[u8]) {
    let stamp = read_back(bytes);
    if stamp.is_some() {
        // What we take, any parser of JSON takes.
        serde_json::from_slice::<IgnoredAny>(bytes).unwrap();
    }
    if let Some(record) = read(bytes) {
        assert_eq!(Some(record.stamp()), stamp.as_ref());
    }
}
