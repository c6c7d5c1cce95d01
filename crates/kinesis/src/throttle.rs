//! Rates, as AWS bounds them: buckets that the clock refills, and counts in a rolling window.
//!
//! A bucket is kept only while something is missing from it, so what is idle takes no memory, and what
//! is busy takes as much as the calls of the last seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::log::ShardUid;
use hydrant_core::names::Scope;
use hydrant_core::{Clock, Timestamp};
use parking_lot::Mutex;

use crate::streams::StreamKey;

/// Most buckets with something missing. What would need one more is refused until others are full.
const BUCKETS_MAX: usize = 1 << 20;
/// Buckets before the full ones are looked for the first time.
const SWEEP_BUCKETS_MIN: usize = 1_024;
/// The window in which AWS counts changes of a stream.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Whose bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// That of an account and region.
    Account(Scope),
    /// That of a stream, by its name: whether there is one does not matter.
    Stream(StreamKey),
    /// That of a shard.
    Shard(ShardUid),
    /// That of a consumer, by its ARN, on a shard.
    Consumer(String, ShardUid),
}

/// How fast a bucket refills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Units a second, at least 1.
    pub(crate) per_s: u64,
    /// Units when full.
    pub(crate) burst: u64,
}

impl Rate {
    /// As much at once as in a second.
    pub(crate) const fn per_second(units: u64) -> Self {
        Self { per_s: units, burst: units }
    }
}

/// So much of a thing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    /// The thing: a rate's own word, such as the name of an operation.
    pub(crate) what: &'static str,
    /// How fast it may be had.
    pub(crate) rate: Rate,
    /// How much of it.
    pub(crate) amount: u64,
}

/// Buckets by what they hold and whose they are.
pub(crate) struct Throttle {
    clock: Arc<dyn Clock>,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    kept: HashMap<(&'static str, Key), Bucket>,
    /// How many there are when the full ones are looked for.
    sweep_at: usize,
}

/// What is missing from a full bucket.
#[derive(Clone, Copy)]
struct Bucket {
    /// Thousandths of units, because the clock counts thousandths of seconds.
    missing: u64,
    per_s: u64,
    seen: Timestamp,
    /// More was taken than there was, and it is not full again since.
    overdrawn: bool,
}

impl Bucket {
    fn full(rate: Rate, now: Timestamp) -> Self {
        Self { missing: 0, per_s: rate.per_s, seen: now, overdrawn: false }
    }

    /// As it is now. A clock that steps back refills nothing, and goes on from there.
    fn at(self, now: Timestamp) -> Self {
        let ms = u64::try_from(now.since(self.seen).as_millis()).unwrap_or(u64::MAX);
        let missing = self.missing.saturating_sub(self.per_s.saturating_mul(ms));
        let overdrawn = self.overdrawn && missing > 0;
        Self { missing, seen: now, overdrawn, ..self }
    }

    /// How long until something may be taken again.
    fn closed_for(self, rate: Rate) -> Duration {
        // An overdrawn bucket has to be full again: ten seconds' worth taken at once is ten seconds
        // of nothing, not nine.
        let excess = match self.overdrawn {
            true => self.missing,
            false => (self.missing + 1).saturating_sub(rate.burst.saturating_mul(1_000)),
        };
        Duration::from_millis(excess.div_ceil(self.per_s.max(1)))
    }
}

impl Throttle {
    /// Every bucket full.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, buckets: Mutex::default() }
    }

    /// Takes everything wanted, or nothing and says `false`. The caller's duty: no `what` twice, and
    /// no amount above its rate's burst, which there never is.
    #[must_use]
    pub(crate) fn take(&self, key: &Key, wants: &[Want]) -> bool {
        let now = self.clock.now();
        let mut buckets = self.buckets.lock();
        let fits = |want: &Want| {
            let missing = buckets.get(want.what, key, want.rate, now).missing;
            let thousandths = want.amount.saturating_mul(1_000);
            missing.saturating_add(thousandths) <= want.rate.burst.saturating_mul(1_000)
        };
        let granted = wants.iter().all(fits) && buckets.has_room(now, wants.len());
        if granted {
            for want in wants {
                buckets.charge(key, want, now);
            }
        }
        granted
    }

    /// How long until something of this may be had; zero if now. For what is charged once its size is
    /// known, by [`Self::charge`].
    pub(crate) fn closed_for(&self, what: &'static str, key: &Key, rate: Rate) -> Duration {
        let now = self.clock.now();
        let mut buckets = self.buckets.lock();
        if !buckets.has_room(now, 1) {
            return Duration::from_secs(1);
        }
        buckets.get(what, key, rate, now).closed_for(rate)
    }

    /// Takes what was had already, however much. If it was more than there was, the bucket stays
    /// closed until it is full again.
    pub(crate) fn charge(&self, key: &Key, want: &Want) {
        let now = self.clock.now();
        let mut buckets = self.buckets.lock();
        if buckets.has_room(now, 1) {
            buckets.charge(key, want, now);
        }
    }

    #[cfg(test)]
    fn buckets(&self) -> usize {
        self.buckets.lock().kept.len()
    }
}

impl Buckets {
    fn get(&self, what: &'static str, key: &Key, rate: Rate, now: Timestamp) -> Bucket {
        let kept = self.kept.get(&(what, key.clone()));
        kept.map_or(Bucket::full(rate, now), |bucket| bucket.at(now))
    }

    fn charge(&mut self, key: &Key, want: &Want, now: Timestamp) {
        let bucket = Bucket { per_s: want.rate.per_s, ..self.get(want.what, key, want.rate, now) };
        let missing = bucket.missing.saturating_add(want.amount.saturating_mul(1_000));
        let overdrawn = bucket.overdrawn || missing > want.rate.burst.saturating_mul(1_000);
        if missing > 0 {
            let bucket = Bucket { missing, overdrawn, ..bucket };
            self.kept.insert((want.what, key.clone()), bucket);
        }
    }

    /// Whether `more` buckets may be kept. Forgets the full ones when there are twice as many as were
    /// left last time.
    fn has_room(&mut self, now: Timestamp, more: usize) -> bool {
        if self.kept.len() + more > self.sweep_at.clamp(SWEEP_BUCKETS_MIN, BUCKETS_MAX) {
            self.kept.retain(|_, bucket| bucket.at(now).missing > 0);
            self.sweep_at = self.kept.len() * 2;
        }
        self.kept.len() + more <= BUCKETS_MAX
    }
}

/// Whether something may happen once more, of which `max` may happen within `window`; if so, notes
/// that it does. `times` is what this function left there before: the moments that still count, at
/// most `max` of them, so that a stream's row can hold it.
#[must_use]
pub(crate) fn admit(
    times: &mut Vec<Timestamp>,
    now: Timestamp,
    window: Duration,
    max: usize,
) -> bool {
    // What a clock that stepped back shows as still to come does not count.
    times.retain(|at| *at <= now && now.since(*at) < window);
    let admitted = times.len() < max;
    if admitted {
        times.push(now);
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;
    use hydrant_testkit::ManualClock;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn world() -> (Arc<ManualClock>, Throttle) {
        let clock = Arc::new(ManualClock::default());
        (clock.clone(), Throttle::new(clock))
    }

    fn want(what: &'static str, per_s: u64, amount: u64) -> Want {
        Want { what, rate: Rate::per_second(per_s), amount }
    }

    #[test]
    fn takes_all_or_nothing() {
        let (clock, throttle) = world();
        let key = Key::Shard(ShardUid(1));
        let both = [want("records", 2, 1), want("bytes", 10, 6)];
        assert!(throttle.take(&key, &both));
        assert!(!throttle.take(&key, &both), "bytes are missing");
        assert!(throttle.take(&key, &[want("records", 2, 1)]), "no record was taken in vain");
        assert!(throttle.take(&Key::Shard(ShardUid(2)), &both), "another's");
        clock.advance(Duration::from_millis(500));
        assert!(!throttle.take(&key, &[want("bytes", 10, 10)]));
        clock.advance(Duration::from_millis(100));
        assert!(throttle.take(&key, &[want("bytes", 10, 10)]));
    }

    #[test]
    fn what_is_overdrawn_is_closed_until_full() {
        let (clock, throttle) = world();
        let (key, rate) = (Key::Shard(ShardUid(1)), Rate::per_second(2 * MIB));
        let closed = || throttle.closed_for("read", &key, rate);
        let read = |amount| throttle.charge(&key, &Want { what: "read", rate, amount });
        read(MIB);
        assert_eq!(closed(), Duration::ZERO);
        read(MIB);
        assert_eq!(closed(), Duration::from_millis(1));
        clock.advance(Duration::from_millis(1_000));
        read(10 * MIB);
        assert_eq!(closed(), Duration::from_secs(5));
        clock.advance(Duration::from_millis(4_999));
        assert_eq!(closed(), Duration::from_millis(1));
        clock.advance(Duration::from_millis(1));
        assert_eq!(closed(), Duration::ZERO);
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let (clock, throttle) = world();
        for n in 0..100_000 {
            assert!(throttle.take(&Key::Shard(ShardUid(n)), &[want("calls", 5, 1)]));
            clock.advance(Duration::from_millis(1));
        }
        assert!(throttle.buckets() <= SWEEP_BUCKETS_MIN, "{}", throttle.buckets());
    }

    #[test]
    fn a_window_rolls() {
        let (clock, mut times) = (ManualClock::default(), Vec::new());
        for _ in 0..2 {
            assert!(admit(&mut times, clock.now(), DAY, 2));
            clock.advance(Duration::from_secs(3_600));
        }
        assert!(!admit(&mut times, clock.now(), DAY, 2));
        clock.advance(DAY - Duration::from_secs(7_200));
        assert!(admit(&mut times, clock.now(), DAY, 2));
        assert!(!admit(&mut times, clock.now(), DAY, 2));
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_flowed_in(
            per_s in 1u64..50, burst in 1u64..100,
            steps in prop::collection::vec((0u64..400, 0u64..60), 1..80),
        ) {
            let (clock, throttle) = world();
            let (key, rate) = (Key::Shard(ShardUid(1)), Rate { per_s, burst });
            let (mut elapsed_ms, mut taken) = (0, 0);
            for (pause_ms, amount) in steps {
                clock.advance(Duration::from_millis(pause_ms));
                elapsed_ms += pause_ms;
                let granted = throttle.take(&key, &[Want { what: "x", rate, amount }]);
                if granted {
                    taken += amount;
                }
                prop_assert!(taken * 1_000 <= burst * 1_000 + per_s * elapsed_ms);
            }
        }
    }
}
