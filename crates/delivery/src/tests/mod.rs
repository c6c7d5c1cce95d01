//! The whole of delivery on ports in memory, with tokio's clock paused.

mod api;
mod crash;
mod database;
mod flow;

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydrant_core::Timestamp;
use hydrant_core::catalog::{
    Capacity, Shard, ShardId, Stream, StreamMode, StreamSettings, StreamState,
};
use hydrant_core::destination::{
    Batch, Delivered, DeliveryError, Destination, DestinationSettings, MakeDestination, S3Settings,
};
use hydrant_core::hash::HashRange;
use hydrant_core::log::ShardUid;
use hydrant_core::names::{Scope, StreamName};
use hydrant_core::record::RecordBatch;
use hydrant_testkit::{MemoryControl, MemoryLog, RecordingCapture};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;

const ROLE: &str = "arn:aws:iam::000000000000:role/firehose";
const DAY: Duration = Duration::from_secs(86_400);

/// 2023-11-14T22:13:20Z, moved on by tokio's clock.
pub(crate) struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(self.0.elapsed())
    }
}

/// Bytes of objects by bucket and key.
type Buckets = Arc<Mutex<BTreeMap<(String, String), String>>>;

/// What a delivery does in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Never comes to write.
    HangBefore,
    /// Writes, and never comes to say so.
    HangAfter,
    Retry,
    Misconfigured,
}

/// Everything that outlives a [`Delivery`].
pub(crate) struct World {
    pub(crate) scope: Scope,
    pub(crate) clock: Arc<PausedClock>,
    pub(crate) log: Arc<MemoryLog>,
    control: Arc<dyn ControlStore>,
    pub(crate) streams: Arc<StreamCatalog>,
    capture: Arc<RecordingCapture>,
    buckets: Buckets,
    mode: Arc<Mutex<Mode>>,
    /// Ids of the batches handed over.
    batches: Arc<Mutex<Vec<[u8; 16]>>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::over(Arc::new(MemoryControl::new())).await
    }

    async fn over(control: Arc<dyn ControlStore>) -> Self {
        let clock = Arc::new(PausedClock(tokio::time::Instant::now()));
        Self {
            scope: Scope {
                account: "000000000000".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
            log: Arc::new(MemoryLog::new(clock.clone())),
            streams: Arc::new(StreamCatalog::open(control.clone()).await.unwrap()),
            clock,
            control,
            capture: Arc::default(),
            buckets: Arc::default(),
            mode: Arc::new(Mutex::new(Mode::Pass)),
            batches: Arc::default(),
        }
    }

    /// Starts a process on what there is.
    async fn start(&self) -> Arc<Delivery> {
        Delivery::start(self.ports(), Options::default()).await.unwrap()
    }

    fn ports(&self) -> Ports {
        Ports {
            log: self.log.clone(),
            control: self.control.clone(),
            streams: self.streams.clone(),
            clock: self.clock.clone(),
            random: Arc::new(Random::from_seed(1)),
            make_destination: self.make_destination(),
            capture: Some(self.capture.clone()),
        }
    }

    fn make_destination(&self) -> MakeDestination {
        let (buckets, mode) = (self.buckets.clone(), self.mode.clone());
        let batches = self.batches.clone();
        Arc::new(move |settings| {
            let DestinationSettings::S3(settings) = settings.clone();
            if settings.prefix.contains("!{") {
                return Err("Prefix has an expression".to_owned());
            }
            let buckets = buckets.clone();
            let (mode, batches) = (mode.clone(), batches.clone());
            Ok(Arc::new(Gated { settings, buckets, mode, batches }) as Arc<dyn Destination>)
        })
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    /// Keys and bytes of a bucket's objects.
    fn objects(&self, bucket: &str) -> BTreeMap<String, String> {
        let all = self.buckets.lock();
        let own = all.iter().filter(|((b, _), _)| b == bucket);
        own.map(|((_, key), body)| (key.clone(), body.clone())).collect()
    }

    /// The bytes of the objects, in the order of their keys.
    fn bodies(&self) -> Vec<String> {
        self.objects("lake").into_values().collect()
    }

    /// A bucket and nothing else.
    pub(crate) fn settings(&self) -> DestinationSettings {
        DestinationSettings::S3(S3Settings {
            bucket: "lake".to_owned(),
            prefix: String::new(),
            error_output_prefix: String::new(),
            compression: Default::default(),
            file_extension: String::new(),
            time_zone: String::new(),
        })
    }

    /// Makes a stream with this many shards.
    pub(crate) async fn stream(&self, name: &str, shards: u32) -> Stream {
        let stream = self.begin_stream(name, shards).await;
        self.finish_stream(&stream).await
    }

    /// Makes a stream as far as its row: its shards are not in the log.
    pub(crate) async fn begin_stream(&self, name: &str, shards: u32) -> Stream {
        let uids = self.streams.allocate_shards(shards).await.unwrap();
        let now = self.clock.now();
        let shards: Vec<Shard> = HashRange::split_evenly(shards)
            .into_iter()
            .zip(uids)
            .enumerate()
            .map(|(n, (range, uid))| shard(n as u32, uid, range, now, None))
            .collect();
        let stream = Stream {
            scope: self.scope.clone(),
            name: name.parse().unwrap(),
            created: now,
            state: StreamState::Creating(Timestamp::MAX),
            mode: StreamMode::Provisioned,
            retention_hours: 24,
            shards,
            tags: BTreeMap::new(),
            id: format!("id-of-{name}"),
            settings: StreamSettings::default(),
            capacity: Capacity::default(),
            consumers: Vec::new(),
        };
        self.streams.put(stream.clone(), None).await.unwrap();
        stream
    }

    /// Puts a stream's shards into the log, and has it ACTIVE.
    pub(crate) async fn finish_stream(&self, stream: &Stream) -> Stream {
        for shard in &stream.shards {
            self.log.create(shard.uid, DAY).await.unwrap();
        }
        let seen = self.streams.get(&self.scope, &stream.name).unwrap().version;
        let stream = Stream { state: StreamState::Active, ..stream.clone() };
        self.streams.put(stream.clone(), Some(seen)).await.unwrap();
        stream
    }

    /// Closes a shard of a stream and opens another one for its keys, as `kinesis` does it.
    pub(crate) async fn follow(&self, name: &StreamName, parent: usize) -> Stream {
        let claim = || async {
            loop {
                // A store that loses what it is told is told again.
                if let Ok(uids) = self.streams.allocate_shards(1).await {
                    return uids[0];
                }
            }
        };
        let uid = claim().await;
        self.log.create(uid, DAY).await.unwrap();
        loop {
            let held = self.streams.get(&self.scope, name).unwrap();
            let mut stream = Stream::clone(&held.stream);
            if stream.shards.iter().any(|s| s.uid == uid) {
                return stream;
            }
            let (id, now) = (stream.shards.len() as u32, self.clock.now());
            let closing = &mut stream.shards[parent];
            self.log.seal(closing.uid).await.unwrap();
            closing.closed = Some(now);
            // A second later, as its sequence numbers show.
            let created = now.plus(Duration::from_secs(1));
            let child = shard(id, uid, closing.range, created, Some(closing.id));
            stream.shards.push(child);
            let _ = self.streams.put(stream, Some(held.version)).await;
        }
    }

    pub(crate) async fn append(&self, shard: ShardUid, data: &str) {
        let mut batch = RecordBatch::new();
        batch.push(b"key", data.as_bytes());
        self.log.append(shard, batch).await.unwrap();
    }
}

fn shard(
    id: u32,
    uid: ShardUid,
    range: HashRange,
    created: Timestamp,
    parent: Option<ShardId>,
) -> Shard {
    let (id, adjacent_parent, closed) = (ShardId(id), None, None);
    Shard { id, uid, range, created, parent, adjacent_parent, closed }
}

/// Writes a batch as one object, when it is let.
struct Gated {
    settings: S3Settings,
    buckets: Buckets,
    mode: Arc<Mutex<Mode>>,
    batches: Arc<Mutex<Vec<[u8; 16]>>>,
}

impl Gated {
    fn write(&self, batch: &Batch) -> Delivered {
        let (name, version) = (&batch.delivery_stream, batch.version);
        let mut key = format!("{}{name}-{version}-{}-", self.settings.prefix, batch.first_arrival);
        for byte in batch.id {
            write!(key, "{byte:02x}").unwrap();
        }
        let mut body = String::new();
        for record in batch.frames.iter().flat_map(|frame| frame.records()) {
            body.push_str(std::str::from_utf8(record.data).unwrap());
        }
        let bytes = body.len() as u64;
        self.buckets.lock().insert((self.settings.bucket.clone(), key.clone()), body);
        Delivered { written: vec![key], bytes, rejected: Vec::new() }
    }
}

#[async_trait]
impl Destination for Gated {
    async fn deliver(&self, batch: &Batch) -> Result<Delivered, DeliveryError> {
        self.batches.lock().push(batch.id);
        let mode = *self.mode.lock();
        match mode {
            Mode::Pass => Ok(self.write(batch)),
            Mode::HangBefore => std::future::pending().await,
            Mode::HangAfter => {
                self.write(batch);
                std::future::pending().await
            }
            Mode::Retry => Err(DeliveryError::Retry("try again".into())),
            Mode::Misconfigured => Err(DeliveryError::Misconfigured("no such bucket".into())),
        }
    }
}

impl Delivery {
    async fn api(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        let scope = Scope {
            account: "000000000000".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        let body = serde_json::to_vec(&input).unwrap();
        let reply = self.call(Call::for_tests(scope, operation, body)).await?;
        Ok(serde_json::from_slice(&reply.whole().unwrap()).unwrap())
    }

    async fn create(&self, name: &str, size: u32, interval: u32, extra: Value) {
        let mut input = json!({
            "DeliveryStreamName": name,
            "ExtendedS3DestinationConfiguration": {
                "RoleARN": ROLE,
                "BucketARN": "arn:aws:s3:::lake",
                "BufferingHints": { "SizeInMBs": size, "IntervalInSeconds": interval },
            },
        });
        for (member, value) in extra.as_object().into_iter().flatten() {
            input[member] = value.clone();
        }
        self.api("CreateDeliveryStream", input).await.unwrap();
        sleep(Duration::from_millis(500)).await;
    }

    async fn put(&self, name: &str, data: &str) -> Result<Value, ApiError> {
        let record = json!({ "Data": STANDARD.encode(data) });
        self.api("PutRecord", json!({ "DeliveryStreamName": name, "Record": record })).await
    }
}

fn from_stream(stream: &str) -> Value {
    json!({
        "DeliveryStreamType": "KinesisStreamAsSource",
        "KinesisStreamSourceConfiguration": {
            "KinesisStreamARN": format!("arn:aws:kinesis:us-east-1:000000000000:stream/{stream}"),
            "RoleARN": ROLE,
        },
    })
}
