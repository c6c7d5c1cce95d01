//! The operations on the ports in memory, with a clock moved by hand.

mod access;
mod capacity;
mod consumers;
mod edges;
mod encryption;
mod make_stream;
mod monitoring;
mod races;
mod rates;
mod records;
mod reply;
mod reshard;
mod stream_state;
mod terms;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hydrant_core::catalog::{Stream, StreamCatalog};
use hydrant_core::control::ControlStore;
use hydrant_core::log::LogEngine;
use hydrant_core::names::Scope;
use hydrant_core::{Clock, Random};
use hydrant_testkit::{ManualClock, MemoryControl, MemoryLog};
use hydrant_vault::{EncryptedLog, MasterKey, Vault};
use hydrant_wire::{Call, JsonService};
use serde_json::{Value, json};

use crate::{Kinesis, Limits, Options};

pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    /// As it is on the disk, below the encryption.
    pub(crate) log: Arc<dyn LogEngine>,
    pub(crate) control: Arc<dyn ControlStore>,
    pub(crate) kinesis: Arc<Kinesis>,
    pub(crate) scope: Scope,
}

pub(crate) fn scope(region: &str) -> Scope {
    let account = "000000000000".parse().unwrap();
    Scope { account, region: region.parse().unwrap() }
}

/// Keys that differ from seed to seed, under the master key of these bytes.
pub(crate) fn vault(seed: u64, master: Option<u8>, kms_keys: &[&str]) -> Arc<Vault> {
    let master = master.map(|byte| MasterKey::parse(&format!("{byte:02x}").repeat(32)).unwrap());
    let kms_keys = kms_keys.iter().map(|key| key.parse().unwrap()).collect();
    Arc::new(Vault::new(master, kms_keys, Arc::new(Random::from_seed(seed))))
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let log = Arc::new(MemoryLog::new(clock.clone()));
        Self::on(clock, log, Arc::new(MemoryControl::new())).await
    }

    /// A process that starts on what another left.
    pub(crate) async fn on(
        clock: Arc<ManualClock>,
        log: Arc<dyn LogEngine>,
        control: Arc<dyn ControlStore>,
    ) -> Self {
        let options = Options { shards_max: Some(50), ..Options::default() };
        Self::with(clock, log, control, options).await
    }

    /// A process under AWS's rates and quotas.
    pub(crate) async fn under_aws_limits() -> Self {
        let clock = Arc::new(ManualClock::default());
        let log = Arc::new(MemoryLog::new(clock.clone()));
        let options = Options { limits: Limits::Aws, ..Options::default() };
        Self::with(clock, log, Arc::new(MemoryControl::new()), options).await
    }

    async fn with(
        clock: Arc<ManualClock>,
        log: Arc<dyn LogEngine>,
        control: Arc<dyn ControlStore>,
        options: Options,
    ) -> Self {
        let vault = vault(clock.now().as_millis(), Some(7), &["alias/orders"]);
        Self::with_vault(clock, log, control, options, vault).await
    }

    /// A process with these keys.
    pub(crate) async fn with_vault(
        clock: Arc<ManualClock>,
        log: Arc<dyn LogEngine>,
        control: Arc<dyn ControlStore>,
        options: Options,
        vault: Arc<Vault>,
    ) -> Self {
        let catalog = Arc::new(StreamCatalog::open(control.clone()).await.unwrap());
        let random = Arc::new(Random::from_seed(1));
        let opened = Kinesis::open(
            Arc::new(EncryptedLog::new(log.clone(), vault.clone())),
            control.clone(),
            catalog,
            clock.clone(),
            random,
            vault,
            options,
        );
        let kinesis = Arc::new(opened.await.unwrap());
        Self { clock, log, control, kinesis, scope: scope("us-east-1") }
    }

    pub(crate) async fn restart(&self) -> Self {
        Self::on(self.clock.clone(), self.log.clone(), self.control.clone()).await
    }

    /// The reply as text, or code and text of the error.
    pub(crate) async fn raw(&self, operation: &str, body: &str) -> Result<Bytes, (String, String)> {
        let body = Bytes::from(body.to_owned());
        let call = Call::for_tests(self.scope.clone(), operation, body);
        let called = self.kinesis.call(call).await.map(|reply| reply.whole().unwrap());
        called.map_err(|e| (e.code.to_owned(), e.message))
    }

    pub(crate) async fn call(
        &self,
        operation: &str,
        body: Value,
    ) -> Result<Value, (String, String)> {
        let reply = self.raw(operation, &body.to_string()).await?;
        Ok(if reply.is_empty() { Value::Null } else { serde_json::from_slice(&reply).unwrap() })
    }

    pub(crate) async fn ok(&self, operation: &str, body: Value) -> Value {
        self.call(operation, body).await.unwrap()
    }

    /// Code and text of the error.
    pub(crate) async fn no(&self, operation: &str, body: Value) -> (String, String) {
        self.call(operation, body).await.unwrap_err()
    }

    pub(crate) async fn create(&self, name: &str, shards: u32) {
        self.ok("CreateStream", json!({ "StreamName": name, "ShardCount": shards })).await;
        self.kinesis.settle().await;
        self.clock.advance(Duration::from_millis(20));
    }

    pub(crate) async fn put(&self, stream: &str, key: &str, data: &str) -> (String, String) {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        let body = json!({ "StreamName": stream, "PartitionKey": key, "Data": data });
        let reply = self.ok("PutRecord", body).await;
        let text = |name: &str| reply[name].as_str().unwrap().to_owned();
        (text("ShardId"), text("SequenceNumber"))
    }

    pub(crate) async fn iterator(&self, stream: &str, shard: &str, more: Value) -> String {
        let mut body = json!({ "StreamName": stream, "ShardId": shard });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = self.ok("GetShardIterator", body).await;
        reply["ShardIterator"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn horizon(&self, stream: &str, shard: &str) -> String {
        self.iterator(stream, shard, json!({ "ShardIteratorType": "TRIM_HORIZON" })).await
    }

    /// The data of the records behind an iterator, and the next iterator.
    pub(crate) async fn read(&self, iterator: &str, limit: u32) -> (Vec<String>, Option<String>) {
        let body = json!({ "ShardIterator": iterator, "Limit": limit });
        let reply = self.ok("GetRecords", body).await;
        let records = reply["Records"].as_array().unwrap();
        let next = reply["NextShardIterator"].as_str().map(str::to_owned);
        (records.iter().map(|r| data_of(&r["Data"])).collect(), next)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now().as_millis()
    }
}

pub(crate) fn data_of(text: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn error(code: &str, text: &str) -> (String, String) {
    (code.to_owned(), text.to_owned())
}
