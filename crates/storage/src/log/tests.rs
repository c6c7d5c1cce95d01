//! The log against its port's suite, against the log in memory, and against everything a disk does.

mod archived;
mod crash;
mod damage;
mod full;
mod sim;
mod tools;

use std::path::Path;

use hydrant_testkit::{ManualClock, MemoryControl};
use parking_lot::Mutex as SyncMutex;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const ALL: ReadLimit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };
const A: ShardUid = ShardUid(1);
const B: ShardUid = ShardUid(2);

fn options(segment_bytes: u64) -> LogOptions {
    LogOptions {
        segment_bytes,
        cache_bytes: 64 << 10,
        free_bytes_min: 0,
        merged_min: 4,
        scattered_bytes: 0,
    }
}

fn no_fatal() -> Fatal {
    Arc::new(|reason| panic!("fatal: {reason}"))
}

/// A directory, and what outlives each opening of the log in it.
struct Bench {
    temp: tempfile::TempDir,
    control: Arc<dyn ControlStore>,
    clock: Arc<ManualClock>,
    random: Random,
}

impl Bench {
    fn new() -> Self {
        Self::with_clock(Arc::default())
    }

    fn with_clock(clock: Arc<ManualClock>) -> Self {
        Self {
            temp: tempfile::tempdir().unwrap(),
            control: Arc::new(MemoryControl::new()),
            clock,
            random: Random::from_seed(1),
        }
    }

    fn log_dir(&self) -> std::path::PathBuf {
        self.temp.path().join("log")
    }

    fn try_open(&self, options: LogOptions) -> Result<Arc<Log>, OpenError> {
        self.open_on(Arc::new(RealDisk), options, no_fatal())
    }

    fn open_on(
        &self,
        disk: Arc<dyn Disk>,
        options: LogOptions,
        fatal: Fatal,
    ) -> Result<Arc<Log>, OpenError> {
        let mut tries = 0;
        let dir = loop {
            match DataDir::open(self.temp.path()) {
                // A test beside this one may be starting a process, which has our lock until it
                // becomes another program.
                Err(OpenError::Locked(_)) if tries < 200_000 => tries += 1,
                opened => break opened?,
            }
            std::thread::yield_now();
        };
        make_dir(&self.log_dir())?;
        let (control, clock) = (self.control.clone(), self.clock.clone());
        Log::open_on(disk, &dir, options, control, clock, &self.random, fatal)
    }

    fn open(&self, options: LogOptions) -> Arc<Log> {
        self.try_open(options).unwrap()
    }

    /// The newest segment's file.
    fn newest(&self) -> std::path::PathBuf {
        self.files("seg").pop().unwrap()
    }

    fn files(&self, extension: &str) -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.log_dir())
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| {
                let name = p.file_name().unwrap().to_str().unwrap();
                segment::number_of(name, extension).is_some()
            })
            .collect();
        files.sort();
        files
    }
}

async fn close(log: Arc<Log>) {
    log.close().await;
    assert_eq!(Arc::strong_count(&log), 1);
}

fn batch(data: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    data.iter().for_each(|d| batch.push(b"k", d.as_bytes()));
    batch
}

async fn put(log: &Log, shard: ShardUid, data: &str) -> IndexRange {
    log.append(shard, batch(&[data])).await.unwrap().into_inner()
}

async fn data(log: &Log, shard: ShardUid) -> Result<Vec<String>, LogError> {
    let (mut from, mut all) = (RecordIndex::MIN, Vec::new());
    loop {
        let page = log.read(shard, from, ALL).await?;
        if page.is_empty() {
            return Ok(all);
        }
        let records = page.frames.iter().flat_map(|f| f.records());
        all.extend(records.map(|r| String::from_utf8(r.data.to_vec()).unwrap()));
        from = page.next;
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let benches = SyncMutex::new(Vec::new());
    hydrant_testkit::log_conformance(async |clock| {
        let bench = Bench::with_clock(clock);
        let log = bench.open(options(8 << 20));
        benches.lock().push(bench);
        log as Arc<dyn LogEngine>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_small_segments_without_a_cache() {
    let benches = SyncMutex::new(Vec::new());
    hydrant_testkit::log_conformance(async |clock| {
        let bench = Bench::with_clock(clock);
        let log = bench.open(LogOptions { cache_bytes: 0, ..options(6 << 20) });
        benches.lock().push(bench);
        log as Arc<dyn LogEngine>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_the_log_in_memory_opened_again_and_again() {
    for seed in 0..12 {
        let mut bench = None;
        let mut open: Option<Arc<Log>> = None;
        hydrant_testkit::log_model(seed, 300, async |clock| {
            let bench = bench.get_or_insert_with(|| Bench::with_clock(clock));
            if let Some(log) = open.take() {
                close(log).await;
            }
            let log = bench.open(options(256 << 10));
            open = Some(log.clone());
            log as Arc<dyn LogEngine>
        })
        .await;
        close(open.unwrap()).await;
    }
}

#[tokio::test]
async fn an_idle_shard_is_remembered_over_many_segments() {
    let bench = Bench::new();
    let log = bench.open(options(64 << 10));
    log.create(A, DAY).await.unwrap();
    log.create(B, DAY).await.unwrap();
    let once = put(&log, A, "once").await;
    for _ in 0..40 {
        put(&log, B, &"x".repeat(10_000)).await;
    }
    close(log).await;
    assert!(bench.files("seg").len() > 5);
    let log = bench.open(options(64 << 10));
    assert!(log.shared.shards.lock().is_empty(), "nothing is loaded before somebody asks");
    assert_eq!(log.tail(A).await.unwrap().end, once.end());
    assert_eq!(data(&log, A).await.unwrap(), ["once"]);
    assert_eq!(data(&log, B).await.unwrap().len(), 40);
    let (waited, _) = tokio::join!(log.wait(A, once.end()), async {
        tokio::task::yield_now().await;
        put(&log, A, "twice").await
    });
    assert!(waited.unwrap().end > once.end());
    assert!(log.shared.shards.lock().values().all(|s| s.waiters.is_none()), "no list stays behind");
    let gone = tokio::time::timeout(Duration::from_millis(5), log.wait(A, RecordIndex::MAX)).await;
    assert!(gone.is_err());
    assert!(log.shared.shards.lock().values().all(|s| s.waiters.is_none()), "no list stays behind");
    close(log).await;
}

#[tokio::test]
async fn expired_segments_are_used_again() {
    let bench = Bench::new();
    let log = bench.open(options(64 << 10));
    log.create(A, DAY).await.unwrap();
    log.create(B, DAY * 100).await.unwrap();
    let mut most = 0;
    for day in 0..30 {
        for _ in 0..20 {
            put(&log, A, &format!("{day} {}", "x".repeat(10_000))).await;
        }
        bench.clock.advance(DAY);
        log.reclaim().await.unwrap();
        most = most.max(std::fs::read_dir(bench.log_dir()).unwrap().count());
    }
    assert!(most < 30, "{most} files: the disk does not grow without bound");
    let kept = put(&log, B, "kept").await;
    for _ in 0..20 {
        put(&log, A, &"y".repeat(10_000)).await;
    }
    bench.clock.advance(DAY * 2);
    log.reclaim().await.unwrap();
    assert_eq!(data(&log, A).await.unwrap().len(), 0);
    assert_eq!(data(&log, B).await.unwrap(), ["kept"], "one shard's retention keeps its segment");
    log.drop_shard(B).await.unwrap();
    assert!(log.reclaim().await.unwrap() > 0, "and lets go of it");
    close(log).await;
    let log = bench.open(options(64 << 10));
    assert!(put(&log, A, "after").await.first > kept.first);
    // A recycled file holds old frames behind the new ones: none of them comes back.
    for n in 0..50 {
        put(&log, A, &format!("{n} {}", "z".repeat(9_000))).await;
    }
    close(log).await;
    let log = bench.open(options(64 << 10));
    let found = data(&log, A).await.unwrap();
    assert_eq!(found.len(), 51);
    assert!(found[1..].iter().enumerate().all(|(n, d)| d.starts_with(&format!("{n} z"))));
    close(log).await;
}

#[tokio::test]
async fn mixed_retentions_are_merged() {
    let bench = Bench::new();
    let log = bench.open(LogOptions { cache_bytes: 0, ..options(64 << 10) });
    log.create(A, DAY).await.unwrap();
    log.create(B, DAY * 400).await.unwrap();
    let mut want = Vec::new();
    for day in 0..20 {
        for n in 0..10 {
            put(&log, A, &"x".repeat(10_000)).await;
            let text = format!("{day}/{n} {}", "y".repeat(n * 50));
            put(&log, B, &text).await;
            want.push(text);
        }
        bench.clock.advance(DAY);
        log.reclaim().await.unwrap();
        assert_eq!(data(&log, B).await.unwrap(), want, "day {day}");
    }
    bench.clock.advance(DAY);
    for _ in 0..9 {
        log.reclaim().await.unwrap();
    }
    let end = log.tail(B).await.unwrap().end;
    let names: Vec<_> = std::fs::read_dir(bench.log_dir())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().filter(|n| n.ends_with(".cold")).count() > 0, "{names:?}");
    assert!(names.len() < 30, "{names:?}");
    assert_eq!(data(&log, B).await.unwrap(), want);
    close(log).await;
    // Its index is made anew from the cold segment itself.
    let indexes = names.iter().filter(|n| n.ends_with(".cix"));
    indexes.for_each(|name| std::fs::remove_file(bench.log_dir().join(name)).unwrap());
    let log = bench.open(options(64 << 10));
    assert_eq!(data(&log, B).await.unwrap(), want, "opened again");
    assert_eq!(log.tail(B).await.unwrap().end, end);
    log.drop_shard(B).await.unwrap();
    log.drop_shard(A).await.unwrap();
    log.reclaim().await.unwrap();
    let files = std::fs::read_dir(bench.log_dir()).unwrap();
    let cold = files.filter(|e| e.as_ref().unwrap().path().extension().unwrap() == "cold");
    assert_eq!(cold.count(), 0, "a cold segment is freed like any other");
    close(log).await;
}

#[tokio::test]
async fn scattered_frames_are_put_together() {
    let bench = Bench::new();
    let options = LogOptions { cache_bytes: 0, scattered_bytes: 8 << 10, ..options(64 << 10) };
    let log = bench.open(options.clone());
    let shards: Vec<_> = (0..12).map(ShardUid).collect();
    let mut want = vec![Vec::new(); shards.len()];
    for shard in &shards {
        log.create(*shard, DAY).await.unwrap();
    }
    for n in 0..1_500 {
        let shard = n * 7 % shards.len();
        let text = format!("{n} {}", "x".repeat(n % 300));
        put(&log, shards[shard], &text).await;
        want[shard].push(text);
    }
    let check = async |log: &Log| {
        for (shard, want) in shards.iter().zip(&want) {
            assert_eq!(&data(log, *shard).await.unwrap(), want);
        }
    };
    let complete = bench.files("seg").len() - 2;
    let mut rounds = 0;
    while log.reclaim().await.unwrap() > 0 {
        rounds += 1;
        check(&log).await;
    }
    let names = |end: &str| {
        let files = std::fs::read_dir(bench.log_dir()).unwrap();
        files.filter(|e| e.as_ref().unwrap().path().extension().unwrap() == end).count()
    };
    assert_eq!((names("cold"), names("cix")), (complete, complete), "after {rounds} rounds");
    close(log).await;
    let log = bench.open(options);
    check(&log).await;
    bench.clock.advance(DAY * 2);
    log.reclaim().await.unwrap();
    assert_eq!(names("cold"), 0, "freed like any other");
    close(log).await;
}

#[tokio::test]
async fn a_spare_in_the_writers_hands_is_not_made_again() {
    let bench = Bench::new();
    for _ in 0..2 {
        let log = bench.open(options(64 << 10));
        // As the writer does, which renames the file only later.
        spare::prewrite_spare(&log.shared).unwrap();
        let taken = log.shared.spares.lock().pop().unwrap();
        let path = bench.log_dir().join(taken);
        std::fs::write(&path, "a segment's header").unwrap();
        spare::prewrite_spare(&log.shared).unwrap();
        spare::prepare_spare(&log.shared, 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a segment's header");
        close(log).await;
    }
}

#[tokio::test]
async fn a_closed_log_refuses_appends_and_still_reads() {
    let bench = Bench::new();
    let log = bench.open(options(1 << 20));
    log.create(A, DAY).await.unwrap();
    let appends: Vec<_> = (0..50)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move { log.append(A, batch(&[&n.to_string()])).await })
        })
        .collect();
    tokio::task::yield_now().await;
    log.close().await;
    let mut taken = 0;
    for append in appends {
        taken += usize::from(append.await.unwrap().is_ok());
    }
    assert!(matches!(log.append(A, batch(&["x"])).await, Err(LogError::Unavailable(_))));
    assert_eq!(data(&log, A).await.unwrap().len(), taken);
    drop(log);
    let log = bench.open(options(1 << 20));
    assert_eq!(data(&log, A).await.unwrap().len(), taken, "what was acknowledged is there");
    close(log).await;
}
