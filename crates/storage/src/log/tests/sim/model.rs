//! What the callers of the log know, and what follows from it: the one checker.
//!
//! - Every acknowledged record is there, once, in order, with its own bytes, until it is trimmed or
//!   past its retention.
//! - A batch that is not acknowledged is whole or absent; one that was refused is absent.
//! - What a reader was shown stays.
//! - Indices grow and never repeat, whatever the clock does.
//! - A trim, a seal and a drop never come undone.

use std::collections::BTreeMap;
use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::log::{LogError, ReadLimit, ReadPage, ShardUid, Tail};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::{IndexRange, RecordIndex};

use super::{Draw, Log, LogEngine, drive};

/// A broken promise, in words.
pub(super) type Violation = String;

/// What is known of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Whole or absent.
    Unknown,
    /// There, from this index on.
    There(u64),
    /// Absent for good.
    Refused,
}

#[derive(Clone)]
struct Batch {
    records: Vec<Vec<u8>>,
    producer: u64,
    /// Its place among the producer's batches.
    turn: u64,
    fate: Fate,
    /// Every record of the shard known when it was put is below its own.
    above: u64,
}

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    No,
    Maybe,
    Yes,
}

/// A shard, as far as its callers know it.
#[derive(Clone)]
pub(super) struct ShardModel {
    batches: BTreeMap<u64, Batch>,
    /// The batches that are there, by first index.
    there: BTreeMap<u64, u64>,
    pub(super) created: Done,
    pub(super) dropped: Done,
    pub(super) sealed: Done,
    sealed_end: u64,
    /// What its retention may be, and what it might be before.
    retentions: Vec<Vec<Duration>>,
    trimmed: u64,
    trimmed_maybe: u64,
    /// The end that somebody was told of.
    end: u64,
    /// Bytes below this may have been freed.
    gone: u64,
}

/// What was known when a call began: its answer may be from any moment since.
pub(super) struct Mark {
    times: usize,
    retentions: usize,
    trimmed: u64,
    end: u64,
    sealed: Option<u64>,
    there: Vec<u64>,
}

impl Mark {
    /// The place of some record that was there.
    pub(super) fn somewhere(&self, draw: &Draw) -> Option<u64> {
        let first = self.there.get(draw.below(self.there.len() as u64) as usize)?;
        Some((first + draw.below(3)).min(self.end))
    }
}

/// All shards.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) shards: BTreeMap<u64, ShardModel>,
    batches: u64,
    /// What the time may have been taken for.
    times: Vec<(Timestamp, Timestamp)>,
    /// How many may be freeing segments.
    pub(super) reclaims: u32,
    pub(super) acknowledged: u64,
    /// Batches that a full disk refused.
    pub(super) refusals: u64,
}

/// The horizon a shard has at least, and at most, since the mark.
fn horizons(state: &ShardModel, times: &[(Timestamp, Timestamp)], mark: &Mark) -> (u64, u64) {
    let times = &times[mark.times..];
    let retentions = || state.retentions[mark.retentions..].iter().flatten().copied();
    let expired = |now: Option<Timestamp>, of: Option<Duration>| {
        RecordIndex::at(now.unwrap_or_default().minus(of.unwrap_or_default())).0
    };
    let least = expired(times.iter().map(|t| t.0).min(), retentions().max()).max(mark.trimmed);
    let most = expired(times.iter().map(|t| t.1).max(), retentions().min());
    (least, most.max(state.trimmed_maybe).max(state.trimmed))
}

fn mark_of(state: &ShardModel, times: &[(Timestamp, Timestamp)]) -> Mark {
    Mark {
        times: times.len() - 1,
        retentions: state.retentions.len() - 1,
        trimmed: state.trimmed,
        end: state.end,
        sealed: (state.sealed == Done::Yes).then_some(state.sealed_end),
        there: Vec::new(),
    }
}

impl Model {
    /// A shard that somebody is about to create.
    pub(super) fn create(&mut self, shard: u64, retention: Duration) {
        self.shards.insert(
            shard,
            ShardModel {
                batches: BTreeMap::new(),
                there: BTreeMap::new(),
                created: Done::Maybe,
                dropped: Done::No,
                sealed: Done::No,
                sealed_end: 0,
                retentions: vec![vec![retention]],
                trimmed: 0,
                trimmed_maybe: 0,
                end: 0,
                gone: 0,
            },
        );
    }

    pub(super) fn shard(&mut self, shard: u64) -> &mut ShardModel {
        self.shards.get_mut(&shard).unwrap()
    }

    /// Shards that surely exist and may take records.
    pub(super) fn open_shards(&self) -> Vec<u64> {
        let open = |s: &ShardModel| {
            s.created == Done::Yes && s.dropped == Done::No && s.sealed == Done::No
        };
        self.shards.iter().filter(|(_, s)| open(s)).map(|(n, _)| *n).collect()
    }

    /// Shards that surely exist.
    pub(super) fn live_shards(&self) -> Vec<u64> {
        let live = |s: &ShardModel| s.created == Done::Yes && s.dropped == Done::No;
        self.shards.iter().filter(|(_, s)| live(s)).map(|(n, _)| *n).collect()
    }

    /// A batch that is about to be put, and its number.
    pub(super) fn put(
        &mut self,
        shard: u64,
        producer: u64,
        turn: u64,
        draw: &Draw,
    ) -> (u64, RecordBatch) {
        self.batches += 1;
        let id = self.batches;
        let mut batch = RecordBatch::new();
        let records: Vec<Vec<u8>> = (0..1 + draw.below(4))
            .map(|n| {
                let size = match draw.below(12) {
                    0 => draw.below(3_000),
                    1..4 => draw.below(600),
                    _ => draw.below(60),
                };
                let mut data = format!("{shard}/{id}/{n} ").into_bytes();
                data.extend((0..size).map(|k| (id * 31 + n * 7 + k) as u8));
                data
            })
            .collect();
        let key = id.to_string();
        records.iter().for_each(|data| batch.push(key.as_bytes(), data));
        let state = self.shard(shard);
        let above = state.end;
        state.batches.insert(id, Batch { records, producer, turn, fate: Fate::Unknown, above });
        (id, batch)
    }

    /// The answer to a put.
    pub(super) fn answered(
        &mut self,
        shard: u64,
        id: u64,
        answer: &Result<IndexRange, LogError>,
    ) -> Result<(), Violation> {
        match answer {
            Ok(range) => {
                self.acknowledged += 1;
                let count = self.shard(shard).batches[&id].records.len();
                if range.count as usize != count {
                    return Err(format!("batch {id}: {} indices for {count} records", range.count));
                }
                self.found(shard, id, range.first.0)
            }
            Err(LogError::Unavailable(_)) => Ok(()),
            Err(error) => {
                self.refusals += u64::from(*error == LogError::Full);
                let state = self.shard(shard);
                let expected = match error {
                    LogError::Sealed => state.sealed != Done::No,
                    LogError::NotFound => state.dropped != Done::No || state.created != Done::Yes,
                    LogError::Full => true,
                    _ => false,
                };
                if !expected {
                    return Err(format!("batch {id} of shard {shard}: {error}"));
                }
                let batch = state.batches.get_mut(&id).unwrap();
                match batch.fate {
                    Fate::There(at) => {
                        Err(format!("batch {id} is at {at} and was refused: {error}"))
                    }
                    _ => {
                        batch.fate = Fate::Refused;
                        Ok(())
                    }
                }
            }
        }
    }

    /// A batch is there for good: it was acknowledged, or somebody was shown it.
    fn found(&mut self, shard: u64, id: u64, first: u64) -> Result<(), Violation> {
        let state = self.shard(shard);
        let batch = state.batches.get_mut(&id).unwrap();
        let end = first + batch.records.len() as u64;
        match batch.fate {
            Fate::There(at) if at == first => return Ok(()),
            Fate::There(at) => return Err(format!("batch {id} is at {at} and at {first}")),
            Fate::Refused => return Err(format!("batch {id} was refused and is at {first}")),
            Fate::Unknown => batch.fate = Fate::There(first),
        }
        if first < batch.above {
            return Err(format!("batch {id} is at {first}, below {}", batch.above));
        }
        let before = state.there.range(..end).next_back();
        if let Some((&at, other)) = before
            && at + state.batches[other].records.len() as u64 > first
        {
            return Err(format!("batches {id} and {other} share indices from {first} on"));
        }
        if state.sealed == Done::Yes && end > state.sealed_end {
            return Err(format!("batch {id} at {first} of a shard sealed at {}", state.sealed_end));
        }
        state.there.insert(first, id);
        state.end = state.end.max(end);
        Ok(())
    }

    /// What the time may be taken for from now on.
    pub(super) fn clock(&mut self, from: Timestamp, to: Timestamp) {
        self.times.push((from, to));
        if self.reclaims > 0 {
            self.reclaimed();
        }
    }

    /// What is known of a shard before a call.
    pub(super) fn mark(&self, shard: u64) -> Mark {
        let state = &self.shards[&shard];
        Mark { there: state.there.keys().copied().collect(), ..mark_of(state, &self.times) }
    }

    /// What somebody was told of a shard's ends.
    pub(super) fn told(&mut self, shard: u64, tail: Tail, mark: &Mark) -> Result<(), Violation> {
        check_tail(shard, &self.shards[&shard], tail, &self.times, mark)?;
        let state = self.shard(shard);
        if tail.sealed {
            state.sealed = Done::Yes;
            state.sealed_end = tail.end.0;
        }
        state.end = state.end.max(tail.end.0);
        Ok(())
    }

    /// What a reader was shown of a shard: nothing in it that must not be, nothing missing that was
    /// there at the mark, and all of it stays.
    pub(super) fn shown(
        &mut self,
        shard: u64,
        from: RecordIndex,
        page: &ReadPage,
        mark: &Mark,
    ) -> Result<(), Violation> {
        self.told(shard, page.tail, mark)?;
        let found = check_page(shard, &self.shards[&shard], from, page)?;
        for found in &found {
            self.found(shard, found.id, found.first)?;
        }
        let state = &self.shards[&shard];
        let (_, most) = horizons(state, &self.times, mark);
        let from = from.0.max(page.tail.horizon.0).max(most).max(state.gone);
        for &first in &mark.there {
            let id = state.there[&first];
            let is_in = first >= from && first < page.next.0;
            if is_in && !found.iter().any(|found| found.id == id) {
                return Err(format!("shard {shard}: batch {id} at {first} was passed over"));
            }
        }
        Ok(())
    }

    pub(super) fn retain(&mut self, shard: u64, retention: Duration, done: Done) {
        let state = self.shard(shard);
        let now = match done {
            Done::Yes => vec![retention],
            _ => state.retentions[state.retentions.len() - 1]
                .iter()
                .copied()
                .chain([retention])
                .collect(),
        };
        state.retentions.push(now);
        if self.reclaims > 0 {
            self.reclaimed();
        }
    }

    pub(super) fn trim(&mut self, shard: u64, before: u64, done: Done) {
        let state = self.shard(shard);
        state.trimmed_maybe = state.trimmed_maybe.max(before);
        if done == Done::Yes {
            state.trimmed = state.trimmed.max(before);
        }
        if self.reclaims > 0 {
            self.reclaimed();
        }
    }

    /// Segments may be freed at this moment.
    pub(super) fn reclaimed(&mut self) {
        for state in self.shards.values_mut() {
            let (_, most) = horizons(state, &self.times, &mark_of(state, &self.times));
            state.gone = state.gone.max(most);
        }
    }

    /// Whether whoever waits for records at or past `past` has to be woken.
    pub(super) fn is_due(&self, shard: u64, past: u64) -> bool {
        let state = &self.shards[&shard];
        state.sealed == Done::Yes || state.dropped == Done::Yes || state.end > past
    }

    /// Reads everything that a log just recovered has, and compares. What was found besides is handed
    /// back.
    pub(super) fn check(&self, log: &Log) -> Result<Vec<(u64, u64, u64)>, Violation> {
        let mut all = Vec::new();
        for (&shard, state) in &self.shards {
            let uid = ShardUid(shard);
            let tail = match drive(log.tail(uid)) {
                Ok(tail) => tail,
                Err(LogError::NotFound)
                    if state.created != Done::Yes || state.dropped != Done::No =>
                {
                    continue;
                }
                Err(e) => return Err(format!("shard {shard}: {e}")),
            };
            if state.dropped == Done::Yes {
                return Err(format!("shard {shard} was dropped and is back"));
            }
            let mark = mark_of(state, &self.times);
            check_tail(shard, state, tail, &self.times, &mark)?;
            let found = read_all(log, shard, state)?;
            let (_, most) = horizons(state, &self.times, &mark);
            check_whole(shard, state, &found, tail, most)?;
            all.extend(found.into_iter().map(|found| (shard, found.id, found.first)));
        }
        Ok(all)
    }

    /// The same, and what was found stays from now on.
    pub(super) fn adopt(&mut self, log: &Log) -> Result<(), Violation> {
        for (shard, id, first) in self.check(log)? {
            self.found(shard, id, first)?;
        }
        for shard in self.shards.keys().copied().collect::<Vec<_>>() {
            let mark = self.mark(shard);
            match drive(log.tail(ShardUid(shard))) {
                Ok(tail) => self.told(shard, tail, &mark)?,
                Err(_) => continue,
            }
            self.shard(shard).created = Done::Yes;
        }
        Ok(())
    }
}

fn check_tail(
    shard: u64,
    state: &ShardModel,
    tail: Tail,
    times: &[(Timestamp, Timestamp)],
    mark: &Mark,
) -> Result<(), Violation> {
    let (least, most) = horizons(state, times, mark);
    let wrong = |what: &str| Err(format!("shard {shard}, {what}: {tail:?}, {least}..={most}"));
    if tail.end.0 < mark.end {
        return wrong(&format!("the end was {}", mark.end));
    }
    if tail.horizon.0 < least.min(tail.end.0) || tail.horizon.0 > most {
        return wrong("the horizon");
    }
    match mark.sealed {
        Some(end) if !tail.sealed || tail.end.0 != end => wrong("it was sealed"),
        None if tail.sealed && state.sealed == Done::No => wrong("nobody sealed it"),
        _ => Ok(()),
    }
}

/// A batch of which a page holds records.
struct Found {
    id: u64,
    /// Where the batch begins.
    first: u64,
    /// How many of its records are shown.
    shown: usize,
}

/// The batches of which a page holds records.
fn check_page(
    shard: u64,
    state: &ShardModel,
    from: RecordIndex,
    page: &ReadPage,
) -> Result<Vec<Found>, Violation> {
    let mut found: Vec<Found> = Vec::new();
    let mut next = from.0.max(page.tail.horizon.0);
    for record in page.frames.iter().flat_map(|f| f.records()) {
        let at = record.index.0;
        if at < next {
            return Err(format!("shard {shard}: {at} is shown after {next}, or trimmed"));
        }
        next = at + 1;
        let id = std::str::from_utf8(record.partition_key).ok().and_then(|id| id.parse().ok());
        let Some((id, batch)) = id.and_then(|id| Some((id, state.batches.get(&id)?))) else {
            return Err(format!("shard {shard}: a record of nobody at {at}"));
        };
        if found.last().is_none_or(|last| last.id != id) {
            // The page may begin in the middle of a batch.
            let n = batch.records.iter().position(|data| data == record.data).unwrap_or(0);
            found.push(Found { id, first: at - n as u64, shown: 0 });
        }
        let last = found.len() - 1;
        let n = (at - found[last].first) as usize;
        if batch.records.get(n).is_none_or(|data| data != record.data) {
            return Err(format!("shard {shard}: the bytes at {at} are not those of batch {id}"));
        }
        found[last].shown += 1;
    }
    if page.next.0 < next || page.next > page.tail.end.max(from) {
        return Err(format!("shard {shard}: a page to {next} goes on at {:?}", page.next));
    }
    Ok(found)
}

fn read_all(log: &Log, shard: u64, state: &ShardModel) -> Result<Vec<Found>, Violation> {
    let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
    let (mut from, mut all) = (RecordIndex::MIN, Vec::<Found>::new());
    loop {
        let page = drive(log.read(ShardUid(shard), from, limit));
        let page = page.map_err(|e| format!("shard {shard} from {from:?}: {e}"))?;
        if page.is_empty() {
            return Ok(all);
        }
        for found in check_page(shard, state, from, &page)? {
            match all.last_mut() {
                Some(last) if last.id == found.id => last.shown += found.shown,
                _ => all.push(found),
            }
        }
        from = page.next;
    }
}

fn check_whole(
    shard: u64,
    state: &ShardModel,
    found: &[Found],
    tail: Tail,
    horizon_most: u64,
) -> Result<(), Violation> {
    let mut turns: BTreeMap<u64, u64> = BTreeMap::new();
    for Found { id, first, shown } in found {
        let batch = &state.batches[id];
        match batch.fate {
            Fate::There(at) if at != *first => {
                return Err(format!("shard {shard}: batch {id} was at {at}, now at {first}"));
            }
            Fate::Refused => return Err(format!("shard {shard}: refused batch {id} is back")),
            Fate::Unknown if *first < batch.above => {
                return Err(format!("shard {shard}: batch {id} at {first} is too low"));
            }
            _ => {}
        }
        if *shown != batch.records.len() && *first >= tail.horizon.0 {
            return Err(format!("shard {shard}: batch {id} at {first} is not whole"));
        }
        let before = turns.insert(batch.producer, batch.turn);
        if before.is_some_and(|before| before >= batch.turn) {
            return Err(format!("shard {shard}: batch {id} is out of order or there twice"));
        }
    }
    let mut rest = found.iter().peekable();
    for (&first, &id) in state.there.range(horizon_most.max(state.gone)..) {
        while rest.next_if(|found| found.first < first).is_some() {}
        if rest.peek().is_none_or(|found| found.id != id) {
            return Err(format!("shard {shard}: batch {id} at {first} is lost"));
        }
    }
    Ok(())
}
