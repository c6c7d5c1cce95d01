//! Rows of PostgreSQL that become records.

use hydrant_cdc::envelope::{At, Change, Encoder};
use hydrant_cdc::key::Key;
use hydrant_cdc::pgoutput::{Column, Identity, Message, Relation as Told, decode};
use hydrant_cdc::relation::Relation;
use hydrant_cdc::row::Row;
use hydrant_core::capture::{Envelope, Lsn, Op, Position};

use crate::{Outcome, Work};

/// Rows of one run.
const ROWS: usize = 200;
/// The columns: int8, text, numeric, timestamptz, bool.
const TYPES: [(u32, &str); 5] = [
    (20, "1234567890"),
    (25, "a text of some \"length\", as there are many"),
    (1_700, "12345.67"),
    (1_184, "2026-01-02 03:04:05.678901+00"),
    (16, "t"),
];

/// An insert as the server sends it, decoded and written as an envelope, with its key.
pub(crate) fn rows() -> Outcome<Work> {
    let column = |(n, (oid, _)): (usize, &(u32, &'static str))| Column {
        key: n == 0,
        name: ["id", "name", "amount", "at", "done"][n],
        type_oid: *oid,
        type_modifier: -1,
    };
    let columns = TYPES.iter().enumerate().map(column).collect();
    let told =
        Told { oid: 1, schema: "public", name: "orders", identity: Identity::Default, columns };
    let relation = Relation::new(&told, 1);
    let key = Key::new(&relation, &["id"], &[])?;
    let encoder = Encoder::new(Envelope::Debezium, "source", "database", 1_000);
    let insert = insert();
    Ok(Box::new(move || {
        let (mut data, mut partition_key) = (Vec::new(), String::new());
        for seq in 0..ROWS as u64 {
            let Message::Insert { new, .. } = decode(&insert)? else {
                return Err("not an insert".into());
            };
            let new = Row::Tuple(new);
            data.clear();
            partition_key.clear();
            key.of(&relation, new, None, &mut partition_key)?;
            let position = Position { commit_lsn: Lsn(77), seq };
            let at = At { position, ..At::default() };
            let change = Change {
                relation: &relation,
                op: Op::Create,
                old: None,
                new: Some(new),
                key: &key,
            };
            encoder.change(&change, &at, &mut data)?;
        }
        if data.is_empty() { Err("no record".into()) } else { Ok(()) }
    }))
}

/// The message, as "Logical Replication Message Formats" has it.
fn insert() -> Vec<u8> {
    let mut message = vec![b'I'];
    message.extend_from_slice(&1_u32.to_be_bytes());
    message.push(b'N');
    message.extend_from_slice(&(TYPES.len() as u16).to_be_bytes());
    for (_, text) in TYPES {
        message.push(b't');
        message.extend_from_slice(&(text.len() as u32).to_be_bytes());
        message.extend_from_slice(text.as_bytes());
    }
    message
}
