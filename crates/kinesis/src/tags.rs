//! Tags, as five operations see them.

use std::collections::BTreeMap;

use hydrant_core::catalog::{Consumer, Stream};
use hydrant_core::limits::TAGS_MAX;
use hydrant_core::names::Scope;
use hydrant_wire::shape::{List, Map, Text};
use serde::Serialize;

use crate::Kinesis;
use crate::access::Resource;
use crate::error::Error;
use crate::streams::StreamKey;
use crate::validate::{Checks, TAG_KEY, TAG_VALUE};

/// Most tags one call may carry (the model's `TagMap`).
const TAG_MAP_MAX: usize = 200;

/// `Tag` of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag<'a> {
    key: &'a str,
    value: &'a str,
}

/// Those of the tags with keys after `after`.
pub(crate) fn shown<'a>(
    tags: &'a BTreeMap<String, String>,
    after: Option<&'a str>,
) -> impl Iterator<Item = Tag<'a>> {
    let tags = tags.iter().filter(move |(key, _)| after.is_none_or(|a| key.as_str() > a));
    tags.map(|(key, value)| Tag { key, value })
}

type TagMap<'a> = Map<'a, Option<Text<'a>>>;

/// Checks a `TagMap` member.
pub(crate) fn check_map(checks: &mut Checks, tags: Option<&TagMap<'_>>) {
    let Some(Map(tags)) = tags else { return };
    let value = |value: &Option<Text<'_>>| value.as_ref().map_or(String::new(), |v| v.to_string());
    let shown = || {
        let pairs = tags.iter().map(|(key, of)| format!("{}={}", &**key, value(of)));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
    };
    checks.entries("tags", tags.len(), (1, TAG_MAP_MAX), shown);
    if !tags.iter().all(|(key, _)| TAG_KEY.fits(key)) {
        let constraint = format!("Map keys must satisfy constraint: {}", TAG_KEY.lengths());
        checks.violated("tags", Some(&shown()), &constraint);
    }
    if !tags.iter().filter_map(|(_, value)| value.as_ref()).all(|value| TAG_VALUE.fits(value)) {
        let constraint = format!("Map value must satisfy constraint: {}", TAG_VALUE.lengths());
        checks.violated("tags", Some(&shown()), &constraint);
    }
}

/// Checks a `TagKeyList` member.
pub(crate) fn check_keys(checks: &mut Checks, keys: Option<&List<Option<Text<'_>>>>) {
    let Some(List(keys)) = keys else { return };
    let key = |key: &Option<Text<'_>>| key.as_ref().map_or("null".to_owned(), |k| k.to_string());
    let shown = || format!("[{}]", keys.iter().map(key).collect::<Vec<_>>().join(", "));
    checks.entries("tagKeys", keys.len(), (1, TAGS_MAX), shown);
    if !keys.iter().all(|key| key.as_ref().is_some_and(|key| TAG_KEY.fits(key))) {
        let constraint = format!("Member must satisfy constraint: {}", TAG_KEY.lengths());
        checks.violated("tagKeys", Some(&shown()), &constraint);
    }
}

/// A checked `TagMap` as a stream keeps it.
pub(crate) fn kept(tags: Option<TagMap<'_>>) -> Result<BTreeMap<String, String>, Error> {
    let pairs = tags.map(|Map(pairs)| pairs).unwrap_or_default();
    let kept: BTreeMap<_, _> = pairs
        .into_iter()
        .map(|(key, value)| (key.0.into_owned(), value.map_or(String::new(), |v| v.0.into_owned())))
        .collect();
    check_characters(kept.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]))?;
    match kept.keys().find(|key| key.starts_with("aws:")) {
        Some(key) => Err(Error::InvalidArgument(format!(
            "The tag key {key} is not valid: keys that begin with aws: are reserved."
        ))),
        None => Ok(kept),
    }
}

/// Refuses keys and values with characters that no tag may have.
fn check_characters<'a>(mut texts: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let may = |c: char| {
        c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_./=+-%@:".contains(c)
    };
    if texts.all(|text| text.chars().all(may)) {
        return Ok(());
    }
    Err(Error::InvalidArgument(
        "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white \
         space, _ . / = + - % @ :."
            .to_owned(),
    ))
}

/// Refuses the character that AWS lists among the valid ones, and then does not take.
fn check_percent<'a>(
    mut texts: impl Iterator<Item = &'a str>,
    what: &str,
    id: &StreamKey,
) -> Result<(), Error> {
    if !texts.any(|text| text.contains('%')) {
        return Ok(());
    }
    let StreamKey { scope: Scope { account, .. }, name } = id;
    Err(Error::InvalidArgument(format!(
        "Failed to {what} stream {name} under account {account} because some tags contained illegal \
         characters. The allowed characters are Unicode letters, white-spaces, \
         '_',',','/','=','+','-','@',':'."
    )))
}

/// Refuses more tags than a stream may have.
pub(crate) fn check_count(tags: &BTreeMap<String, String>, id: &StreamKey) -> Result<(), Error> {
    let texts = tags.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    check_percent(texts, "add tags to", id)?;
    if tags.len() <= TAGS_MAX {
        return Ok(());
    }
    let StreamKey { scope: Scope { account, .. }, name } = id;
    Err(Error::InvalidArgument(format!(
        "Failed to add tags to stream {name} under account {account} because a given stream cannot \
         have more than {TAGS_MAX} tags associated with it."
    )))
}

impl Kinesis {
    /// Changes a stream's tags, whatever else changes it meanwhile.
    pub(crate) async fn retag(
        &self,
        id: &StreamKey,
        change: impl Fn(&mut BTreeMap<String, String>) + Send + Sync,
    ) -> Result<(), Error> {
        let decide = || {
            let held = self.find(id)?.held;
            let mut next = Stream::clone(&held.stream);
            change(&mut next.tags);
            check_count(&next.tags, id)?;
            Ok((next.tags != held.stream.tags).then_some((next, held.version)))
        };
        self.change(decide).await
    }

    /// Changes the tags of a stream or a consumer.
    pub(crate) async fn retag_resource(
        &self,
        resource: &Resource,
        change: impl Fn(&mut BTreeMap<String, String>) + Send + Sync,
    ) -> Result<(), Error> {
        let key = match resource {
            Resource::Stream(id) => return self.retag(id, change).await,
            Resource::Consumer(key) => key,
        };
        let set = |consumer: &mut Consumer, _| {
            change(&mut consumer.tags);
            let tags = &consumer.tags;
            let texts = tags.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
            check_percent(texts, "add tags to a consumer of", &key.stream)?;
            if consumer.tags.len() <= TAGS_MAX {
                return Ok(());
            }
            Err(Error::InvalidArgument(format!(
                "Failed to add tags to {} because it cannot have more than {TAGS_MAX} tags \
                 associated with it.",
                key.words()
            )))
        };
        self.change_consumer(key, set).await
    }
}

/// The keys of a checked `TagKeyList`, to be removed from a stream.
pub(crate) fn keys<'a>(
    list: Option<&'a List<Option<Text<'_>>>>,
    id: &StreamKey,
) -> Result<Vec<&'a str>, Error> {
    let keys: Vec<_> =
        list.iter().flat_map(|List(keys)| keys.iter().flatten().map(|key| &**key)).collect();
    check_characters(keys.iter().copied())?;
    check_percent(keys.iter().copied(), "remove tags from", id)?;
    Ok(keys)
}
