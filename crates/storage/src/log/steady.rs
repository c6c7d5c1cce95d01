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
/// [`TRUSTED_AFTER`]; what the clock showed before goes on meanwhile. Steps back show at once, since
/// whoever numbers by time holds the last moment anyway. Without an even count of time
/// ([`Clock::uptime`]) the clock is followed wherever it goes.
pub(super) struct Steady {
    clock: Arc<dyn Clock>,
    state: Mutex<Option<Trusted>>,
}

/// The latest moment that the clock was believed.
#[derive(Clone, Copy)]
struct Trusted {
    shown: Timestamp,
    uptime: Duration,
    /// Since when it shows more than it may.
    leapt: Option<Duration>,
}

impl Trusted {
    fn is_just_before(&self, now: Timestamp) -> bool {
        self.leapt.is_none() && (self.shown..=self.shown.plus(UNCOUNTED)).contains(&now)
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
        if state.is_some_and(|trusted| trusted.is_just_before(now)) {
            return now;
        }
        let Some(uptime) = self.clock.uptime() else { return now };
        let trusted = state.get_or_insert(Trusted { shown: now, uptime, leapt: None });
        let expected = trusted.shown.plus(uptime.saturating_sub(trusted.uptime));
        if now <= expected.plus(LEAP_MAX) || planted(Bug::FollowLeap) {
            if now >= expected {
                (trusted.shown, trusted.uptime) = (now, uptime);
            }
            trusted.leapt = None;
            return now;
        }
        let leapt = *trusted.leapt.get_or_insert_with(|| {
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
        *trusted = Trusted { shown: now, uptime, leapt: None };
        now
    }

    fn uptime(&self) -> Option<Duration> {
        self.clock.uptime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hydrant_testkit::ManualClock;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

    #[derive(Default)]
    struct Hands {
        wall: ManualClock,
        uptime: Mutex<Duration>,
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
            Some(*self.uptime.lock())
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
}
