//! A scripted server, a log that fails, and ends at any point: the stream holds every change once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use hydrant_core::capture::{
    CaptureError, CapturedTable, Envelope, Lsn, MakeStream, OnSlotLoss, Op, Oversize, PgColumn,
    PgTable, Position, SnapshotMode, SourceRecord, SourceSettings, TableState, read, read_back,
};
use hydrant_core::catalog::{
    Capacity, Shard, ShardId, Stream, StreamCatalog, StreamMode, StreamSettings, StreamState,
};
use hydrant_core::hash::{HashKey, HashRange};
use hydrant_core::log::{LogEngine, LogError, ReadLimit, ShardUid};
use hydrant_core::names::{Scope, StreamName};
use hydrant_core::sequence::RecordIndex;
use hydrant_core::{Clock, Random, Timestamp};
use hydrant_postgres::{Arrival, ServerError, TableColumns};
use hydrant_testkit::{FaultyLog, ManualClock, MemoryControl, MemoryLog, OpenSeal};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::relation::Relation;
use crate::source::append::Flush;
use crate::source::board::Board;
use crate::source::columns::{self, Columns};
use crate::source::feed::{Catalog, Feed};
use crate::source::store::{Progress, SlotStage, SourceRow, TableRow};
use crate::source::transcribe::Transcriber;
use crate::source::worker::{Order, Trouble, Worker};
use crate::source::{Options, Ports};

const RETENTION: Duration = Duration::from_secs(86_400);

/// A log that takes its time, and sometimes does not say whether it appended.
fn moody(inner: Arc<MemoryLog>, random: Arc<Random>) -> FaultyLog {
    FaultyLog::appending(inner, move |inner, shard, batch| {
        let random = Arc::clone(&random);
        Box::pin(async move {
            sleep(Duration::from_millis(random.next_u64() % 20)).await;
            match random.next_u64() % 10 {
                0 => return Err(LogError::Full),
                1 => return Err(LogError::Unavailable("nothing written".into())),
                2 => {
                    inner.append(shard, batch).await?;
                    return Err(LogError::Unavailable("all written".into()));
                }
                _ => {}
            }
            let appended = inner.append(shard, batch).await;
            sleep(Duration::from_millis(random.next_u64() % 20)).await;
            appended
        })
    })
}

/// What the server has committed: positions and messages.
struct Script {
    transactions: Vec<(Lsn, Lsn, Vec<Bytes>)>,
    /// The rows at the end.
    rows: BTreeMap<u32, String>,
}

struct Scripted {
    queue: VecDeque<Arrival>,
    /// Arrivals until the connection breaks.
    left: u64,
    confirmed: Lsn,
    stored: Arc<dyn Fn() -> Lsn + Send + Sync>,
}

impl Feed for Scripted {
    async fn next(&mut self) -> Result<Arrival, ServerError> {
        if self.left == 0 {
            return Err(ServerError::Transient("cut".into()));
        }
        match self.queue.pop_front() {
            Some(arrival) => {
                self.left -= 1;
                Ok(arrival)
            }
            None => std::future::pending().await,
        }
    }

    async fn confirm(&mut self, _: Lsn, flushed: Lsn, _: bool) -> Result<(), ServerError> {
        assert!(flushed <= (self.stored)(), "confirmed before it was stored");
        self.confirmed = self.confirmed.max(flushed);
        Ok(())
    }

    async fn columns(
        &mut self,
        relation: &Relation,
        known: &CapturedTable,
    ) -> Result<Columns, ServerError> {
        let columns = columns::told(relation, known, &TableColumns::default());
        let id = |c: PgColumn| PgColumn { key: (c.name == "id").then_some(1), ..c };
        Ok(Columns { columns: columns.columns.into_iter().map(id).collect(), ..columns })
    }

    async fn catalog(&mut self, _: u32) -> Result<Option<Catalog>, ServerError> {
        Ok(Some(Catalog { key: vec!["id".to_owned()], memberships: vec![1] }))
    }
}

fn message(kind: u8, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    write(&mut out);
    out.freeze()
}

fn tuple(values: &[String], out: &mut BytesMut) {
    out.put_u16(values.len() as u16);
    for value in values {
        out.put_u8(b't');
        out.put_u32(value.len() as u32);
        out.put_slice(value.as_bytes());
    }
}

fn relation(columns: usize) -> Bytes {
    message(b'R', |out| {
        out.put_u32(7);
        out.put_slice(b"public\0t\0f");
        out.put_u16(columns as u16);
        for name in &["id", "v", "w"][..columns] {
            out.put_u8(1);
            out.put_slice(name.as_bytes());
            out.put_u8(0);
            out.put_u32(23);
            out.put_i32(-1);
        }
    })
}

fn script(random: &Random) -> Script {
    let mut rows: BTreeMap<u32, String> = BTreeMap::new();
    let mut transactions = Vec::new();
    let mut lsn = 1_000;
    let grows_at = 20 + random.next_u64() % 20;
    for n in 0..60_u64 {
        let width = if n >= grows_at { 3 } else { 2 };
        let values = |id: u32, v: &str| -> Vec<String> {
            let mut values = vec![id.to_string(), v.to_owned()];
            values.extend((width == 3).then(|| "5".to_owned()));
            values
        };
        let mut messages = vec![relation(width)];
        for _ in 0..random.next_u64() % 30 {
            let (id, v) =
                ((random.next_u64() % 40) as u32, (random.next_u64() % 1_000).to_string());
            let old = rows.get(&id).cloned();
            match (old, random.next_u64() % 20) {
                (_, 0) if n % 10 == 9 => {
                    messages.push(message(b'T', |out| {
                        out.put_u32(1);
                        out.put_u8(0);
                        out.put_u32(7);
                    }));
                    rows.clear();
                }
                (None, _) => {
                    messages.push(message(b'I', |out| {
                        out.put_u32(7);
                        out.put_u8(b'N');
                        tuple(&values(id, &v), out);
                    }));
                    rows.insert(id, v);
                }
                (Some(old), 1..=5) => {
                    messages.push(message(b'D', |out| {
                        out.put_u32(7);
                        out.put_u8(b'O');
                        tuple(&values(id, &old), out);
                    }));
                    rows.remove(&id);
                }
                (Some(old), kind) => {
                    let to = id + 40;
                    let moves = kind < 10 && !rows.contains_key(&to);
                    let new = if moves { to } else { id };
                    messages.push(message(b'U', |out| {
                        out.put_u32(7);
                        out.put_u8(b'O');
                        tuple(&values(id, &old), out);
                        out.put_u8(b'N');
                        tuple(&values(new, &v), out);
                    }));
                    rows.remove(&id);
                    rows.insert(new, v);
                }
            }
        }
        let (commit, end) = (Lsn(lsn + 64), Lsn(lsn + 96));
        lsn += 96 + 8 * (random.next_u64() % 3);
        transactions.push((commit, end, messages));
    }
    Script { transactions, rows }
}

impl Script {
    /// What the server sends from a position on. Only the first message about a table of a
    /// connection, and of a change of its columns, is sent.
    fn from(&self, from: Lsn) -> VecDeque<Arrival> {
        let mut queue = VecDeque::new();
        let mut told: Option<&Bytes> = None;
        for (n, (commit, end, messages)) in self.transactions.iter().enumerate() {
            if *commit < from {
                continue;
            }
            let mut push = |start: Lsn, data: Bytes| {
                queue.push_back(Arrival::Wal { start, end: start, sent: 0, data });
            };
            let begin = message(b'B', |out| {
                out.put_u64(commit.0);
                out.put_i64(0);
                out.put_u32(n as u32 + 1);
            });
            push(*commit, begin);
            for (at, data) in messages.iter().enumerate() {
                if data[0] == b'R' {
                    if messages.len() == 1 || told == Some(data) {
                        continue;
                    }
                    told = Some(data);
                    push(Lsn(0), data.clone());
                } else {
                    push(Lsn(commit.0 - 64 + at as u64), data.clone());
                }
            }
            let commit = message(b'C', |out| {
                out.put_u8(0);
                out.put_u64(commit.0);
                out.put_u64(end.0);
                out.put_i64(0);
            });
            push(*end, commit);
            if n % 7 == 0 {
                queue.push_back(Arrival::Keepalive { end: *end, sent: 0, reply: n % 2 == 0 });
            }
        }
        queue
    }
}

struct NoMaker;

#[async_trait]
impl MakeStream for NoMaker {
    async fn make(&self, _: &Scope, _: &StreamName, _: u32) -> Result<(), CaptureError> {
        Ok(())
    }
}

struct World {
    log: Arc<MemoryLog>,
    ports: Ports,
    row: Arc<SourceRow>,
    random: Arc<Random>,
}

fn shard(n: u32, uid: ShardUid, range: HashRange, parents: &[ShardId], now: Timestamp) -> Shard {
    let (parent, adjacent_parent) = (parents.first().copied(), parents.get(1).copied());
    Shard { id: ShardId(n), uid, range, created: now, parent, adjacent_parent, closed: None }
}

impl World {
    async fn new(seed: u64) -> Self {
        Self::of(seed, 3).await
    }

    async fn of(seed: u64, count: u32) -> Self {
        let clock = Arc::new(ManualClock::default());
        let random = Arc::new(Random::from_seed(seed));
        let log = Arc::new(MemoryLog::new(clock.clone()));
        let control = Arc::new(MemoryControl::new());
        let streams = Arc::new(StreamCatalog::open(control.clone()).await.unwrap());
        let scope = Scope {
            account: "000000000000".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        let uids = streams.allocate_shards(count).await.unwrap();
        let ranges = HashRange::split_evenly(count);
        let shards = (0..).zip(uids).zip(ranges);
        let shards: Vec<Shard> =
            shards.map(|((n, uid), range)| shard(n, uid, range, &[], clock.now())).collect();
        for shard in &shards {
            log.create(shard.uid, RETENTION).await.unwrap();
        }
        let stream = Stream {
            scope: scope.clone(),
            name: "s".parse().unwrap(),
            created: clock.now(),
            state: StreamState::Active,
            mode: StreamMode::Provisioned,
            retention_hours: 24,
            shards,
            tags: BTreeMap::new(),
            id: "i".repeat(24),
            settings: StreamSettings::default(),
            capacity: Capacity::default(),
            consumers: Vec::new(),
        };
        streams.put(stream, None).await.unwrap();
        let settings = SourceSettings {
            name: "source".into(),
            connection: "pg".into(),
            publications: vec!["p".into()],
            slot: None,
            tables: None,
            left_out: Vec::new(),
            scope,
            stream: "s".parse().unwrap(),
            shards: count,
            envelope: if seed.is_multiple_of(2) { Envelope::Debezium } else { Envelope::Dms },
            snapshot: SnapshotMode::Initial,
            oversize: Oversize::Fail,
            transactions: seed.is_multiple_of(3),
            on_slot_loss: OnSlotLoss::Fail,
            comment: String::new(),
        };
        let row = Arc::new(SourceRow {
            uid: "u".repeat(16),
            created: clock.now(),
            settings,
            paused: false,
            resnapshots: 0,
        });
        let moody = moody(log.clone(), random.clone());
        let ports = Ports {
            log: Arc::new(moody),
            control,
            seal: Arc::new(OpenSeal),
            streams,
            clock,
            random: random.clone(),
            make_stream: Arc::new(NoMaker),
        };
        Self { log, ports, row, random }
    }

    /// As a process starts, or begins anew after an error.
    async fn worker(&self) -> (Worker, watch::Sender<Order>) {
        let (sender, orders) = watch::channel(Order { row: self.row.clone(), stop: false });
        let (control, seal) = (self.ports.control.clone(), self.ports.seal.clone());
        let store = crate::source::store::Store::new(control, seal);
        let progress = store.progress(&self.row.uid).await.unwrap();
        let tables = store.tables(&self.row.uid).await.unwrap();
        let changes = Arc::new(watch::Sender::new(0));
        let clock = self.ports.clock.clone();
        let board = Board::new(&self.row, &progress, &tables, clock, &changes);
        let (ports, options) = (self.ports.clone(), Options::default());
        (Worker::new(ports, options, board, orders, progress, tables), sender)
    }

    /// Splits or merges shards.
    async fn reshard(&self) {
        let settings = &self.row.settings;
        let held = self.ports.streams.get(&settings.scope, &settings.stream).unwrap();
        let mut stream = (*held.stream).clone();
        let open: Vec<Shard> =
            (0..held.open_shards()).map(|n| held.open_shard(n).unwrap().clone()).collect();
        let n = self.random.next_u64() as usize % open.len();
        let uids = self.ports.streams.allocate_shards(2).await.unwrap();
        let now = self.ports.clock.now();
        let next = stream.shards.len() as u32;
        let (closed, children) = if n + 1 < open.len() && open.len() > 2 {
            let ids = [open[n].id, open[n + 1].id];
            let range = HashRange { start: open[n].range.start, end: open[n + 1].range.end };
            (ids.to_vec(), vec![shard(next, uids[0], range, &ids, now)])
        } else {
            let (ids, HashRange { start, end }) = ([open[n].id], open[n].range);
            let middle = HashKey(start.0 + (end.0 - start.0) / 2);
            let low = HashRange { start, end: middle };
            let high = HashRange { start: HashKey(middle.0 + 1), end };
            let children = vec![
                shard(next, uids[0], low, &ids, now),
                shard(next + 1, uids[1], high, &ids, now),
            ];
            (ids.to_vec(), children)
        };
        for child in &children {
            self.log.create(child.uid, RETENTION).await.unwrap();
        }
        for shard in stream.shards.iter_mut().filter(|shard| closed.contains(&shard.id)) {
            self.log.seal(shard.uid).await.unwrap();
            shard.closed = Some(now);
        }
        stream.shards.extend(children);
        self.ports.streams.put(stream, Some(held.version)).await.unwrap();
    }

    async fn begin(&self) {
        let (mut worker, _) = self.worker().await;
        let column = |name: &str, key| PgColumn {
            name: name.into(),
            type_oid: 23,
            type_name: "integer".into(),
            type_modifier: -1,
            key,
            nullable: false,
            ..PgColumn::default()
        };
        let captured = CapturedTable {
            table: PgTable { schema: "public".into(), table: "t".into() },
            oid: 7,
            identity: 'f',
            columns: vec![column("id", Some(1)), column("v", None)],
            seen: false,
            dropped: Vec::new(),
            filenode: 0,
            version: 1,
            state: TableState::Live,
            reason: None,
            snapshot_rows: 0,
            snapshot_rows_estimated: None,
        };
        let mut progress = Progress { stage: SlotStage::Made, ..Progress::default() };
        (progress.cut.epoch, progress.cut.resume, progress.cut.complete) = (1, Lsn(1_000), true);
        let table = TableRow { captured, from: Lsn(1_000), memberships: Vec::new() };
        worker.store.advance(&self.row.uid, &progress, &[&table], &[]).await.unwrap();
        worker.progress = progress;
    }

    /// Follows the script until the feed breaks, the process ends, or all of it is stored.
    async fn follow(&self, script: &Script, breaks_after: u64, ends_after: Duration) -> bool {
        let (mut worker, _orders) = self.worker().await;
        let resume = worker.progress.cut.resume;
        let end = script.transactions.last().unwrap().1;
        let board = worker.board.clone();
        let stored = board.clone();
        let mut feed = Scripted {
            queue: script.from(resume),
            left: breaks_after,
            confirmed: Lsn(0),
            stored: Arc::new(move || stored.read(|shown| shown.cut.resume)),
        };
        let Ok(mut writer) = worker.writer(&self.row).await else { return false };
        let tables: Vec<TableRow> = worker.tables.values().cloned().collect();
        let mut transcriber = Transcriber::new(self.row.clone(), "d", 1, &tables).unwrap();
        let (_told, told) = mpsc::channel(1);
        let row = self.row.clone();
        let done = async {
            while board.read(|shown| shown.cut.resume) < end {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let followed = tokio::select! {
            followed = worker.follow(
                &row, &mut feed, &mut writer, &mut transcriber, told, None,
            ) => followed,
            () = done => return true,
            // As a process ends: what is under way is dropped.
            () = sleep(ends_after) => return false,
        };
        match followed {
            Err(Trouble::Server(_) | Trouble::Resharded) => writer.settle().await,
            other => panic!("{other:?}"),
        }
        false
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_breaks_every_change_is_there_once_and_in_order() {
    for seed in 0..60 {
        let world = World::new(seed).await;
        let script = script(&world.random);
        world.begin().await;
        let mut attempts = 0;
        loop {
            let random = &world.random;
            let (breaks, ends) = match random.next_u64() % 3 {
                _ if attempts > 60 => (u64::MAX, Duration::from_secs(3_600)),
                0 => (random.next_u64() % 400, Duration::from_secs(3_600)),
                1 => (u64::MAX, Duration::from_millis(random.next_u64() % 400)),
                _ => (400, Duration::from_millis(random.next_u64() % 1_500)),
            };
            if world.follow(&script, breaks, ends).await {
                break;
            }
            attempts += 1;
            if random.next_u64().is_multiple_of(4) {
                world.reshard().await;
            }
        }
        check(&world, &script, &format!("seed {seed}, {attempts} attempts")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_fills_the_writer_is_written_though_no_shard_has_its_share() {
    let world = World::of(0, 16).await;
    world.begin().await;
    let (worker, _orders) = world.worker().await;
    let Ok(mut writer) = worker.writer(&world.row).await else { panic!("no writer") };
    let mut lanes = (0..16).cycle();
    while writer.has_room() {
        writer.push(lanes.next().unwrap(), b"k", &[0; 1 << 16]);
    }
    let written = async {
        while !writer.is_drained() {
            writer.flush(Flush::Full);
            let Ok(()) = writer.landed(&world.row.settings).await else { panic!("not written") };
        }
    };
    tokio::time::timeout(Duration::from_secs(600), written).await.unwrap();
}

/// Every shard has growing positions; all changes, sorted by position, make the script's rows.
async fn check(world: &World, script: &Script, context: &str) {
    let settings = &world.row.settings;
    let held = world.ports.streams.get(&settings.scope, &settings.stream).unwrap();
    let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
    let mut changes: BTreeMap<Position, Vec<u8>> = BTreeMap::new();
    for shard in &held.stream.shards {
        let page = world.log.read(shard.uid, RecordIndex::MIN, limit).await.unwrap();
        let mut last = Position::default();
        for record in page.frames.iter().flat_map(|frame| frame.records()) {
            let stamp = read_back(record.data).unwrap();
            assert!(stamp.position > last, "{context}: {:?} after {last:?}", stamp.position);
            last = stamp.position;
            let truncates = matches!(
                read(record.data), Some(SourceRecord::Change(change)) if change.op == Op::Truncate
            );
            let twice = changes.insert(stamp.position, record.data.to_vec());
            assert!(twice.is_none() || truncates, "{context}: {:?} twice", stamp.position);
        }
    }
    let mut rows: BTreeMap<u32, String> = BTreeMap::new();
    let field = |fields: &Option<hydrant_core::capture::Fields<'_>>, n: usize| {
        fields.as_ref().unwrap()[n].1.to_owned()
    };
    for data in changes.values() {
        let Some(SourceRecord::Change(change)) = read(data) else { continue };
        if change.op == Op::Truncate {
            rows.clear();
            continue;
        }
        if matches!(change.op, Op::Update | Op::Delete) {
            let id: u32 = field(&change.before, 0).parse().unwrap();
            let removed = rows.remove(&id);
            assert_eq!(removed, Some(field(&change.before, 1)), "{context}: {change:?}");
        }
        if change.op != Op::Delete {
            let id: u32 = field(&change.after, 0).parse().unwrap();
            rows.insert(id, field(&change.after, 1));
        }
    }
    assert_eq!(rows, script.rows, "{context}");
    let positions: Vec<Position> = changes.into_keys().collect();
    for pair in positions.windows(2) {
        let next = Position { seq: pair[0].seq + 1, ..pair[0] };
        let follows =
            pair[1] == next || (pair[1].commit_lsn > pair[0].commit_lsn && pair[1].seq == 1);
        assert!(follows, "{context}: {:?} is missing before {:?}", next, pair[1]);
    }
}
