//! Whatever is done to a stream's shards, its keys have one place at each moment.

use std::collections::BTreeMap;

use hydrant_core::catalog::{Capacity, Reshard, StreamMode, StreamSettings};
use proptest::prelude::*;

use super::*;
use crate::shards::Filter;

const START: Timestamp = Timestamp::from_millis(1_763_000_000_000);

fn stream(shards: u32) -> Stream {
    let ranges = HashRange::split_evenly(shards).into_iter().zip(0..);
    let shards = ranges.map(|(range, n)| Shard {
        id: ShardId(n),
        uid: ShardUid(u64::from(n)),
        range,
        created: START,
        parent: None,
        adjacent_parent: None,
        closed: None,
    });
    let account = "000000000000".parse().unwrap();
    Stream {
        scope: hydrant_core::names::Scope { account, region: "us-east-1".parse().unwrap() },
        name: "s".parse().unwrap(),
        created: START,
        state: StreamState::Active,
        mode: StreamMode::Provisioned,
        retention_hours: 24,
        shards: shards.collect(),
        tags: BTreeMap::new(),
        id: "0123456789abcdefghij-xyz".to_owned(),
        settings: StreamSettings::default(),
        capacity: Capacity::default(),
        consumers: Vec::new(),
    }
}

fn open(stream: &Stream) -> Vec<&Shard> {
    let mut open: Vec<&Shard> = stream.shards.iter().filter(|s| s.is_open()).collect();
    open.sort_unstable_by_key(|s| s.range.start);
    open
}

fn apply(stream: &Stream, plan: Plan, at: Timestamp) -> Stream {
    let uids = (0..plan.len() as u64).map(|n| ShardUid(1_000_000 + n)).collect();
    let mut next = stream.clone();
    next.capacity.reshard = Some(Reshard { due: at, children: plan.with(uids) });
    through(&next, at)
}

fn is_partition(mut shards: Vec<&Shard>) -> bool {
    shards.sort_unstable_by_key(|s| s.range.start);
    shards.first().is_some_and(|s| s.range.start.0 == 0)
        && shards.last().is_some_and(|s| s.range.end.0 == u128::MAX)
        && shards.windows(2).all(|w| w[0].range.end.0.checked_add(1) == Some(w[1].range.start.0))
}

fn at(stream: &Stream, filter: Filter, now: Timestamp) -> Vec<&Shard> {
    stream.shards.iter().filter(|s| filter.shows(stream, s, now)).collect()
}

/// What is done to a stream: three numbers that are read as fits the shards there are.
fn act(stream: &Stream, (what, which, where_): (u8, u16, u128)) -> Option<Plan> {
    let open = open(stream);
    let shard = open[usize::from(which) % open.len()];
    match what % 4 {
        0 if shard.range.end.0 - shard.range.start.0 > 2 => {
            let width = shard.range.end.0 - shard.range.start.0;
            let key = HashKey(shard.range.start.0 + 1 + where_ % width);
            Some(Plan::split(stream, shard, key))
        }
        1 if open.len() > 1 => {
            let n = usize::from(which) % (open.len() - 1);
            Some(Plan::merge(stream, open[n], open[n + 1]))
        }
        2 => {
            let count = open.len() as u32;
            let target = count.div_ceil(2) + (where_ % u128::from(count * 2)) as u32;
            Some(Plan::uniform(stream, &open, target.min(count * 2)))
        }
        3 => Some(Plan::cut_each(stream, &[(shard, 1 + (where_ % 7) as u32)])),
        _ => None,
    }
}

proptest! {
    #[test]
    fn every_key_has_one_shard_at_each_moment(
        shards in 1u32..6,
        acts in prop::collection::vec((any::<(u8, u16, u128)>(), 0u64..5_000), 1..12),
    ) {
        let mut stream = stream(shards);
        let mut now = START;
        let mut moments = vec![START];
        for (what, pause) in acts {
            now = now.plus(Duration::from_millis(pause));
            let Some(plan) = act(&stream, what) else { continue };
            let before = stream.shards.len();
            stream = apply(&stream, plan, now);
            for child in &stream.shards[before..] {
                let parents: Vec<&Shard> =
                    child.parents().map(|id| stream.shard(id).unwrap()).collect();
                prop_assert!(!parents.is_empty());
                for parent in &parents {
                    prop_assert!(!parent.is_open());
                    // What sequence numbers carry, so those of a lineage grow.
                    prop_assert!(parent.created.as_secs() < child.created.as_secs());
                    prop_assert!(parent.ending_sequence_number().unwrap().to_string()
                        < child.starting_sequence_number().to_string());
                }
                let (first, last) = (parents[0].range.start, parents[parents.len() - 1].range.end);
                prop_assert!(first <= child.range.start && child.range.end <= last);
            }
            prop_assert!(stream.shards.windows(2).all(|w| w[0].id < w[1].id));
            prop_assert!(is_partition(open(&stream)));
            moments.extend([now, now.plus(Duration::from_millis(1))]);
            moments.push(now.minus(Duration::from_millis(1)).max(START));
        }
        for moment in &moments {
            prop_assert!(is_partition(at(&stream, Filter::At(*moment), now)), "{moment}");
        }
        prop_assert!(is_partition(at(&stream, Filter::AtLatest, now)));
        // Also when the oldest have expired, and the retention is made longer after that.
        for moment in &moments {
            let later = moment.plus(stream.retention());
            let mut rest = stream.clone();
            rest.shards.retain(|s| rest_of(&stream, s, later));
            for asked in &moments {
                prop_assert!(is_partition(at(&rest, Filter::At(*asked), later)), "{asked}");
            }
        }
    }

    #[test]
    fn uniform_ranges_are_those_of_a_new_stream(from in 1u32..40, to in 1u32..80) {
        let stream = stream(from);
        let plan = Plan::uniform(&stream, &open(&stream), to);
        prop_assert_eq!(plan.is_empty(), from == to);
        let next = apply(&stream, plan, START);
        let even = HashRange::split_evenly(to);
        prop_assert_eq!(open(&next).len(), even.len());
        for (shard, even) in open(&next).iter().zip(even) {
            prop_assert!(shard.range.start.0.abs_diff(even.start.0) <= ROUNDING);
        }
        prop_assert!(Plan::uniform(&next, &open(&next), to).is_empty());
        // No shard is of what rounding leaves.
        let width = u128::MAX / u128::from(from * to);
        prop_assert!(next.shards.iter().all(|s| s.range.end.0 - s.range.start.0 >= width / 2));
    }
}

fn rest_of(stream: &Stream, shard: &Shard, now: Timestamp) -> bool {
    !crate::expiry::is_expired(stream, shard, now)
}

#[test]
fn doubling_and_halving_make_no_shard_too_many() {
    let two = stream(2);
    let four = apply(&two, Plan::uniform(&two, &open(&two), 4), START);
    let shown: Vec<_> = four.shards.iter().map(|s| (s.id.0, s.parent.map(|p| p.0))).collect();
    let want = [(0, None), (1, None), (2, Some(0)), (3, Some(0)), (4, Some(1)), (5, Some(1))];
    assert_eq!(shown, want);
    let back = apply(&four, Plan::uniform(&four, &open(&four), 2), START);
    let merged = &back.shards[6..];
    let shown: Vec<_> = merged.iter().map(|s| (s.parent, s.adjacent_parent)).collect();
    let ids = |a, b| (Some(ShardId(a)), Some(ShardId(b)));
    assert_eq!(shown, [ids(2, 3), ids(4, 5)]);
}

#[test]
fn doubling_and_halving_take_no_shard_in_between_whatever_the_number() {
    for count in [3, 5, 7, 100, 4_500] {
        let first = stream(count);
        let double = apply(&first, Plan::uniform(&first, &open(&first), count * 2), START);
        assert_eq!(double.shards.len() as u32, 3 * count);
        let again = apply(&double, Plan::uniform(&double, &open(&double), count), START);
        assert_eq!(again.shards.len() as u32, 4 * count);
        let ranges = |stream: &Stream| open(stream).iter().map(|s| s.range).collect::<Vec<_>>();
        assert_eq!(ranges(&again), ranges(&first));
    }
}

#[test]
fn a_shard_in_between_is_closed_from_the_start() {
    let two = stream(2);
    let three = apply(&two, Plan::uniform(&two, &open(&two), 3), START);
    // Two splits, and a merge of what lies in the middle.
    assert_eq!(three.shards.len(), 7);
    let closed: Vec<u32> = three.shards.iter().filter(|s| !s.is_open()).map(|s| s.id.0).collect();
    assert_eq!(closed, [0, 1, 3, 4]);
    let middle = &three.shards[6];
    assert_eq!(middle.created, START.plus(CHILD_DELAY * 2));
}
