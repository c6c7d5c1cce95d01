//! What was measured, and how it is told.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use crate::process::Usage;

/// Longest time that is told apart: an hour, in microseconds.
const LONGEST_MICROS: u64 = 3_600_000_000;
/// Digits that a delay is kept with.
const DIGITS: u8 = 3;

/// Counts of one connection, to be added up.
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) refused: u64,
    /// Microseconds. `None` only if its bounds were impossible, which they are not.
    times: Option<Histogram<u64>>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).ok();
        Self { requests: 0, records: 0, bytes: 0, refused: 0, times }
    }

    pub(crate) fn time(&mut self, time: Duration) {
        if let Some(times) = &mut self.times {
            times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }

    /// Counts a put of `batch` records, of which some were refused.
    pub(crate) fn put(&mut self, batch: u64, refused: u64) {
        self.requests += 1;
        self.records += batch - refused;
        self.refused += refused;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
        self.refused += other.refused;
        if let (Some(times), Some(others)) = (&mut self.times, &other.times) {
            // Both have the same bounds, so nothing can be out of range.
            let _ = times.add(others);
        }
    }

    fn delay(&self) -> Delay {
        let at = |quantile| {
            let micros = self.times.as_ref().map_or(0, |times| times.value_at_quantile(quantile));
            micros as f64 / 1_000.0
        };
        Delay { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// A measurement under way.
pub(crate) struct Watch {
    began: Instant,
    server: Usage,
    client: Usage,
}

impl Watch {
    pub(crate) fn start(pid: Option<u32>) -> Self {
        let client = Usage::of(Some(std::process::id()));
        Self { server: Usage::of(pid), client, began: Instant::now() }
    }

    /// Microseconds since the start.
    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Ends it.
    pub(crate) fn report(&self, what: &'static str, tally: &Tally) -> Report {
        let seconds = self.began.elapsed().as_secs_f64();
        let server = self.server.since();
        let records_a_second = tally.records as f64 / seconds;
        let mib_a_second = tally.bytes as f64 / seconds / f64::from(1 << 20);
        let each = server.cpu_seconds.filter(|cpu| *cpu > 0.0 && tally.records > 0);
        Report {
            measurement: what,
            seconds,
            requests: tally.requests,
            records: tally.records,
            bytes: tally.bytes,
            refused: tally.refused,
            missing: 0,
            records_a_second,
            mib_a_second,
            records_a_server_cpu_second: each.map(|cpu| tally.records as f64 / cpu),
            milliseconds: tally.delay(),
            server,
            client: self.client.since(),
        }
    }
}

/// What one measurement gave.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `put`, `get`, `fan-out` or `streams`.
    pub measurement: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// Requests that were answered (`fan-out`: puts).
    pub requests: u64,
    /// Records that were acknowledged (`put`), returned (`get`), or delivered (`fan-out`).
    pub records: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Records the server did not take, for its limits. They are in none of the other counts.
    pub refused: u64,
    /// Records that were acknowledged and not delivered to a consumer (`fan-out`).
    pub missing: u64,
    /// Records in a second.
    pub records_a_second: f64,
    /// Their data, in MiB a second.
    pub mib_a_second: f64,
    /// Records for each second of processor time that the server used, if its process is known.
    pub records_a_server_cpu_second: Option<f64>,
    /// Of a request's answer (`put`, `get`), or from before a put to its delivery (`fan-out`).
    pub milliseconds: Delay,
    /// The server's process.
    pub server: Side,
    /// This process.
    pub client: Side,
}

/// Quantiles of a time, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Delay {
    /// Half took no longer.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// All.
    pub max: f64,
}

/// What a process used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Side {
    /// Processor time, user and kernel, in seconds; `None` if the process is not known or not on
    /// this machine.
    pub cpu_seconds: Option<f64>,
    /// Most memory resident at once, in MiB.
    pub peak_mib: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measurement, seconds, requests, records, .. } = self;
        writeln!(f, "{measurement}: {records} records by {requests} requests in {seconds:.1} s")?;
        if *records > 0 {
            writeln!(
                f,
                "  {:.0} records/s, {:.1} MiB/s",
                self.records_a_second, self.mib_a_second
            )?;
        }
        let Delay { p50, p90, p99, p999, max } = self.milliseconds;
        writeln!(
            f,
            "  p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms"
        )?;
        if self.refused > 0 {
            writeln!(f, "  {} records refused", self.refused)?;
        }
        if self.missing > 0 {
            writeln!(f, "  {} records NOT delivered", self.missing)?;
        }
        writeln!(f, "  server: {}", self.server)?;
        if let Some(each) = self.records_a_server_cpu_second {
            writeln!(f, "  {each:.0} records a second of the server's processor time")?;
        }
        write!(f, "  client: {}", self.client)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cpu_seconds, self.peak_mib) {
            (Some(cpu), Some(peak)) => {
                write!(f, "{cpu:.2} s of processor time, peak {peak:.0} MiB")
            }
            _ => write!(f, "not known (name its process with --server-pid)"),
        }
    }
}

/// Adds up what the connections of a measurement counted.
pub(crate) fn sum(tallies: impl IntoIterator<Item = Tally>) -> Tally {
    tallies.into_iter().fold(Tally::new(), |mut sum, tally| {
        sum.add(&tally);
        sum
    })
}
