//! How fast a server sends. A walsender gives the kernel every row by itself: whoever takes each as it
//! comes is woken for each, at a cost to both sides that is more than that of the row. What comes that
//! fast is left to gather for a moment.

use std::time::Duration;

use tokio::time::Instant;

/// How long what arrives may gather.
const GATHER: Duration = Duration::from_millis(1);
/// So many waits within [`FAST`] of each other on the average are those of a server that sends row by row.
const WAITS: u32 = 32;
const FAST: Duration = Duration::from_micros(250);
/// Gathering goes on while it brings so many bytes.
const GATHERED_BYTES_MIN: usize = 4 * 1024;

/// What is known of a server's pace.
#[derive(Debug)]
pub(super) struct Pace {
    waits: u32,
    since: Instant,
    gathers: bool,
    /// Until when nothing is read.
    until: Option<Instant>,
    gathered: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { waits: 0, since: Instant::now(), gathers: false, until: None, gathered: 0 }
    }

    /// Until when to read nothing, if that was decided.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// There is nothing to read: until when to read nothing, if what comes should gather.
    pub(super) fn waits(&mut self) -> Option<Instant> {
        if self.gathers {
            self.gathers = std::mem::take(&mut self.gathered) >= GATHERED_BYTES_MIN;
            self.waits = 0;
        }
        self.waits += 1;
        let now = Instant::now();
        if self.waits == 1 {
            self.since = now;
        } else if self.waits > WAITS {
            self.gathers = now - self.since < FAST * WAITS;
            (self.waits, self.gathered) = (0, 0);
        }
        self.until = self.gathers.then(|| now + GATHER);
        self.until
    }

    /// The time is over.
    pub(super) fn over(&mut self) {
        self.until = None;
    }

    pub(super) fn read(&mut self, bytes: usize) {
        self.gathered += bytes;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_fast_gathers_and_nothing_else_does() {
        let mut pace = Pace::new();
        for _ in 0..10 * WAITS {
            assert_eq!(pace.waits(), None);
            pace.read(GATHERED_BYTES_MIN);
            advance(Duration::from_millis(1)).await;
        }
        let mut left = 3 * WAITS;
        while pace.waits().is_none() {
            pace.read(100);
            advance(Duration::from_micros(50)).await;
            left -= 1;
            assert!(left > 0, "never gathers");
        }
        for _ in 0..3 {
            pace.over();
            pace.read(GATHERED_BYTES_MIN);
            assert_eq!(pace.waits(), Some(Instant::now() + GATHER));
        }
        pace.over();
        pace.read(GATHERED_BYTES_MIN - 1);
        assert_eq!(pace.waits(), None, "it is slow again");
    }
}
