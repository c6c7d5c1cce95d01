//! Puts under way, so that a change of what is done with new records can wait for those that were begun
//! before it and know nothing of it.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;

/// The puts under way, in generations: those begun since the last [`PutsUnderWay::before_now`], and
/// those before.
#[derive(Default)]
pub(crate) struct PutsUnderWay(RwLock<Generations>);

#[derive(Default)]
struct Generations {
    now: Arc<()>,
    before: Vec<Weak<()>>,
}

/// A put, until it is dropped.
#[must_use]
pub(crate) struct UnderWay {
    _of: Arc<()>,
}

/// Puts that were begun before a moment.
pub(crate) struct Earlier(Vec<Weak<()>>);

impl PutsUnderWay {
    /// Begins a put. The caller's duty: before it looks at what its stream asks for, and kept until its
    /// records are in the log or will not be.
    pub(crate) fn begin(&self) -> UnderWay {
        UnderWay { _of: Arc::clone(&self.0.read().now) }
    }

    /// The puts begun until now, of all streams. The caller's duty: what they do not know is already
    /// there for those to come.
    pub(crate) fn before_now(&self) -> Earlier {
        let mut generations = self.0.write();
        let last = Arc::downgrade(&std::mem::take(&mut generations.now));
        generations.before.push(last);
        generations.before.retain(|generation| generation.strong_count() > 0);
        Earlier(generations.before.clone())
    }
}

impl Earlier {
    /// Whether all of them have ended.
    pub(crate) fn have_ended(&self) -> bool {
        self.0.iter().all(|generation| generation.strong_count() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_puts_are_waited_for_and_later_ones_are_not() {
        let puts = PutsUnderWay::default();
        assert!(puts.before_now().have_ended());
        let first = puts.begin();
        let after_first = puts.before_now();
        let second = puts.begin();
        let after_second = puts.before_now();
        let _third = puts.begin();
        assert!(!after_first.have_ended() && !after_second.have_ended());
        drop(second);
        assert!(!after_second.have_ended(), "the first was begun before it too");
        drop(first);
        assert!(after_first.have_ended() && after_second.have_ended());
    }
}
