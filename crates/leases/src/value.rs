//! Attribute values and items: read strictly, kept exactly, written as DynamoDB writes them.
//!
//! Follows "AttributeValue" in the DynamoDB API reference and "Item sizes and formats" and "Service
//! quotas" in the developer guide.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hydrant_wire::shape::{Blob, Flag, List, Map, Structure, Text};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::Error;
use crate::number::Number;

/// Largest item, names and values (AWS: 400 KB).
pub(crate) const ITEM_BYTES_MAX: usize = 400 << 10;
/// Deepest nesting of lists and maps in an item (AWS).
const NESTING_MAX: usize = 32;
/// What a list or a map counts for besides its entries, and each entry.
const CONTAINER_BYTES: usize = 3;
const ENTRY_BYTES: usize = 1;

/// An item: its attributes by name.
pub(crate) type Item = BTreeMap<String, Value>;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Text(String),
    Number(Number),
    Binary(Vec<u8>),
    Bool(bool),
    Null,
    Map(BTreeMap<String, Value>),
    List(Vec<Value>),
    Texts(BTreeSet<String>),
    Numbers(BTreeSet<Number>),
    Binaries(BTreeSet<Vec<u8>>),
}

impl Value {
    /// The name of its type, as requests and errors have it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "S",
            Self::Number(_) => "N",
            Self::Binary(_) => "B",
            Self::Bool(_) => "BOOL",
            Self::Null => "NULL",
            Self::Map(_) => "M",
            Self::List(_) => "L",
            Self::Texts(_) => "SS",
            Self::Numbers(_) => "NS",
            Self::Binaries(_) => "BS",
        }
    }

    /// The string, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it counts for in the size of an item.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Number(n) => n.size_bytes(),
            Self::Binary(bytes) => bytes.len(),
            Self::Bool(_) | Self::Null => 1,
            Self::Map(map) => CONTAINER_BYTES + item_bytes(map) + ENTRY_BYTES * map.len(),
            Self::List(list) => {
                let entries = list.iter().map(|v| v.size_bytes() + ENTRY_BYTES);
                CONTAINER_BYTES + entries.sum::<usize>()
            }
            Self::Texts(set) => set.iter().map(String::len).sum(),
            Self::Numbers(set) => set.iter().map(|n| n.size_bytes()).sum(),
            Self::Binaries(set) => set.iter().map(Vec::len).sum(),
        }
    }

    /// What `size()` of an expression says of it; `None` for what has no size.
    pub(crate) fn extent(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.len()),
            Self::Binary(bytes) => Some(bytes.len()),
            Self::Map(map) => Some(map.len()),
            Self::List(list) => Some(list.len()),
            Self::Texts(set) => Some(set.len()),
            Self::Numbers(set) => Some(set.len()),
            Self::Binaries(set) => Some(set.len()),
            Self::Number(_) | Self::Bool(_) | Self::Null => None,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Map(map) => 1 + map.values().map(Self::depth).max().unwrap_or(0),
            Self::List(list) => 1 + list.iter().map(Self::depth).max().unwrap_or(0),
            _ => 0,
        }
    }
}

/// The size of an item as AWS counts it: names in UTF-8, and values.
pub(crate) fn item_bytes(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value.size_bytes()).sum()
}

/// Whether an item may be kept.
pub(crate) fn check_item(item: &Item, too_large: &str) -> Result<(), Error> {
    if item.values().any(|value| value.depth() > NESTING_MAX) {
        return Err(Error::validation("Nesting Levels have exceeded supported limits"));
    }
    if item_bytes(item) > ITEM_BYTES_MAX {
        return Err(Error::validation(too_large));
    }
    Ok(())
}

/// An `AttributeValue` as it came.
#[derive(Deserialize)]
pub(crate) struct RawValue<'a> {
    #[serde(rename = "S", borrow)]
    s: Option<Text<'a>>,
    #[serde(rename = "N", borrow)]
    n: Option<Text<'a>>,
    #[serde(rename = "B", borrow)]
    b: Option<Blob<'a>>,
    #[serde(rename = "BOOL")]
    boolean: Option<Flag>,
    #[serde(rename = "NULL")]
    null: Option<Flag>,
    #[serde(rename = "M", borrow)]
    m: Option<RawItem<'a>>,
    #[serde(rename = "L", borrow)]
    l: Option<List<Structure<RawValue<'a>>>>,
    #[serde(rename = "SS", borrow)]
    ss: Option<List<Text<'a>>>,
    #[serde(rename = "NS", borrow)]
    ns: Option<List<Text<'a>>>,
    #[serde(rename = "BS", borrow)]
    bs: Option<List<Blob<'a>>>,
}

/// A map from names to `AttributeValue`s as it came.
pub(crate) type RawItem<'a> = Map<'a, Structure<RawValue<'a>>>;

impl RawValue<'_> {
    /// The value, checked. The text of the error says what is wrong with it.
    pub(crate) fn into_value(self) -> Result<Value, Error> {
        let mut values = Vec::new();
        if let Some(text) = self.s {
            values.push(Value::Text(text.0.into_owned()));
        }
        if let Some(text) = self.n {
            values.push(Value::Number(number(&text)?));
        }
        if let Some(blob) = self.b {
            values.push(Value::Binary(bytes(&blob)?));
        }
        if let Some(Flag(flag)) = self.boolean {
            values.push(Value::Bool(flag));
        }
        if let Some(Flag(flag)) = self.null {
            if !flag {
                return Err(Error::invalid(
                    "Null attribute value types must have the value of true",
                ));
            }
            values.push(Value::Null);
        }
        if let Some(map) = self.m {
            values.push(Value::Map(into_item(map)?));
        }
        if let Some(list) = self.l {
            let list: Result<_, Error> = list.0.into_iter().map(|v| v.0.into_value()).collect();
            values.push(Value::List(list?));
        }
        if let Some(list) = self.ss {
            let texts = list.0.iter().map(|text| Ok(text.0.clone().into_owned()));
            values.push(Value::Texts(set("string", texts, |text| text.clone())?));
        }
        if let Some(list) = self.ns {
            let numbers = list.0.iter().map(|text| number(text));
            values.push(Value::Numbers(set("number", numbers, Number::to_string)?));
        }
        if let Some(list) = self.bs {
            let binaries = list.0.iter().map(bytes);
            values.push(Value::Binaries(set("binary", binaries, |b| STANDARD.encode(b))?));
        }
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err(Error::validation(
                "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
            )),
            (Some(_), Some(_)) => Err(Error::validation(
                "Supplied AttributeValue has more than one datatypes set, must contain exactly one of \
                 the supported datatypes",
            )),
        }
    }
}

/// The item, each value checked.
pub(crate) fn into_item(raw: RawItem<'_>) -> Result<Item, Error> {
    raw.0
        .into_iter()
        .map(|(name, value)| Ok((name.0.into_owned(), value.0.into_value()?)))
        .collect()
}

fn number(text: &str) -> Result<Number, Error> {
    text.parse().map_err(|e: crate::number::InvalidNumber| Error::validation(e.to_string()))
}

fn bytes(blob: &Blob<'_>) -> Result<Vec<u8>, Error> {
    Ok(blob.decoded(&mut Vec::new())?.to_vec())
}

fn set<T: Ord + Clone>(
    kind: &str,
    values: impl Iterator<Item = Result<T, Error>>,
    show: impl Fn(&T) -> String,
) -> Result<BTreeSet<T>, Error> {
    let values: Vec<T> = values.collect::<Result<_, _>>()?;
    if values.is_empty() {
        return Err(Error::invalid(&format!("An {kind} set  may not be empty")));
    }
    let set: BTreeSet<T> = values.iter().cloned().collect();
    if set.len() < values.len() {
        let shown: Vec<_> = values.iter().take(20).map(show).collect();
        let shown = shown.join(", ");
        return Err(Error::invalid(&format!("Input collection [{shown}] contains duplicates.")));
    }
    Ok(set)
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(1))?;
        let kind = self.kind();
        match self {
            Self::Text(text) => map.serialize_entry(kind, text)?,
            Self::Number(n) => map.serialize_entry(kind, &n.to_string())?,
            Self::Binary(bytes) => map.serialize_entry(kind, &STANDARD.encode(bytes))?,
            Self::Bool(flag) => map.serialize_entry(kind, flag)?,
            Self::Null => map.serialize_entry(kind, &true)?,
            Self::Map(item) => map.serialize_entry(kind, item)?,
            Self::List(list) => map.serialize_entry(kind, list)?,
            Self::Texts(set) => map.serialize_entry(kind, set)?,
            Self::Numbers(set) => map.serialize_entry(kind, &Shown(set, Number::to_string))?,
            Self::Binaries(set) => {
                map.serialize_entry(kind, &Shown(set, |b: &Vec<u8>| STANDARD.encode(b)))?;
            }
        }
        map.end()
    }
}

/// A set whose members are written as texts.
struct Shown<'a, T, F: Fn(&T) -> String>(&'a BTreeSet<T>, F);

impl<T, F: Fn(&T) -> String> Serialize for Shown<'_, T, F> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(self.0.len()))?;
        for one in self.0 {
            seq.serialize_element(&(self.1)(one))?;
        }
        seq.end()
    }
}

/// An item as it was stored.
pub(crate) fn read_item(json: &str) -> Result<Item, String> {
    let raw: RawItem<'_> = serde_json::from_str(json).map_err(|e| e.to_string())?;
    into_item(raw).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Value, String> {
        let raw: Structure<RawValue<'_>> = serde_json::from_str(json).unwrap();
        raw.0.into_value().map_err(|e| e.to_string())
    }

    #[test]
    fn values_come_back_as_they_went() {
        for json in [
            r#"{"S":""}"#,
            r#"{"N":"-1.5"}"#,
            r#"{"B":"AAEC"}"#,
            r#"{"BOOL":false}"#,
            r#"{"NULL":true}"#,
            r#"{"M":{"a":{"L":[{"S":"x"},{"NULL":true}]}}}"#,
            r#"{"L":[]}"#,
            r#"{"SS":["a","b"]}"#,
            r#"{"NS":["-1","2.5"]}"#,
            r#"{"BS":["AA==","AQ=="]}"#,
        ] {
            assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
        }
    }

    #[test]
    fn what_is_no_value_is_refused_in_awss_words() {
        for (json, text) in [
            ("{}", "Supplied AttributeValue is empty"),
            (r#"{"S":"a","N":"1"}"#, "has more than one datatypes set"),
            (r#"{"N":"x"}"#, "cannot be converted to a numeric value: x"),
            (r#"{"NULL":false}"#, "Null attribute value types must have the value of true"),
            (r#"{"SS":[]}"#, "An string set  may not be empty"),
            (r#"{"NS":["1","1.0"]}"#, "Input collection [1, 1] contains duplicates."),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(text), "{json}: {error}");
        }
    }

    #[test]
    fn items_are_bounded_in_size_and_depth() {
        let item = |value: Value| Item::from([("k".to_owned(), value)]);
        let text = |n: usize| item(Value::Text("x".repeat(n)));
        assert!(check_item(&text(ITEM_BYTES_MAX - 1), "large").is_ok());
        assert!(check_item(&text(ITEM_BYTES_MAX), "large").is_err());
        let nested = |n| (0..n).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        assert!(check_item(&item(nested(NESTING_MAX)), "large").is_ok());
        assert!(check_item(&item(nested(NESTING_MAX + 1)), "large").is_err());
    }
}
