//! What `PutRecord` and `PutRecords` have in common: checked entries, and what the log says to them.

use hydrant_core::catalog::{Shard, Stream};
use hydrant_core::hash::HashKey;
use hydrant_core::limits::{PARTITION_KEY_CHARS_MAX, RECORD_BYTES_CEILING, RECORD_BYTES_MAX};
use hydrant_core::log::LogError;
use hydrant_wire::shape::{Blob, Text};

use crate::error::Error;
use crate::rates::rate_exceeded;
use crate::streams::not_found;
use crate::validate::{Checks, HASH_KEY, PARTITION_KEY};

/// Checks the members of one record; what `at` makes stands before their names. It is made only for
/// what is wrong, because this is called for every record.
pub(crate) fn check(
    checks: &mut Checks,
    at: impl Fn() -> String,
    key: Option<&Text<'_>>,
    explicit: Option<&Text<'_>>,
    data: Option<&Blob<'_>>,
) {
    let at = |member: &str| at() + member;
    // As many characters as bytes, at most: a key within the limit by bytes is within it.
    let bytes = key.map_or(0, |key| key.len());
    if !(1..=PARTITION_KEY_CHARS_MAX).contains(&bytes) {
        let place = at("partitionKey");
        checks.required(&place, key);
        checks.text(&place, key, &PARTITION_KEY);
    }
    if explicit.is_some_and(|text| !HASH_KEY.accepts(text)) {
        checks.text(&at("explicitHashKey"), explicit, &HASH_KEY);
    }
    match data {
        None => checks.required(&at("data"), data),
        Some(data) if data.decoded_len() > RECORD_BYTES_MAX => {
            let max = match data.decoded_len() {
                ..=RECORD_BYTES_CEILING => RECORD_BYTES_MAX,
                _ => RECORD_BYTES_CEILING,
            };
            let constraint = format!("Member must have length less than or equal to {max}");
            checks.violated(&at("data"), None, &constraint);
        }
        Some(_) => {}
    }
}

/// Why the first of these that is no base64 is none. For a request that is refused anyway: AWS tells
/// of what it could not read before it tells of anything else.
pub(crate) fn unreadable<'a>(data: impl IntoIterator<Item = &'a Blob<'a>>) -> Option<Error> {
    let mut room = Vec::new();
    data.into_iter().find_map(|blob| blob.decoded(&mut room).err().map(Error::from))
}

/// The hash key that a record gives itself.
pub(crate) fn hash_key(explicit: Option<&Text<'_>>) -> Result<Option<HashKey>, Error> {
    let Some(text) = explicit else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Error::InvalidArgument(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified \
             value was {}",
            &**text
        ))
    })
}

/// What a client is told when the log does not take its records. Except for a stream that is gone,
/// always something that it repeats after a pause: by then there is room, or the shard's children
/// have taken over.
pub(crate) fn refusal(error: LogError, stream: &Stream, shard: &Shard) -> Error {
    let (name, id) = (&stream.name, shard.id);
    match error {
        LogError::Full => rate_exceeded(stream, shard),
        LogError::NotFound => not_found(name.as_str(), &stream.scope),
        LogError::Key(error) => Error::Key(error),
        other => Error::Internal(format!("put to {name} {id}: {other}")),
    }
}
