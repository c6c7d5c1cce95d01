//! Which shards a change adds to a stream: pure, from the shards that are open to those that are to be.
//!
//! A shard is split in two or two are merged in one, so what is further apart goes through shards
//! that never take a record, as "UpdateShardCount" in the AWS API reference has it.

use std::collections::HashSet;
use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::catalog::{PlannedShard, Shard, ShardId, Stream, StreamState};
use hydrant_core::hash::{HashKey, HashRange};
use hydrant_core::log::ShardUid;

/// How much later a shard counts as created than its parents were closed: sequence numbers hold whole
/// seconds, and those of a child are above those of its parents (AWS shows the same second).
const CHILD_DELAY: Duration = Duration::from_secs(1);

/// How far the bounds of even ranges may lie off: by less than a key for every shard before them, each
/// time they were made. The smallest of 10,000 shards has some 2^114 keys.
const ROUNDING: u128 = 1 << 32;

/// A run of hash keys and the shard, there or to be, that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    id: ShardId,
    range: HashRange,
}

/// A plan in the making.
pub(crate) struct Plan {
    next: u32,
    children: Vec<PlannedShard>,
}

impl Plan {
    /// A plan for a stream that changes nothing yet.
    pub(crate) fn of(stream: &Stream) -> Self {
        let last = stream.shards.last().map_or(0, |s| s.id.0);
        let planned = stream.capacity.reshard.iter().flat_map(|r| &r.children).map(|c| c.id.0);
        Self { next: planned.fold(last, u32::max).saturating_add(1), children: Vec::new() }
    }

    /// Splits one shard in two, of which the second begins at `at`. The caller's duty: `at` is in the
    /// shard and not its first key.
    pub(crate) fn split(stream: &Stream, shard: &Shard, at: HashKey) -> Self {
        let mut plan = Self::of(stream);
        plan.cut(Piece { id: shard.id, range: shard.range }, &[at], &mut Vec::new());
        plan
    }

    /// Merges two shards. The caller's duty: the second begins where the first ends.
    pub(crate) fn merge(stream: &Stream, first: &Shard, second: &Shard) -> Self {
        let mut plan = Self::of(stream);
        let pieces = [first, second].map(|s| Piece { id: s.id, range: s.range });
        plan.join(&pieces);
        plan
    }

    /// Cuts each of these shards in so many of one size, or as many as it has keys.
    pub(crate) fn cut_each(stream: &Stream, shards: &[(&Shard, u32)]) -> Self {
        let mut plan = Self::of(stream);
        for (Shard { id, range, .. }, into) in shards.iter().filter(|(_, into)| *into > 1) {
            let last = range.end.0 - range.start.0;
            let into = u128::from(*into);
            // The keys of the shard in so many parts, without their number, which may be 2^128.
            let step = (last / into + u128::from(last % into == into - 1)).max(1);
            let starts = (1..into).map(|n| n.saturating_mul(step));
            let inside = starts.take_while(|start| *start <= last);
            let cuts: Vec<HashKey> = inside.map(|n| HashKey(range.start.0 + n)).collect();
            plan.cut(Piece { id: *id, range: *range }, &cuts, &mut Vec::new());
        }
        plan
    }

    /// Has the stream end up with `count` open shards of the ranges that a new stream of so many has,
    /// but for what comes of rounding. Empty if it has them. The caller's duty: `open` are its open
    /// shards by hash key.
    pub(crate) fn uniform(stream: &Stream, open: &[&Shard], count: u32) -> Self {
        let mut plan = Self::of(stream);
        let starts = HashRange::split_evenly(count).into_iter().map(|target| target.start);
        let cuts: Vec<HashKey> = starts.map(|start| as_it_is(open, start)).collect();
        let mut pieces = Vec::with_capacity(open.len() + cuts.len());
        for shard in open {
            let first = cuts.partition_point(|c| *c <= shard.range.start);
            let end = cuts.partition_point(|c| *c <= shard.range.end);
            plan.cut(Piece { id: shard.id, range: shard.range }, &cuts[first..end], &mut pieces);
        }
        let mut rest = pieces.as_slice();
        for n in 1..=cuts.len() {
            let inside = cuts
                .get(n)
                .map_or(rest.len(), |next| rest.partition_point(|piece| piece.range.start < *next));
            let (these, others) = rest.split_at(inside);
            plan.join(these);
            rest = others;
        }
        plan
    }

    /// Whether it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// How many shards it adds.
    pub(crate) fn len(&self) -> usize {
        self.children.len()
    }

    /// What it adds, under the names the log will have for them. The caller's duty: as many names as
    /// [`Plan::len`] says.
    pub(crate) fn with(mut self, uids: Vec<ShardUid>) -> Vec<PlannedShard> {
        for (child, uid) in self.children.iter_mut().zip(uids) {
            child.uid = uid;
        }
        self.children
    }

    fn add(&mut self, range: HashRange, parent: ShardId, adjacent: Option<ShardId>) -> Piece {
        let id = ShardId(self.next);
        self.next += 1;
        let uid = ShardUid(0);
        self.children.push(PlannedShard { id, uid, range, parent, adjacent_parent: adjacent });
        Piece { id, range }
    }

    /// Cuts a piece at every one of `cuts`, in halves of them, so that the shards that never take a
    /// record are as few generations as can be.
    fn cut(&mut self, piece: Piece, cuts: &[HashKey], out: &mut Vec<Piece>) {
        let Some(at) = cuts.get(cuts.len() / 2).copied() else { return out.push(piece) };
        let (below, above) = (&cuts[..cuts.len() / 2], &cuts[cuts.len() / 2 + 1..]);
        let HashRange { start, end } = piece.range;
        let low = self.add(HashRange { start, end: HashKey(at.0 - 1) }, piece.id, None);
        let high = self.add(HashRange { start: at, end }, piece.id, None);
        self.cut(low, below, out);
        self.cut(high, above, out);
    }

    /// Makes one of pieces that lie side by side, in halves of them.
    fn join(&mut self, pieces: &[Piece]) -> Option<Piece> {
        let (low, high) = match pieces {
            [] => return None,
            [only] => return Some(*only),
            several => several.split_at(several.len() / 2),
        };
        let (low, high) = (self.join(low)?, self.join(high)?);
        let range = HashRange { start: low.range.start, end: high.range.end };
        Some(self.add(range, low.id, Some(high.id)))
    }
}

/// The first key of an open shard where that differs from a key by rounding only, else the key: what
/// is split in two and merged again is to be what it was, and a third is to be two sixths.
fn as_it_is(open: &[&Shard], key: HashKey) -> HashKey {
    let after = open.partition_point(|s| s.range.start <= key);
    let around = open[after.saturating_sub(1)..].iter().take(2).map(|s| s.range.start);
    let close = around.filter(|start| start.0.abs_diff(key.0) <= ROUNDING);
    close.min_by_key(|start| start.0.abs_diff(key.0)).unwrap_or(key)
}

/// The open shards that a change closes.
pub(crate) fn parents<'a>(stream: &'a Stream, children: &[PlannedShard]) -> Vec<&'a Shard> {
    let closing: HashSet<ShardId> = children.iter().flat_map(PlannedShard::parents).collect();
    stream.shards.iter().filter(|s| closing.contains(&s.id)).collect()
}

/// Whether a planned shard is the parent of another one of the plan, so that it never takes a record.
pub(crate) fn short_lived(children: &[PlannedShard]) -> HashSet<ShardId> {
    let planned: HashSet<ShardId> = children.iter().map(|c| c.id).collect();
    children.iter().flat_map(PlannedShard::parents).filter(|id| planned.contains(id)).collect()
}

/// The stream once its change of shards is through: the parents closed at `at`, the children there.
pub(crate) fn through(stream: &Stream, at: Timestamp) -> Stream {
    let mut next = Stream { state: StreamState::Active, ..stream.clone() };
    let Some(reshard) = next.capacity.reshard.take() else { return next };
    let closing: HashSet<ShardId> =
        reshard.children.iter().flat_map(PlannedShard::parents).collect();
    for shard in next.shards.iter_mut().filter(|s| closing.contains(&s.id)) {
        shard.closed = Some(at);
    }
    for child in reshard.children {
        let parents = child.parents().filter_map(|id| next.shard(id));
        let created = parents.map(|p| p.created).fold(at, Timestamp::max).plus(CHILD_DELAY);
        next.shards.push(Shard {
            id: child.id,
            uid: child.uid,
            range: child.range,
            created,
            parent: Some(child.parent),
            adjacent_parent: child.adjacent_parent,
            closed: closing.contains(&child.id).then_some(at),
        });
    }
    next
}

#[cfg(test)]
mod tests;
