//! What `limits = "aws"` bounds: how often operations are called, and how fast shards are written and
//! read. The numbers are from "Quotas and limits" in the Kinesis Data Streams developer guide, and
//! from the API reference where that says nothing.

use std::sync::Arc;

use hydrant_core::Timestamp;
use hydrant_core::catalog::{Shard, Stream, StreamMode, StreamStatus};
use hydrant_core::limits::RECORD_BYTES_MAX;
use hydrant_core::names::Scope;
use hydrant_wire::Call;

use crate::error::Error;
use crate::ops::ON_DEMAND_SHARDS;
use crate::streams::StreamKey;
use crate::throttle::{DAY, Key, Rate, Want, admit};
use crate::{Kinesis, Limits};

/// Open shards of an account and region unless somebody says otherwise.
const SHARDS_MAX: u32 = 10_000;
/// Regions with the larger quota of shards (AWS), and the quota.
const LARGE_REGIONS: [&str; 3] = ["us-east-1", "us-west-2", "eu-west-1"];
const LARGE_REGION_SHARDS_MAX: u32 = 20_000;
/// The quota everywhere else (AWS: "1,000 or 6,000", without saying where it is which).
const OTHER_REGION_SHARDS_MAX: u32 = 1_000;

/// Calls of `GetRecords` on one shard, all its readers together.
const READS: Rate = Rate::per_second(5);
/// Bytes that `GetRecords` returns from one shard, to all its readers together.
const READ_BYTES: Rate = Rate::per_second(2 << 20);
/// Bytes that one fan-out consumer gets from one shard.
pub(crate) const FAN_OUT_BYTES: Rate = Rate::per_second(2 << 20);
/// Calls of `GetShardIterator` on one shard.
const ITERATORS: Rate = Rate::per_second(5);
/// Records put into one shard in a second.
pub(crate) const PUTS_PER_S: u64 = 1_000;
/// Bytes put into one shard, partition keys included, in a second.
pub(crate) const PUT_BYTES_PER_S: u64 = 1 << 20;

/// How often an operation may be called in a second, and by whom together. AWS names no rate for the
/// others.
const CALLS: [(&str, u64, Per); 27] = [
    ("AddTagsToStream", 5, Per::Account),
    ("CreateStream", 5, Per::Account),
    ("DecreaseStreamRetentionPeriod", 5, Per::Stream),
    ("DeleteResourcePolicy", 5, Per::Account),
    ("DeleteStream", 5, Per::Account),
    ("DeregisterStreamConsumer", 5, Per::Stream),
    ("DescribeAccountSettings", 5, Per::Account),
    ("DescribeLimits", 1, Per::Account),
    ("DescribeStream", 10, Per::Account),
    ("DescribeStreamConsumer", 20, Per::Stream),
    ("DescribeStreamSummary", 20, Per::Account),
    ("DisableEnhancedMonitoring", 5, Per::Stream),
    ("EnableEnhancedMonitoring", 5, Per::Stream),
    ("GetResourcePolicy", 5, Per::Account),
    ("IncreaseStreamRetentionPeriod", 5, Per::Stream),
    ("ListShards", 1_000, Per::Stream),
    ("ListStreamConsumers", 5, Per::Stream),
    ("ListStreams", 5, Per::Account),
    ("ListTagsForStream", 5, Per::Stream),
    ("MergeShards", 5, Per::Stream),
    ("PutResourcePolicy", 5, Per::Account),
    ("RegisterStreamConsumer", 5, Per::Stream),
    ("RemoveTagsFromStream", 5, Per::Stream),
    ("SplitShard", 5, Per::Stream),
    ("UpdateAccountSettings", 5, Per::Account),
    ("UpdateShardCount", 10, Per::Account),
    ("UpdateStreamWarmThroughput", 5, Per::Account),
];

/// Who shares a rate, always within one account and region.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Per {
    Account,
    Stream,
}

/// Streams of an account and region that may be CREATING at once (AWS).
const CREATING_MAX: usize = 5;
/// On-demand streams of an account and region (AWS).
const ON_DEMAND_MAX: usize = 50;

impl Kinesis {
    /// Whether AWS's rates and quotas hold.
    pub(crate) fn limited(&self) -> bool {
        self.options.limits == Limits::Aws
    }

    /// Most open shards of an account and region.
    pub(crate) fn shard_limit(&self, scope: &Scope) -> u32 {
        let by_default = match self.options.limits {
            Limits::Default => SHARDS_MAX,
            Limits::Aws if LARGE_REGIONS.contains(&scope.region.as_str()) => {
                LARGE_REGION_SHARDS_MAX
            }
            Limits::Aws => OTHER_REGION_SHARDS_MAX,
        };
        self.options.shards_max.unwrap_or(by_default)
    }

    /// Most on-demand streams of an account and region.
    pub(crate) fn on_demand_limit(&self, scope: &Scope) -> u32 {
        match self.options.limits {
            // Only their shards bound them.
            Limits::Default => self.shard_limit(scope) / ON_DEMAND_SHARDS,
            Limits::Aws => ON_DEMAND_MAX as u32,
        }
    }

    /// Refuses a stream that would be one too many being made, or one too many on demand.
    pub(crate) fn check_streams(&self, scope: &Scope, mode: StreamMode) -> Result<(), Error> {
        if !self.limited() {
            return Ok(());
        }
        let (streams, now, account) = (self.streams(scope), self.clock.now(), &scope.account);
        let creating = |s: &&Arc<Stream>| s.status(now) == Some(StreamStatus::Creating);
        if streams.iter().filter(creating).count() >= CREATING_MAX {
            return Err(Error::LimitExceeded(format!(
                "This request would have exceed the limit on the number of streams that can \
                 simultaneously be in CREATING or DELETING for the account {account}. Limit: \
                 {CREATING_MAX}."
            )));
        }
        check_on_demand_among(&streams, scope, mode)
    }

    /// Refuses one more stream of that mode than an account and region may have.
    pub(crate) fn check_on_demand(&self, scope: &Scope, mode: StreamMode) -> Result<(), Error> {
        if !self.limited() {
            return Ok(());
        }
        check_on_demand_among(&self.streams(scope), scope, mode)
    }

    /// Counts a call of an operation of the control plane, or refuses it as one too many. The caller's
    /// duty: once a call. [`Kinesis::named`] does it for what names a stream.
    pub(crate) fn allow_call(&self, call: &Call, on: Option<&StreamKey>) -> Result<(), Error> {
        if !self.limited() {
            return Ok(());
        }
        let rate = CALLS.iter().find(|(name, ..)| *name == call.operation);
        let Some((what, per_s, per)) = rate else { return Ok(()) };
        let key = match (per, on) {
            (Per::Stream, Some(stream)) => Key::Stream(stream.clone()),
            _ => Key::Account(call.scope().clone()),
        };
        let want = Want { what, rate: Rate::per_second(*per_s), amount: 1 };
        if self.throttle.take(&key, &[want]) {
            return Ok(());
        }
        let account = &call.scope().account;
        Err(Error::LimitExceeded(match on {
            Some(stream) => {
                format!("Rate exceeded for stream {} under account {account}.", stream.name)
            }
            None => format!("Rate exceeded for account {account}."),
        }))
    }

    /// Whether a shard takes a record of this size now. A stream of large records may have one of the
    /// largest at once, which is then made up for at the common rate.
    pub(crate) fn allow_put(&self, stream: &Stream, shard: &Shard, bytes: usize) -> bool {
        if !self.limited() {
            return true;
        }
        let largest = (stream.settings.max_record_kib as usize) << 10;
        let burst = largest.max(RECORD_BYTES_MAX) as u64;
        let wants = [
            Want { what: "put", rate: Rate::per_second(PUTS_PER_S), amount: 1 },
            Want {
                what: "put bytes",
                rate: Rate { per_s: PUT_BYTES_PER_S, burst },
                amount: bytes as u64,
            },
        ];
        let taken = self.throttle.take(&Key::Shard(shard.uid), &wants);
        if !taken {
            self.meters.write_exceeded(stream, shard.id, 1);
        }
        taken
    }

    /// Counts a `GetRecords`, or refuses it: too many calls in this second, or too much read before.
    pub(crate) fn allow_read(&self, stream: &Stream, shard: &Shard) -> Result<(), Error> {
        let key = Key::Shard(shard.uid);
        let read = Want { what: "read", rate: READS, amount: 1 };
        if !self.limited()
            || (self.throttle.closed_for("read bytes", &key, READ_BYTES).is_zero()
                && self.throttle.take(&key, &[read]))
        {
            return Ok(());
        }
        self.meters.read_exceeded(stream, shard.id);
        Err(rate_exceeded(stream, shard))
    }

    /// Counts what a `GetRecords` returns. After 10 MiB, the next five seconds are refused.
    pub(crate) fn count_read(&self, shard: &Shard, bytes: usize) {
        if self.limited() {
            let want = Want { what: "read bytes", rate: READ_BYTES, amount: bytes as u64 };
            self.throttle.charge(&Key::Shard(shard.uid), &want);
        }
    }

    /// Counts a `GetShardIterator`, or refuses it as one too many.
    pub(crate) fn allow_iterator(&self, stream: &Stream, shard: &Shard) -> Result<(), Error> {
        let want = Want { what: "GetShardIterator", rate: ITERATORS, amount: 1 };
        if !self.limited() || self.throttle.take(&Key::Shard(shard.uid), &[want]) {
            return Ok(());
        }
        Err(rate_exceeded(stream, shard))
    }

    /// Counts a change of a stream of which there may be `max` a day, or refuses it. `times` is what the
    /// stream's row knows of earlier ones, and then of this one.
    pub(crate) fn allow_change(
        &self,
        operation: &str,
        on: &StreamKey,
        times: &mut Vec<Timestamp>,
        max: usize,
    ) -> Result<(), Error> {
        if !self.limited() || admit(times, self.clock.now(), DAY, max) {
            return Ok(());
        }
        let (name, account) = (&on.name, &on.scope.account);
        Err(Error::LimitExceeded(format!(
            "Rate exceeded for stream {name} under account {account}. {operation} can be called at \
             most {max} times per rolling 24-hour period per stream."
        )))
    }
}

/// Refuses one more stream of that mode beside those that an account and region has.
fn check_on_demand_among(
    streams: &[Arc<Stream>],
    Scope { account, region }: &Scope,
    mode: StreamMode,
) -> Result<(), Error> {
    let count = streams.iter().filter(|s| s.mode == StreamMode::OnDemand).count();
    if mode == StreamMode::Provisioned || count < ON_DEMAND_MAX {
        return Ok(());
    }
    Err(Error::LimitExceeded(format!(
        "This request would exceed the limit on the number of On-Demand streams for the account \
         {account} in {region}. Current On-Demand streams count: {count}. Limit: {ON_DEMAND_MAX}."
    )))
}

/// AWS's answer to more than a shard gives or takes.
pub(crate) fn rate_exceeded(stream: &Stream, shard: &Shard) -> Error {
    let (id, name, account) = (shard.id, &stream.name, &stream.scope.account);
    Error::ProvisionedThroughputExceeded(format!(
        "Rate exceeded for shard {id} in stream {name} under account {account}."
    ))
}
