//! The whole of delivery on ports in memory, with tokio's clock paused.

mod api;
mod crash;
mod flow;

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use hydrant_core::Timestamp;
use hydrant_core::catalog::{Shard, ShardId, Stream, StreamMode, StreamState};
use hydrant_core::destination::{
    Batch, Delivered, DeliveryError, Destination, DestinationSettings, MakeDestination,
};
use hydrant_core::hash::HashRange;
use hydrant_core::log::ShardUid;
use hydrant_core::names::Scope;
use hydrant_core::record::RecordBatch;
use hydrant_destinations::s3::S3Destination;
use hydrant_testkit::{MemoryControl, MemoryLog};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;

const ROLE: &str = "arn:aws:iam::000000000000:role/firehose";
const DAY: Duration = Duration::from_secs(86_400);

/// 2023-11-14T22:13:20Z, moved on by tokio's clock.
struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(self.0.elapsed())
    }
}

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
struct World {
    scope: Scope,
    clock: Arc<PausedClock>,
    log: Arc<MemoryLog>,
    control: Arc<dyn ControlStore>,
    streams: Arc<StreamCatalog>,
    /// Buckets by name.
    buckets: Arc<Mutex<BTreeMap<String, Arc<InMemory>>>>,
    mode: Arc<Mutex<Mode>>,
    /// Ids of the batches handed over.
    batches: Arc<Mutex<Vec<[u8; 16]>>>,
}

impl World {
    async fn new() -> Self {
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
        }
    }

    fn make_destination(&self) -> MakeDestination {
        let (buckets, mode) = (self.buckets.clone(), self.mode.clone());
        let batches = self.batches.clone();
        Arc::new(move |settings| {
            let DestinationSettings::S3(settings) = settings;
            let store = buckets.lock().entry(settings.bucket.clone()).or_default().clone();
            let inner = S3Destination::new(settings, store).map_err(|e| e.to_string())?;
            let (mode, batches) = (mode.clone(), batches.clone());
            Ok(Arc::new(Gated { inner, mode, batches }) as Arc<dyn Destination>)
        })
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    /// Keys and decoded bytes of a bucket's objects.
    async fn objects(&self, bucket: &str) -> BTreeMap<String, String> {
        let Some(store) = self.buckets.lock().get(bucket).cloned() else { return BTreeMap::new() };
        let list: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut out = BTreeMap::new();
        for object in list {
            let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            let mut text = String::new();
            if object.location.as_ref().ends_with(".gz") {
                flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
            } else {
                text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
            out.insert(object.location.to_string(), text);
        }
        out
    }

    /// The bytes of the objects, in the order of their keys.
    async fn bodies(&self) -> Vec<String> {
        self.objects("lake").await.into_values().collect()
    }

    /// Makes a stream with this many shards.
    async fn stream(&self, name: &str, shards: u32) -> Stream {
        let uids = self.streams.allocate_shards(shards).await.unwrap();
        let now = self.clock.now();
        let shards: Vec<Shard> = HashRange::split_evenly(shards)
            .into_iter()
            .zip(uids)
            .enumerate()
            .map(|(n, (range, uid))| shard(n as u32, uid, range, now, None))
            .collect();
        for shard in &shards {
            self.log.create(shard.uid, DAY).await.unwrap();
        }
        let stream = Stream {
            scope: self.scope.clone(),
            name: name.parse().unwrap(),
            created: now,
            state: StreamState::Active,
            mode: StreamMode::Provisioned,
            retention_hours: 24,
            shards,
            tags: BTreeMap::new(),
        };
        self.streams.put(stream.clone(), None).await.unwrap();
        stream
    }

    async fn append(&self, shard: ShardUid, data: &str) {
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

struct Gated {
    inner: S3Destination,
    mode: Arc<Mutex<Mode>>,
    batches: Arc<Mutex<Vec<[u8; 16]>>>,
}

#[async_trait]
impl Destination for Gated {
    async fn deliver(&self, batch: &Batch) -> Result<Delivered, DeliveryError> {
        self.batches.lock().push(batch.id);
        let mode = *self.mode.lock();
        match mode {
            Mode::Pass => self.inner.deliver(batch).await,
            Mode::HangBefore => std::future::pending().await,
            Mode::HangAfter => {
                self.inner.deliver(batch).await?;
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
        let body = Bytes::from(serde_json::to_vec(&input).unwrap());
        let reply = self.call(&Principal::for_tests(scope), operation, body).await?;
        Ok(serde_json::from_slice(&reply).unwrap())
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
