//! Enhanced fan-out: a shard's records, pushed as soon as they are durable.
//!
//! A subscription is a stream of frames that the edge pulls as fast as the client reads, so what it
//! holds is one event. Behind the end of the shard it reads by itself; at the end it is told by the
//! shard's [hub](hub), and shares the very bytes with all others there.

mod active;
mod event;
mod hub;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use hydrant_core::catalog::{ConsumerStatus, Held, Shard, StreamCatalog, StreamStatus};
use hydrant_core::log::{LogEngine, LogError};
use hydrant_core::record::Frame;
use hydrant_core::sequence::RecordIndex;
use hydrant_core::{Clock, Timestamp};
use hydrant_wire::Format;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::consumers::ConsumerKey;
use crate::error::Error;
use crate::ops::get_records::millis_behind;
use crate::rates::FAN_OUT_BYTES;
use crate::shards;
use crate::subscription::active::{ActiveSubscriptions, Pair, Place};
use crate::subscription::event::Records;
use crate::subscription::hub::{EVENT, Hubs, Told};
use crate::throttle::{Key, Throttle, Want};
use crate::{Limits, Options};

/// How long a subscription is silent at most (AWS sends an event without records about that often).
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// All subscriptions of the service, and what they share.
pub(crate) struct Fanout {
    log: Arc<dyn LogEngine>,
    catalog: Arc<StreamCatalog>,
    clock: Arc<dyn Clock>,
    hubs: Arc<Hubs>,
    active: ActiveSubscriptions,
    closing: watch::Sender<bool>,
    life: Duration,
    /// How fast a consumer gets a shard's records, where AWS's rates hold.
    pace: Option<Throttle>,
    /// What counts the records that are sent.
    records_read: metrics::Counter,
}

/// What a subscription is to.
pub(crate) struct Wanted {
    /// How its frames are written.
    pub(crate) format: Format,
    /// The consumer, named by its ARN.
    pub(crate) consumer: ConsumerKey,
    /// When the consumer was registered.
    pub(crate) registered: Timestamp,
    /// The shard.
    pub(crate) shard: Shard,
    /// Where to begin.
    pub(crate) from: RecordIndex,
}

impl Fanout {
    /// No subscriptions yet; `records_read` will count what they are sent.
    pub(crate) fn new(
        log: Arc<dyn LogEngine>,
        catalog: Arc<StreamCatalog>,
        clock: Arc<dyn Clock>,
        options: &Options,
        records_read: metrics::Counter,
    ) -> Arc<Self> {
        let limited = options.limits == Limits::Aws;
        let pace = limited.then(|| Throttle::new(Arc::clone(&clock)));
        let hubs = Hubs::new(Arc::clone(&log), Arc::clone(&catalog), Arc::clone(&clock));
        Arc::new(Self {
            log,
            catalog,
            clock,
            hubs: Arc::new(hubs),
            active: ActiveSubscriptions::default(),
            closing: watch::Sender::new(false),
            life: options.subscription_life,
            pace,
            records_read,
        })
    }

    /// Begins a subscription. Another one of the same consumer to the same shard ends, with an
    /// exception, or is too young to: then that is the answer.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        wanted: Wanted,
    ) -> Result<BoxStream<'static, Bytes>, Error> {
        let Wanted { format, consumer, registered, shard, from } = wanted;
        let bucket = Key::Consumer(consumer.words(), shard.uid);
        let pair = Pair { consumer: consumer.name.clone(), registered, shard: shard.uid };
        let begun = self.active.begin(pair);
        let (place, taken_over) = begun.map_err(|_| in_use(&consumer, &shard))?;
        let now = Instant::now();
        let subscription = Subscription {
            fanout: Arc::clone(self),
            format,
            consumer,
            shard,
            from,
            hub: None,
            look: true,
            ends: now + self.life,
            // Due at once: the first event tells where the subscription begins.
            speaks: now,
            bucket,
            taken_over,
            closing: self.closing.subscribe(),
            step: Step::First,
            _place: place,
        };
        Ok(stream::unfold(subscription, |mut s| async move { Some((s.next().await?, s)) })
            .fuse()
            .boxed())
    }

    /// Ends every subscription, those to come too, as at the end of its life.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// Another subscription is there.
fn in_use(consumer: &ConsumerKey, shard: &Shard) -> Error {
    let ConsumerKey { stream, name, .. } = consumer;
    let (account, stream, shard) = (&stream.scope.account, &stream.name, shard.id);
    Error::ResourceInUse(format!(
        "Another active subscription exists for this consumer: {account}:{stream}:{shard}:{name}"
    ))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    First,
    Events,
    Ended,
}

struct Subscription {
    fanout: Arc<Fanout>,
    format: Format,
    consumer: ConsumerKey,
    shard: Shard,
    /// Everything below has been sent.
    from: RecordIndex,
    /// While the subscription is at the end of the shard, or was not long ago.
    hub: Option<broadcast::Receiver<Told>>,
    /// Whether there may be something that no hub will tell.
    look: bool,
    ends: Instant,
    /// When to send an event even without records.
    speaks: Instant,
    /// What the pace is counted in.
    bucket: Key,
    taken_over: oneshot::Receiver<()>,
    closing: watch::Receiver<bool>,
    step: Step,
    _place: Place,
}

/// What a subscription does next.
enum Next {
    Send(Bytes),
    /// Sends its last frame.
    SendLast(Bytes),
    End,
    Again,
}

impl Subscription {
    async fn next(&mut self) -> Option<Bytes> {
        match self.step {
            Step::First => {
                self.step = Step::Events;
                Some(event::first(self.format))
            }
            Step::Ended => None,
            Step::Events => {
                let next = match self.advance().await {
                    Err(error) => Next::SendLast(event::exception(error, self.format)),
                    Ok(next) => next,
                };
                if !matches!(next, Next::Send(_)) {
                    self.step = Step::Ended;
                    // Others need not know a subscription that only has to be read to its end.
                    self.hub = None;
                }
                match next {
                    Next::Send(frame) | Next::SendLast(frame) => {
                        self.speaks = Instant::now() + SILENCE_MAX;
                        Some(frame)
                    }
                    Next::End | Next::Again => None,
                }
            }
        }
    }

    /// To the next frame.
    async fn advance(&mut self) -> Result<Next, Error> {
        loop {
            // A client that reads slowly may be told that late.
            if self.taken_over.try_recv().is_ok() {
                return Err(in_use(&self.consumer, &self.shard));
            }
            if Instant::now() >= self.ends || *self.closing.borrow() {
                return Ok(Next::End);
            }
            let pause = self.pause();
            let next = if !pause.is_zero() {
                self.rest(pause).await?
            } else if self.look {
                self.read().await?
            } else {
                self.listen().await?
            };
            if !matches!(next, Next::Again) {
                return Ok(next);
            }
        }
    }

    /// How long to send nothing.
    fn pause(&self) -> Duration {
        let pace = self.fanout.pace.as_ref();
        pace.map_or(Duration::ZERO, |pace| {
            pace.closed_for("fan-out bytes", &self.bucket, FAN_OUT_BYTES)
        })
    }

    async fn rest(&mut self, pause: Duration) -> Result<Next, Error> {
        tokio::select! {
            biased;
            _ = &mut self.taken_over => Err(in_use(&self.consumer, &self.shard)),
            _ = self.closing.wait_for(|closing| *closing) => Ok(Next::End),
            () = sleep_until(self.ends) => Ok(Next::End),
            () = tokio::time::sleep(pause) => Ok(Next::Again),
        }
    }

    /// Counts records that are about to be sent.
    fn count(&self, frames: &[Frame]) {
        let records = frames.iter().map(Frame::len).sum::<usize>() as u64;
        self.fanout.records_read.increment(records);
        if let Some(pace) = &self.fanout.pace {
            let bytes: usize = frames.iter().map(Frame::size_bytes).sum();
            let want = Want { what: "fan-out bytes", rate: FAN_OUT_BYTES, amount: bytes as u64 };
            pace.charge(&self.bucket, &want);
        }
    }

    /// Reads what is there.
    async fn read(&mut self) -> Result<Next, Error> {
        let held = self.row()?;
        let page = match self.fanout.log.read(self.shard.uid, self.from, EVENT).await {
            Err(LogError::NotFound) => return Err(self.consumer.stream.not_found()),
            read => read?,
        };
        self.from = page.next;
        if !page.is_empty() {
            let frames = &page.frames[..];
            let behind_ms = millis_behind(&page, self.fanout.clock.now());
            self.count(frames);
            let records = Records { shard: &self.shard, frames, next: page.next, behind_ms };
            return Ok(Next::Send(records.frame(self.format)?));
        }
        // The log knows of the end first; the row then names the children.
        if page.tail.sealed
            && page.next >= page.tail.end
            && let Some(closed) = held.stream.shard(self.shard.id).filter(|s| !s.is_open())
        {
            return Ok(Next::SendLast(event::end(&held.stream, closed, self.format)?));
        }
        if self.hub.is_none() {
            self.hub = Some(self.fanout.hubs.join(&self.consumer.stream, &self.shard));
            // What became durable between the read and this moment nobody will tell.
            return Ok(Next::Again);
        }
        self.look = false;
        Ok(Next::Again)
    }

    /// Waits for what the hub tells, or for the time.
    async fn listen(&mut self) -> Result<Next, Error> {
        let Some(hub) = &mut self.hub else {
            self.look = true;
            return Ok(Next::Again);
        };
        let told = tokio::select! {
            biased;
            _ = &mut self.taken_over => return Err(in_use(&self.consumer, &self.shard)),
            _ = self.closing.wait_for(|closing| *closing) => return Ok(Next::End),
            () = sleep_until(self.ends) => return Ok(Next::End),
            told = hub.recv() => told,
            () = sleep_until(self.speaks) => {
                let (shard, next) = (&self.shard, self.from);
                let records = Records { shard, frames: &[], next, behind_ms: 0 };
                return Ok(Next::Send(records.frame(self.format)?));
            }
        };
        self.hear(told)
    }

    fn hear(&mut self, told: Result<Told, RecvError>) -> Result<Next, Error> {
        let event = match told {
            Ok(Told::Records(event)) => event,
            Ok(Told::Look) => {
                self.look = true;
                return Ok(Next::Again);
            }
            Err(RecvError::Lagged(_)) => {
                // By itself until it is at the end again.
                (self.look, self.hub) = (true, None);
                return Ok(Next::Again);
            }
            Err(RecvError::Closed) => {
                self.row()?;
                return Err(Error::Internal("the shard cannot be followed".to_owned()));
            }
        };
        if event.next <= self.from {
            return Ok(Next::Again);
        }
        if event.from > self.from {
            self.look = true;
            return Ok(Next::Again);
        }
        let frame = if event.from == self.from {
            self.count(&event.frames);
            event.frame(self.format)?
        } else {
            let rest = event.rest(self.from);
            self.count(&rest);
            event.encode(&rest, self.format)?
        };
        self.from = event.next;
        Ok(Next::Send(frame))
    }

    /// The stream's row, if consumer and shard are still there and may be read.
    fn row(&self) -> Result<Held, Error> {
        let Fanout { catalog, clock, .. } = &*self.fanout;
        let (stream, now) = (&self.consumer.stream, clock.now());
        let held = catalog.get(&stream.scope, &stream.name).ok_or_else(|| stream.not_found())?;
        let usable = [Some(StreamStatus::Active), Some(StreamStatus::Updating)];
        if !usable.contains(&held.stream.status(now)) {
            return Err(stream.not_found());
        }
        let consumer = self.consumer.look_up(&held.stream, now);
        if !consumer.is_some_and(|(_, status)| status == ConsumerStatus::Active) {
            return Err(self.consumer.not_found());
        }
        if held.stream.shard(self.shard.id).is_none_or(|s| s.uid != self.shard.uid) {
            return Err(shards::missing(&held.stream, self.shard.id));
        }
        Ok(held)
    }
}
