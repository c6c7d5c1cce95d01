//! Delivering one intent: read its ranges again, hand the batch over, and on failure pause and
//! repeat, for as long as the log has the records.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::destination::{
    Batch, Delivered, DeliveryError, Destination, DestinationSettings,
};
use hydrant_core::log::{LogEngine, LogError, ReadLimit};
use hydrant_core::record::Frame;

use crate::buffer::Range;
use crate::intent::Intent;
use crate::meter;
use crate::shared::MIB;
use crate::worker::{Ended, Worker};

/// First pause before a repetition; it doubles with each.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause before a repetition, and the pause while the destination is misconfigured.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longest that one try may take.
const TRY_TIME_MAX: Duration = Duration::from_secs(600);
/// Most bytes one read asks for.
const READ_BYTES_MAX: usize = 8 << 20;

/// How delivering an intent came out.
pub(crate) enum Outcome {
    /// The batch is at the destination, or there is nothing left of it to deliver.
    Done,
    /// It is not, and will be tried again in the next session.
    Ended(Ended),
    /// The destination was refused as misconfigured and has been changed since: write the intent
    /// anew, with this version and these settings.
    Aim(u64, DestinationSettings),
}

/// Delivers the intents of one session.
pub(crate) struct Attempts<'a> {
    worker: &'a Worker,
    /// The destination made last, and what from.
    made: Option<(DestinationSettings, Arc<dyn Destination>)>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(worker: &'a Worker) -> Self {
        Self { worker, made: None }
    }

    pub(crate) async fn deliver(&mut self, intent: &Intent) -> Outcome {
        let (worker, stream) = (self.worker, &self.worker.held.stream);
        let mut pause = RETRY_PAUSE_MIN;
        let mut misconfigured = false;
        loop {
            // Nothing was written under these settings just now, so the batch may go elsewhere.
            if misconfigured && let Some(aim) = self.aim(intent) {
                return aim;
            }
            let tried = tokio::select! {
                tried = self.once(intent) => tried,
                () = worker.signals.deleted.cancelled() => return Outcome::Ended(Ended::Changed),
            };
            let Err(error) = tried else {
                meter::recovered(stream);
                return Outcome::Done;
            };
            misconfigured = matches!(error, DeliveryError::Misconfigured(_));
            let age = worker.shared.clock.now().since(intent.first_arrival);
            meter::failed(stream, misconfigured, age);
            tracing::warn!(delivery_stream = %stream.name, misconfigured, %error,
                "a batch was not delivered; its records are kept, and it will be tried again");
            if misconfigured {
                pause = RETRY_PAUSE_MAX;
            }
            tokio::select! {
                () = tokio::time::sleep(self.jittered(pause)) => {}
                () = worker.stop.cancelled() => return Outcome::Ended(Ended::Stopped),
                () = worker.signals.deleted.cancelled() => return Outcome::Ended(Ended::Changed),
                () = worker.signals.changed.notified() => {}
            }
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    fn aim(&self, intent: &Intent) -> Option<Outcome> {
        let stream = &self.worker.held.stream;
        let now = self.worker.shared.catalog.get(&stream.scope, &stream.name)?.stream;
        let changed = now.uid == stream.uid && now.version != intent.version;
        changed.then(|| Outcome::Aim(now.version, now.destination.settings.clone()))
    }

    /// Between half the pause and all of it.
    fn jittered(&self, pause: Duration) -> Duration {
        let part = (self.worker.shared.random.next_u64() >> 32) as f64 / f64::from(u32::MAX);
        pause.mul_f64(0.5 + part / 2.0)
    }

    async fn once(&mut self, intent: &Intent) -> Result<(), DeliveryError> {
        let (shared, stream) = (&self.worker.shared, &self.worker.held.stream);
        // Held while the batch is in memory, so that all batches together are bounded.
        let mibs = intent.memory_bytes.div_ceil(MIB).clamp(1, shared.mibs_in_flight_max());
        let _room = shared
            .in_flight
            .acquire_many(mibs as u32)
            .await
            .map_err(|e| DeliveryError::Retry(e.to_string()))?;
        let (frames, lost) =
            read_again(shared.log.as_ref(), &intent.ranges).await.map_err(retry)?;
        let records = frames.iter().map(Frame::len).sum();
        let delivered = if records > 0 {
            let batch = Batch {
                id: intent.batch_id(stream),
                delivery_stream: stream.name.clone(),
                version: intent.version,
                first_arrival: intent.first_arrival,
                frames,
            };
            let destination = self.destination(&intent.settings)?;
            let tried = tokio::time::timeout(TRY_TIME_MAX, destination.deliver(&batch)).await;
            tried.map_err(|_| {
                DeliveryError::Retry(format!("not done within {} s", TRY_TIME_MAX.as_secs()))
            })??
        } else {
            Delivered::default()
        };
        if lost > 0 {
            meter::lost(stream, lost);
            tracing::error!(delivery_stream = %stream.name, records = lost,
                "records expired or were trimmed before they could be delivered, and are lost");
        }
        if let Some(first) = delivered.rejected.first() {
            tracing::error!(delivery_stream = %stream.name, records = delivered.rejected.len(),
                code = first.code, reason = first.message, "the destination refused records");
        }
        let age = shared.clock.now().since(intent.first_arrival);
        meter::delivered(stream, records, &delivered, age);
        tracing::debug!(delivery_stream = %stream.name, records, bytes = delivered.bytes,
            written = ?delivered.written, "delivered a batch");
        Ok(())
    }

    fn destination(
        &mut self,
        settings: &DestinationSettings,
    ) -> Result<Arc<dyn Destination>, DeliveryError> {
        if let Some((made_from, made)) = &self.made
            && made_from == settings
        {
            return Ok(Arc::clone(made));
        }
        let make = &self.worker.shared.make_destination;
        let made = make(settings).map_err(DeliveryError::Misconfigured)?;
        self.made = Some((settings.clone(), Arc::clone(&made)));
        Ok(made)
    }
}

fn retry(error: LogError) -> DeliveryError {
    DeliveryError::Retry(error.to_string())
}

/// Reads exactly the records of the ranges, and says how many of them are not there any more.
async fn read_again(log: &dyn LogEngine, ranges: &[Range]) -> Result<(Vec<Frame>, u64), LogError> {
    let mut frames = Vec::new();
    let mut lost = 0;
    for range in ranges {
        let mut from = range.from;
        let mut left = range.records;
        while left > 0 && from < range.to {
            let records_max = usize::try_from(left).unwrap_or(usize::MAX);
            let limit = ReadLimit { records_max, bytes_max: READ_BYTES_MAX };
            let page = match log.read(range.shard, from, limit).await {
                Ok(page) if page.is_empty() => break,
                Ok(page) => page,
                Err(LogError::NotFound) => break,
                Err(e) => return Err(e),
            };
            from = page.next;
            for frame in page.frames {
                // Indices in a frame are consecutive, so what is below the end is a number of records.
                let below = range.to.0.saturating_sub(frame.first().0);
                let within =
                    frame.slice(frame.first(), usize::try_from(below).unwrap_or(usize::MAX));
                if !within.is_empty() {
                    left = left.saturating_sub(within.len() as u64);
                    frames.push(within);
                }
            }
        }
        lost += left;
    }
    Ok((frames, lost))
}
