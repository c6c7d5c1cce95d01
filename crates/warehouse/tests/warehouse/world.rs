//! A warehouse over memory: buckets, control store, clock, and a way to write objects as hydrant's
//! own bucket does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use hydrant_core::bucket::BucketRef;
use hydrant_core::control::{ControlStore, Write};
use hydrant_core::notify::{Doorbell, ObjectCreated, outbox_key};
use hydrant_core::{Clock, Random, Timestamp};
use hydrant_testkit::{FaultyControl, ManualClock, MemoryControl, OpenSeal};
use hydrant_warehouse::session::{Answer, Names, Session, Sessions, SqlError};
use hydrant_warehouse::{Engine, EngineOptions, EngineSessions, OpenBucket};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

pub(crate) struct World {
    pub(crate) control: Arc<FaultyControl>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) session: Box<dyn Session>,
    /// What the bucket opened last was opened with.
    pub(crate) reached: Arc<Mutex<Option<BucketRef>>>,
    buckets: Arc<Mutex<BTreeMap<String, Arc<InMemory>>>>,
    dir: tempfile::TempDir,
    sequencer: AtomicU64,
}

/// 2026-11-23 12:00 UTC, as a test's clock begins.
pub(crate) const START_MS: u64 = 1_795_435_200_000;

impl World {
    pub(crate) async fn new() -> Self {
        let control = Arc::new(FaultyControl::new(Arc::new(MemoryControl::new())));
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(START_MS)));
        let buckets = Arc::new(Mutex::new(BTreeMap::new()));
        let dir = tempfile::tempdir().unwrap();
        let reached = Arc::default();
        let engine = open(&dir, &control, &clock, &buckets, &reached).await;
        let session = EngineSessions(Arc::clone(&engine)).open("tester", Names::default());
        Self {
            control,
            clock,
            engine,
            session,
            reached,
            buckets,
            dir,
            sequencer: AtomicU64::new(1),
        }
    }

    /// Drops the engine as a crash does, and opens it again on what is left.
    pub(crate) async fn restart(&mut self) {
        self.engine =
            open(&self.dir, &self.control, &self.clock, &self.buckets, &self.reached).await;
        let names = self.session.names();
        self.session = EngineSessions(Arc::clone(&self.engine)).open("tester", names);
    }

    pub(crate) fn bucket(&self, name: &str) -> Arc<InMemory> {
        Arc::clone(self.buckets.lock().entry(name.to_owned()).or_default())
    }

    /// Writes an object without telling anyone.
    pub(crate) async fn put(
        &self,
        bucket: &str,
        key: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> (u64, String) {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        let path = object_store::path::Path::parse(key).unwrap();
        let put = self.bucket(bucket).put(&path, bytes.into()).await.unwrap();
        (size, put.e_tag.unwrap_or_default())
    }

    /// Writes an object and its notification.
    pub(crate) async fn put_notified(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        let (size_bytes, etag) = self.put(bucket, key, bytes).await;
        self.notify(bucket, key, size_bytes, &etag).await;
    }

    pub(crate) async fn notify(&self, bucket: &str, key: &str, size_bytes: u64, etag: &str) {
        let row = ObjectCreated {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size_bytes,
            etag: etag.to_owned(),
            created: self.clock.now(),
        };
        let key = outbox_key(self.sequencer.fetch_add(1, Ordering::Relaxed));
        self.control.commit(vec![Write::insert(key, &row)]).await.unwrap();
    }

    /// Runs the pipes until there is nothing to do.
    pub(crate) async fn pump(&self) {
        for _ in 0..100 {
            if !self.engine.run_pipes_once().await {
                return;
            }
        }
        panic!("the pipes do not come to rest");
    }

    pub(crate) async fn try_run(&mut self, sql: &str) -> Result<Answer, SqlError> {
        self.session.execute(sql, &[]).await
    }

    pub(crate) async fn run(&mut self, sql: &str) -> Answer {
        match self.try_run(sql).await {
            Ok(answer) => answer,
            Err(e) => panic!("{sql}\n{e}"),
        }
    }

    /// The rows as lines, columns joined by `|`.
    pub(crate) async fn rows(&mut self, sql: &str) -> Vec<String> {
        lines(&self.run(sql).await)
    }

    /// The one value of a query.
    pub(crate) async fn value(&mut self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows[0].clone()
    }

    /// Number of Parquet files on disk.
    pub(crate) fn files(&self) -> usize {
        fn count(dir: &std::path::Path) -> usize {
            std::fs::read_dir(dir)
                .unwrap()
                .map(|e| e.unwrap().path())
                .fold(0, |n, path| n + if path.is_dir() { count(&path) } else { 1 })
        }
        count(&self.dir.path().join("tables"))
    }
}

async fn open(
    dir: &tempfile::TempDir,
    control: &Arc<FaultyControl>,
    clock: &Arc<ManualClock>,
    buckets: &Arc<Mutex<BTreeMap<String, Arc<InMemory>>>>,
    reached: &Arc<Mutex<Option<BucketRef>>>,
) -> Arc<Engine> {
    let (buckets, reached) = (Arc::clone(buckets), Arc::clone(reached));
    let open_bucket: OpenBucket =
        Arc::new(move |reference: &BucketRef| match buckets.lock().get(&reference.bucket) {
            Some(bucket) => {
                *reached.lock() = Some(reference.clone());
                Ok(Arc::clone(bucket) as Arc<dyn ObjectStore>)
            }
            None => Err("NoSuchBucket".to_owned()),
        });
    Engine::open(
        EngineOptions::new(dir.path()),
        Arc::clone(control) as Arc<dyn ControlStore>,
        Arc::new(OpenSeal),
        Arc::clone(clock) as Arc<dyn Clock>,
        Arc::new(Random::from_seed(7)),
        open_bucket,
        Doorbell::new(),
    )
    .await
    .unwrap()
}

pub(crate) fn gzip(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

/// An answer's rows, columns joined by `|`; NULL is written so.
pub(crate) fn lines(answer: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in &answer.batches {
        for row in 0..batch.num_rows() {
            let cells: Vec<String> =
                batch.columns().iter().map(|c| cell(c.as_ref(), row)).collect();
            lines.push(cells.join("|"));
        }
    }
    lines
}

fn cell(array: &dyn Array, row: usize) -> String {
    use datafusion::arrow::datatypes as t;
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    let nanos = |n: i64| {
        let at = jiff::Timestamp::from_nanosecond(i128::from(n)).unwrap();
        at.strftime("%Y-%m-%d %H:%M:%S%.f").to_string()
    };
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).replace('\n', "\\n"),
        DataType::Int64 => array.as_primitive::<t::Int64Type>().value(row).to_string(),
        DataType::Decimal128(_, _) => {
            array.as_primitive::<t::Decimal128Type>().value_as_string(row)
        }
        DataType::Float64 => array.as_primitive::<t::Float64Type>().value(row).to_string(),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Date32 => {
            let days = array.as_primitive::<t::Date32Type>().value(row);
            let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days));
            date.unwrap().to_string()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            let text = nanos(array.as_primitive::<t::TimestampNanosecondType>().value(row));
            if zone.is_some() { format!("{text} Z") } else { text }
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            let text = nanos(array.as_primitive::<t::Time64NanosecondType>().value(row));
            text[11..].to_owned()
        }
        DataType::Binary => hex::encode(array.as_binary::<i32>().value(row)),
        other => panic!("an answer may not have {other}"),
    }
}

/// Long enough for every pause of a pipe in trouble.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(61);
