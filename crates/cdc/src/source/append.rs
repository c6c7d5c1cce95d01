//! The way into the stream: a batch for each open shard, the next one filled while one is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::capture::{Cut, Failure, Lsn, Position, SourceSettings};
use hydrant_core::catalog::{Held, StreamCatalog};
use hydrant_core::hash::{HashKey, HashRange};
use hydrant_core::log::{LogEngine, LogError, ShardUid};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::{IndexRange, RecordIndex};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::source::Ports;
use crate::source::marks::{Marks, PAGE};
use crate::source::worker::Trouble;

/// A batch is written once it has so many bytes, if the one before is through.
const BATCH_BYTES: usize = 1 << 20;
/// A batch takes no more than this while the one before it is written.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// While more is to come, a batch of fewer bytes waits this long for it.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// Most bytes of all batches; a source reads no further until some are written.
const BYTES_MAX: usize = 12 << 20;
/// Wait before an append that the log could not take is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// An open shard.
struct Lane {
    uid: ShardUid,
    range: HashRange,
    filling: RecordBatch,
    /// Number of the first record that is filled in, among all of the writer, and since when it is.
    first: u64,
    since: Instant,
    /// The same of the batch that is being written, with its records and bytes.
    sending: Option<(u64, u64, usize)>,
    /// Records taken, and of those the durable ones.
    taken: u64,
    durable: u64,
    /// The first index past the source's durable records.
    mark: Option<RecordIndex>,
    /// Where to look whether a batch was written.
    floor: RecordIndex,
}

/// A position that waits for everything before it to be durable.
struct Armed {
    resume: Lsn,
    /// Records of the writer before it.
    ordinal: u64,
    /// By lane, records before it, and where they end in the shard.
    lanes: Vec<(u64, Option<RecordIndex>)>,
}

/// Which batches are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Those that are full.
    Full,
    /// Those, and those that have waited for [`BATCH_WAIT`].
    Waited,
    /// Every one.
    All,
}

struct Landed {
    lane: usize,
    result: Result<IndexRange, LogError>,
}

/// What an append needs, and where it says why it waits.
#[derive(Clone)]
struct Way {
    log: Arc<dyn LogEngine>,
    streams: Arc<StreamCatalog>,
    clock: Arc<dyn hydrant_core::Clock>,
    held: Held,
    stall: Arc<Mutex<Option<String>>>,
}

/// Writes a source's records. Dropping it leaves unknown what becomes of the batches under way.
pub(crate) struct Writer {
    way: Way,
    lanes: Vec<Lane>,
    marks: Marks,
    /// Records taken.
    ordinal: u64,
    bytes: usize,
    /// Whether some lane holds all that one may.
    crowded: bool,
    under_way: JoinSet<Landed>,
    armed: Option<Armed>,
}

impl Writer {
    /// Finds what of the source is in its stream. Fails if the stream or the log does.
    pub(crate) async fn open(
        ports: &Ports,
        settings: &SourceSettings,
        cut: &Cut,
        floors: &BTreeMap<ShardUid, RecordIndex>,
    ) -> Result<Self, Trouble> {
        let held = stream(ports, settings)?;
        let found = Marks::find(&*ports.log, &held.stream, (&settings.name, cut), floors).await;
        let mut marks = found.map_err(|e| Trouble::of_log(&e, settings))?;
        for (uid, end) in &cut.shards {
            if held.stream.shards.iter().any(|shard| shard.uid == *uid) {
                marks.ends.entry(*uid).or_insert(*end);
            }
        }
        let mut lanes = Vec::new();
        for shard in (0..held.open_shards()).filter_map(|n| held.open_shard(n)) {
            let mark = marks.ends.get(&shard.uid).copied();
            let floor = mark.or(floors.get(&shard.uid).copied()).unwrap_or(RecordIndex::MIN);
            lanes.push(Lane {
                uid: shard.uid,
                range: shard.range,
                filling: RecordBatch::new(),
                first: 0,
                since: Instant::now(),
                sending: None,
                taken: 0,
                durable: 0,
                mark,
                floor,
            });
        }
        if lanes.is_empty() {
            return Err(Trouble::Passing("the stream has no open shard yet".into()));
        }
        let way = Way {
            log: ports.log.clone(),
            streams: ports.streams.clone(),
            clock: ports.clock.clone(),
            held,
            stall: Arc::default(),
        };
        let under_way = JoinSet::new();
        Ok(Self { way, lanes, marks, ordinal: 0, bytes: 0, crowded: false, under_way, armed: None })
    }

    /// Largest data of a record that the stream takes.
    pub(crate) fn record_bytes_max(&self) -> usize {
        (self.way.held.stream.settings.max_record_kib as usize) << 10
    }

    /// The last change that was found in the stream.
    pub(crate) fn found(&self) -> Position {
        self.marks.last()
    }

    /// Where a record belongs; `None` if it is in the stream already.
    pub(crate) fn route(&self, key: &[u8], position: Position) -> Option<usize> {
        let replayed = !self.marks.is_past(position);
        if self.lanes.len() == 1 && !replayed {
            return Some(0);
        }
        let key = HashKey::of(key);
        if replayed && self.marks.has(key, position) {
            return None;
        }
        Some(self.lane(key))
    }

    /// Where a row of a snapshot belongs.
    pub(crate) fn lane_of(&self, key: &[u8]) -> usize {
        if self.lanes.len() == 1 { 0 } else { self.lane(HashKey::of(key)) }
    }

    fn lane(&self, key: HashKey) -> usize {
        self.lanes.partition_point(|lane| lane.range.start <= key).saturating_sub(1)
    }

    /// The lanes of a record that goes to every shard: those that do not have it.
    pub(crate) fn everywhere(&self, position: Position) -> impl Iterator<Item = usize> + use<> {
        let lacks =
            |lane: &Lane| self.marks.is_past(position) || !self.marks.has_all(lane.range, position);
        let lanes: Vec<usize> = (0..self.lanes.len()).filter(|n| lacks(&self.lanes[*n])).collect();
        lanes.into_iter()
    }

    /// Every lane.
    pub(crate) fn all(&self) -> std::ops::Range<usize> {
        0..self.lanes.len()
    }

    /// Takes a record.
    pub(crate) fn push(&mut self, lane: usize, key: &[u8], data: &[u8]) {
        let lane = &mut self.lanes[lane];
        if lane.filling.is_empty() {
            (lane.first, lane.since) = (self.ordinal, Instant::now());
        }
        let before = lane.filling.encoded_bytes();
        lane.filling.push(key, data);
        self.bytes += lane.filling.encoded_bytes() - before;
        self.crowded |= lane.filling.encoded_bytes() >= BATCH_BYTES_MAX;
        lane.taken += 1;
        self.ordinal += 1;
    }

    /// Whether more may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX && !self.crowded
    }

    /// Sends batches of the shards that have none under way; all of them, whatever `which` says, once
    /// there is no room for more: none may be full by itself.
    pub(crate) fn flush(&mut self, which: Flush) {
        let which = if self.bytes < BYTES_MAX { which } else { Flush::All };
        for n in 0..self.lanes.len() {
            let lane = &mut self.lanes[n];
            let bytes = lane.filling.encoded_bytes();
            let goes = bytes >= BATCH_BYTES
                || match which {
                    Flush::Full => false,
                    Flush::Waited => lane.since.elapsed() >= BATCH_WAIT,
                    Flush::All => true,
                };
            if lane.sending.is_some() || bytes == 0 || !goes {
                continue;
            }
            let batch = std::mem::take(&mut lane.filling);
            lane.sending = Some((lane.first, batch.len() as u64, bytes));
            let (way, uid, floor) = (self.way.clone(), lane.uid, lane.floor);
            self.under_way.spawn(async move {
                let result = way.append(uid, floor, batch).await;
                Landed { lane: n, result }
            });
        }
        let full = |lane: &Lane| lane.filling.encoded_bytes() >= BATCH_BYTES_MAX;
        self.crowded = self.lanes.iter().any(full);
    }

    /// When a batch has waited, if one waits.
    pub(crate) fn waits_until(&self) -> Option<Instant> {
        let waits = |lane: &&Lane| lane.sending.is_none() && !lane.filling.is_empty();
        self.lanes.iter().filter(waits).map(|lane| lane.since + BATCH_WAIT).min()
    }

    /// Whether everything that was taken is durable.
    pub(crate) fn is_drained(&self) -> bool {
        self.bytes == 0
    }

    /// Why the log does not take records at present.
    pub(crate) fn stall(&self) -> Option<String> {
        self.way.stall.lock().clone()
    }

    /// Waits for the next batch to be durable; for ever if none is under way.
    pub(crate) async fn landed(&mut self, settings: &SourceSettings) -> Result<(), Trouble> {
        let landed = match self.under_way.join_next().await {
            None => std::future::pending().await,
            Some(Ok(landed)) => landed,
            Some(Err(error)) => return Err(Trouble::Passing(format!("an append ended: {error}"))),
        };
        let lane = &mut self.lanes[landed.lane];
        let (_, records, bytes) = lane.sending.take().unwrap_or_default();
        self.bytes -= bytes;
        let range = match landed.result {
            Ok(range) => range,
            Err(error) => return Err(Trouble::of_log(&error, settings)),
        };
        if let Some(armed) = &mut self.armed {
            let (target, mark) = &mut armed.lanes[landed.lane];
            let within = target.saturating_sub(lane.durable).min(records);
            if within > 0 {
                *mark = Some(range.first.plus(within));
            }
        }
        lane.durable += records;
        (lane.mark, lane.floor) = (Some(range.end()), range.end());
        Ok(())
    }

    /// Waits until all that was taken is durable.
    pub(crate) async fn drain(&mut self, settings: &SourceSettings) -> Result<(), Trouble> {
        while !self.is_drained() {
            self.flush(Flush::All);
            self.landed(settings).await?;
        }
        Ok(())
    }

    /// Waits for what is under way, and forgets what is not: the server sends it again.
    pub(crate) async fn settle(&mut self) {
        while self.under_way.join_next().await.is_some() {}
    }

    /// Makes `resume`, which all that was taken is before, the next position to store. Nothing if one
    /// is armed already, or if some shard is ahead of it: then `false`.
    pub(crate) fn arm(&mut self, resume: Lsn) -> bool {
        if self.armed.is_some() || resume <= self.marks.last().commit_lsn {
            return false;
        }
        let lanes = self.lanes.iter().map(|lane| (lane.taken, lane.mark)).collect();
        self.armed = Some(Armed { resume, ordinal: self.ordinal, lanes });
        true
    }

    /// By shard, what is below has nothing of the source past its stored position.
    pub(crate) fn floors(&self) -> &BTreeMap<ShardUid, RecordIndex> {
        &self.marks.floors
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// The armed position, once all before it is durable, and the marks of all shards there.
    pub(crate) fn reached(&mut self) -> Option<(Lsn, BTreeMap<ShardUid, RecordIndex>)> {
        let ordinal = self.armed.as_ref()?.ordinal;
        let open = |lane: &Lane| match lane.sending {
            Some((first, ..)) => first < ordinal,
            None => !lane.filling.is_empty() && lane.first < ordinal,
        };
        if self.lanes.iter().any(open) {
            return None;
        }
        let armed = self.armed.take()?;
        for (lane, (_, mark)) in self.lanes.iter().zip(&armed.lanes) {
            if let Some(mark) = mark {
                self.marks.ends.insert(lane.uid, *mark);
            }
        }
        Some((armed.resume, self.marks.ends.clone()))
    }
}

/// The source's stream, as long as it takes records.
fn stream(ports: &Ports, settings: &SourceSettings) -> Result<Held, Trouble> {
    let held = ports.streams.get(&settings.scope, &settings.stream);
    held.ok_or_else(|| Trouble::no_stream(settings))
}

impl Way {
    /// Appends a batch, however long the log takes to have room for it. Fails if the shard is sealed
    /// or gone, or the log damaged.
    async fn append(
        &self,
        shard: ShardUid,
        floor: RecordIndex,
        batch: RecordBatch,
    ) -> Result<IndexRange, LogError> {
        let mut wait = RETRY;
        let batch = batch.shared();
        loop {
            let stream = &self.held.stream;
            let present = self.streams.get(&stream.scope, &stream.name);
            let present = present.filter(|held| held.stream.id == stream.id);
            let key = present.as_ref().and_then(|held| held.stream.encryption(self.clock.now()));
            let encrypted = batch.clone().encrypted_with(key.map(|key| key.data_key));
            let error = match self.log.append(shard, encrypted).await {
                Ok(range) => {
                    *self.stall.lock() = None;
                    return Ok(range.into_inner());
                }
                Err(error @ (LogError::Full | LogError::Unavailable(_) | LogError::Key(_))) => {
                    error
                }
                Err(error) => return Err(error),
            };
            *self.stall.lock() = Some(error.to_string());
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
            if matches!(error, LogError::Unavailable(_))
                && let Some(range) = self.look(shard, floor, &batch).await?
            {
                *self.stall.lock() = None;
                return Ok(range);
            }
        }
    }

    /// Whether the batch was written after all. A batch is there as a whole or not at all, and no two
    /// records of a source are the same, so its first one tells.
    async fn look(
        &self,
        shard: ShardUid,
        floor: RecordIndex,
        batch: &RecordBatch,
    ) -> Result<Option<IndexRange>, LogError> {
        let Some((_, wanted)) = batch.records().next() else { return Ok(None) };
        let mut from = floor;
        loop {
            let page = match self.log.read(shard, from, PAGE).await {
                Ok(page) => page,
                Err(LogError::Unavailable(_) | LogError::Full) => {
                    sleep(RETRY).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut records = page.frames.iter().flat_map(|frame| frame.records());
            if let Some(found) = records.find(|record| record.data == wanted) {
                return Ok(Some(IndexRange { first: found.index, count: batch.len() as u32 }));
            }
            if page.is_empty() || page.next >= page.tail.end {
                return Ok(None);
            }
            from = page.next;
        }
    }
}

impl Trouble {
    pub(crate) fn no_stream(settings: &SourceSettings) -> Self {
        let text = format!(
            "stream '{}' is gone: create it again, then ALTER SOURCE {} RESNAPSHOT",
            settings.stream, settings.name
        );
        Self::Failed(Failure::Stream, text)
    }

    /// What an error of the log means for the source.
    pub(crate) fn of_log(error: &LogError, settings: &SourceSettings) -> Self {
        match error {
            LogError::Sealed => Self::Resharded,
            LogError::NotFound => Self::no_stream(settings),
            LogError::Full | LogError::Unavailable(_) | LogError::Key(_) => {
                Self::Passing(error.to_string())
            }
            LogError::Invalid(_) | LogError::Corrupt(_) => {
                Self::Failed(Failure::Stream, error.to_string())
            }
        }
    }
}
