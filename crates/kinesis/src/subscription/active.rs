//! Who is subscribed to what: one subscription of a consumer to a shard at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::log::ShardUid;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// For how long a subscription cannot be taken over, or be repeated after its end (AWS: 5 seconds).
pub(super) const HELD: Duration = Duration::from_secs(5);

/// A consumer and a shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    /// The consumer's name,
    pub(super) consumer: String,
    /// and when it was registered: a later one of the name is another one.
    pub(super) registered: Timestamp,
    /// The shard, which no other stream has.
    pub(super) shard: ShardUid,
}

struct Subscribed {
    number: u64,
    since: Instant,
    /// Told when another takes over; `None` once the subscription has ended.
    take_over: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct State {
    last_number: u64,
    pairs: HashMap<Pair, Subscribed>,
}

/// Every pair whose subscription goes on, or began less than [`HELD`] ago.
#[derive(Clone, Default)]
pub(super) struct ActiveSubscriptions(Arc<Mutex<State>>);

/// Another one's subscription is too young to be taken over.
#[derive(Debug)]
pub(super) struct Taken;

/// A subscription's place among the active ones; dropping it gives it up.
pub(super) struct Place {
    active: ActiveSubscriptions,
    pair: Pair,
    number: u64,
}

impl ActiveSubscriptions {
    /// Begins a subscription. One that goes on for this pair is told, unless it is too young. The
    /// second half resolves when this one is taken over in turn.
    pub(super) fn begin(&self, pair: Pair) -> Result<(Place, oneshot::Receiver<()>), Taken> {
        let since = Instant::now();
        let (teller, told) = oneshot::channel();
        let number = {
            let mut state = self.0.lock();
            if state.pairs.get(&pair).is_some_and(|s| since.duration_since(s.since) < HELD) {
                return Err(Taken);
            }
            state.last_number += 1;
            let number = state.last_number;
            let new = Subscribed { number, since, take_over: Some(teller) };
            if let Some(old) = state.pairs.insert(pair.clone(), new)
                && let Some(teller) = old.take_over
            {
                // Nobody listens any more if it is about to end anyway.
                let _ = teller.send(());
            }
            number
        };
        metrics::gauge!("hydrant_kinesis_subscriptions").increment(1);
        let (active, later) = (self.clone(), pair.clone());
        tokio::spawn(async move {
            tokio::time::sleep_until(since + HELD).await;
            active.forget(&later, number);
        });
        Ok((Place { active: self.clone(), pair, number }, told))
    }

    /// Forgets a subscription that has ended.
    fn forget(&self, pair: &Pair, number: u64) {
        if let Entry::Occupied(entry) = self.0.lock().pairs.entry(pair.clone())
            && entry.get().number == number
            && entry.get().take_over.is_none()
        {
            entry.remove();
        }
    }

    /// How many pairs are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().pairs.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("hydrant_kinesis_subscriptions").decrement(1);
        let mut state = self.active.0.lock();
        if let Entry::Occupied(mut entry) = state.pairs.entry(self.pair.clone())
            && entry.get().number == self.number
        {
            if Instant::now().duration_since(entry.get().since) < HELD {
                entry.get_mut().take_over = None;
            } else {
                entry.remove();
            }
        }
    }
}
