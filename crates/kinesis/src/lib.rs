//! Kinesis Data Streams: the operations, on the log and the catalog of streams.
//!
//! Follows the "Amazon Kinesis Data Streams API reference". An operation reads its request, checks it
//! whole, acts on the ports and writes its reply; what takes time (a stream being made or deleted)
//! is a state in the stream's row, moved on by [`Kinesis::run`].

mod access;
mod account;
mod change;
mod consumers;
mod distribution;
mod encryption;
mod error;
mod expiry;
mod iterator;
mod lifecycle;
mod load;
mod make_stream;
mod meter;
mod monitoring;
mod ops;
mod position;
mod put;
mod rates;
mod reply;
mod reroute;
mod reshard;
mod retention;
mod room;
mod route;
mod seal;
mod shards;
mod streams;
mod subscription;
mod tags;
#[cfg(test)]
mod tests;
mod throttle;
mod token;
mod under_way;
mod validate;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::catalog::StreamCatalog;
use hydrant_core::control::{ControlError, ControlStore};
use hydrant_core::encryption::DataKeyId;
use hydrant_core::log::LogEngine;
use hydrant_core::names::{Scope, StreamName};
use hydrant_core::{Clock, Random};
use hydrant_vault::Vault;
use hydrant_wire::{ApiError, Call, Format, JsonService, Reply};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::access::Policies;
pub use crate::error::Error;
use crate::load::Load;
use crate::meter::{Meters, Totals};
use crate::room::Room;
use crate::seal::Sealer;
use crate::subscription::Fanout;
use crate::throttle::Throttle;
use crate::under_way::{Earlier, PutsUnderWay};

/// What an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a new stream shows CREATING after its shards are there.
    pub create_delay: Duration,
    /// How long a stream shows UPDATING after a change.
    pub update_delay: Duration,
    /// How long a stream shows DELETING before it is gone.
    pub delete_delay: Duration,
    /// How long a new consumer shows CREATING.
    pub consumer_create_delay: Duration,
    /// How long a consumer shows DELETING before it is gone.
    pub consumer_delete_delay: Duration,
    /// How long a subscription to a shard lasts (AWS: 5 minutes).
    pub subscription_life: Duration,
    /// How long what the shards of on-demand streams take is measured before it is acted on.
    pub load_window: Duration,
    /// Most open shards of one account and region; `None` for what [`Options::limits`] says.
    pub shards_max: Option<u32>,
    /// Whose rates and quotas hold.
    pub limits: Limits,
}

/// Whose rates and quotas hold. Sizes and counts per request are AWS's always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    /// hydrant's own: a shard is as fast as the disk, operations are called as often as one likes, and
    /// an account and region has up to 10,000 open shards.
    #[default]
    Default,
    /// Those that AWS documents under "Quotas and limits", for tests against them.
    Aws,
}

impl Default for Options {
    /// Delays that a test hardly notices but a waiter does, and no rates.
    fn default() -> Self {
        Self {
            create_delay: Duration::from_millis(20),
            update_delay: Duration::from_millis(20),
            delete_delay: Duration::from_millis(20),
            consumer_create_delay: Duration::from_millis(20),
            consumer_delete_delay: Duration::from_millis(20),
            subscription_life: Duration::from_secs(300),
            load_window: Duration::from_secs(10),
            shards_max: None,
            limits: Limits::Default,
        }
    }
}

/// The service. Give it to the JSON front, and spawn [`Kinesis::run`].
pub struct Kinesis {
    log: Arc<dyn LogEngine>,
    control: Arc<dyn ControlStore>,
    catalog: Arc<StreamCatalog>,
    clock: Arc<dyn Clock>,
    random: Arc<Random>,
    vault: Arc<Vault>,
    sealer: Sealer,
    options: Options,
    attention: Arc<Attention>,
    fanout: Arc<Fanout>,
    throttle: Throttle,
    meters: Meters,
    totals: Totals,
    load: Load,
    replies: Room,
    policies: Policies,
    /// Held from counting the shards to writing the new stream's row.
    creating: tokio::sync::Mutex<()>,
    /// Held while a retention changes, so that log and row end up saying the same.
    retaining: tokio::sync::Mutex<()>,
    puts: PutsUnderWay,
    /// By the data key that a stream begins to use: the puts that do not know of it.
    beginning: Mutex<HashMap<DataKeyId, Earlier>>,
}

/// Streams whose state somebody has to move on.
struct Attention {
    pending: Mutex<BTreeSet<(Scope, StreamName)>>,
    wake: Notify,
}

impl std::fmt::Debug for Kinesis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kinesis").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Kinesis {
    /// Opens the service: reads (or draws, once) the key of its iterators, and finds the streams
    /// whose creation or deletion a stop interrupted, for [`Kinesis::run`] to go on with. The vault
    /// then has the data keys of every stream: only then may anybody read from the log. Fails if the
    /// control store does.
    pub async fn open(
        log: Arc<dyn LogEngine>,
        control: Arc<dyn ControlStore>,
        catalog: Arc<StreamCatalog>,
        clock: Arc<dyn Clock>,
        random: Arc<Random>,
        vault: Arc<Vault>,
        options: Options,
    ) -> Result<Self, ControlError> {
        encryption::load(&vault, &catalog);
        let policies = Policies::of(&catalog);
        let sealer = Sealer::open(control.as_ref(), &random).await?;
        let pending = Mutex::new(lifecycle::unfinished(&catalog, clock.now()));
        let attention = Arc::new(Attention { pending, wake: Notify::new() });
        let throttle = Throttle::new(Arc::clone(&clock));
        let (creating, retaining) = Default::default();
        let totals = Totals::new();
        let fanout = Fanout::new(
            Arc::clone(&log),
            Arc::clone(&catalog),
            Arc::clone(&clock),
            &options,
            totals.records_read.clone(),
        );
        Ok(Self {
            log,
            control,
            catalog,
            clock,
            random,
            vault,
            sealer,
            options,
            attention,
            fanout,
            throttle,
            meters: Meters::default(),
            totals,
            load: Load::default(),
            replies: Room::new(),
            policies,
            creating,
            retaining,
            puts: PutsUnderWay::default(),
            beginning: Mutex::default(),
        })
    }

    /// Ends every subscription to a shard as if its time were over, those to come at once. For a
    /// server that stops, which would wait for them otherwise.
    pub fn end_subscriptions(&self) {
        self.fanout.close();
    }

    /// Adds the metrics of streams and shards to `out`, as Prometheus reads them.
    pub fn write_metrics(&self, out: &mut String) {
        self.meters.write(&self.catalog, out);
    }
}

#[async_trait]
impl JsonService for Kinesis {
    fn target(&self) -> &'static str {
        "Kinesis_20131202"
    }

    fn speaks(&self, format: Format) -> bool {
        matches!(format, Format::Json | Format::Cbor)
    }

    fn checks_depth(&self, operation: &str) -> bool {
        operation == "PutRecords"
    }

    async fn call(&self, call: Call) -> Result<Reply, ApiError> {
        Ok(ops::run(self, &call).await?)
    }
}
