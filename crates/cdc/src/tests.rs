//! What PostgreSQL 15 wrote for `tests/fixtures/record.sql`, from bytes to records and back.

use std::sync::Arc;

use hydrant_core::capture::{
    CapturedTable, Envelope, Lsn, Op, PgColumn, PgTable, Position, SourceRecord, read, read_back,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::copy::{Line, lines};
use crate::envelope::{At, Change, EncodeError, Encoder, Notice, Transaction};
use crate::key::{By, Key, KeyError};
use crate::pgoutput::{Begin, Datum, Emitted, Identity, Malformed, Message, Old, decode};
use crate::relation::{Relation, Relations, Told};
use crate::row::Row;

fn recorded() -> Vec<(Lsn, Vec<u8>)> {
    let text = include_str!("../tests/fixtures/pgoutput.txt");
    let line = |line: &str| {
        let (lsn, bytes) = line.split_once('\t').unwrap();
        (lsn.parse().unwrap(), hex::decode(bytes).unwrap())
    };
    text.lines().map(line).collect()
}

/// A source without its I/O.
struct World {
    relations: Relations,
    encoder: Encoder,
    /// Primary keys, as the catalog has them.
    primary: fn(&str) -> &'static [&'static str],
    /// (partition key, data)
    records: Vec<(String, Vec<u8>)>,
    told: Vec<Told>,
}

impl World {
    fn new(envelope: Envelope) -> Self {
        let primary = |table: &str| match table {
            "whole" => &[][..],
            _ => &["id"][..],
        };
        let encoder = Encoder::new(envelope, "mz_source", "shop", 3);
        Self { relations: Relations::default(), encoder, primary, records: vec![], told: vec![] }
    }

    fn run(mut self) -> Self {
        let mut at = At { now_ms: 1_800_000_000_123, ..At::default() };
        for (lsn, bytes) in recorded() {
            at.lsn = lsn;
            match decode(&bytes).unwrap() {
                Message::Begin(Begin { final_lsn, commit_time_us, xid }) => {
                    at.position = Position { commit_lsn: final_lsn, seq: 0 };
                    at.transaction =
                        Some(Transaction { xid, commit_time_us, ..Transaction::default() });
                }
                Message::Commit(commit) => {
                    assert_eq!(commit.commit_lsn, at.position.commit_lsn);
                    assert!(commit.end_lsn > commit.commit_lsn);
                    at.last_commit = Some(commit.commit_lsn);
                    at.transaction = None;
                }
                Message::Relation(relation) => {
                    self.told.push(self.relations.tell(&relation).unwrap());
                }
                Message::Insert { relation, new } => {
                    self.write(relation, Op::Create, None, Some(Row::Tuple(new)), &mut at);
                }
                Message::Update { relation, old, new } => {
                    let new = Row::Tuple(new);
                    let table = self.relations.get(relation).unwrap().clone();
                    if self.key(&table).replaced(old, new) {
                        self.write(relation, Op::Delete, old, None, &mut at);
                        self.write(relation, Op::Create, old, Some(new), &mut at);
                    } else {
                        self.write(relation, Op::Update, old, Some(new), &mut at);
                    }
                }
                Message::Delete { relation, old } => {
                    self.write(relation, Op::Delete, Some(old), None, &mut at);
                }
                Message::Truncate { relations, cascade, restart_identity } => {
                    assert!(cascade && restart_identity);
                    for relation in relations {
                        self.write(relation, Op::Truncate, None, None, &mut at);
                    }
                }
                Message::Emitted(emitted) => {
                    at.position.seq += 1;
                    let mut data = Vec::new();
                    self.encoder.notice(&Notice::Emitted(emitted), &at, &mut data);
                    self.records.push((emitted.prefix.to_owned(), data));
                }
                Message::Type { .. } | Message::Origin { .. } => {}
            }
        }
        self
    }

    fn key(&self, relation: &Relation) -> Key {
        Key::new(relation, (self.primary)(&relation.table.table), &[]).unwrap()
    }

    fn write(&mut self, oid: u32, op: Op, old: Option<Old<'_>>, new: Option<Row<'_>>, at: &mut At) {
        let relation = self.relations.get(oid).unwrap().clone();
        let key = self.key(&relation);
        at.position.seq += 1;
        if let Some(transaction) = &mut at.transaction {
            transaction.total_order += 1;
            transaction.data_collection_order += 1;
        }
        let mut partition_key = String::new();
        let before = old.map(|old| Row::Tuple(old.tuple()));
        match if op == Op::Delete { before } else { new } {
            Some(row) => key.of(&relation, row, old, &mut partition_key).unwrap(),
            None => key.table(&mut partition_key),
        }
        let mut data = Vec::new();
        let change = Change { relation: &relation, op, old, new, key: &key };
        self.encoder.change(&change, at, &mut data).unwrap();
        self.records.push((partition_key, data));
    }

    fn values(&self) -> Vec<Value> {
        self.records.iter().map(|(_, data)| serde_json::from_slice(data).unwrap()).collect()
    }
}

fn types() -> Value {
    serde_json::from_str(include_str!("../tests/fixtures/types.json")).unwrap()
}

#[test]
fn every_type_is_written_the_same_by_stream_and_snapshot() {
    let world = World::new(Envelope::Debezium).run();
    let inserted = world.values();
    assert_eq!(inserted[0]["after"], types());
    let second = &inserted[1]["after"];
    assert_eq!(second["a_real"], "NaN");
    assert_eq!(second["a_date"], "0044-03-15 BC");
    assert_eq!(second["a_timestamptz"], "0044-03-15 12:00:00+00 BC");
    assert_eq!((&second["ints"], &second["texts"]), (&json!([]), &Value::Null));

    let relation =
        world.told.iter().map(Told::relation).find(|r| r.table.table == "types").unwrap();
    let key = world.key(relation);
    let copied = include_bytes!("../tests/fixtures/types.copy");
    let mut rows = 0;
    for (line, inserted) in lines(copied).zip(&inserted) {
        let line = Row::Line(Line::new(line, relation.columns.len()).unwrap());
        let change = Change { relation, op: Op::Read, old: None, new: Some(line), key: &key };
        let mut data = Vec::new();
        world.encoder.change(&change, &At::default(), &mut data).unwrap();
        let read: Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(read["after"], inserted["after"]);
        assert_eq!((&read["op"], &read["source"]["snapshot"]), (&json!("r"), &json!("true")));
        rows += 1;
    }
    assert_eq!(rows, 3);
}

#[test]
fn changes_tell_what_is_known() {
    let world = World::new(Envelope::Debezium).run();
    let long = "0123456789".repeat(300);
    let gone = "__debezium_unavailable_value";
    let found: Vec<_> = world
        .records
        .iter()
        .zip(world.values())
        .skip(3)
        .map(|((key, _), value)| {
            let unavailable = value["source"]["unavailable"].clone();
            let op = value["op"].as_str().unwrap().to_owned();
            (key.as_str(), op, value["before"].clone(), value["after"].clone(), unavailable)
        })
        .collect();
    let row = |key, op: &str, before: Value, after: Value, unavailable: Value| {
        (key, op.to_owned(), before, after, unavailable)
    };
    let (none, null) = (Value::Null, Value::Null);
    let whole = |name: Value| json!({"id": 1, "name": name, "body": long});
    let want = [
        row("public.keyed|1", "c", null.clone(), whole(json!("a")), none.clone()),
        row(
            "public.keyed|2",
            "c",
            null.clone(),
            json!({"id": 2, "name": null, "body": "short"}),
            none.clone(),
        ),
        row(
            "public.keyed|1",
            "u",
            null.clone(),
            json!({"id": 1, "name": "b", "body": gone}),
            json!(["body"]),
        ),
        // A new key: the old one is all that is known of the row before.
        row("public.keyed|1", "d", json!({"id": 1}), null.clone(), none.clone()),
        row(
            "public.keyed|3",
            "c",
            null.clone(),
            json!({"id": 3, "name": "b", "body": gone}),
            json!(["body"]),
        ),
        row("public.keyed|2", "d", json!({"id": 2}), null.clone(), none.clone()),
        // Without a key the whole row is known, so that what did not change is too.
        row("public.whole", "c", null.clone(), whole(json!("a")), none.clone()),
        row("public.whole", "u", whole(json!("a")), whole(null.clone()), none.clone()),
        row("public.whole", "d", whole(null.clone()), null.clone(), none.clone()),
        row(
            "public.indexed|x",
            "c",
            null.clone(),
            json!({"id": 1, "code": "x", "note": "n"}),
            none.clone(),
        ),
        row("public.indexed|x", "d", json!({"code": "x"}), null.clone(), none.clone()),
        row(
            "public.indexed|y",
            "c",
            null.clone(),
            json!({"id": 1, "code": "y", "note": "n"}),
            none.clone(),
        ),
        row("public.indexed|y", "d", json!({"code": "y"}), null.clone(), none.clone()),
        row("prefix", "m", none.clone(), none.clone(), none.clone()),
        row("prefix", "m", none.clone(), none.clone(), none.clone()),
        row(
            "public.keyed|5",
            "c",
            null.clone(),
            json!({"id": 5, "name": "e", "extra": 6}),
            none.clone(),
        ),
        row(
            "public.keyed|6",
            "c",
            null.clone(),
            json!({"id": 6, "name": "f", "more": 7}),
            none.clone(),
        ),
        row("public.keyed", "t", null.clone(), null.clone(), none.clone()),
        row("public.whole", "t", null.clone(), null.clone(), none.clone()),
        row(
            "public.indexed|o",
            "c",
            null.clone(),
            json!({"id": 2, "code": "o", "note": null}),
            none,
        ),
    ];
    for (found, want) in found.iter().zip(&want) {
        assert_eq!(found, want);
    }
    assert_eq!(found.len(), want.len());
}

#[test]
fn a_change_has_debeziums_members() {
    let world = World::new(Envelope::Debezium).run();
    let values = world.values();
    let update = &values[5];
    let commit = update["source"]["commit_lsn"].as_u64().unwrap();
    let xid = update["source"]["txId"].as_u64().unwrap();
    let committed = update["source"]["ts_us"].as_i64().unwrap();
    assert_eq!(
        update["source"],
        json!({
            "version": env!("CARGO_PKG_VERSION"), "connector": "postgresql", "name": "mz_source",
            "ts_ms": committed / 1_000, "ts_us": committed, "ts_ns": committed * 1_000,
            "snapshot": "false", "db": "shop",
            "sequence": format!("[\"{}\",\"{}\"]", 0x0154_5fb8, 0x0154_6ed0),
            "schema": "public", "table": "keyed", "txId": xid, "lsn": 0x0154_6ed0, "xmin": null,
            "commit_lsn": commit, "seq": 3, "epoch": 3, "unavailable": ["body"],
        })
    );
    assert_eq!(
        update["transaction"],
        json!({"id": format!("{xid}:{commit}"), "total_order": 3, "data_collection_order": 3})
    );
    assert_eq!((&update["op"], &update["ts_ms"]), (&json!("u"), &json!(1_800_000_000_123_u64)));
    let message = values.iter().find(|value| value["op"] == "m").unwrap();
    assert_eq!(
        message["message"],
        json!({"prefix": "prefix", "content": "aW4gYSB0cmFuc2FjdGlvbg=="})
    );
}

#[test]
fn records_are_read_back() {
    for envelope in [Envelope::Debezium, Envelope::Dms] {
        let world = World::new(envelope).run();
        let mut last = Position::default();
        for (_, data) in &world.records {
            let stamp = read_back(data).unwrap();
            assert_eq!((stamp.source.as_ref(), stamp.epoch), ("mz_source", 3));
            assert!(stamp.position > last, "{stamp:?}");
            last = stamp.position;
            assert_eq!(read(data).unwrap().stamp(), &stamp);
        }
        let Some(SourceRecord::Change(update)) = read(&world.records[5].1) else { panic!() };
        assert_eq!((update.op, update.table.as_ref()), (Op::Update, "keyed"));
        assert_eq!(update.after.unwrap(), [("id".into(), "1"), ("name".into(), "\"b\"")]);
        assert_eq!(update.unavailable, ["body"]);
        let Some(SourceRecord::Change(delete)) = read(&world.records[6].1) else { panic!() };
        assert_eq!((delete.op, delete.after), (Op::Delete, None));
        assert_eq!(delete.before.unwrap(), [("id".into(), "1")]);
    }
}

#[test]
fn dms_has_its_members() {
    let values = World::new(Envelope::Dms).run().values();
    assert_eq!(values[0]["data"], types());
    let update = &values[5];
    assert_eq!(update["data"], json!({"id": 1, "name": "b"}));
    let metadata = update["metadata"].as_object().unwrap();
    assert_eq!(metadata["timestamp"], "2027-01-15T08:00:00.123000Z");
    assert_eq!(metadata["stream-position"], "00000000/01546ED0.3.00000000/01547050");
    let mut names: Vec<_> = metadata.keys().map(String::as_str).collect();
    names.sort_unstable();
    let want = [
        "commit-lsn",
        "commit-timestamp",
        "epoch",
        "operation",
        "partition-key-type",
        "record-type",
        "schema-name",
        "seq",
        "source-name",
        "stream-position",
        "table-name",
        "timestamp",
        "transaction-id",
        "transaction-record-id",
        "unavailable",
    ];
    assert_eq!(names, want);
    let full = values.iter().find(|value| value["before-image"].is_object()).unwrap();
    assert_eq!(full["before-image"]["name"], "a");
    let truncated = values.iter().find(|v| v["metadata"]["operation"] == "truncate-table").unwrap();
    assert_eq!(truncated["metadata"]["record-type"], "control");
}

fn captured() -> CapturedTable {
    let column = |name: &str, type_oid, type_name: &str, type_modifier, key| PgColumn {
        name: name.to_owned(),
        type_oid,
        type_name: type_name.to_owned(),
        type_modifier,
        key,
        nullable: key.is_none(),
        ..PgColumn::default()
    };
    CapturedTable {
        table: PgTable { schema: "public".into(), table: "a\"b".into() },
        oid: 7,
        identity: 'd',
        columns: vec![
            column("id", 23, "integer", -1, Some(1)),
            column("name", 1043, "character varying(20)", 24, None),
            column("price", 1700, "numeric(10,2)", (10 << 16 | 2) + 4, None),
        ],
        seen: false,
        dropped: Vec::new(),
        filenode: 0,
        version: 2,
        state: hydrant_core::capture::TableState::Live,
        reason: None,
        snapshot_rows: 0,
        snapshot_rows_estimated: None,
    }
}

#[test]
fn notices_have_their_forms_and_are_read_back() {
    let table = captured();
    let relation = Relation::stored(&table);
    let mut before = table.clone();
    before.columns.remove(1);
    let difference = relation.difference(&Relation::stored(&before));
    assert_eq!(difference.added, ["name"]);
    let at = At {
        position: Position { commit_lsn: Lsn(9), seq: 4 },
        transaction: Some(Transaction { xid: 5, commit_time_us: -1, ..Transaction::default() }),
        ..At::default()
    };
    let tables = [(&relation, 2)];
    let notices = [
        Notice::SnapshotBegin,
        Notice::SnapshotEnd,
        Notice::Schema { table: &table, difference: None },
        Notice::Schema { table: &table, difference: Some(&difference) },
        Notice::TransactionBegin,
        Notice::TransactionEnd { changes: 2, tables: &tables },
        Notice::Emitted(Emitted {
            transactional: true,
            lsn: Lsn(1),
            prefix: "p",
            content: b"\xff",
        }),
    ];
    for envelope in [Envelope::Debezium, Envelope::Dms] {
        let encoder = Encoder::new(envelope, "s", "d", 1);
        let written = notices.map(|notice| {
            let mut data = Vec::new();
            encoder.notice(&notice, &at, &mut data);
            data
        });
        let read = written.each_ref().map(|data| read(data).unwrap());
        assert!(read.iter().all(|record| record.stamp().position == at.position));
        assert!(matches!(read[0], SourceRecord::SnapshotBegin(_)));
        assert!(matches!(read[1], SourceRecord::SnapshotEnd(_)));
        assert!(matches!(&read[2], SourceRecord::Schema { table, .. } if table == "a\"b"));
        assert!(matches!(&read[3], SourceRecord::Schema { table, .. } if table == "a\"b"));
        assert!(read[4..].iter().all(|record| matches!(record, SourceRecord::Other(_))));
        let json = written.map(|data| serde_json::from_slice::<Value>(&data).unwrap());
        match envelope {
            Envelope::Debezium => {
                let change = &json[3]["tableChanges"][0];
                assert_eq!(
                    (&change["type"], &change["added"]),
                    (&json!("ALTER"), &json!(["name"]))
                );
                assert_eq!(change["table"]["primaryKeyColumnNames"], json!(["id"]));
                assert_eq!(json[5]["data_collections"][0]["event_count"], 2);
                assert_eq!((&json[5]["status"], &json[5]["id"]), (&json!("END"), &json!("5:9")));
            }
            Envelope::Dms => {
                let columns = json!({
                    "id": {"type": "INT32", "nullable": false},
                    "name": {"type": "STRING", "length": 20, "nullable": true},
                    "price": {"type": "NUMERIC", "precision": 10, "scale": 2, "nullable": true},
                });
                let want = json!({"table-def": {"columns": columns, "primary-key": ["id"]}});
                assert_eq!(json[2]["control"], want);
                assert_eq!(json[2]["metadata"]["operation"], "create-table");
            }
        }
    }
}

#[test]
fn relations_have_versions() {
    let world = World::new(Envelope::Debezium).run();
    let changes: Vec<_> = world
        .told
        .iter()
        .filter_map(|told| match told {
            Told::Changed(relation, difference) => Some((relation.version, difference.clone())),
            _ => None,
        })
        .collect();
    // ADD, DROP and TYPE in one; then RENAME, which looks like a drop and an add.
    assert_eq!(changes.len(), 2);
    let (version, first) = &changes[0];
    assert_eq!(
        (*version, &first.added[..], &first.dropped[..]),
        (2, &["extra".to_owned()][..], &["body".to_owned()][..])
    );
    assert_eq!((first.retyped[0].name.as_str(), first.retyped[0].type_oid), ("name", 25));
    let (version, second) = &changes[1];
    assert_eq!((*version, &second.added[0][..], &second.dropped[0][..]), (3, "more", "extra"));
    let same = world.told.iter().filter(|told| matches!(told, Told::Same(_))).count();
    assert_eq!(world.told.len(), 4 + 2 + same);
    let stored = Relations::stored([&captured()]).unwrap();
    let relation = stored.get(7).unwrap();
    assert_eq!((relation.version, relation.columns[0].identity), (2, true));
}

#[test]
fn every_message_ends_where_it_should() {
    let mut kinds = std::collections::BTreeSet::new();
    for (_, bytes) in recorded() {
        kinds.insert(char::from(bytes[0]));
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end} of {}", hex::encode(&bytes));
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(matches!(decode(&longer), Err(Malformed::Trailing { bytes: 1, .. })));
    }
    assert_eq!(kinds.into_iter().collect::<String>(), "BCDIMORTUY");
}

#[test]
fn what_cannot_be_is_an_error() {
    let insert = |tail: &[u8]| decode(&[b"I\0\0\0\x01N", tail].concat()).map(|_| ());
    assert_eq!(insert(b"\0\x01b\0\0\0\0"), Err(Malformed::Binary));
    assert!(matches!(insert(b"\0\x01x"), Err(Malformed::Unknown { found: 'x', .. })));
    assert!(matches!(insert(b"\xff\xff"), Err(Malformed::Range { found: -1, .. })));
    assert!(matches!(insert(b"\x7f\xff"), Err(Malformed::Range { found: 32767, .. })));
    assert!(matches!(insert(b"\0\x01t\xff\xff\xff\xff"), Err(Malformed::Range { .. })));
    assert!(matches!(insert(b"\0\x01t\x7f\xff\xff\xff"), Err(Malformed::Short { .. })));
    assert!(matches!(decode(b"T\x7f\xff\xff\xff\0"), Err(Malformed::Short { .. })));
    assert!(matches!(decode(b"T\0\0\0\0\x04"), Err(Malformed::Unknown { .. })));
    assert!(matches!(decode(b"S\0\0\0\x01\x01"), Err(Malformed::Unknown { found: 'S', .. })));
    assert!(matches!(decode(b"Y\0\0\0\x01\xff\0a\0"), Err(Malformed::NotUtf8 { .. })));
    assert!(matches!(
        decode(b"R\0\0\0\x01a\0b\0q\0\0"),
        Err(Malformed::Unknown { found: 'q', .. })
    ));
}

/// A tuple of texts, as an insert has it.
fn insert(values: &[Option<&str>]) -> Vec<u8> {
    let mut bytes = b"I\0\0\0\x07N".to_vec();
    bytes.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            Some(text) => {
                bytes.push(b't');
                bytes.extend((text.len() as u32).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
            None => bytes.push(b'n'),
        }
    }
    bytes
}

fn row(bytes: &[u8]) -> Row<'_> {
    match decode(bytes).unwrap() {
        Message::Insert { new, .. } => Row::Tuple(new),
        other => panic!("{other:?}"),
    }
}

fn texts(identity: Identity) -> Arc<Relation> {
    let column = |name, key| crate::pgoutput::Column { key, name, type_oid: 25, type_modifier: -1 };
    let told = crate::pgoutput::Relation {
        oid: 7,
        schema: "s",
        name: "t",
        identity,
        columns: vec![
            column("a", true),
            column("b", true),
            column("c", identity == Identity::Full),
        ],
    };
    Arc::new(Relation::new(&told, 1))
}

#[test]
fn partition_keys_are_escaped_and_bounded() {
    let relation = texts(Identity::Default);
    let key = Key::new(&relation, &["a", "b"], &[]).unwrap();
    let of = |values: [Option<&str>; 3]| {
        let mut out = "before".to_owned();
        key.of(&relation, row(&insert(&values)), None, &mut out).unwrap();
        out
    };
    assert_eq!(of([Some("a|b"), Some("c"), None]), r"s.t|a\|b|c");
    assert_eq!(of([Some("a"), Some("b|c"), None]), r"s.t|a|b\|c");
    assert_eq!(of([Some(r"a\"), Some(""), None]), r"s.t|a\\|");
    assert_eq!(of([Some(&"é".repeat(251)), Some(""), None]).chars().count(), 256);
    let digest = of([Some(&"é".repeat(252)), Some(""), None]);
    assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()));

    let chosen = Key::new(&relation, &["a"], &["c"]);
    assert!(matches!(chosen, Err(KeyError::NotIdentity { column, .. }) if column == "c"));
    assert!(matches!(Key::new(&relation, &["a"], &["x"]), Err(KeyError::NoColumn { .. })));
    let full = texts(Identity::Full);
    let chosen = Key::new(&full, &["a"], &["c"]).unwrap();
    let mut out = String::new();
    chosen.of(&full, row(&insert(&[Some("1"), Some("2"), None])), None, &mut out).unwrap();
    assert_eq!((out.as_str(), chosen.by()), (r"s.t|\N", By::Columns));
}

#[test]
fn a_large_key_that_did_not_change_is_known_from_the_row_before() {
    let relation = texts(Identity::Default);
    let update = b"U\0\0\0\x07K\0\x03t\0\0\0\x01at\0\0\0\x01bnN\0\x03ut\0\0\0\x01bu";
    let Ok(Message::Update { old, new, .. }) = decode(update) else { panic!() };
    let key = Key::new(&relation, &["a", "b"], &[]).unwrap();
    let new = Row::Tuple(new);
    assert!(!key.replaced(old, new));
    let (mut partition_key, mut data) = (String::new(), Vec::new());
    key.of(&relation, new, old, &mut partition_key).unwrap();
    assert_eq!(partition_key, "s.t|a|b");
    let change = Change { relation: &relation, op: Op::Update, old, new: Some(new), key: &key };
    let encoder = Encoder::new(Envelope::Debezium, "s", "d", 1);
    encoder.change(&change, &At::default(), &mut data).unwrap();
    let Some(SourceRecord::Change(read)) = read(&data) else { panic!() };
    assert_eq!(read.after.unwrap(), [("a".into(), "\"a\""), ("b".into(), "\"b\"")]);
    assert_eq!(read.unavailable, ["c"]);
}

#[test]
fn a_row_of_another_width_is_an_error_that_leaves_nothing() {
    let relation = texts(Identity::Default);
    let key = Key::new(&relation, &["a"], &[]).unwrap();
    let bytes = insert(&[Some("1")]);
    let change = Change {
        relation: &relation,
        op: Op::Create,
        old: None,
        new: Some(row(&bytes)),
        key: &key,
    };
    let encoder = Encoder::new(Envelope::Debezium, "s", "d", 1);
    let mut out = b"kept".to_vec();
    let error = encoder.change(&change, &At::default(), &mut out).unwrap_err();
    assert!(matches!(error, EncodeError::Columns { found: 1, wanted: 3, .. }));
    assert_eq!(out, b"kept");
}

#[test]
fn what_is_too_long_is_left_out() {
    let relation = texts(Identity::Full);
    let key = Key::new(&relation, &["b"], &[]).unwrap();
    let bytes = insert(&[Some("1"), Some(&"k".repeat(200)), Some(&"x".repeat(5_000))]);
    let change = Change {
        relation: &relation,
        op: Op::Create,
        old: None,
        new: Some(row(&bytes)),
        key: &key,
    };
    for envelope in [Envelope::Debezium, Envelope::Dms] {
        let encoder = Encoder::new(envelope, "s", "d", 1);
        let mut out = Vec::new();
        assert_eq!(encoder.change_within(&change, &At::default(), 1_000, &mut out), Ok(true));
        assert!(out.len() <= 1_000);
        let Some(SourceRecord::Change(read)) = read(&out) else { panic!() };
        assert_eq!((read.unavailable.len(), read.after.unwrap().len()), (1, 2));
        out.clear();
        assert_eq!(encoder.change_within(&change, &At::default(), 10, &mut out), Ok(false));
        assert!(out.is_empty());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(kind in "[BCDIMORTUY]", tail: Vec<u8>) {
        let bytes = [kind.as_bytes(), &tail].concat();
        if let Ok(Message::Insert { new, .. }) = decode(&bytes) {
            prop_assert_eq!(new.iter().count(), new.len());
        }
    }

    #[test]
    fn rows_are_what_was_sent(values in proptest::collection::vec(proptest::option::of(".*"), 0..9)) {
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        let bytes = insert(&values);
        let Message::Insert { new, .. } = decode(&bytes).unwrap() else { panic!() };
        let read = new.iter().map(|datum| match datum {
            Datum::Text(text) => Some(std::str::from_utf8(text).unwrap()),
            _ => None,
        });
        prop_assert_eq!(read.collect::<Vec<_>>(), values);
    }

    #[test]
    fn different_rows_have_different_keys(
        one in ["[a|\\\\N]{0,3}", "[a|\\\\N]{0,3}"], two in ["[a|\\\\N]{0,3}", "[a|\\\\N]{0,3}"],
    ) {
        let relation = texts(Identity::Full);
        let key = Key::new(&relation, &["a", "b"], &[]).unwrap();
        let of = |values: &[String; 2]| {
            let mut out = String::new();
            let bytes = insert(&[Some(&values[0]), Some(&values[1]), None]);
            key.of(&relation, row(&bytes), None, &mut out).unwrap();
            out
        };
        prop_assert_eq!(of(&one) == of(&two), one == two);
    }
}
