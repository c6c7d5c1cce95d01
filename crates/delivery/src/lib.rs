//! Data Firehose: delivery streams that take records, or tap a stream, and deliver them in batches. One
//! that reads a database taps the stream that change data capture writes for it.
//!
//! Direct puts are appended to a hidden shard of the log, so there is one path for both sources:
//! tap → buffer → intent → delivery → checkpoint. The intent, a row with the ranges of a batch, is
//! written before the batch is delivered; the commit that deletes it moves the checkpoints. A crash
//! in between repeats the same batch with the same id, which every destination takes once.
//!
//! In memory there are, over all delivery streams together, at most [`Options::bytes_in_flight_max`]
//! bytes of batches, and as much again while a destination encodes them. What waits in a buffer is
//! in the log; the buffer itself only counts.
//!
//! Limits, in plain words: records that the Kinesis Producer Library has aggregated are delivered as
//! they are, where AWS takes them apart first. A batch of a source whose records expire before the
//! destination takes them loses those, loudly: in the log and in `hydrant_delivery_lost_records_total`;
//! what is left of it is delivered under the same id.
//! After a change of the destination a batch cut before it still goes to the old one, unless the old
//! one refuses it as misconfigured: then it goes to the new one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::capture::Capture;
use hydrant_core::catalog::StreamCatalog;
use hydrant_core::clock::Clock;
use hydrant_core::control::{ControlError, ControlStore};
use hydrant_core::destination::MakeDestination;
use hydrant_core::log::LogEngine;
use hydrant_core::random::Random;
use hydrant_wire::{ApiError, Call, JsonService, Reply};
use parking_lot::Mutex;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

mod attach;
mod attempt;
mod buffer;
mod catalog;
mod checks;
mod configuration;
mod database;
mod description;
mod error;
mod intent;
mod meter;
mod ops;
mod shared;
mod stream;
mod tap;
mod worker;

pub use catalog::STREAM_ROWS;
use catalog::{DeliveryCatalog, Held};
use shared::Shared;
use worker::{Signals, Worker};

/// What delivery works with. `server` makes all of it.
#[derive(Clone)]
pub struct Ports {
    /// Where direct puts go and all records come from.
    pub log: Arc<dyn LogEngine>,
    /// Where delivery streams, intents and checkpoints are kept.
    pub control: Arc<dyn ControlStore>,
    /// Where a stream's shards are found. Over the same control store.
    pub streams: Arc<StreamCatalog>,
    /// The time of arrival, and of everything else.
    pub clock: Arc<dyn Clock>,
    /// Spreads repetitions.
    pub random: Arc<Random>,
    /// Makes destinations of settings.
    pub make_destination: MakeDestination,
    /// Captures the changes of databases, and must have started before delivery does. Without it a
    /// delivery stream of type `DatabaseAsSource` is refused.
    pub capture: Option<Arc<dyn Capture>>,
}

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a new delivery stream is `CREATING`.
    pub create_delay: Duration,
    /// How long a deleted delivery stream is `DELETING` before its rows go.
    pub delete_delay: Duration,
    /// Most bytes of batches in memory, over all delivery streams; batches beyond it wait their
    /// turn. A batch larger than this is delivered alone.
    pub bytes_in_flight_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create_delay: Duration::from_millis(300),
            delete_delay: Duration::from_millis(300),
            bytes_in_flight_max: 256 << 20,
        }
    }
}

/// The delivery streams of this process: the Firehose API and a worker for each.
///
/// Dropping it ends every worker where it is, as a crash would; nothing acknowledged is lost.
/// [`Delivery::shutdown`] lets deliveries under way finish first.
pub struct Delivery {
    shared: Arc<Shared>,
    workers: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

impl Delivery {
    /// Reads what there is and starts a worker for each delivery stream; batches whose delivery was
    /// cut off are delivered first. Must be called on a tokio runtime. Fails if the control store
    /// does, or if a row is damaged.
    pub async fn start(ports: Ports, options: Options) -> Result<Arc<Self>, ControlError> {
        let catalog = DeliveryCatalog::open(Arc::clone(&ports.control)).await?;
        let delivery = Arc::new(Self {
            shared: Arc::new(Shared::new(ports, options, catalog)),
            workers: Mutex::new(JoinSet::new()),
            stop: CancellationToken::new(),
        });
        for held in delivery.shared.catalog.all() {
            delivery.spawn(held);
        }
        Ok(delivery)
    }

    /// Finishes the deliveries under way and ends every worker. What is buffered stays in the log
    /// and is delivered after the next start. Direct puts are still taken, and kept.
    ///
    /// A delivery that fails is not tried again. One that neither succeeds nor fails holds this up,
    /// so the caller bounds the wait, and keeps alive meanwhile whatever serves the destinations.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let mut workers = std::mem::take(&mut *self.workers.lock());
        while let Some(ended) = workers.join_next().await {
            report(ended);
        }
    }

    fn spawn(&self, held: Held) {
        if self.stop.is_cancelled() {
            return;
        }
        let signals = Arc::new(Signals::default());
        self.shared.signals.lock().insert(held.stream.uid, Arc::clone(&signals));
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        let worker = Worker { shared, signals, stop, held };
        let mut workers = self.workers.lock();
        while let Some(ended) = workers.try_join_next() {
            report(ended);
        }
        workers.spawn(worker.run());
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(e) = ended {
        tracing::error!(error = %e, "a delivery worker did not end by itself");
    }
}

#[async_trait]
impl JsonService for Delivery {
    fn target(&self) -> &'static str {
        "Firehose_20150804"
    }

    async fn call(&self, call: Call) -> Result<Reply, ApiError> {
        let reply = ops::call(self, call.scope(), &call.operation, &call.body).await;
        reply.map(Reply::from).map_err(ApiError::from)
    }
}

#[cfg(test)]
mod tests;
