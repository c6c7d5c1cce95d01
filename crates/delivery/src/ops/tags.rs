//! `TagDeliveryStream`, `UntagDeliveryStream` and `ListTagsForDeliveryStream`.

use std::collections::BTreeMap;

use hydrant_core::limits::TAGS_MAX;
use hydrant_core::names::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{change, empty, find, find_to_change};
use crate::Delivery;
use crate::checks::{Checks, checked_name, read};
use crate::error::Error;
use crate::stream::DeliveryStream;

const KEY_CHARS_MAX: usize = 128;
const VALUE_CHARS_MAX: usize = 256;
const KEY: &str = "^(?!aws:)[\\p{L}\\p{Z}\\p{N}_.:\\/=+\\-@%]*$";
const VALUE: &str = "^[\\p{L}\\p{Z}\\p{N}_.:\\/=+\\-@%]*$";

/// `Tag`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    key: Option<String>,
    value: Option<String>,
}

/// Checks tags; of two with one key the later one counts.
pub(super) fn checked_tags(checks: &mut Checks, tags: Vec<Tag>) -> BTreeMap<String, String> {
    checks.count("tags", tags.len(), 1, TAGS_MAX);
    let mut out = BTreeMap::new();
    for (nth, tag) in tags.into_iter().take(TAGS_MAX).enumerate() {
        let at = format!("tags.{}.member", nth + 1);
        let missing = tag.key.is_none();
        let key = checks.required(&format!("{at}.key"), tag.key);
        if !missing {
            check_key(checks, &format!("{at}.key"), &key);
        }
        let value = tag.value.unwrap_or_default();
        let value_at = format!("{at}.value");
        checks.length(&value_at, &value, 0, VALUE_CHARS_MAX);
        checks.pattern(&value_at, &value, value.chars().all(is_tag_char), VALUE);
        out.insert(key, value);
    }
    out
}

fn check_key(checks: &mut Checks, at: &str, key: &str) {
    checks.length(at, key, 1, KEY_CHARS_MAX);
    let valid = !key.starts_with("aws:") && key.chars().all(is_tag_char);
    checks.pattern(at, key, valid, KEY);
}

fn is_tag_char(c: char) -> bool {
    c.is_alphanumeric()
        || c == ' '
        || "_.:/=+-@%".contains(c)
        || (!c.is_ascii() && c.is_whitespace())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    delivery_stream_name: Option<String>,
    tags: Option<Vec<Tag>>,
    tag_keys: Option<Vec<String>>,
    exclusive_start_tag_key: Option<String>,
    limit: Option<i64>,
}

pub(super) async fn tag(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    checks.name("deliveryStreamName", input.delivery_stream_name.clone());
    let tags = match input.tags {
        Some(tags) => checked_tags(&mut checks, tags),
        None => checks.required("tags", None),
    };
    checks.done()?;
    let name = checked_name(input.delivery_stream_name)?;
    let held = find_to_change(delivery, scope, &name)?;
    let mut stream = DeliveryStream::clone(&held.stream);
    stream.tags.extend(tags);
    if stream.tags.len() > TAGS_MAX {
        return Err(Error::LimitExceeded(format!(
            "Firehose {name} cannot have more than {TAGS_MAX} tags."
        )));
    }
    change(delivery, &held, stream).await?;
    Ok(empty())
}

pub(super) async fn untag(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    checks.name("deliveryStreamName", input.delivery_stream_name.clone());
    let missing = input.tag_keys.is_none();
    let keys = checks.required("tagKeys", input.tag_keys);
    if !missing {
        checks.count("tagKeys", keys.len(), 1, TAGS_MAX);
    }
    for (nth, key) in keys.iter().take(TAGS_MAX).enumerate() {
        check_key(&mut checks, &format!("tagKeys.{}.member", nth + 1), key);
    }
    checks.done()?;
    let name = checked_name(input.delivery_stream_name)?;
    let held = find_to_change(delivery, scope, &name)?;
    let mut stream = DeliveryStream::clone(&held.stream);
    stream.tags.retain(|key, _| !keys.contains(key));
    change(delivery, &held, stream).await?;
    Ok(empty())
}

pub(super) fn list(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    checks.name("deliveryStreamName", input.delivery_stream_name.clone());
    let limit = checks.number("limit", input.limit.unwrap_or(TAGS_MAX as i64), 1, TAGS_MAX as u32);
    if let Some(key) = &input.exclusive_start_tag_key {
        check_key(&mut checks, "exclusiveStartTagKey", key);
    }
    checks.done()?;
    let name = checked_name(input.delivery_stream_name)?;
    let stream = find(delivery, scope, &name)?.stream;
    let after = input.exclusive_start_tag_key;
    let mut tags: Vec<Value> = stream
        .tags
        .iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
        .take(limit as usize + 1)
        .map(|(key, value)| json!({ "Key": key, "Value": value }))
        .collect();
    let more = tags.len() > limit as usize;
    tags.truncate(limit as usize);
    Ok(json!({ "Tags": tags, "HasMoreTags": more }))
}
