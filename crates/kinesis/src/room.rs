//! Memory for the replies to `GetRecords`: from before a page is read until its last byte is written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hydrant_core::limits::{GET_RECORDS_BYTES_IN_FLIGHT_MAX, GET_RECORDS_REPLY_BYTES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a call waits for room.
const PATIENCE: Duration = Duration::from_secs(10);
/// Replies of up to this size are not counted once they are written: what a listener hands to a
/// connection in one piece is its affair.
const COUNTED_BYTES_MIN: usize = 256 << 10;

/// The room there is, for all calls.
pub(crate) struct Room(Arc<Semaphore>);

/// Room for one reply, as large as it may become.
pub(crate) struct Reserved(OwnedSemaphorePermit);

impl Room {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(GET_RECORDS_BYTES_IN_FLIGHT_MAX)))
    }

    /// Waits for room, but not long: `None` is for a client that comes back.
    pub(crate) async fn reserve(&self) -> Option<Reserved> {
        let room = Arc::clone(&self.0).acquire_many_owned(GET_RECORDS_REPLY_BYTES_MAX as u32);
        timeout(PATIENCE, room).await.ok()?.ok().map(Reserved)
    }
}

impl Reserved {
    /// The reply with the room it takes, which is free again once the reply is dropped.
    pub(crate) fn hold(mut self, reply: Bytes) -> Bytes {
        if reply.len() <= COUNTED_BYTES_MIN {
            return reply;
        }
        let bytes = reply.len().min(GET_RECORDS_REPLY_BYTES_MAX);
        match self.0.split(bytes) {
            Some(room) => Bytes::from_owner(Held { reply, _room: room }),
            None => reply,
        }
    }
}

/// A reply under way.
struct Held {
    reply: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn replies_under_way_hold_their_size() {
        let room = Room::new();
        let mib = |n: usize| Bytes::from(vec![0; n << 20]);
        let free = || room.0.available_permits() >> 20;
        let whole = free();
        let small = room.reserve().await.unwrap().hold(Bytes::from_static(b"small"));
        assert_eq!((free(), &small[..]), (whole, &b"small"[..]));
        let large = room.reserve().await.unwrap();
        assert_eq!(free(), whole - (GET_RECORDS_REPLY_BYTES_MAX >> 20));
        let mut large = large.hold(mib(3));
        assert_eq!((free(), large.len()), (whole - 3, 3 << 20));
        // The last piece holds all of it.
        let piece = large.split_to(1);
        drop(large);
        assert_eq!(free(), whole - 3);
        drop(piece);
        assert_eq!(free(), whole);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_but_not_long() {
        let room = Room::new();
        let mut held = Vec::new();
        while room.0.available_permits() >= GET_RECORDS_REPLY_BYTES_MAX {
            held.push(room.reserve().await.unwrap());
        }
        assert!(room.reserve().await.is_none());
        held.pop();
        assert!(room.reserve().await.is_some());
    }
}
