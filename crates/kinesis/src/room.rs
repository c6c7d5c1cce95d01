//! Memory for the replies to `GetRecords`: from before a page is read until its last byte is written.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::limits::{GET_RECORDS_BYTES_IN_FLIGHT_MAX, GET_RECORDS_REPLY_BYTES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a call waits for room.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Gives back all but the room for `bytes`, as far as there is that much, until what is returned is
    /// dropped.
    pub(crate) fn keep(mut self, bytes: usize) -> impl Send + 'static {
        let bytes = bytes.min(self.0.num_permits());
        self.0.split(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reply_under_way_holds_its_size() {
        let room = Room::new();
        let free = || room.0.available_permits() >> 20;
        let whole = free();
        let large = room.reserve().await.unwrap();
        assert_eq!(free(), whole - (GET_RECORDS_REPLY_BYTES_MAX >> 20));
        let kept = large.keep(3 << 20);
        assert_eq!(free(), whole - 3);
        let largest = room.reserve().await.unwrap().keep(usize::MAX);
        assert_eq!(free(), whole - 3 - (GET_RECORDS_REPLY_BYTES_MAX >> 20));
        drop((kept, largest));
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
