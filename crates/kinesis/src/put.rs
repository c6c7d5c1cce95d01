//! What `PutRecord` and `PutRecords` have in common: checked entries, and what the log says to them.

use hydrant_core::catalog::{Shard, Stream};
use hydrant_core::hash::HashKey;
use hydrant_core::limits::{PARTITION_KEY_CHARS_MAX, RECORD_BYTES_CEILING, RECORD_BYTES_MAX};
use hydrant_core::log::LogError;
use hydrant_wire::Call;
use hydrant_wire::shape::{Blob, Flag, Text};

use crate::Kinesis;
use crate::error::Error;
use crate::rates::rate_exceeded;
use crate::streams::{Named, not_found};
use crate::validate::{Checks, HASH_KEY, PARTITION_KEY};

/// What a stream asks of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Most bytes of data and partition key (AWS: `MaxRecordSizeInKiB`).
    bytes_max: usize,
    /// Whether each needs a partition key (AWS: unless the stream's strategy is `AUTO`).
    key_required: bool,
}

impl Kinesis {
    /// The terms of the stream that a request names, or those of a new stream if there is none: then
    /// the request is refused anyway.
    pub(crate) fn terms(&self, call: &Call, named: &Named<'_, '_>) -> Terms {
        let id = self.resolve(call, named).ok();
        let held = id.and_then(|id| self.catalog.get(&id.scope, &id.name));
        Terms {
            bytes_max: held.as_ref().map_or(RECORD_BYTES_MAX, |held| {
                (held.stream.settings.max_record_kib as usize) << 10
            }),
            key_required: held.is_none_or(|held| !held.stream.spreads()),
        }
    }
}

/// Ends a request that only asked whether it would succeed. The caller's duty: nothing is left to be
/// checked, and nothing is done yet.
pub(crate) fn dry_run(asked: Option<Flag>) -> Result<(), Error> {
    match asked {
        Some(Flag(true)) => Err(Error::DryRunOperation),
        _ => Ok(()),
    }
}

/// Checks the members of one record; what `at` makes stands before their names. It is made only for
/// what is wrong, because this is called for every record.
pub(crate) fn check(
    checks: &mut Checks,
    terms: Terms,
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
        if terms.key_required {
            checks.required(&place, key);
        }
        checks.text(&place, key, &PARTITION_KEY);
    }
    if explicit.is_some_and(|text| !HASH_KEY.accepts(text)) {
        checks.text(&at("explicitHashKey"), explicit, &HASH_KEY);
    }
    match data {
        None => checks.required(&at("data"), data),
        Some(data) if data.decoded_len() + bytes > terms.bytes_max => {
            let max = match data.decoded_len() {
                ..=RECORD_BYTES_CEILING => terms.bytes_max,
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
