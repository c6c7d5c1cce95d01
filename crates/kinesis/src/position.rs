//! Where in a shard a reader begins: what `GetShardIterator` and `SubscribeToShard` have in common.

use hydrant_core::Timestamp;
use hydrant_core::catalog::{Shard, ShardId, Stream};
use hydrant_core::log::LogError;
use hydrant_core::sequence::{OldSequenceNumber, RecordIndex, SequenceNumber};
use hydrant_wire::shape::Seconds;

use crate::Kinesis;
use crate::error::Error;
use crate::shards;

/// `ShardIteratorType`, in the order in which AWS's error lists them.
pub(crate) const TYPES: [&str; 5] =
    ["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"];

/// Why a number of another stream, or of an earlier one of this name, is invalid.
const FOREIGN: &str = " because it did not come from this stream";

/// What a request says of the place. The caller's duty: the texts follow the model.
pub(crate) struct StartingPosition<'a> {
    /// One of [`TYPES`].
    pub(crate) kind: &'a str,
    /// The sequence number of two of them.
    pub(crate) number: Option<&'a str>,
    /// The moment of `AT_TIMESTAMP`.
    pub(crate) timestamp: Option<Seconds>,
}

/// The shard that a request reads.
struct Place<'a> {
    operation: &'a str,
    stream: &'a Stream,
    shard: &'a Shard,
}

impl StartingPosition<'_> {
    /// The place in the shard, for the operation of that name.
    pub(crate) async fn locate(
        &self,
        kinesis: &Kinesis,
        operation: &str,
        stream: &Stream,
        shard: &Shard,
    ) -> Result<RecordIndex, Error> {
        let place = Place { operation, stream, shard };
        match (self.kind, self.number) {
            ("AT_SEQUENCE_NUMBER", Some(text)) => place.index_of(text),
            ("AFTER_SEQUENCE_NUMBER", Some(text)) => match place.index_of(text)? {
                // Nothing is after the end of a closed shard.
                RecordIndex::MAX => Err(place.invalid(text, "")),
                index => Ok(index.next()),
            },
            ("TRIM_HORIZON", None) => Ok(RecordIndex::MIN),
            // Fixed now: what is put from here on is read, however late the place is used.
            ("LATEST", None) => {
                let tail = kinesis.log.tail(shard.uid).await.map_err(|e| place.gone(e))?;
                Ok(tail.end)
            }
            ("AT_TIMESTAMP", None) => {
                let seconds = self.timestamp.ok_or_else(|| {
                    Error::InvalidArgument(
                        "Must specify timestampInMillis parameter for iterator of type \
                         AT_TIMESTAMP. Current request has no timestamp parameter."
                            .to_owned(),
                    )
                })?;
                let at = moment(seconds, kinesis.clock.now())?;
                kinesis.log.locate(shard.uid, at).await.map_err(|e| place.gone(e))
            }
            (kind, number) => Err(Error::InvalidArgument(format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and \
                 StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no \
                 StartingSequenceNumber. Request specified {kind} and {} StartingSequenceNumber.",
                if number.is_some() { "also a" } else { "no" }
            ))),
        }
    }
}

impl Place<'_> {
    /// The place in the shard that a sequence number means.
    fn index_of(&self, text: &str) -> Result<RecordIndex, Error> {
        let shard = self.shard;
        if let Ok(old) = text.parse::<OldSequenceNumber>() {
            self.check_shard(old.shard)?;
            return Err(self.invalid(&old.shown, FOREIGN));
        }
        let number: SequenceNumber = text.parse().map_err(|_| self.invalid(text, ""))?;
        self.check_shard(number.shard)?;
        if number.shard_created_s != shard.created.as_secs() {
            return Err(self.invalid(text, FOREIGN));
        }
        Ok(number.index)
    }

    /// A sequence number has to be of the shard it is used on.
    fn check_shard(&self, number: u32) -> Result<(), Error> {
        let (encoded, shard) = (ShardId(number), self.shard.id);
        if encoded == shard {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "Invalid StartingSequenceNumber. It encodes {encoded}, while it was used in a call to a \
             shard with {shard}"
        )))
    }

    fn invalid(&self, text: &str, why: &str) -> Error {
        let (operation, shard) = (self.operation, self.shard.id);
        let (stream, account) = (&self.stream.name, &self.stream.scope.account);
        Error::InvalidArgument(format!(
            "StartingSequenceNumber {text} used in {operation} on shard {shard} in stream {stream} \
             under account {account} is invalid{why}."
        ))
    }

    /// The log does not know a shard any more whose stream was deleted meanwhile.
    fn gone(&self, error: LogError) -> Error {
        match error {
            LogError::NotFound => shards::missing(self.stream, self.shard.id),
            other => other.into(),
        }
    }
}

/// A moment of a request, which must not lie ahead.
pub(crate) fn moment(Seconds(seconds): Seconds, now: Timestamp) -> Result<Timestamp, Error> {
    // Cut to milliseconds, but not below what a decimal fraction meant. Past what a number can hold,
    // the cast saturates; not a number is 0.
    let ms = ((seconds * 1e6).round() as i64).div_euclid(1_000);
    let now_ms = now.as_millis();
    match u64::try_from(ms) {
        Ok(ms) if ms > now_ms => Err(Error::InvalidArgument(format!(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
             timestampInMillis: {ms}, currentTimestampInMillis: {now_ms}"
        ))),
        Ok(ms) => Ok(Timestamp::from_millis(ms)),
        Err(_) => Ok(Timestamp::ZERO),
    }
}
