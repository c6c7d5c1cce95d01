//! Pagination tokens: where a listing goes on, good for as long as an iterator.

use hydrant_core::Timestamp;
use hydrant_core::limits::ITERATOR_LIFE;
use hydrant_wire::Call;

use crate::Kinesis;
use crate::error::Error;
use crate::iterator::expiry;
use crate::seal::{Fields, Kind};

impl Kinesis {
    /// A token of a listing, given out `now`, with what `put` adds to it.
    pub(crate) fn seal_token(
        &self,
        kind: Kind,
        call: &Call,
        now: Timestamp,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> String {
        let mut payload = Vec::with_capacity(192);
        payload.extend(now.as_millis().to_be_bytes());
        put(&mut payload);
        self.sealer.seal(kind, call.scope(), &payload, 0)
    }

    /// What [`Kinesis::seal_token`] put into a token of this kind, as `read` finds it. `None` of
    /// `read` is a token that this listing did not give out: `InvalidArgumentException`, as for a
    /// text that is no token.
    pub(crate) fn open_token<T>(
        &self,
        kind: Kind,
        call: &Call,
        token: &str,
        now: Timestamp,
        read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let opened = self.sealer.unseal(kind, call.scope(), token).and_then(|payload| {
            let mut fields = Fields(&payload);
            Some((Timestamp::from_millis(fields.u64()?), read(&mut fields)?))
        });
        let (issued, found) =
            opened.ok_or_else(|| Error::InvalidArgument("Invalid NextToken.".to_owned()))?;
        if now.since(issued) > ITERATOR_LIFE {
            return Err(Error::ExpiredNextToken(expiry("NextToken", issued, now)));
        }
        Ok(found)
    }
}
