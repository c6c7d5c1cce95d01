//! Running sources against real PostgreSQL servers, on the ports in memory.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

#[path = "sources/failures.rs"]
mod failures;
#[path = "../../postgres/tests/postgres/mod.rs"]
mod postgres;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_cdc::{Options, Ports, Sources};
use hydrant_core::capture::{
    AlterSource, Capture, CaptureError, Captured, Cut, Envelope, Failure, IfExists, MakeStream,
    OnSlotLoss, Op, Oversize, PgTable, Position, SlotChoice, SnapshotMode, SourceRecord,
    SourceReport, SourceSettings, SourceState, SourceTable, TableState, read,
};
use hydrant_core::catalog::{
    Capacity, Shard, ShardId, Stream, StreamCatalog, StreamMode, StreamSettings, StreamState,
};
use hydrant_core::clock::SystemClock;
use hydrant_core::control::ControlStore;
use hydrant_core::hash::{HashKey, HashRange};
use hydrant_core::log::{LogEngine, ReadLimit};
use hydrant_core::names::{Scope, StreamName};
use hydrant_core::sequence::RecordIndex;
use hydrant_core::{Clock, Random};
use hydrant_testkit::{MemoryControl, MemoryLog, OpenSeal};
use tokio::time::{Instant, sleep};

use postgres::{PASSWORD, Postgres, secret};

const LONG: Duration = Duration::from_secs(40);

/// The ports, which outlive the sources that run on them.
struct World {
    log: Arc<MemoryLog>,
    control: Arc<MemoryControl>,
    clock: Arc<dyn Clock>,
    scope: Scope,
    seed: u64,
}

struct Maker {
    log: Arc<MemoryLog>,
    streams: Arc<StreamCatalog>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl MakeStream for Maker {
    async fn make(
        &self,
        scope: &Scope,
        name: &StreamName,
        shards: u32,
    ) -> Result<(), CaptureError> {
        if self.streams.get(scope, name).is_some() {
            return Ok(());
        }
        let uids = self.streams.allocate_shards(shards).await.unwrap();
        let created = self.clock.now();
        let ranges = HashRange::split_evenly(shards).into_iter();
        let shards: Vec<Shard> = (0..)
            .zip(uids)
            .zip(ranges)
            .map(|((n, uid), range)| Shard {
                id: ShardId(n),
                uid,
                range,
                created,
                parent: None,
                adjacent_parent: None,
                closed: None,
            })
            .collect();
        for shard in &shards {
            self.log.create(shard.uid, Duration::from_secs(86_400)).await.unwrap();
        }
        let stream = Stream {
            scope: scope.clone(),
            name: name.clone(),
            created,
            state: StreamState::Active,
            mode: StreamMode::Provisioned,
            retention_hours: 24,
            shards,
            tags: BTreeMap::new(),
            id: "s".repeat(24),
            settings: StreamSettings::default(),
            capacity: Capacity::default(),
            consumers: Vec::new(),
        };
        self.streams.put(stream, None).await.unwrap();
        Ok(())
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self::by(seed, Arc::new(SystemClock))
    }

    fn by(seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            log: Arc::new(MemoryLog::new(clock.clone())),
            control: Arc::new(MemoryControl::new()),
            clock,
            scope: Scope {
                account: "000000000000".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
            seed,
        }
    }

    async fn streams(&self) -> Arc<StreamCatalog> {
        let control: Arc<dyn ControlStore> = self.control.clone();
        Arc::new(StreamCatalog::open(control).await.unwrap())
    }

    async fn sources(&self) -> Arc<Sources> {
        self.sources_and_streams().await.0
    }

    async fn sources_and_streams(&self) -> (Arc<Sources>, Arc<StreamCatalog>) {
        let streams = self.streams().await;
        let maker =
            Maker { log: self.log.clone(), streams: streams.clone(), clock: self.clock.clone() };
        let ports = Ports {
            log: self.log.clone(),
            control: self.control.clone(),
            seal: Arc::new(OpenSeal),
            streams: streams.clone(),
            clock: self.clock.clone(),
            random: Arc::new(Random::from_seed(self.seed)),
            make_stream: Arc::new(maker),
        };
        (Sources::start(ports, Options::default()).await.unwrap(), streams)
    }

    fn settings(&self) -> SourceSettings {
        SourceSettings {
            name: "mz_source".into(),
            connection: "PG".into(),
            publications: vec!["mz_source".into()],
            slot: None,
            tables: None,
            left_out: Vec::new(),
            scope: self.scope.clone(),
            stream: "twitch".parse().unwrap(),
            shards: 3,
            envelope: Envelope::Debezium,
            snapshot: SnapshotMode::Initial,
            oversize: Oversize::Fail,
            transactions: false,
            on_slot_loss: OnSlotLoss::Fail,
            comment: String::new(),
        }
    }

    async fn create(&self, sources: &Sources, postgres: &Postgres) -> SourceReport {
        sources.create_secret(secret(PASSWORD), IfExists::Fail).await.unwrap();
        sources.create_connection(postgres.connection(), IfExists::Fail).await.unwrap();
        sources.create_source(self.settings(), IfExists::Fail).await.unwrap()
    }

    /// Every record of the stream below the cut, or all of them.
    async fn records(&self, cut: Option<&Cut>) -> Vec<Vec<u8>> {
        let streams = self.streams().await;
        let held = streams.get(&self.scope, &"twitch".parse().unwrap()).unwrap();
        let limit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
        let mut records = Vec::new();
        for shard in &held.stream.shards {
            let page = self.log.read(shard.uid, RecordIndex::MIN, limit).await.unwrap();
            let end = cut.map(|cut| cut.shards.get(&shard.uid).copied().unwrap_or_default());
            let below = page.frames.iter().flat_map(|frame| frame.records());
            let below = below.filter(|record| end.is_none_or(|end| record.index < end));
            records.extend(below.map(|record| record.data.to_vec()));
        }
        records
    }
}

async fn until(sources: &Sources, what: impl Fn(&SourceReport) -> bool) -> SourceReport {
    let deadline = Instant::now() + LONG;
    loop {
        let report = sources.sources().await.unwrap().pop().unwrap();
        if what(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{report:#?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn caught_up(sources: &Sources, postgres: &Postgres) -> Cut {
    let rows = postgres.run("SELECT pg_current_wal_insert_lsn()").await;
    let lsn = rows[0].text(0).unwrap().parse().unwrap();
    let report = until(sources, |r| r.state == SourceState::Streaming && r.confirmed >= lsn).await;
    let cut = sources.cut("mz_source").await.unwrap();
    assert!(cut.resume >= report.confirmed && cut.complete);
    cut
}

/// Rows from before a column was added have none: the same as NULL at the end.
fn trimmed(row: &str) -> String {
    row.trim_end_matches(",null").to_owned()
}

type Rows = BTreeMap<String, i64>;

/// The rows of a table that the records say there are, as texts, each with how many there are.
/// Asserts that no position comes twice in a shard, and none late.
fn folded(records: &[Vec<u8>], table: &str) -> Rows {
    let mut changes: Vec<Captured<'_>> = Vec::new();
    let mut epoch = 0;
    for data in records {
        let record = read(data).unwrap();
        let stamp = record.stamp().clone();
        if let SourceRecord::SnapshotBegin(_) = record
            && stamp.epoch > epoch
        {
            epoch = stamp.epoch;
        }
        if let SourceRecord::Change(change) = record
            && change.table == table
        {
            changes.push(change);
        }
    }
    changes.retain(|change| change.stamp.epoch == epoch);
    // A table that comes later is cleared, then read, then followed, all as of one position.
    changes.sort_by_key(|change| {
        let Position { commit_lsn, seq } = change.stamp.position;
        (commit_lsn, u8::from(seq > 0) + u8::from(seq > 0 && change.op != Op::Read), seq)
    });
    let mut seen: Option<(Op, Position)> = None;
    let mut rows = Rows::new();
    let text = |fields: &Option<hydrant_core::capture::Fields<'_>>| {
        let fields = fields.as_ref().unwrap();
        trimmed(&fields.iter().map(|(_, v)| (*v).to_owned()).collect::<Vec<_>>().join(","))
    };
    for change in &changes {
        let this = Some((change.op, change.stamp.position));
        assert!(seen != this || change.op == Op::Truncate, "twice: {change:?}");
        seen = this;
        if change.op == Op::Truncate {
            rows.clear();
            continue;
        }
        if matches!(change.op, Op::Update | Op::Delete) {
            let before = text(&change.before);
            let n = rows.get_mut(&before).unwrap_or_else(|| panic!("no row {before}: {change:?}"));
            *n -= 1;
            if *n == 0 {
                rows.remove(&before);
            }
        }
        if change.op != Op::Delete {
            *rows.entry(text(&change.after)).or_default() += 1;
        }
    }
    rows
}

async fn selected(postgres: &Postgres, table: &str) -> Rows {
    let sql = format!(
        "SELECT (SELECT string_agg(value::text, ',') FROM json_each(to_json(t))) FROM {table} t"
    );
    let mut rows = Rows::new();
    for row in postgres.run(&sql).await {
        *rows.entry(trimmed(row.text(0).unwrap())).or_default() += 1;
    }
    rows
}

#[tokio::test]
async fn the_users_script_from_snapshot_to_restart() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres
        .run(
            "CREATE SCHEMA twitch; SET search_path TO twitch; \
             ALTER ROLE postgres WITH REPLICATION; \
             CREATE TABLE xxx (id int, name text, n int); \
             ALTER TABLE xxx REPLICA IDENTITY FULL; \
             CREATE PUBLICATION mz_source FOR TABLE xxx; \
             INSERT INTO xxx SELECT i, 'name \\ ' || i, i % 7 FROM generate_series(1, 5000) i",
        )
        .await;
    let world = World::new(1);
    let sources = world.sources().await;
    world.create(&sources, &postgres).await;
    until(&sources, |r| r.state == SourceState::Streaming).await;
    postgres.run("INSERT INTO twitch.xxx VALUES (5001, 'new', 1), (5002, 'newer', NULL)").await;
    postgres.run("UPDATE twitch.xxx SET n = n + 1 WHERE id % 10 = 0").await;
    postgres.run("DELETE FROM twitch.xxx WHERE id % 11 = 0").await;
    let cut = caught_up(&sources, &postgres).await;
    let records = world.records(Some(&cut)).await;
    assert_eq!(folded(&records, "xxx"), selected(&postgres, "twitch.xxx").await);

    sources.shutdown().await;
    postgres.run("INSERT INTO twitch.xxx VALUES (6000, 'while it was down', 1)").await;
    let sources = world.sources().await;
    postgres.run("TRUNCATE twitch.xxx").await;
    postgres
        .run("INSERT INTO twitch.xxx SELECT i, 'again', i FROM generate_series(1, 100) i")
        .await;
    postgres.run("ALTER TABLE twitch.xxx ADD COLUMN more text").await;
    postgres.run("UPDATE twitch.xxx SET more = 'x' WHERE id < 50").await;
    let cut = caught_up(&sources, &postgres).await;
    let records = world.records(Some(&cut)).await;
    let rows = folded(&records, "xxx");
    assert_eq!(rows, selected(&postgres, "twitch.xxx").await);
    let report = sources.sources().await.unwrap().pop().unwrap();
    assert_eq!(report.tables[0].version, 2);
    assert_eq!(report.tables[0].columns[3].type_name, "text");
    assert_eq!(report.epoch, 1);
    let mut metrics = String::new();
    sources.write_metrics(&mut metrics);
    assert!(metrics.contains("hydrant_source_state{source=\"mz_source\",state=\"streaming\"} 1"));

    let said = sources.drop_source("mz_source").await.unwrap().unwrap();
    assert!(said.contains("and its slot"), "{said}");
    assert_eq!(
        postgres.run("SELECT count(*) FROM pg_replication_slots").await[0].text(0),
        Some("0")
    );
    sources.shutdown().await;
}

/// A table with a key that both tests of kills write to.
const KEYED: &str = "CREATE TABLE k (id int PRIMARY KEY, v int); \
     ALTER TABLE k REPLICA IDENTITY FULL; CREATE PUBLICATION mz_source FOR TABLE k; \
     INSERT INTO k SELECT i, 0 FROM generate_series(1, 200) i";

/// The `n`-th change of it; the kinds of change come again after `round`.
fn change(n: u32, round: u32) -> String {
    match n % round {
        0 => format!("DELETE FROM k WHERE id % 40 = {}", n % 40),
        1 => format!("UPDATE k SET id = id + 100000 WHERE id = {n}"),
        2 => format!("INSERT INTO k SELECT i, {n} FROM generate_series({n}000, {n}100) i"),
        _ => format!("UPDATE k SET v = v + 1 WHERE id % 3 = {}", n % 3),
    }
}

#[tokio::test]
async fn killed_again_and_again_nothing_is_lost_or_doubled() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run(KEYED).await;
    let world = World::new(7);
    let sources = world.sources().await;
    world.create(&sources, &postgres).await;
    until(&sources, |r| r.state == SourceState::Streaming).await;
    let writer = async {
        let mut session = postgres.session().await;
        for n in 1..=400 {
            session.query(&change(n, 5)).await.unwrap();
        }
    };
    let random = Random::from_seed(11);
    let mut running = Some(sources);
    let mut kills = 0;
    tokio::pin!(writer);
    loop {
        let wait = Duration::from_millis(20 + random.next_u64() % 150);
        tokio::select! {
            () = &mut writer => break,
            () = sleep(wait) => {
                // As a process ends: nothing is waited for.
                running.take().unwrap().abort();
                kills += 1;
                running = Some(world.sources().await);
            }
        }
    }
    let sources = running.unwrap();
    let cut = caught_up(&sources, &postgres).await;
    let records = world.records(Some(&cut)).await;
    assert!(kills > 3, "{kills}");
    assert_eq!(folded(&records, "k"), selected(&postgres, "k").await, "after {kills} kills");
    sources.shutdown().await;
}

#[tokio::test]
async fn a_table_that_comes_later_is_read_and_followed() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres
        .run(
            "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text); \
             ALTER TABLE a REPLICA IDENTITY FULL; ALTER TABLE b REPLICA IDENTITY FULL; \
             CREATE PUBLICATION mz_source FOR TABLE a; INSERT INTO b VALUES (1, 'one')",
        )
        .await;
    let world = World::new(3);
    let sources = world.sources().await;
    world.create(&sources, &postgres).await;
    until(&sources, |r| r.state == SourceState::Streaming).await;
    postgres.run("ALTER PUBLICATION mz_source ADD TABLE b").await;
    postgres.run("INSERT INTO b VALUES (2, 'two'); INSERT INTO a VALUES (1, 'a')").await;
    let both = |r: &SourceReport| {
        r.tables.len() == 2 && r.tables.iter().all(|t| t.state == TableState::Live)
    };
    until(&sources, both).await;
    postgres.run("INSERT INTO b VALUES (3, 'three'); DELETE FROM b WHERE id = 1").await;
    let cut = caught_up(&sources, &postgres).await;
    let records = world.records(Some(&cut)).await;
    for table in ["a", "b"] {
        assert_eq!(folded(&records, table), selected(&postgres, table).await);
    }
    let b = PgTable { schema: "public".into(), table: "b".into() };
    sources.alter_source("mz_source", AlterSource::DropTable(b.clone())).await.unwrap();
    let left = |r: &SourceReport| {
        r.settings.left_out == [b.clone()]
            && r.tables.len() == 1
            && r.state == SourceState::Streaming
    };
    until(&sources, left).await;
    postgres.run("INSERT INTO b VALUES (4, 'unseen')").await;
    let add = SourceTable { table: b, partition_by: Vec::new() };
    sources.alter_source("mz_source", AlterSource::AddTable(add)).await.unwrap();
    until(&sources, both).await;
    sources.alter_source("mz_source", AlterSource::Pause).await.unwrap();
    until(&sources, |r| r.state == SourceState::Paused).await;
    postgres.run("INSERT INTO b VALUES (5, 'paused')").await;
    sources.alter_source("mz_source", AlterSource::Resume).await.unwrap();
    let cut = caught_up(&sources, &postgres).await;
    let records = world.records(Some(&cut)).await;
    let reads = records.iter().filter(|data| {
        matches!(read(data), Some(SourceRecord::Change(c)) if c.table == "b" && c.op == Op::Read)
    });
    assert!(reads.count() >= 4);
    sources.alter_source("mz_source", AlterSource::Resnapshot).await.unwrap();
    until(&sources, |r| r.epoch == 2 && r.state == SourceState::Streaming).await;
    let cut = caught_up(&sources, &postgres).await;
    let records = world.records(Some(&cut)).await;
    for table in ["a", "b"] {
        assert_eq!(folded(&records, table), selected(&postgres, table).await);
    }
    sources.shutdown().await;
}

impl World {
    /// Splits a shard, or merges two neighbours, as Data Streams does: children made, parents sealed,
    /// then one row.
    async fn reshard(&self, streams: &StreamCatalog, random: &Random) {
        let held = streams.get(&self.scope, &"twitch".parse().unwrap()).unwrap();
        let mut stream = (*held.stream).clone();
        let mut open: Vec<Shard> = stream.shards.iter().filter(|s| s.is_open()).cloned().collect();
        open.sort_by_key(|shard| shard.range.start);
        let next = ShardId(stream.shards.len() as u32);
        let n = random.next_u64() as usize % open.len();
        let uids = streams.allocate_shards(2).await.unwrap();
        let child = |n: u32, range: HashRange, parents: &[Shard]| Shard {
            id: ShardId(next.0 + n),
            uid: uids[n as usize],
            range,
            created: self.clock.now(),
            parent: Some(parents[0].id),
            adjacent_parent: parents.get(1).map(|parent| parent.id),
            closed: None,
        };
        let (parents, children) = if open.len() > 2 && n + 1 < open.len() {
            let parents = vec![open[n].clone(), open[n + 1].clone()];
            let range = HashRange { start: parents[0].range.start, end: parents[1].range.end };
            (parents.clone(), vec![child(0, range, &parents)])
        } else {
            let parents = vec![open[n].clone()];
            let HashRange { start, end } = parents[0].range;
            let middle = HashKey(start.0 + (end.0 - start.0) / 2);
            let low = HashRange { start, end: middle };
            let high = HashRange { start: HashKey(middle.0 + 1), end };
            (parents.clone(), vec![child(0, low, &parents), child(1, high, &parents)])
        };
        for child in &children {
            self.log.create(child.uid, Duration::from_secs(86_400)).await.unwrap();
        }
        for parent in &parents {
            self.log.seal(parent.uid).await.unwrap();
        }
        sleep(Duration::from_millis(20)).await;
        for shard in &mut stream.shards {
            if parents.iter().any(|parent| parent.id == shard.id) {
                shard.closed = Some(self.clock.now());
            }
        }
        stream.shards.extend(children);
        streams.put(stream, Some(held.version)).await.unwrap();
    }
}

#[tokio::test]
async fn resharded_and_killed_under_load_nothing_is_lost_or_doubled() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run(KEYED).await;
    let world = World::new(9);
    let (sources, mut streams) = world.sources_and_streams().await;
    world.create(&sources, &postgres).await;
    until(&sources, |r| r.state == SourceState::Streaming).await;
    let writer = async {
        let mut session = postgres.session().await;
        for n in 1..=300 {
            session.query(&change(n, 6)).await.unwrap();
            // However fast the machine is, there is time for several reshards.
            sleep(Duration::from_millis(10)).await;
            if n == 150 {
                session.query("TRUNCATE k").await.unwrap();
            }
        }
    };
    let seed = 23;
    let random = Random::from_seed(seed);
    let mut running = Some(sources);
    let mut reshards = 0;
    tokio::pin!(writer);
    loop {
        tokio::select! {
            () = &mut writer => break,
            () = sleep(Duration::from_millis(100 + random.next_u64() % 200)) => {
                world.reshard(&streams, &random).await;
                reshards += 1;
                if random.next_u64().is_multiple_of(2) {
                    running.take().unwrap().abort();
                    let (sources, again) = world.sources_and_streams().await;
                    (running, streams) = (Some(sources), again);
                }
            }
        }
    }
    let sources = running.unwrap();
    let cut = caught_up(&sources, &postgres).await;
    let records = world.records(Some(&cut)).await;
    assert!(reshards > 3, "{reshards}");
    let context = format!("seed {seed}, after {reshards} reshards");
    assert_eq!(folded(&records, "k"), selected(&postgres, "k").await, "{context}");
    sources.shutdown().await;
}

/// Run with `--ignored --nocapture` on an optimised build for numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_million_rows_in_one_transaction() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres
        .run(
            "CREATE TABLE big (id int PRIMARY KEY, a text, b text, c int, d int, e bool, \
             f timestamptz, g float8, h text, i bigint); \
             CREATE PUBLICATION mz_source FOR TABLE big",
        )
        .await;
    let world = World::new(5);
    let sources = world.sources().await;
    world.create(&sources, &postgres).await;
    until(&sources, |r| r.state == SourceState::Streaming).await;
    let began = Instant::now();
    postgres
        .run(
            "INSERT INTO big SELECT i, 'channel ' || i % 100, md5(i::text), i, i % 7, true, now(), \
             i / 3.0, 'some message text', i * 1000 FROM generate_series(1, 1000000) i",
        )
        .await;
    println!("inserted after {:?}", began.elapsed());
    until(&sources, |r| r.records >= 1_000_000).await;
    println!("in the stream after {:?}", began.elapsed());
    caught_up(&sources, &postgres).await;
    println!("confirmed after {:?}", began.elapsed());
    sources.shutdown().await;
}
