//! Operations of Kinesis Data Streams on the ports in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use hydrant_core::catalog::StreamCatalog;
use hydrant_core::control::ControlStore;
use hydrant_core::names::Scope;
use hydrant_core::{Clock, Random};
use hydrant_kinesis::{Kinesis, Options};
use hydrant_testkit::{ManualClock, MemoryControl, MemoryLog};
use hydrant_vault::{EncryptedLog, Vault};
use hydrant_wire::{Call, Format, JsonService, Reply, cbor};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{Outcome, Work};

const RECORDS: usize = 500;
/// As many as a subscription is counted.
const CONSUMERS: usize = 8;

struct World {
    runtime: Runtime,
    clock: Arc<ManualClock>,
    kinesis: Kinesis,
    scope: Scope,
}

impl World {
    /// With a stream `s` of so many shards.
    fn new(shards: u32) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let clock = Arc::new(ManualClock::default());
        let random = Arc::new(Random::from_seed(1));
        let vault = Arc::new(Vault::new(None, Vec::new(), random.clone()));
        let memory = Arc::new(MemoryLog::new(clock.clone()));
        let log = Arc::new(EncryptedLog::new(memory, vault.clone()));
        let control: Arc<dyn ControlStore> = Arc::new(MemoryControl::new());
        let kinesis = runtime.block_on(async {
            let catalog = Arc::new(StreamCatalog::open(control.clone()).await?);
            let options = Options::default();
            let opened =
                Kinesis::open(log, control, catalog, clock.clone(), random, vault, options);
            Ok::<_, Box<dyn std::error::Error>>(opened.await?)
        })?;
        let scope = Scope { account: "000000000000".parse()?, region: "us-east-1".parse()? };
        let world = Self { runtime, clock, kinesis, scope };
        world.json("CreateStream", json!({"StreamName": "s", "ShardCount": shards}))?;
        world.pass(Duration::from_secs(1));
        Ok(world)
    }

    fn call(&self, format: Format, operation: &str, body: Bytes) -> Outcome<Reply> {
        let call = Call { format, ..Call::for_tests(self.scope.clone(), operation, body) };
        Ok(self.runtime.block_on(self.kinesis.call(call))?)
    }

    fn json(&self, operation: &str, body: Value) -> Outcome<Value> {
        let body = match self.call(Format::Json, operation, body.to_string().into())? {
            Reply::Whole(body) if body.is_empty() => return Ok(Value::Null),
            Reply::Whole(body) => body,
            _ => return Err(format!("{operation} was refused").into()),
        };
        Ok(serde_json::from_slice(&body)?)
    }

    fn pass(&self, time: Duration) {
        self.runtime.block_on(async {
            self.kinesis.settle().await;
            self.clock.set(self.clock.now().plus(time));
            self.kinesis.settle().await;
        });
    }

    /// The body of a PutRecords.
    fn records(record_bytes: usize) -> Bytes {
        // In base64 four letters are three bytes.
        let letters = record_bytes.div_ceil(3) * 4;
        let mut noise = vec![0; letters + RECORDS];
        Random::from_seed(2).fill(&mut noise);
        for byte in &mut noise {
            *byte = b'A' + *byte % 16;
        }
        let noise = String::from_utf8_lossy(&noise);
        let record = |n: usize| json!({"Data": &noise[n..n + letters], "PartitionKey": format!("{:020}", n * 7_919)});
        let records: Vec<Value> = (0..RECORDS).map(record).collect();
        json!({"StreamName": "s", "Records": records}).to_string().into()
    }

    /// A world with a batch of 1 KiB records in one shard, and an iterator at the first.
    fn filled() -> Outcome<(Self, String)> {
        let world = Self::new(1)?;
        world.call(Format::Json, "PutRecords", Self::records(1_024))?;
        let answer = world.json(
            "GetShardIterator",
            json!({"StreamName": "s", "ShardId": "shardId-000000000000",
                "ShardIteratorType": "TRIM_HORIZON"}),
        )?;
        let iterator = answer["ShardIterator"].as_str().ok_or("no iterator")?.to_owned();
        Ok((world, iterator))
    }
}

/// PutRecords into four shards.
pub(crate) fn puts(record_bytes: usize) -> Outcome<Work> {
    let world = World::new(4)?;
    let body = World::records(record_bytes);
    Ok(Box::new(move || expect_whole(world.call(Format::Json, "PutRecords", body.clone())?, 1_000)))
}

/// GetRecords, answered in JSON.
pub(crate) fn gets_json() -> Outcome<Work> {
    let (world, iterator) = World::filled()?;
    let body = Bytes::from(json!({"ShardIterator": iterator}).to_string());
    Ok(Box::new(move || {
        expect_whole(world.call(Format::Json, "GetRecords", body.clone())?, RECORDS * 1_024)
    }))
}

/// GetRecords, answered in CBOR.
pub(crate) fn gets_cbor() -> Outcome<Work> {
    let (world, iterator) = World::filled()?;
    let body = cbor::to_bytes(&json!({"ShardIterator": iterator}))?;
    Ok(Box::new(move || {
        expect_whole(world.call(Format::Cbor, "GetRecords", body.clone())?, RECORDS * 1_024)
    }))
}

/// SubscribeToShard, up to the first records.
pub(crate) fn subscriptions() -> Outcome<Work> {
    let (world, _) = World::filled()?;
    let stream = world.json("DescribeStreamSummary", json!({"StreamName": "s"}))?;
    let arn = &stream["StreamDescriptionSummary"]["StreamARN"];
    // Each subscribes once: it may not again for some seconds.
    let mut bodies = Vec::new();
    for n in 0..CONSUMERS {
        let consumer = json!({"StreamARN": arn, "ConsumerName": format!("c{n}")});
        let consumer = world.json("RegisterStreamConsumer", consumer)?;
        world.pass(Duration::from_secs(1));
        let body = json!({"ConsumerARN": consumer["Consumer"]["ConsumerARN"],
            "ShardId": "shardId-000000000000", "StartingPosition": {"Type": "TRIM_HORIZON"}});
        bodies.push(Bytes::from(body.to_string()));
    }
    Ok(Box::new(move || {
        let body = bodies.pop().ok_or("no consumer is left")?;
        let Reply::Stream(mut frames) = world.call(Format::Json, "SubscribeToShard", body)? else {
            return Err("no subscription".into());
        };
        let mut bytes = 0;
        while bytes < RECORDS * 1_024 {
            let frame = world.runtime.block_on(frames.next());
            bytes += frame.ok_or("the subscription ended")?.len();
        }
        Ok(())
    }))
}

fn expect_whole(reply: Reply, bytes_min: usize) -> Outcome<()> {
    let bytes = match reply {
        Reply::Whole(body) => body.len(),
        // Taken as a connection takes them, one after the other.
        Reply::Pieces(pieces) => pieces.map(|piece| piece.len()).sum(),
        Reply::Refused { .. } | Reply::Stream(_) => 0,
    };
    if bytes >= bytes_min { Ok(()) } else { Err("not the answer that was expected".into()) }
}
