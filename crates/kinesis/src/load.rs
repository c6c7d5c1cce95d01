//! How much the shards of on-demand streams take, and the shards they get for it.
//!
//! A shard is good for 1 MiB and 1,000 records a second. Once a window, what each shard took is
//! compared with that: a stream that took more than half of what its shards are good for gets as many
//! shards as twice that needs, out of those that took the most. That is AWS's rule ("up to double the
//! peak write throughput") with a shorter memory on the way up, and none on the way down: shards that
//! are there stay until somebody asks for fewer. Only shards with traffic are known here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hydrant_core::Timestamp;
use hydrant_core::catalog::{Shard, ShardId, Stream, StreamMode, StreamStatus};
use hydrant_core::log::ShardUid;
use parking_lot::{Mutex, RwLock};

use crate::Kinesis;
use crate::error::Error;
use crate::rates::{PUT_BYTES_PER_S, PUTS_PER_S};
use crate::reshard::Wanted;
use crate::reshard::plan::Plan;
use crate::streams::StreamKey;

/// Parts of a shard that its load is counted in.
const WHOLE: u64 = 1_000;
/// How much more than its load a stream is to have room for (AWS: double).
const HEADROOM: u64 = 2;

/// What a shard took since the window began.
struct Taken {
    stream: StreamKey,
    shard: ShardId,
    bytes: AtomicU64,
    records: AtomicU64,
}

/// What every shard with traffic took.
#[derive(Default)]
pub(crate) struct Load {
    shards: RwLock<HashMap<ShardUid, Arc<Taken>>>,
    /// Since when; `None` while there is no traffic.
    since: Mutex<Option<Timestamp>>,
}

impl Load {
    /// Counts records that a shard took. True if they are the first in this window, so that somebody
    /// has to look at its end.
    fn add(
        &self,
        stream: &Stream,
        shard: &Shard,
        records: u64,
        bytes: u64,
        now: Timestamp,
    ) -> bool {
        if let Some(taken) = self.shards.read().get(&shard.uid) {
            taken.bytes.fetch_add(bytes, Ordering::Relaxed);
            taken.records.fetch_add(records, Ordering::Relaxed);
            return false;
        }
        let new = || {
            let stream = StreamKey { scope: stream.scope.clone(), name: stream.name.clone() };
            let (bytes, records) = (AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Taken { stream, shard: shard.id, bytes, records })
        };
        let taken = Arc::clone(self.shards.write().entry(shard.uid).or_insert_with(new));
        taken.bytes.fetch_add(bytes, Ordering::Relaxed);
        taken.records.fetch_add(records, Ordering::Relaxed);
        let mut since = self.since.lock();
        let first = since.is_none();
        since.get_or_insert(now);
        first
    }

    /// What each shard of each stream took from the beginning of the window until `now`, in parts of
    /// what it is good for; with that a new window begins.
    fn take(&self, now: Timestamp) -> BTreeMap<StreamKey, HashMap<ShardId, u64>> {
        let mut since = self.since.lock();
        let Some(began) = since.take() else { return BTreeMap::new() };
        let ms = u64::try_from(now.since(began).as_millis()).unwrap_or(u64::MAX).max(1);
        let mut shards = self.shards.write();
        let mut loads: BTreeMap<StreamKey, HashMap<ShardId, u64>> = BTreeMap::new();
        for taken in shards.values() {
            let per_s = |n: &AtomicU64| n.load(Ordering::Relaxed).saturating_mul(1_000) / ms;
            let bytes = per_s(&taken.bytes).saturating_mul(WHOLE) / PUT_BYTES_PER_S;
            let records = per_s(&taken.records).saturating_mul(WHOLE) / PUTS_PER_S;
            let loads = loads.entry(taken.stream.clone()).or_default();
            loads.insert(taken.shard, bytes.max(records));
        }
        // The next record of a shard begins to count it again.
        shards.clear();
        loads
    }
}

impl Kinesis {
    /// Counts records that a shard took, if its stream is scaled by what it takes. Called for every
    /// put: two additions, as a rule.
    pub(crate) fn count_load(&self, stream: &Stream, shard: &Shard, records: u64, bytes: u64) {
        if stream.mode == StreamMode::OnDemand
            && self.load.add(stream, shard, records, bytes, self.clock.now())
        {
            self.attention.wake.notify_one();
        }
    }

    /// Scales the streams that took too much for their shards, at the end of a window. Tells when that
    /// is; `None` while there is no traffic.
    pub(crate) async fn scale(&self) -> Option<Timestamp> {
        let (window, now) = (self.options.load_window, self.clock.now());
        let began = (*self.load.since.lock())?;
        if now < began.plus(window) {
            return Some(began.plus(window));
        }
        for (id, loads) in self.load.take(now) {
            // Whatever refuses it now is asked again at the end of the next window.
            if let Err(error) = self.scale_stream(&id, &loads).await {
                tracing::warn!(stream = %id.name, %error, "an on-demand stream was not scaled");
            }
        }
        *self.load.since.lock()
    }

    async fn scale_stream(
        &self,
        id: &StreamKey,
        loads: &HashMap<ShardId, u64>,
    ) -> Result<(), Error> {
        let decide = || {
            let Ok(found) = self.find(id) else { return Ok(None) };
            let stream = &found.held.stream;
            if stream.mode != StreamMode::OnDemand || found.status != StreamStatus::Active {
                return Ok(None);
            }
            let open: Vec<&Shard> = (0..).map_while(|n| found.held.open_shard(n)).collect();
            let free = self.shard_limit(&id.scope).saturating_sub(self.claimed_shards(&id.scope));
            let cuts = more_shards(&open, loads, u64::from(free));
            let plan = Plan::cut_each(stream, &cuts);
            if plan.is_empty() {
                return Ok(None);
            }
            tracing::info!(stream = %id.name, from = open.len(), "an on-demand stream gets more shards");
            Ok(Some(Wanted { next: Stream::clone(stream), seen: found.held.version, plan }))
        };
        self.reshard(id, decide).await
    }
}

/// In how many shards each of these is to be cut; those that took the most come first, and all of them
/// together get at most `free` more.
fn more_shards<'a>(
    open: &[&'a Shard],
    loads: &HashMap<ShardId, u64>,
    free: u64,
) -> Vec<(&'a Shard, u32)> {
    let load = |shard: &Shard| loads.get(&shard.id).copied().unwrap_or(0);
    let needed = |load: u64| load.saturating_mul(HEADROOM).div_ceil(WHOLE);
    let total = open.iter().fold(0, |sum: u64, shard| sum.saturating_add(load(shard)));
    let mut room = needed(total).saturating_sub(open.len() as u64).min(free);
    let mut hottest: Vec<&Shard> = open.to_vec();
    hottest.sort_by_key(|shard| std::cmp::Reverse(load(shard)));
    let mut cuts = Vec::new();
    for shard in hottest {
        let more = needed(load(shard)).saturating_sub(1).min(room);
        if more == 0 {
            break;
        }
        room -= more;
        cuts.push((shard, u32::try_from(more + 1).unwrap_or(u32::MAX)));
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use hydrant_core::hash::HashRange;

    fn shards(count: u32) -> Vec<Shard> {
        let shard = |(range, n)| Shard {
            id: ShardId(n),
            uid: ShardUid(u64::from(n)),
            range,
            created: Timestamp::ZERO,
            parent: None,
            adjacent_parent: None,
            closed: None,
        };
        HashRange::split_evenly(count).into_iter().zip(0..).map(shard).collect()
    }

    fn cuts(count: u32, loads: &[u64]) -> Vec<(u32, u32)> {
        let shards = shards(count);
        let loads = loads.iter().zip(0..).map(|(load, n)| (ShardId(n), *load)).collect();
        let open: Vec<&Shard> = shards.iter().collect();
        more_shards(&open, &loads, 1_000).into_iter().map(|(s, into)| (s.id.0, into)).collect()
    }

    #[test]
    fn a_stream_gets_room_for_twice_what_it_takes_and_no_more() {
        assert_eq!(cuts(4, &[500, 500, 500, 500]), [], "half of what it is good for");
        assert_eq!(cuts(4, &[1_000; 4]), [(0, 2), (1, 2), (2, 2), (3, 2)]);
        assert_eq!(cuts(4, &[2_500; 4]), [(0, 5), (1, 5), (2, 5), (3, 5)]);
        assert_eq!(cuts(4, &[100, 4_000, 100, 100]), [(1, 6)]);
        // One key that takes all: as much as it needs, once.
        assert_eq!(cuts(4, &[0, 0, 1_900, 0]), []);
        assert_eq!(cuts(100, &[3_000]), []);
        assert_eq!(cuts(1, &[u64::MAX]), [(0, 1_001)], "as many as there may be");
    }
}
