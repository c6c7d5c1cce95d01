//! The readers of JSON and of CBOR requests, with a request that has every shape.

use hydrant_wire::shape::{Blob, Flag, Integer, List, Map, Seconds, Structure, Text, parse};
use hydrant_wire::{ApiError, cbor};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Every<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Blob<'a>>,
    limit: Option<Integer>,
    timestamp: Option<Seconds>,
    dry_run: Option<Flag>,
    #[serde(borrow)]
    list: Option<List<Text<'a>>>,
    #[serde(borrow)]
    tags: Option<Map<'a, Option<Text<'a>>>>,
    #[serde(borrow)]
    more: Option<List<Structure<Inner<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inner<'a> {
    #[serde(borrow)]
    data: Option<Blob<'a>>,
    #[serde(borrow)]
    tags: Option<Map<'a, List<Integer>>>,
}

pub(crate) fn run(input: &[u8]) {
    check(input, parse(input));
    // What we take, any parser of JSON takes.
    if parse::<Every<'_>>(input).is_ok() {
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(input).is_ok());
    }
}

pub(crate) fn run_cbor(input: &[u8]) {
    check(input, cbor::parse(input));
}

fn check(input: &[u8], read: Result<Every<'_>, ApiError>) {
    let request = match read {
        Ok(request) => request,
        Err(error) => {
            assert_eq!((error.status, error.code), (400, "SerializationException"));
            return;
        }
    };
    let Every { text, data, limit, timestamp, dry_run, list, tags, more } = request;
    assert!(text.is_none_or(|text| text.len() <= input.len()));
    let inner = more.iter().flat_map(|list| &list.0);
    for blob in data.iter().chain(inner.filter_map(|one| one.0.data.as_ref())) {
        decoded(blob);
    }
    assert!(tags.iter().flat_map(|map| &map.0).all(|(name, _)| name.len() <= input.len()));
    let numbers = more.iter().flat_map(|list| &list.0).filter_map(|one| one.0.tags.as_ref());
    assert!(numbers.flat_map(|map| &map.0).all(|(_, list)| list.0.len() <= input.len()));
    assert!(list.is_none_or(|list| list.0.len() <= input.len()));
    let _ = (limit, timestamp, dry_run);
}

/// The length foretold is the length.
fn decoded(blob: &Blob<'_>) {
    match blob.decoded(&mut b"before".to_vec()) {
        Ok(bytes) => assert_eq!(bytes.len(), blob.decoded_len()),
        Err(error) => assert_eq!(error.code, "SerializationException"),
    }
}
