//! Keeping an archive up while a server runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::Random;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Archive, ArchiveError, Took, blocking};

/// How often the log is looked at for a segment that was completed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after the first failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A point takes no more than one part in so many of the time.
const REST: u32 = 4;
/// So many intervals without a point are worth a warning.
const BEHIND_INTERVALS: u32 = 3;
/// A shorter time behind is not.
const BEHIND_MIN: Duration = Duration::from_secs(120);

/// Takes a point each `every`, and whenever a segment of the log was completed, until `stop`. What fails
/// is tried again, less and less often; an archive that another data directory took over is left to
/// it, with an error in the log.
pub async fn run(
    archive: Arc<Archive>,
    every: Duration,
    random: Arc<Random>,
    stop: CancellationToken,
) {
    let mut keeping = Keeping {
        up_to_date: Instant::now(),
        warned: Instant::now(),
        failures: 0,
        every,
        complete: None,
    };
    metrics::gauge!("hydrant_archive_stopped").set(0.0);
    metrics::counter!("hydrant_archive_failures_total").increment(0);
    metrics::counter!("hydrant_archive_uploaded_segments_total").increment(0);
    loop {
        let began = Instant::now();
        let mut pointing = std::pin::pin!(archive.point());
        let point = loop {
            tokio::select! {
                () = stop.cancelled() => return,
                point = &mut pointing => break point,
                () = tokio::time::sleep(LOOK_EVERY) => keeping.show(),
            }
        };
        let took = began.elapsed();
        let pause = match point {
            Ok(took_point) => {
                if let Took::Point(taken) = took_point {
                    tracing::debug!(number = taken.number, files = taken.files, "archived");
                }
                keeping.reached(began);
                None
            }
            Err(error @ ArchiveError::Taken { .. }) => {
                metrics::gauge!("hydrant_archive_stopped").set(1.0);
                tracing::error!(%error, "nothing is archived any more");
                return;
            }
            Err(error) => Some(keeping.failed(&error, &random)),
        };
        let rest = took * REST;
        tokio::select! {
            () = stop.cancelled() => return,
            () = keeping.rest(&archive.options.data_dir, rest, pause) => {}
        }
    }
}

struct Keeping {
    /// Since when nothing is known to be in the archive.
    up_to_date: Instant,
    warned: Instant,
    failures: u32,
    every: Duration,
    /// The newest complete segment, by the name of its index.
    complete: Option<String>,
}

impl Keeping {
    fn reached(&mut self, at: Instant) {
        (self.up_to_date, self.failures) = (at, 0);
        self.show();
    }

    /// Tells how far behind the archive is, and warns if that is far.
    fn show(&mut self) {
        let behind = self.up_to_date.elapsed();
        metrics::gauge!("hydrant_archive_behind_seconds").set(behind.as_secs_f64());
        let limit = BEHIND_MIN.max(self.every * BEHIND_INTERVALS);
        if behind > limit && self.warned.elapsed() > limit {
            self.warned = Instant::now();
            let seconds = behind.as_secs();
            tracing::warn!(seconds, "the archive is behind: a lost disk would lose that much");
        }
    }

    /// How long to wait after a failure.
    fn failed(&mut self, error: &ArchiveError, random: &Random) -> Duration {
        metrics::counter!("hydrant_archive_failures_total").increment(1);
        let pause = PAUSE_MAX.min(PAUSE_MIN * 2u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        self.show();
        tracing::warn!(%error, failures = self.failures, "a point of the archive is tried again");
        // Between half of it and all.
        pause.mul_f64(0.5 + (random.next_u64() >> 11) as f64 / (1u64 << 54) as f64)
    }

    /// Waits until the next point is due.
    async fn rest(&mut self, data_dir: &Path, rest: Duration, pause: Option<Duration>) {
        let start = Instant::now();
        loop {
            let look = pause.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
            tokio::time::sleep(look).await;
            self.show();
            let passed = start.elapsed();
            if let Some(pause) = pause {
                if passed >= pause {
                    return;
                }
                continue;
            }
            if passed >= self.every.max(rest) {
                return;
            }
            let newest = newest_complete(data_dir).await;
            if self.complete.is_none() {
                self.complete = newest;
            } else if newest != self.complete && passed >= rest {
                self.complete = newest;
                return;
            }
        }
    }
}

/// The name of the newest segment's index, which is there once the segment is complete.
async fn newest_complete(data_dir: &Path) -> Option<String> {
    let dir = data_dir.join("log");
    let listed = blocking(move || {
        let entries = std::fs::read_dir(&dir).map_err(ArchiveError::disk("list", &dir))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.ends_with(".idx")).max())
    });
    listed.await.ok().flatten()
}
