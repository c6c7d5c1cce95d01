//! Tables over a scripted source, against a model of it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod columns;
mod rows;
mod stops;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::util::display::array_value_to_string;
use hydrant_core::capture::*;
use hydrant_core::control::ControlStore;
use hydrant_core::names::Scope;
use hydrant_core::record::RecordBatch;
use hydrant_core::{Clock, Random};
use hydrant_testkit::{FaultyControl, ManualClock, MemoryControl, MemoryLog};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;
use crate::catalog::Names;
use crate::engine::{Engine, EngineOptions, EngineSessions};
use crate::session::{Answer, Session, Sessions, SqlError};

const START: Timestamp = Timestamp::from_millis(1_795_435_200_000);
const SHARDS: u64 = 3;

/// A source that does what it is told.
struct Script {
    report: Mutex<SourceReport>,
    cut: Mutex<Cut>,
    changes: watch::Sender<u64>,
}

fn not_here<T>() -> Result<T, CaptureError> {
    Err(CaptureError::Unavailable("a script".into()))
}

#[async_trait]
impl Capture for Script {
    async fn create_secret(&self, _: Secret, _: IfExists) -> Result<(), CaptureError> {
        not_here()
    }
    async fn drop_secret(&self, _: &str) -> Result<bool, CaptureError> {
        not_here()
    }
    async fn secrets(&self) -> Result<Vec<SecretReport>, CaptureError> {
        not_here()
    }
    async fn create_connection(&self, _: Connection, _: IfExists) -> Result<(), CaptureError> {
        not_here()
    }
    async fn drop_connection(&self, _: &str) -> Result<bool, CaptureError> {
        not_here()
    }
    async fn connections(&self) -> Result<Vec<Connection>, CaptureError> {
        not_here()
    }
    async fn create_source(
        &self,
        _: SourceSettings,
        _: IfExists,
    ) -> Result<SourceReport, CaptureError> {
        not_here()
    }
    async fn alter_source(&self, _: &str, _: AlterSource) -> Result<SourceReport, CaptureError> {
        not_here()
    }
    async fn drop_source(&self, _: &str) -> Result<Option<String>, CaptureError> {
        not_here()
    }
    async fn sources(&self) -> Result<Vec<SourceReport>, CaptureError> {
        Ok(vec![self.report.lock().clone()])
    }
    async fn cut(&self, _: &str) -> Result<Cut, CaptureError> {
        Ok(self.cut.lock().clone())
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn column(name: &str, type_oid: u32, type_name: &str, key: Option<u16>) -> PgColumn {
    PgColumn {
        name: name.into(),
        type_oid,
        type_name: type_name.into(),
        type_modifier: if type_oid == 1700 { ((10 << 16) | 2) + 4 } else { -1 },
        key,
        nullable: key.is_none(),
        ..PgColumn::default()
    }
}

fn captured(table: &str, identity: char, columns: Vec<PgColumn>) -> CapturedTable {
    CapturedTable {
        table: PgTable { schema: "p".into(), table: table.into() },
        oid: 1,
        identity,
        columns,
        seen: false,
        dropped: Vec::new(),
        filenode: 0,
        version: 1,
        state: TableState::Live,
        reason: None,
        snapshot_rows: 0,
        snapshot_rows_estimated: None,
    }
}

fn report() -> SourceReport {
    let keyed = vec![
        column("id", 23, "integer", Some(1)),
        column("a", 25, "text", None),
        column("b", 1700, "numeric(10,2)", None),
    ];
    let counted = vec![column("x", 23, "integer", None), column("y", 25, "text", None)];
    SourceReport {
        settings: SourceSettings {
            name: "S".into(),
            connection: "C".into(),
            publications: vec!["p".into()],
            slot: None,
            tables: None,
            left_out: Vec::new(),
            scope: Scope {
                account: "000000000000".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
            stream: "s".parse().unwrap(),
            shards: 1,
            envelope: Envelope::Debezium,
            snapshot: SnapshotMode::Initial,
            oversize: Oversize::Fail,
            transactions: false,
            on_slot_loss: OnSlotLoss::Fail,
            comment: String::new(),
        },
        created: START,
        state: SourceState::Streaming,
        reason: String::new(),
        since: START,
        epoch: 1,
        slot: "s".into(),
        confirmed: Lsn(0),
        received: Lsn(0),
        server: Lsn(0),
        lag_bytes: 0,
        lag_seconds: 0.0,
        retained_wal_bytes: None,
        wal_status: None,
        safe_wal_bytes: None,
        tables: vec![captured("t", 'd', keyed), captured("m", 'f', counted)],
        records: 0,
        reconnects: 0,
    }
}

/// What PostgreSQL would have.
#[derive(Clone, Default)]
struct Model {
    /// id → a, b.
    t: BTreeMap<i64, (String, String)>,
    /// Rows of m, each as often as it is there.
    m: Vec<(i64, String)>,
}

impl Model {
    fn t(&self) -> Vec<String> {
        self.t.iter().map(|(id, (a, b))| format!("{id}|{a}|{b}")).collect()
    }

    fn m(&self) -> Vec<String> {
        let mut rows = self.m.clone();
        rows.sort();
        rows.into_iter().map(|(x, y)| format!("{x}|{y}")).collect()
    }
}

struct World {
    control: Arc<FaultyControl>,
    clock: Arc<ManualClock>,
    log: Arc<MemoryLog>,
    script: Arc<Script>,
    random: Random,
    dir: tempfile::TempDir,
    engine: Arc<Engine>,
    session: Box<dyn Session>,
    model: Model,
    position: Position,
    epoch: u64,
}

impl World {
    async fn new(seed: u64, state: StateOptions) -> Self {
        let control = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
        let clock = Arc::new(ManualClock::new(START));
        let log = Arc::new(MemoryLog::new(Arc::clone(&clock) as Arc<dyn Clock>));
        for shard in 0..SHARDS {
            log.create(ShardUid(shard), Duration::from_secs(86_400)).await.unwrap();
        }
        let script = Arc::new(Script {
            report: Mutex::new(report()),
            cut: Mutex::default(),
            changes: watch::channel(0).0,
        });
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir, &control, &clock, &log, &script, state).await;
        let session = EngineSessions(Arc::clone(&engine)).open("tester", Names::default());
        let mut world = Self {
            control,
            clock,
            log,
            script,
            random: Random::from_seed(seed),
            dir,
            engine,
            session,
            model: Model::default(),
            position: Position { commit_lsn: Lsn(100), seq: 0 },
            epoch: 1,
        };
        world.run("CREATE DATABASE d").await;
        world
    }

    async fn crash(&mut self, state: StateOptions) {
        self.clock.advance(Duration::from_millis(1));
        let names = self.session.names();
        self.engine =
            open(&self.dir, &self.control, &self.clock, &self.log, &self.script, state).await;
        self.session = EngineSessions(Arc::clone(&self.engine)).open("tester", names);
    }

    async fn try_run(&mut self, sql: &str) -> Result<Answer, SqlError> {
        self.session.execute(sql, &[]).await
    }

    async fn run(&mut self, sql: &str) -> Answer {
        self.try_run(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"))
    }

    async fn rows(&mut self, sql: &str) -> Vec<String> {
        let answer = self.run(sql).await;
        let mut lines = Vec::new();
        for batch in &answer.batches {
            for row in 0..batch.num_rows() {
                let cell = |c: &Arc<dyn datafusion::arrow::array::Array>| {
                    array_value_to_string(c, row).unwrap()
                };
                lines.push(batch.columns().iter().map(cell).collect::<Vec<_>>().join("|"));
            }
        }
        lines
    }

    async fn pump(&self) {
        for _ in 0..1_000 {
            if !self.engine.run_state_once().await.unwrap() {
                return;
            }
        }
        panic!("the tables do not come to rest");
    }

    fn below(&self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    async fn put(&self, shard: u64, data: String) {
        let mut batch = RecordBatch::new();
        batch.push(b"k", data.as_bytes());
        self.log.append(ShardUid(shard), batch).await.unwrap();
    }

    fn stamp(&self, table: &str) -> String {
        let Position { commit_lsn, seq } = self.position;
        format!(
            r#""source":{{"connector":"postgresql","name":"S","schema":"p","table":"{table}","commit_lsn":{},"seq":{seq},"epoch":{}"#,
            commit_lsn.0, self.epoch
        )
    }

    /// A change of a table in the shard of its row.
    async fn change(&mut self, shard: u64, table: &str, op: &str, rest: &str, unavailable: &str) {
        self.position.seq += 1;
        let stamp = self.stamp(table);
        let more = match unavailable {
            "" => String::new(),
            column => format!(r#","unavailable":["{column}"]"#),
        };
        self.put(shard, format!(r#"{{{rest}{stamp}{more}}},"op":"{op}"}}"#)).await;
    }

    async fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.position = Position { commit_lsn: Lsn(self.position.commit_lsn.0 + 10), seq: 0 };
        self.script.report.lock().epoch = epoch;
        *self.script.cut.lock() = Cut { epoch, ..Cut::default() };
        for shard in 0..SHARDS {
            let data = format!("{{{}}},\"type\":\"STARTED\"}}", self.stamp("t"));
            self.put(shard, data).await;
        }
    }

    /// All of the model's rows, as a snapshot reads them.
    async fn snapshot(&mut self) {
        let Model { t, m } = self.model.clone();
        for (id, (a, b)) in t {
            let after = format!(r#""before":null,"after":{},"#, row_t(id, &a, &b));
            self.change(shard_of(id), "t", "r", &after, "").await;
        }
        for (x, y) in m {
            let after = format!(r#""before":null,"after":{},"#, row_m(x, &y));
            self.change(0, "m", "r", &after, "").await;
        }
    }

    async fn publish(&self, complete: bool) {
        let mut shards = BTreeMap::new();
        for shard in 0..SHARDS {
            let tail = self.log.tail(ShardUid(shard)).await.unwrap();
            shards.insert(ShardUid(shard), tail.end);
        }
        let resume = Lsn(self.position.commit_lsn.0 + 1);
        *self.script.cut.lock() = Cut { epoch: self.epoch, resume, shards, complete };
        self.script.changes.send_modify(|n| *n += 1);
    }

    /// A random transaction.
    async fn transaction(&mut self) {
        self.position = Position { commit_lsn: Lsn(self.position.commit_lsn.0 + 10), seq: 0 };
        for _ in 0..1 + self.below(12) {
            match self.below(20) {
                0 => {
                    let (keyed, table) =
                        if self.below(2) == 0 { (true, "t") } else { (false, "m") };
                    self.position.seq += 1;
                    for shard in 0..SHARDS {
                        let data = format!(r#"{{{}}},"op":"t"}}"#, self.stamp(table));
                        self.put(shard, data).await;
                    }
                    if keyed { self.model.t.clear() } else { self.model.m.clear() }
                }
                1..12 => self.change_t().await,
                _ => self.change_m().await,
            }
        }
    }

    async fn change_t(&mut self) {
        let id = self.below(40) as i64;
        let (a, b) = (format!("a{}", self.below(100)), format!("{}.50", self.below(1000)));
        let old = self.model.t.get(&id).cloned();
        match (old, self.below(4)) {
            (Some(_), 0) => {
                let before = format!(r#""before":{{"id":{id}}},"after":null,"#);
                self.change(shard_of(id), "t", "d", &before, "").await;
                self.model.t.remove(&id);
            }
            (Some((old, _)), 1) => {
                // `a` is not sent.
                let after = format!(r#""before":null,"after":{},"#, row_t(id, UNAVAILABLE, &b));
                self.change(shard_of(id), "t", "u", &after, "a").await;
                self.model.t.insert(id, (old, b));
            }
            (old, _) => {
                let after = format!(r#""before":null,"after":{},"#, row_t(id, &a, &b));
                let op = if old.is_some() { "u" } else { "c" };
                self.change(shard_of(id), "t", op, &after, "").await;
                self.model.t.insert(id, (a, b));
            }
        }
    }

    async fn change_m(&mut self) {
        let new = (self.below(4) as i64, format!("y{}", self.below(3)));
        let count = self.model.m.len() as u64;
        if count == 0 || self.below(2) == 0 {
            let after = format!(r#""before":null,"after":{},"#, row_m(new.0, &new.1));
            self.change(0, "m", "c", &after, "").await;
            self.model.m.push(new);
            return;
        }
        let at = self.below(count) as usize;
        let old = self.model.m[at].clone();
        let before = format!(r#""before":{},"#, row_m(old.0, &old.1));
        if self.below(2) == 0 {
            self.change(0, "m", "d", &format!(r#"{before}"after":null,"#), "").await;
            self.model.m.swap_remove(at);
        } else {
            let rest = format!(r#"{before}"after":{},"#, row_m(new.0, &new.1));
            self.change(0, "m", "u", &rest, "").await;
            self.model.m[at] = new;
        }
    }

    async fn check(&mut self, model: &Model, what: &str) {
        assert_eq!(self.rows("SELECT id, a, b FROM t ORDER BY id").await, model.t(), "{what}");
        assert_eq!(self.rows("SELECT x, y FROM m ORDER BY x, y").await, model.m(), "{what}");
        let counts = [format!("{}", model.t.len()), format!("{}", model.m.len())];
        assert_eq!(self.rows("SELECT count(*) FROM t").await, counts[..1], "{what}");
        assert_eq!(self.rows("SELECT count(*) FROM m").await, counts[1..], "{what}");
    }
}

fn shard_of(id: i64) -> u64 {
    id as u64 % SHARDS
}

fn row_t(id: i64, a: &str, b: &str) -> String {
    format!(r#"{{"id":{id},"a":"{a}","b":"{b}"}}"#)
}

fn row_m(x: i64, y: &str) -> String {
    format!(r#"{{"x":{x},"y":"{y}"}}"#)
}

async fn open(
    dir: &tempfile::TempDir,
    control: &Arc<FaultyControl>,
    clock: &Arc<ManualClock>,
    log: &Arc<MemoryLog>,
    script: &Arc<Script>,
    state: StateOptions,
) -> Arc<Engine> {
    let follow = Follow { log: Arc::clone(log) as _, capture: Arc::clone(script) as _ };
    Engine::open(
        EngineOptions { follow: Some(follow), state, ..EngineOptions::new(dir.path()) },
        Arc::clone(control) as Arc<dyn ControlStore>,
        Arc::new(hydrant_testkit::OpenSeal),
        Arc::clone(clock) as Arc<dyn Clock>,
        // No two engines of a test choose the same names.
        Arc::new(Random::from_seed(clock.now().as_millis())),
        Arc::new(|_: &hydrant_core::bucket::BucketRef| Err("NoSuchBucket".to_owned())),
        hydrant_core::notify::Doorbell::new(),
    )
    .await
    .unwrap()
}

const TABLES: [&str; 2] = [
    "CREATE TABLE t FROM SOURCE s (REFERENCE p.t)",
    "CREATE TABLE m FROM SOURCE s (REFERENCE p.m)",
];
