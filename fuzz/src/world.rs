//! Kinesis on the ports in memory, as small and as repeatable as it gets.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use hydrant_core::catalog::StreamCatalog;
use hydrant_core::control::{ControlStore, Write};
use hydrant_core::names::Scope;
use hydrant_core::{Clock, Random};
use hydrant_kinesis::{Kinesis, Options};
use hydrant_testkit::{ManualClock, MemoryControl, MemoryLog};
use hydrant_vault::{EncryptedLog, MasterKey, Vault};
use hydrant_wire::event_stream::decode;
use hydrant_wire::{ApiError, Call, Format, JsonService, Reply};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// The key of iterators and tokens, planted where the service keeps it.
pub(crate) const KEY: [u8; 32] = [7; 32];
/// Frames of a subscription that are looked at.
const FRAMES_MAX: usize = 4;
const KEY_ROW: &str = "kinesis/iterator-key";

pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) kinesis: Kinesis,
}

pub(crate) fn scope() -> Scope {
    Scope { account: "000000000000".parse().unwrap(), region: "us-east-1".parse().unwrap() }
}

/// Runs it on a clock that goes on only when everything waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    RUNTIME.with_borrow_mut(|runtime| {
        let paused = || Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.get_or_insert_with(|| paused().unwrap()).block_on(future)
    })
}

impl World {
    /// With a stream `s` of two shards.
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let random = Arc::new(Random::from_seed(1));
        let vault = Arc::new(Vault::new(
            Some(MasterKey::parse(&"07".repeat(32)).unwrap()),
            Vec::new(),
            random.clone(),
        ));
        let log =
            Arc::new(EncryptedLog::new(Arc::new(MemoryLog::new(clock.clone())), vault.clone()));
        let control: Arc<dyn ControlStore> = Arc::new(MemoryControl::new());
        control.commit(vec![Write::insert(KEY_ROW, &KEY)]).await.unwrap();
        let catalog = Arc::new(StreamCatalog::open(control.clone()).await.unwrap());
        let options = Options { shards_max: Some(64), ..Options::default() };
        let opened =
            Kinesis::open(log, control, catalog, clock.clone(), random, vault, options).await;
        let world = Self { clock, kinesis: opened.unwrap() };
        let made = world.call("CreateStream", Bytes::from(r#"{"StreamName":"s","ShardCount":2}"#));
        made.await.unwrap();
        world
    }

    /// One call, and whatever states it set going.
    ///
    /// No input may make the server fail, and a reply in whole is JSON.
    pub(crate) async fn call(&self, operation: &str, body: Bytes) -> Result<Value, ApiError> {
        self.call_in(Format::Json, operation, body).await
    }

    /// The same in a format; replies in CBOR are not read.
    pub(crate) async fn call_in(
        &self,
        format: Format,
        operation: &str,
        body: Bytes,
    ) -> Result<Value, ApiError> {
        let call = Call { format, ..Call::for_tests(scope(), operation, body) };
        let called = self.kinesis.call(call).await;
        self.pass(Duration::from_millis(20)).await;
        let reply = called.inspect_err(|error| {
            assert!((400..500).contains(&error.status), "{operation}: {error}");
            assert!(!error.code.is_empty(), "{operation}");
        })?;
        match reply {
            Reply::Refused { status, body } => {
                assert!((400..500).contains(&status), "{operation}: {status}");
                Ok(serde_json::from_slice(&body).unwrap())
            }
            Reply::Stream(frames) => Ok(first_events(frames).await),
            reply => match reply.whole().unwrap() {
                body if body.is_empty() || format == Format::Cbor => Ok(Value::Null),
                body => Ok(serde_json::from_slice(&body).unwrap()),
            },
        }
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        self.kinesis.settle().await;
        self.clock.set(self.clock.now().plus(time));
        self.kinesis.settle().await;
    }
}

/// What the first frames of a subscription say.
async fn first_events(mut frames: BoxStream<'static, Bytes>) -> Value {
    let mut events = Vec::new();
    for _ in 0..FRAMES_MAX {
        let next = tokio::time::timeout(Duration::from_millis(50), frames.next()).await;
        let Ok(Some(bytes)) = next else { break };
        let (frame, rest) = decode(&bytes).unwrap().unwrap();
        assert!(rest.is_empty() && frame.header(":content-type").is_some());
        events.extend(serde_json::from_slice(frame.payload).ok());
    }
    Value::Array(events)
}
