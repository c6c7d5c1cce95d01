//! Tags, as five operations see them.

use std::collections::BTreeMap;

use hydrant_core::catalog::Stream;
use hydrant_core::limits::TAGS_MAX;
use hydrant_core::names::Scope;
use hydrant_wire::shape::{List, Map, Text};
use serde::Serialize;

use crate::Kinesis;
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

/// The tags of a stream, those with keys after `after`.
pub(crate) fn shown<'a>(
    stream: &'a Stream,
    after: Option<&'a str>,
) -> impl Iterator<Item = Tag<'a>> {
    let tags = stream.tags.iter().filter(move |(key, _)| after.is_none_or(|a| key.as_str() > a));
    tags.map(|(key, value)| Tag { key, value })
}

type TagMap<'a> = Map<'a, Option<Text<'a>>>;

/// Checks a `TagMap` member.
pub(crate) fn check_map(checks: &mut Checks, tags: Option<&TagMap<'_>>) {
    let Some(Map(tags)) = tags else { return };
    if tags.is_empty() {
        checks.violated("tags", Some("{}"), "Member must have length greater than or equal to 1");
    }
    if tags.len() > TAG_MAP_MAX {
        let constraint = format!("Member must have length less than or equal to {TAG_MAP_MAX}");
        checks.violated("tags", None, &constraint);
    }
    for (key, value) in tags {
        checks.text("tags.key", Some(key), &TAG_KEY);
        checks.text(&format!("tags.{}.member", &**key), value.as_ref(), &TAG_VALUE);
    }
}

/// Checks a `TagKeyList` member.
pub(crate) fn check_keys(checks: &mut Checks, keys: Option<&List<Option<Text<'_>>>>) {
    let Some(List(keys)) = keys else { return };
    if keys.is_empty() {
        checks.violated(
            "tagKeys",
            Some("[]"),
            "Member must have length greater than or equal to 1",
        );
    }
    if keys.len() > TAGS_MAX {
        let constraint = format!("Member must have length less than or equal to {TAGS_MAX}");
        checks.violated("tagKeys", None, &constraint);
    }
    for (n, key) in keys.iter().enumerate() {
        let at = format!("tagKeys.{}.member", n + 1);
        checks.required(&at, key.as_ref());
        checks.text(&at, key.as_ref(), &TAG_KEY);
    }
}

/// A checked `TagMap` as a stream keeps it.
pub(crate) fn kept(tags: Option<TagMap<'_>>) -> Result<BTreeMap<String, String>, Error> {
    let pairs = tags.map(|Map(pairs)| pairs).unwrap_or_default();
    let kept: BTreeMap<_, _> = pairs
        .into_iter()
        .map(|(key, value)| (key.0.into_owned(), value.map_or(String::new(), |v| v.0.into_owned())))
        .collect();
    match kept.keys().find(|key| key.starts_with("aws:")) {
        Some(key) => Err(Error::InvalidArgument(format!(
            "The tag key {key} is not valid: keys that begin with aws: are reserved."
        ))),
        None => Ok(kept),
    }
}

/// Refuses more tags than a stream may have.
pub(crate) fn check_count(tags: &BTreeMap<String, String>, id: &StreamKey) -> Result<(), Error> {
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
}

/// The keys of a checked `TagKeyList`.
pub(crate) fn keys<'a>(list: Option<&'a List<Option<Text<'_>>>>) -> Vec<&'a str> {
    list.iter().flat_map(|List(keys)| keys.iter().flatten().map(|key| &**key)).collect()
}
