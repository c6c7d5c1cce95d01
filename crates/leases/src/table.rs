//! A table: one row of the control store, and what its states and keys are.

use std::collections::BTreeMap;

use hydrant_core::Timestamp;
use hydrant_core::arn::Arn;
use hydrant_core::names::Scope;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::value::{Item, Value};

/// Largest partition key (AWS).
const HASH_BYTES_MAX: usize = 2_048;
/// Largest sort key (AWS).
const RANGE_BYTES_MAX: usize = 1_024;

/// The type of a key attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeyKind {
    S,
    N,
    B,
}

impl KeyKind {
    /// As the API writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::S => "S",
            Self::N => "N",
            Self::B => "B",
        }
    }
}

/// Partition key and sort key, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeySchema {
    pub(crate) hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<String>,
}

impl KeySchema {
    /// The names, the partition key's first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.hash).chain(&self.range)
    }

    /// Whether the attribute is one of them.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().any(|key| key == name)
    }
}

/// `ReadCapacityUnits` and `WriteCapacityUnits`. They are kept and shown; nothing is throttled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) read: u64,
    pub(crate) write: u64,
}

/// What an index holds besides its keys and the table's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Projected {
    KeysOnly,
    Include(Vec<String>),
    All,
}

/// What a table or an index is doing, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    Creating(Timestamp),
    Active,
    Updating(Timestamp),
    Deleting(Timestamp),
}

impl State {
    /// `TableStatus` or `IndexStatus` at `now`.
    pub(crate) fn status(self, now: Timestamp) -> &'static str {
        match self {
            Self::Creating(until) if now < until => "CREATING",
            Self::Updating(until) if now < until => "UPDATING",
            Self::Deleting(_) => "DELETING",
            _ => "ACTIVE",
        }
    }
}

/// A global secondary index. It is computed when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) keys: KeySchema,
    pub(crate) projected: Projected,
    pub(crate) throughput: Option<Throughput>,
    pub(crate) state: State,
}

impl Index {
    /// Whether there is anything left of it.
    pub(crate) fn exists(&self, now: Timestamp) -> bool {
        !matches!(self.state, State::Deleting(until) if until <= now)
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) scope: Scope,
    pub(crate) name: String,
    /// `TableId`: its items are kept under it, so that a new table of an old name has none.
    pub(crate) id: String,
    pub(crate) created: Timestamp,
    pub(crate) state: State,
    pub(crate) keys: KeySchema,
    /// The types of all keys, those of the indexes too.
    pub(crate) attributes: BTreeMap<String, KeyKind>,
    /// `None` is PAY_PER_REQUEST.
    pub(crate) throughput: Option<Throughput>,
    /// When it became PAY_PER_REQUEST.
    pub(crate) on_demand_since: Option<Timestamp>,
    #[serde(default)]
    pub(crate) indexes: Vec<Index>,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) deletion_protection: bool,
    /// The attribute that says when an item expires.
    #[serde(default)]
    pub(crate) expiry: Option<String>,
}

impl Table {
    /// Its ARN.
    pub(crate) fn arn(&self) -> Arn {
        Arn::new("dynamodb", &self.scope, format!("table/{}", self.name))
    }

    /// Whether its items may be read and written.
    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        matches!(self.state.status(now), "ACTIVE" | "UPDATING")
    }

    /// Forgets indexes that are gone, and the types of keys that only they had.
    pub(crate) fn forget_indexes(&mut self, now: Timestamp) {
        self.indexes.retain(|index| index.exists(now));
        let (keys, indexes) = (&self.keys, &self.indexes);
        self.attributes
            .retain(|name, _| keys.has(name) || indexes.iter().any(|index| index.keys.has(name)));
    }

    /// The index of this name that may be read.
    pub(crate) fn index(&self, name: &str, now: Timestamp) -> Result<&Index, Error> {
        let index = self.indexes.iter().find(|index| index.name == name && index.exists(now));
        let index = index.ok_or_else(|| {
            Error::validation(format!("The table does not have the specified index: {name}"))
        })?;
        if index.state.status(now) == "CREATING" {
            return Err(Error::validation(format!(
                "Cannot read from backfilling global secondary index: {name}"
            )));
        }
        Ok(index)
    }

    fn kind(&self, name: &str) -> KeyKind {
        self.attributes.get(name).copied().unwrap_or(KeyKind::S)
    }

    /// The key of a request that names one item: exactly the key's attributes, of its types.
    pub(crate) fn check_key(&self, key: &Item) -> Result<(), Error> {
        let right = key.len() == self.keys.names().count()
            && self.keys.names().all(|name| {
                key.get(name).is_some_and(|value| value.kind() == self.kind(name).as_str())
            });
        if !right {
            return Err(Error::validation("The provided key element does not match the schema"));
        }
        self.check_key_values(key)
    }

    /// An item that is to be kept: its key, and what of it is a key of an index.
    pub(crate) fn check_item(&self, item: &Item) -> Result<(), Error> {
        for name in self.keys.names() {
            let value = item
                .get(name)
                .ok_or_else(|| Error::invalid(&format!("Missing the key {name} in the item")))?;
            let (expected, actual) = (self.kind(name).as_str(), value.kind());
            if expected != actual {
                return Err(Error::invalid(&format!(
                    "Type mismatch for key {name} expected: {expected} actual: {actual}"
                )));
            }
        }
        self.check_key_values(item)?;
        self.check_index_keys(item)
    }

    fn check_key_values(&self, item: &Item) -> Result<(), Error> {
        for name in self.keys.names() {
            let bytes = item.get(name).and_then(key_bytes);
            if bytes == Some(0) {
                let kind = if self.kind(name) == KeyKind::B { "binary" } else { "string" };
                return Err(Error::validation(format!(
                    "One or more parameter values are not valid. The AttributeValue for a key \
                     attribute cannot contain an empty {kind} value. Key: {name}"
                )));
            }
            let (max, text) = if *name == self.keys.hash {
                (HASH_BYTES_MAX, "Size of hashkey has exceeded the maximum size limit of2048 bytes")
            } else {
                (
                    RANGE_BYTES_MAX,
                    "Aggregated size of all range keys has exceeded the size limit of 1024 bytes",
                )
            };
            if bytes.is_some_and(|bytes| bytes > max) {
                return Err(Error::invalid(text));
            }
        }
        Ok(())
    }

    /// What of the item is a key of an index: of the index's type, and not empty.
    pub(crate) fn check_index_keys(&self, item: &Item) -> Result<(), Error> {
        for index in &self.indexes {
            for name in index.keys.names() {
                let Some(value) = item.get(name) else { continue };
                let (expected, actual) = (self.kind(name).as_str(), value.kind());
                if expected != actual {
                    return Err(Error::invalid(&format!(
                        "Type mismatch for Index Key {name} Expected: {expected} Actual: {actual} \
                         IndexName: {}",
                        index.name
                    )));
                }
                if key_bytes(value) == Some(0) {
                    return Err(Error::validation(format!(
                        "One or more parameter values are not valid. A value specified for a \
                         secondary index key is not supported. The AttributeValue for a key attribute \
                         cannot contain an empty string value. IndexName: {}, IndexKey: {name}",
                        index.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// The key of an item of this table.
    pub(crate) fn key_of(&self, item: &Item) -> Item {
        let found = self.keys.names().filter_map(|name| item.get_key_value(name));
        found.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

fn key_bytes(value: &Value) -> Option<usize> {
    match value {
        Value::Text(text) => Some(text.len()),
        Value::Binary(bytes) => Some(bytes.len()),
        _ => None,
    }
}
