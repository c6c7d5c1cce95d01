//! A clock that leaps is not followed at once: a year ahead for a minute would date a year of records
//! to come, and let go of every record there is.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::{Clock, Timestamp};
use parking_lot::Mutex;

use crate::planted::{Bug, planted};

/// How far ahead of the time that has passed a clock may be and still be followed.
const LEAP_MAX: Duration = Duration::from_secs(3_600);
/// How far the clock may have gone on since it was believed without the time being counted.
const UNCOUNTED: Duration = Duration::from_secs(1);
/// How long a clock that leapt has to stay there before it is followed.
const TRUSTED_AFTER: Duration = Duration::from_secs(600);

/// The clock of the machine, except while it shows a moment that cannot have come yet.
///
/// Guarantee: within a process a leap ahead of more than [`LEAP_MAX`] shows only if it lasts for
/// [`TRUSTED_AFTER`], as far as the looks show, one a minute at least; what the clock showed before goes
/// on meanwhile. Steps back show at once, since whoever numbers by time holds the last moment anyway.
/// Where time was never counted evenly ([`Clock::uptime`]) the clock is followed wherever it goes; where
/// it only fails to be for a while, a leap waits for it.
pub(super) struct Steady {
    clock: Arc<dyn Clock>,
    state: Mutex<Option<Trusted>>,
}

/// The latest moment that the clock was believed.
struct Trusted {
    shown: Timestamp,
    uptime: Duration,
    /// Since when it shows more than it may.
    leapt: Option<Duration>,
    /// What the clock showed when the time was last counted, and what was answered.
    looked: (Timestamp, Timestamp),
}

impl Trusted {
    /// What the last look says of a moment so soon after it that the time need not be counted.
    fn just_after(&self, now: Timestamp) -> Option<Timestamp> {
        let (raw, told) = self.looked;
        (raw..=raw.plus(UNCOUNTED)).contains(&now).then(|| told.plus(now.since(raw)))
    }

    /// What the last look says when the time cannot be counted: a clock that leaps then goes
    /// nowhere.
    fn uncounted(&self, now: Timestamp) -> Timestamp {
        let (raw, told) = self.looked;
        let passed = now.since(raw);
        match now <= told.plus(LEAP_MAX) {
            true => now,
            false if passed <= LEAP_MAX => told.plus(passed),
            false => told,
        }
    }

    fn look(&mut self, now: Timestamp, uptime: Duration) -> Timestamp {
        let expected = self.shown.plus(uptime.saturating_sub(self.uptime));
        if now <= expected.plus(LEAP_MAX) || planted(Bug::FollowLeap) {
            if now >= expected {
                (self.shown, self.uptime) = (now, uptime);
            }
            self.leapt = None;
            return now;
        }
        let leapt = *self.leapt.get_or_insert_with(|| {
            tracing::warn!(
                %now, %expected,
                "the clock leapt ahead: records keep the time that has passed, and none expires by \
                 the new one, until it has stayed there for ten minutes"
            );
            uptime
        });
        if uptime.saturating_sub(leapt) < TRUSTED_AFTER {
            return expected;
        }
        (self.shown, self.uptime, self.leapt) = (now, uptime, None);
        now
    }
}

impl Steady {
    /// A clock that believes what `clock` shows at its first look.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }
}

impl Clock for Steady {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(told) = state.as_ref().and_then(|trusted| trusted.just_after(now)) {
            return told;
        }
        let Some(uptime) = self.clock.uptime() else {
            return state.as_ref().map_or(now, |trusted| trusted.uncounted(now));
        };
        let first = Trusted { shown: now, uptime, leapt: None, looked: (now, now) };
        let trusted = state.get_or_insert(first);
        let told = trusted.look(now, uptime);
        trusted.looked = (now, told);
        told
    }

    fn uptime(&self) -> Option<Duration> {
        self.clock.uptime()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use hydrant_testkit::ManualClock;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

    #[derive(Default)]
    struct Hands {
        wall: ManualClock,
        uptime: Mutex<Duration>,
        counts: AtomicUsize,
        blind: AtomicBool,
    }

    impl Hands {
        fn pass(&self, by: Duration) {
            *self.uptime.lock() += by;
            self.wall.advance(by);
        }
    }

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            self.wall.now()
        }

        fn uptime(&self) -> Option<Duration> {
            self.counts.fetch_add(1, Ordering::SeqCst);
            (!self.blind.load(Ordering::SeqCst)).then(|| *self.uptime.lock())
        }
    }

    #[test]
    fn a_leap_shows_once_it_has_lasted() {
        let hands = Arc::new(Hands::default());
        let steady = Steady::new(hands.clone());
        let start = steady.now();
        hands.pass(YEAR);
        assert_eq!(steady.now(), start.plus(YEAR), "time that has passed is no leap");
        hands.wall.advance(LEAP_MAX);
        let small = start.plus(YEAR + LEAP_MAX);
        assert_eq!(steady.now(), small);
        hands.wall.advance(YEAR);
        assert_eq!(steady.now(), small);
        let nearly = TRUSTED_AFTER - Duration::from_millis(1);
        hands.pass(nearly);
        assert_eq!(steady.now(), small.plus(nearly));
        hands.wall.set(small.plus(nearly));
        assert_eq!(steady.now(), small.plus(nearly), "it was set right again");
        hands.wall.advance(YEAR);
        assert_eq!(steady.now(), small.plus(nearly), "a leap of its own");
        hands.pass(TRUSTED_AFTER);
        assert_eq!(steady.now(), hands.wall.now());
        hands.wall.set(start);
        assert_eq!(steady.now(), start, "a step back shows at once");
    }

    #[test]
    fn time_is_counted_once_a_second_wherever_the_clock_went() {
        let hands = Arc::new(Hands::default());
        hands.wall.advance(YEAR);
        let steady = Steady::new(hands.clone());
        let start = steady.now();
        let moment = Duration::from_millis(10);
        for at in [start, start.minus(LEAP_MAX * 2), start.plus(YEAR)] {
            hands.wall.set(at);
            let (told, before) = (steady.now(), hands.counts.load(Ordering::SeqCst));
            for n in 1..=1_000 {
                hands.pass(moment);
                assert_eq!(steady.now(), told.plus(moment * n));
            }
            let counts = hands.counts.load(Ordering::SeqCst) - before;
            assert!((9..=11).contains(&counts), "{counts} counts in ten seconds");
        }
    }

    #[test]
    fn a_leap_while_time_cannot_be_counted_waits() {
        let hands = Arc::new(Hands::default());
        let steady = Steady::new(hands.clone());
        let start = steady.now();
        hands.blind.store(true, Ordering::SeqCst);
        hands.pass(LEAP_MAX);
        assert_eq!(steady.now(), start.plus(LEAP_MAX), "no more than may be");
        hands.wall.advance(YEAR);
        assert_eq!(steady.now(), start);
        hands.blind.store(false, Ordering::SeqCst);
        assert_eq!(steady.now(), start.plus(LEAP_MAX), "what has passed");
        hands.blind.store(true, Ordering::SeqCst);
        hands.pass(LEAP_MAX);
        assert_eq!(steady.now(), start.plus(LEAP_MAX * 2), "the clock goes on where it leapt to");
        hands.wall.set(start);
        assert_eq!(steady.now(), start, "it was set right again");
    }
}
