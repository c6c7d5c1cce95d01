//! What CloudWatch would show of each stream and, with enhanced monitoring, of each shard.
//!
//! Counted here and not with the process's other metrics, because these come and go: a stream nobody
//! uses has none, and those of a stream that is gone go too. Follows "Monitoring Amazon Kinesis Data
//! Streams with CloudWatch"; a counter is the sum of CloudWatch's metric since the process started or
//! the stream was made.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hydrant_core::catalog::{ShardId, Stream, StreamCatalog};
use hydrant_core::monitoring::ShardMetric;
use hydrant_core::names::{Scope, StreamName};
use parking_lot::RwLock;

/// The process's own counters of records, found by their names once: to look for them costs more than
/// to count a small put.
pub(crate) struct Totals {
    pub(crate) records_put: metrics::Counter,
    pub(crate) bytes_put: metrics::Counter,
    pub(crate) records_refused: metrics::Counter,
    pub(crate) records_read: metrics::Counter,
}

impl Totals {
    /// Counters of the recorder that is there by now.
    pub(crate) fn new() -> Self {
        Self {
            records_put: metrics::counter!("hydrant_kinesis_records_put_total"),
            bytes_put: metrics::counter!("hydrant_kinesis_bytes_put_total"),
            records_refused: metrics::counter!("hydrant_kinesis_records_refused_total"),
            records_read: metrics::counter!("hydrant_kinesis_records_read_total"),
        }
    }
}

/// A metric of a stream.
#[derive(Clone, Copy)]
pub(crate) enum Metric {
    IncomingBytes,
    IncomingRecords,
    PutRecordBytes,
    PutRecordSuccess,
    PutRecordsBytes,
    PutRecordsSuccess,
    PutRecordsTotalRecords,
    PutRecordsSuccessfulRecords,
    PutRecordsFailedRecords,
    PutRecordsThrottledRecords,
    GetRecordsBytes,
    GetRecordsRecords,
    GetRecordsSuccess,
    GetRecordsIteratorAge,
    WriteProvisionedThroughputExceeded,
    ReadProvisionedThroughputExceeded,
}

const METRICS: usize = Metric::ReadProvisionedThroughputExceeded as usize + 1;

/// How each is spelled for Prometheus, in the order of [`Metric`]. What ends in `_total` is a counter.
const NAMES: [&str; METRICS] = [
    "incoming_bytes_total",
    "incoming_records_total",
    "put_record_bytes_total",
    "put_record_success_total",
    "put_records_bytes_total",
    "put_records_success_total",
    "put_records_total_records_total",
    "put_records_successful_records_total",
    "put_records_failed_records_total",
    "put_records_throttled_records_total",
    "get_records_bytes_total",
    "get_records_records_total",
    "get_records_success_total",
    "get_records_iterator_age_milliseconds",
    "write_provisioned_throughput_exceeded_total",
    "read_provisioned_throughput_exceeded_total",
];

const SHARD_METRICS: usize = ShardMetric::ALL.len();

/// The same for a shard's, in the order of [`ShardMetric::ALL`].
const SHARD_NAMES: [&str; SHARD_METRICS] = [
    "shard_incoming_bytes_total",
    "shard_incoming_records_total",
    "shard_outgoing_bytes_total",
    "shard_outgoing_records_total",
    "shard_write_provisioned_throughput_exceeded_total",
    "shard_read_provisioned_throughput_exceeded_total",
    "shard_iterator_age_milliseconds",
];

/// A value, and whether there ever was one: only then is it shown.
struct Value {
    now: AtomicU64,
    known: AtomicBool,
}

struct Values<const N: usize>([Value; N]);

impl<const N: usize> Values<N> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Value { now: AtomicU64::new(0), known: false.into() }))
    }

    fn add(&self, n: usize, more: u64) {
        self.0[n].now.fetch_add(more, Ordering::Relaxed);
        self.0[n].known.store(true, Ordering::Relaxed);
    }

    fn set(&self, n: usize, value: u64) {
        self.0[n].now.store(value, Ordering::Relaxed);
        self.0[n].known.store(true, Ordering::Relaxed);
    }

    fn get(&self, n: usize) -> Option<u64> {
        let Value { now, known } = &self.0[n];
        known.load(Ordering::Relaxed).then(|| now.load(Ordering::Relaxed))
    }
}

/// The metrics of a stream.
struct StreamMeter {
    scope: Scope,
    name: StreamName,
    values: Values<METRICS>,
    /// Those of its shards that had traffic with enhanced monitoring on.
    shards: RwLock<BTreeMap<ShardId, Arc<Values<SHARD_METRICS>>>>,
}

impl StreamMeter {
    fn add(&self, counts: &[(Metric, u64)]) {
        counts.iter().for_each(|(metric, more)| self.values.add(*metric as usize, *more));
    }

    /// The metrics of a shard, if the stream has enhanced monitoring.
    fn shard(&self, stream: &Stream, shard: ShardId) -> Option<Arc<Values<SHARD_METRICS>>> {
        if stream.settings.shard_metrics.is_empty() {
            return None;
        }
        if let Some(known) = self.shards.read().get(&shard) {
            return Some(Arc::clone(known));
        }
        let mut shards = self.shards.write();
        Some(Arc::clone(shards.entry(shard).or_insert_with(|| Arc::new(Values::new()))))
    }

    /// Adds to counters of a shard, if the stream has enhanced monitoring; each of them is shown once
    /// it is enabled.
    fn add_shard(&self, stream: &Stream, shard: ShardId, counts: &[(ShardMetric, u64)]) {
        if let Some(values) = self.shard(stream, shard) {
            counts.iter().for_each(|(metric, more)| values.add(*metric as usize, *more));
        }
    }
}

/// The metrics of every stream that has been used, by `StreamId`.
#[derive(Default)]
pub(crate) struct Meters {
    streams: RwLock<HashMap<String, Arc<StreamMeter>>>,
}

impl Meters {
    fn of(&self, stream: &Stream) -> Arc<StreamMeter> {
        if let Some(known) = self.streams.read().get(&stream.id) {
            return Arc::clone(known);
        }
        let mut streams = self.streams.write();
        let new = streams.entry(stream.id.clone()).or_insert_with(|| {
            Arc::new(StreamMeter {
                scope: stream.scope.clone(),
                name: stream.name.clone(),
                values: Values::new(),
                shards: RwLock::default(),
            })
        });
        Arc::clone(new)
    }

    /// Notes what a `GetRecords` returned, and how old its last record was.
    pub(crate) fn read(&self, stream: &Stream, shard: ShardId, records: u64, bytes: u64, ms: u64) {
        let meter = self.of(stream);
        meter.add(&[
            (Metric::GetRecordsSuccess, 1),
            (Metric::GetRecordsRecords, records),
            (Metric::GetRecordsBytes, bytes),
        ]);
        meter.values.set(Metric::GetRecordsIteratorAge as usize, ms);
        if let Some(values) = meter.shard(stream, shard) {
            values.add(ShardMetric::OutgoingRecords as usize, records);
            values.add(ShardMetric::OutgoingBytes as usize, bytes);
            values.set(ShardMetric::IteratorAgeMilliseconds as usize, ms);
        }
    }

    /// Notes what a call put: of each shard the records and bytes, and `counts` of the call.
    pub(crate) fn put(
        &self,
        stream: &Stream,
        shards: impl Iterator<Item = (ShardId, u64, u64)>,
        counts: &[(Metric, u64)],
    ) {
        let meter = self.of(stream);
        for (shard, records, bytes) in shards {
            meter.add(&[(Metric::IncomingRecords, records), (Metric::IncomingBytes, bytes)]);
            let counts =
                [(ShardMetric::IncomingRecords, records), (ShardMetric::IncomingBytes, bytes)];
            meter.add_shard(stream, shard, &counts);
        }
        meter.add(counts);
    }

    /// Notes records that a shard had no room for.
    pub(crate) fn write_exceeded(&self, stream: &Stream, shard: ShardId, records: u64) {
        let meter = self.of(stream);
        meter.add(&[(Metric::WriteProvisionedThroughputExceeded, records)]);
        let counts = [(ShardMetric::WriteProvisionedThroughputExceeded, records)];
        meter.add_shard(stream, shard, &counts);
    }

    /// Notes a `GetRecords` that came too soon.
    pub(crate) fn read_exceeded(&self, stream: &Stream, shard: ShardId) {
        let meter = self.of(stream);
        meter.add(&[(Metric::ReadProvisionedThroughputExceeded, 1)]);
        let counts = [(ShardMetric::ReadProvisionedThroughputExceeded, 1)];
        meter.add_shard(stream, shard, &counts);
    }

    /// Forgets a stream that is gone.
    pub(crate) fn forget(&self, stream: &Stream) {
        self.streams.write().remove(&stream.id);
    }

    /// All of it as Prometheus reads it. Forgets what belongs to no stream or shard any more: a call
    /// that was under way while its stream was deleted may have counted after the end.
    pub(crate) fn write(&self, catalog: &StreamCatalog, out: &mut String) {
        let mut shown: Vec<(Arc<Stream>, Arc<StreamMeter>)> = Vec::new();
        self.streams.write().retain(|id, meter| {
            let held = catalog.get(&meter.scope, &meter.name);
            let held = held.filter(|held| held.stream.id == *id);
            if let Some(held) = &held {
                shown.push((Arc::clone(&held.stream), Arc::clone(meter)));
            }
            held.is_some()
        });
        shown.sort_by(|(a, _), (b, _)| (&a.scope, &a.name).cmp(&(&b.scope, &b.name)));
        for (n, name) in NAMES.iter().enumerate() {
            let samples = shown.iter().filter_map(|(stream, m)| Some((stream, m.values.get(n)?)));
            for (at, (stream, value)) in samples.enumerate() {
                head(out, name, at, stream);
                let _ = writeln!(out, "\"}} {value}");
            }
        }
        for (stream, meter) in &shown {
            let on = !stream.settings.shard_metrics.is_empty();
            meter.shards.write().retain(|shard, _| on && stream.shard(*shard).is_some());
        }
        for (metric, name) in ShardMetric::ALL.into_iter().zip(SHARD_NAMES) {
            let mut at = 0;
            for (stream, meter) in &shown {
                if !stream.settings.shard_metrics.contains(&metric) {
                    continue;
                }
                for (shard, values) in &*meter.shards.read() {
                    let Some(value) = values.get(metric as usize) else { continue };
                    head(out, name, at, stream);
                    let _ = writeln!(out, "\",shard=\"{shard}\"}} {value}");
                    at += 1;
                }
            }
        }
    }
}

/// A sample up to the end of the stream's name, behind the metric's type if it is the first.
fn head(out: &mut String, name: &str, at: usize, stream: &Stream) {
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    if at == 0 {
        let _ = writeln!(out, "# TYPE hydrant_kinesis_{name} {kind}");
    }
    let (Scope { account, region }, stream) = (&stream.scope, &stream.name);
    let _ = write!(
        out,
        "hydrant_kinesis_{name}{{account=\"{account}\",region=\"{region}\",stream=\"{stream}"
    );
}
