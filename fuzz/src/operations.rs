//! Whole operations, one after the other: a line of the input is an operation and its request.
//!
//! `$ITERATOR`, `$TOKEN`, `$SEQUENCE`, `$SHARD` and `$CONSUMER` in a request stand for what an
//! earlier reply gave, so that a few lines go far. A line `@5000` lets five seconds pass; an operation
//! with a `~` in front goes in CBOR.

use std::time::Duration;

use bytes::Bytes;
use hydrant_wire::{Format, cbor};
use serde_json::Value;

use crate::world::{World, block_on};

/// Most lines of one input.
const LINES_MAX: usize = 16;

pub(crate) fn run(input: &[u8]) {
    block_on(async {
        let world = World::new().await;
        let mut given = Given::default();
        for line in input.split(|byte| *byte == b'\n').take(LINES_MAX) {
            let Some((operation, request)) = parts(line) else { continue };
            if let Some(ms) = operation.strip_prefix('@') {
                world.pass(Duration::from_millis(ms.parse::<u32>().unwrap_or(0).into())).await;
                continue;
            }
            let request = given.filled_in(request);
            if let Some(operation) = operation.strip_prefix('~') {
                if let Some(request) = as_cbor(&request) {
                    let _ = world.call_in(Format::Cbor, operation, request).await;
                }
            } else if let Ok(reply) = world.call(operation, request).await {
                given.take(&reply);
            }
        }
    });
}

fn parts(line: &[u8]) -> Option<(&str, &[u8])> {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (operation, rest) = line.split_at(end);
    Some((std::str::from_utf8(operation).ok()?, rest.get(1..).unwrap_or(b"{}")))
}

fn as_cbor(request: &[u8]) -> Option<Bytes> {
    let value: Value = serde_json::from_slice(request).ok()?;
    cbor::to_bytes(&value).ok()
}

/// What replies gave that a later request may name.
#[derive(Default)]
struct Given([(&'static str, String); 5]);

const GIVEN: [(&str, &str); 7] = [
    ("$ITERATOR", "ShardIterator"),
    ("$ITERATOR", "NextShardIterator"),
    ("$TOKEN", "NextToken"),
    ("$SEQUENCE", "SequenceNumber"),
    ("$SEQUENCE", "ContinuationSequenceNumber"),
    ("$SHARD", "ShardId"),
    ("$CONSUMER", "ConsumerARN"),
];

impl Given {
    fn filled_in(&self, request: &[u8]) -> Bytes {
        let Ok(text) = std::str::from_utf8(request) else { return Bytes::copy_from_slice(request) };
        let mut text = text.to_owned();
        for (name, value) in self.0.iter().filter(|(name, _)| !name.is_empty()) {
            text = text.replace(name, value);
        }
        text.into()
    }

    /// Notes them, wherever in the reply they stand.
    fn take(&mut self, reply: &Value) {
        match reply {
            Value::Array(list) => list.iter().for_each(|value| self.take(value)),
            Value::Object(members) => {
                for (member, value) in members {
                    self.take(value);
                    let known = GIVEN.iter().find(|(_, name)| name == member);
                    if let (Some((name, _)), Some(text)) = (known, value.as_str()) {
                        self.note(name, text);
                    }
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, name: &'static str, text: &str) {
        let free = |slot: &&mut (&str, String)| slot.0 == name || slot.0.is_empty();
        if let Some(slot) = self.0.iter_mut().find(free) {
            *slot = (name, text.to_owned());
        }
    }
}
