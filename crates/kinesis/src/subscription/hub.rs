//! One reader for all subscriptions at the end of a shard: what is new is read once and encoded once.
//!
//! A hub lives from the first subscription that reaches the end of the shard to the last one that
//! leaves it. Whoever cannot keep up reads by itself until it is at the end again.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hydrant_core::Clock;
use hydrant_core::catalog::{Shard, StreamCatalog};
use hydrant_core::log::{LogEngine, LogError, ReadLimit, ReadPage, ShardUid};
use hydrant_core::record::Frame;
use hydrant_core::sequence::RecordIndex;
use hydrant_wire::Format;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::event::Records;
use crate::error::Error;
use crate::ops::get_records::millis_behind;
use crate::streams::StreamKey;

/// Most bytes of keys and data in one event; one record may be larger.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 20;
/// Most records in one event.
pub(super) const EVENT_RECORDS_MAX: usize = 10_000;
/// What one event holds at most.
pub(super) const EVENT: ReadLimit =
    ReadLimit { records_max: EVENT_RECORDS_MAX, bytes_max: EVENT_BYTES_MAX };
/// Events that a subscription may be behind its hub before it reads by itself.
const EVENTS_BEHIND_MAX: usize = 128;
/// Most bytes that the events of all hubs may hold together. Without room, subscriptions read by
/// themselves.
const EVENTS_BYTES_MAX: usize = 64 << 20;
/// Most bytes that the events of one hub may hold, so that a client that does not read takes no room
/// from other shards.
const HUB_BYTES_MAX: usize = 12 << 20;
/// An event is held as it is in the log, and at most once in each format.
const COPIES: usize = 3;

/// What a hub tells its subscriptions.
#[derive(Clone)]
pub(super) enum Told {
    /// These records are new.
    Records(Arc<Event>),
    /// Something else is: the stream's row, the end of the shard, or records that there is no room
    /// for here.
    Look,
}

/// Records that are new, for every subscription the same.
pub(super) struct Event {
    /// Where they begin: at or behind the end of the event before.
    pub(super) from: RecordIndex,
    /// Where the next ones begin.
    pub(super) next: RecordIndex,
    /// The records themselves.
    pub(super) frames: Vec<Frame>,
    shard: Arc<Shard>,
    behind_ms: u64,
    json: OnceLock<Result<Bytes, Error>>,
    cbor: OnceLock<Result<Bytes, Error>>,
    _room: [OwnedSemaphorePermit; 2],
}

impl Event {
    /// The frame of all of them, which the first to ask for it encodes.
    pub(super) fn frame(&self, format: Format) -> Result<Bytes, Error> {
        let made = match format {
            Format::Json => &self.json,
            Format::Cbor => &self.cbor,
        };
        made.get_or_init(|| self.encode(&self.frames, format)).clone()
    }

    /// The records from a place on.
    pub(super) fn rest(&self, from: RecordIndex) -> Vec<Frame> {
        let rest = self.frames.iter().filter(|f| f.end() > from);
        rest.map(|f| f.slice(from, usize::MAX)).collect()
    }

    /// A frame of some of them, the last one included.
    pub(super) fn encode(&self, frames: &[Frame], format: Format) -> Result<Bytes, Error> {
        let Self { shard, next, behind_ms, .. } = self;
        Records { shard, frames, next: *next, behind_ms: *behind_ms }.frame(format)
    }
}

/// The hubs of all shards that have subscriptions at their end.
pub(super) struct Hubs {
    log: Arc<dyn LogEngine>,
    catalog: Arc<StreamCatalog>,
    clock: Arc<dyn Clock>,
    room: Arc<Semaphore>,
    open: Mutex<HashMap<ShardUid, broadcast::Sender<Told>>>,
}

impl Hubs {
    /// None yet.
    pub(super) fn new(
        log: Arc<dyn LogEngine>,
        catalog: Arc<StreamCatalog>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let room = Arc::new(Semaphore::new(EVENTS_BYTES_MAX));
        Self { log, catalog, clock, room, open: Mutex::default() }
    }

    /// Everything that is new in a shard from now on. The caller's duty: read once more afterwards,
    /// for what became new meanwhile. The hub fails, and the receiver is closed, if the log does.
    pub(super) fn join(
        self: &Arc<Self>,
        stream: &StreamKey,
        shard: &Shard,
    ) -> broadcast::Receiver<Told> {
        let mut open = self.open.lock();
        if let Some(hub) = open.get(&shard.uid) {
            return hub.subscribe();
        }
        let (teller, told) = broadcast::channel(EVENTS_BEHIND_MAX);
        open.insert(shard.uid, teller.clone());
        let hub = Hub {
            hubs: Arc::clone(self),
            stream: stream.clone(),
            shard: Arc::new(shard.clone()),
            room: Arc::new(Semaphore::new(HUB_BYTES_MAX)),
            teller,
        };
        tokio::spawn(hub.run());
        told
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }
}

struct Hub {
    hubs: Arc<Hubs>,
    stream: StreamKey,
    shard: Arc<Shard>,
    room: Arc<Semaphore>,
    teller: broadcast::Sender<Told>,
}

impl Hub {
    async fn run(self) {
        if let Err(error) = self.serve().await {
            // A shard that is gone is no failure: its stream was deleted.
            if error != LogError::NotFound {
                tracing::error!(%error, shard = %self.shard.id, "cannot follow a shard");
            }
            self.hubs.open.lock().remove(&self.shard.uid);
        }
    }

    /// Tells what is new until nobody listens.
    async fn serve(&self) -> Result<(), LogError> {
        let Hubs { log, catalog, .. } = &*self.hubs;
        let mut changes = catalog.changes();
        let mut row = self.row();
        let mut from = log.tail(self.shard.uid).await?.end;
        // Those who are here by now read before the end was known.
        self.tell(Told::Look);
        let mut sealed = false;
        loop {
            tokio::select! {
                () = self.teller.closed() => {
                    let mut open = self.hubs.open.lock();
                    if self.teller.receiver_count() == 0 {
                        open.remove(&self.shard.uid);
                        return Ok(());
                    }
                }
                Ok(()) = changes.changed() => {
                    let now = self.row();
                    if now != row {
                        row = now;
                        self.tell(Told::Look);
                    }
                }
                tail = log.wait(self.shard.uid, from), if !sealed => {
                    let tail = tail?;
                    if tail.end > from {
                        from = self.pass_on(from).await?;
                    } else if tail.sealed {
                        sealed = true;
                        self.tell(Told::Look);
                    }
                }
            }
        }
    }

    /// The version of the stream's row.
    fn row(&self) -> Option<u64> {
        self.hubs.catalog.get(&self.stream.scope, &self.stream.name).map(|held| held.version)
    }

    /// Reads one event's worth of records and tells of it. Returns where the next ones begin.
    async fn pass_on(&self, from: RecordIndex) -> Result<RecordIndex, LogError> {
        let page = self.hubs.log.read(self.shard.uid, from, EVENT).await?;
        if page.is_empty() {
            // Trimmed before it was read.
            return Ok(page.next.max(page.tail.end));
        }
        let next = page.next;
        self.tell(match self.event(from, page) {
            Some(event) => Told::Records(Arc::new(event)),
            None => Told::Look,
        });
        Ok(next)
    }

    /// `None` if there is no room.
    fn event(&self, from: RecordIndex, page: ReadPage) -> Option<Event> {
        let bytes = page.frames.iter().map(Frame::size_bytes).sum::<usize>().max(1) * COPIES;
        let bytes = u32::try_from(bytes).ok()?;
        let take = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_many_owned(bytes).ok();
        Some(Event {
            _room: [take(&self.room)?, take(&self.hubs.room)?],
            from,
            next: page.next,
            shard: Arc::clone(&self.shard),
            behind_ms: millis_behind(&page, self.hubs.clock.now()),
            frames: page.frames,
            json: OnceLock::new(),
            cbor: OnceLock::new(),
        })
    }

    fn tell(&self, told: Told) {
        // Nobody may be left to hear it: then `closed` ends the hub.
        let _ = self.teller.send(told);
    }
}
