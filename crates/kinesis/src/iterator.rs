//! Shard iterators: a place in a shard, good for five minutes.

use hydrant_core::Timestamp;
use hydrant_core::catalog::ShardId;
use hydrant_core::limits::ITERATOR_LIFE;
use hydrant_core::log::ShardUid;
use hydrant_core::names::Scope;
use hydrant_core::sequence::RecordIndex;

use crate::error::Error;
use crate::seal::{Fields, Kind, Sealer, put_text};
use crate::streams::StreamKey;

/// What an iterator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardIterator {
    /// The stream.
    pub(crate) stream: StreamKey,
    /// The shard, by its number.
    pub(crate) shard: ShardId,
    /// The shard, by the name that no later shard of a stream of the same name has.
    pub(crate) uid: ShardUid,
    /// Where to read on.
    pub(crate) from: RecordIndex,
    /// When it was given out.
    pub(crate) issued: Timestamp,
}

impl ShardIterator {
    /// The text of it. As long as AWS's for a stream of this name: 152 bytes and 16 more for every
    /// 16 characters of the name, in base64.
    pub(crate) fn seal(&self, sealer: &Sealer, scope: &Scope) -> String {
        let StreamKey { scope: of, name } = &self.stream;
        let name = name.as_str();
        let mut payload = Vec::with_capacity(192);
        payload.extend(self.issued.as_millis().to_be_bytes());
        payload.extend(self.from.0.to_be_bytes());
        payload.extend(self.uid.0.to_be_bytes());
        payload.extend(self.shard.0.to_be_bytes());
        put_text(&mut payload, of.account.as_str());
        put_text(&mut payload, of.region.as_str());
        put_text(&mut payload, name);
        sealer.seal(Kind::Iterator, scope, &payload, 128 + (name.len() + 2) / 16 * 16)
    }

    /// Opens a text. AWS also takes it in double quotes, as some shells hand it on.
    pub(crate) fn open(
        text: &str,
        sealer: &Sealer,
        scope: &Scope,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let quoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        let iterator = sealer
            .unseal(Kind::Iterator, scope, quoted.unwrap_or(text))
            .and_then(|payload| Self::read(&payload))
            .ok_or_else(|| Error::InvalidArgument("Invalid ShardIterator.".to_owned()))?;
        if now.since(iterator.issued) > ITERATOR_LIFE {
            return Err(Error::ExpiredIterator(expiry("Iterator", iterator.issued, now)));
        }
        Ok(iterator)
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let issued = Timestamp::from_millis(fields.u64()?);
        let from = RecordIndex(fields.u64()?);
        let (uid, shard) = (ShardUid(fields.u64()?), ShardId(fields.u32()?));
        let account = fields.text()?.parse().ok()?;
        let scope = Scope { account, region: fields.text()?.parse().ok()? };
        let stream = StreamKey { scope, name: fields.text()?.parse().ok()? };
        Some(Self { stream, shard, uid, from, issued })
    }
}

/// AWS's text for an iterator (or token) that is too old.
pub(crate) fn expiry(what: &str, issued: Timestamp, now: Timestamp) -> String {
    let (issued, now, life) = (java_date(issued), java_date(now), ITERATOR_LIFE.as_millis());
    let noun = what.to_lowercase();
    format!(
        "{what} expired. The {noun} was created at time {issued} while right now it is {now} which is \
         further in the future than the tolerated delay of {life} milliseconds."
    )
}

/// `Thu Jan 22 01:22:02 UTC 2015`.
fn java_date(moment: Timestamp) -> String {
    let ms = i64::try_from(moment.as_millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%a %b %d %H:%M:%S UTC %Y").to_string()
}
