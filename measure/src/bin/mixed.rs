//! Reading one shard of thousands after a day of mixed traffic, against reading it alone.
//!
//! Writes a compressed day into a log of many thin shards, lets the log do its upkeep, and reads some of
//! the shards from the first record to the last, each from a cold disk. The same records are in a log of
//! their own beside it, and are read the same way. Prints one JSON object.
#![allow(clippy::print_stdout, reason = "a terminal program says what it measured")]

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hydrant_core::log::{LogEngine, ReadLimit, ShardUid};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::RecordIndex;
use hydrant_core::{Clock, Random, Timestamp};
use hydrant_storage::{DataDir, Log, LogOptions};
use hydrant_testkit::{ManualClock, MemoryControl};
use rustix::fs::{Advice, fadvise};

type Outcome<T> = Result<T, Box<dyn Error>>;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Monday, 1 January 2024: any day will do.
const MORNING_MS: u64 = 1_704_067_200_000;
/// Appends under way at a time, as from so many connections.
const IN_FLIGHT: usize = 64;
/// Records of an append: PutRecord most often, PutRecords now and then.
const BATCHES: [usize; 8] = [1, 1, 1, 1, 1, 2, 5, 20];
const RECORD_BYTES_MIN: u64 = 200;
const RECORD_BYTES_MAX: u64 = 2_000;
/// What GetRecords takes at most.
const PAGE: ReadLimit = ReadLimit { records_max: 10_000, bytes_max: 10 << 20 };

/// Reads shards of a log of thousands, and the same records alone.
#[derive(Parser)]
struct Settings {
    /// Shards of the day.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    shards: u64,
    /// What is written in all, in MiB.
    #[arg(long, default_value_t = 2_048, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    mib: u64,
    /// How many of the shards are read.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    read: u64,
    /// Where the logs are made, and removed again.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A log and the clock of its day.
struct Place {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    log: Arc<Log>,
}

impl Place {
    fn new(settings: &Settings) -> Outcome<Self> {
        let folder = tempfile::tempdir_in(&settings.folder)?;
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(MORNING_MS)));
        // Nothing is read from memory.
        let options = LogOptions { cache_bytes: 0, ..LogOptions::default() };
        let log = Log::open(
            &DataDir::open(folder.path())?,
            options,
            Arc::new(MemoryControl::new()),
            clock.clone(),
            &Random::from_seed(settings.seed),
        )?;
        Ok(Self { folder, clock, log })
    }

    /// Takes the log's files out of the page cache.
    fn cool(&self) -> Outcome<()> {
        for entry in fs::read_dir(self.folder.path().join("log"))? {
            let file = File::open(entry?.path())?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    /// Reads a shard from its first record to its last, from a cold disk; the bytes and the time.
    async fn read(&self, shard: ShardUid) -> Outcome<(u64, Duration)> {
        self.cool()?;
        let began = now();
        let (mut next, mut bytes) = (RecordIndex::MIN, 0);
        loop {
            let page = self.log.read(shard, next, PAGE).await?;
            let records = page.frames.iter().flat_map(|frame| frame.records());
            bytes += records.map(|record| record.size_bytes() as u64).sum::<u64>();
            if page.next >= page.tail.end {
                return Ok((bytes, began.elapsed()));
            }
            next = page.next;
        }
    }

    /// Lets the log do what it does every minute, until nothing is left to do; how long it took.
    async fn upkeep(&self) -> Outcome<Duration> {
        let began = now();
        while self.log.reclaim().await? > 0 {}
        Ok(began.elapsed())
    }
}

#[allow(clippy::disallowed_methods, reason = "what is measured is real time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let settings = Settings::parse();
    let mixed = Place::new(&settings)?;
    let mut alone = Vec::new();
    for shard in 0..settings.shards {
        // Some keep a week, as somebody always does.
        let retention = if shard % 10 == 0 { DAY * 7 } else { DAY };
        mixed.log.create(ShardUid(shard), retention).await?;
    }
    for shard in 0..settings.read.min(settings.shards) {
        let place = Place::new(&settings)?;
        place.log.create(ShardUid(shard), DAY).await?;
        alone.push(place);
    }
    let began = now();
    write(&settings, &mixed, &alone).await?;
    let written = began.elapsed();
    let upkeep = mixed.upkeep().await?;
    let (mut bytes, mut times) = (0, [Duration::ZERO; 2]);
    for (shard, place) in (0..).map(ShardUid).zip(&alone) {
        let among = mixed.read(shard).await?;
        let own = place.read(shard).await?;
        if among.0 != own.0 {
            return Err(format!("shard {}: {} bytes, {} alone", shard.0, among.0, own.0).into());
        }
        bytes += own.0;
        times[0] += among.1;
        times[1] += own.1;
    }
    let files = files(mixed.folder.path())?;
    for place in alone.iter().chain([&mixed]) {
        place.log.close().await;
    }
    let mib_a_second = |time: Duration| bytes as f64 / f64::from(1 << 20) / time.as_secs_f64();
    let told = serde_json::json!({
        "shards": settings.shards,
        "mib": settings.mib,
        "write_seconds": written.as_secs_f64(),
        "upkeep_seconds": upkeep.as_secs_f64(),
        "segments": files.0,
        "cold_segments": files.1,
        "read_bytes": bytes,
        "mixed_mib_a_second": mib_a_second(times[0]),
        "alone_mib_a_second": mib_a_second(times[1]),
        "times_slower": times[0].as_secs_f64() / times[1].as_secs_f64(),
    });
    println!("{told}");
    Ok(())
}

/// The day: appends to shards at random, spread over 24 hours, those that are read alone also to the
/// logs of their own.
async fn write(settings: &Settings, mixed: &Place, alone: &[Place]) -> Outcome<()> {
    let random = Random::from_seed(settings.seed);
    let below = |n: u64| random.next_u64() % n;
    let bytes_max = settings.mib << 20;
    let mut noise = vec![0; RECORD_BYTES_MAX as usize];
    random.fill(&mut noise);
    let mut under_way = FuturesUnordered::new();
    let mut bytes = 0;
    while bytes < bytes_max {
        let shard = below(settings.shards);
        let mut batch = RecordBatch::new();
        for _ in 0..BATCHES[below(BATCHES.len() as u64) as usize] {
            let length = RECORD_BYTES_MIN + below(RECORD_BYTES_MAX - RECORD_BYTES_MIN);
            batch.push(&below(u64::MAX).to_be_bytes(), &noise[..length as usize]);
        }
        let batch = batch.shared();
        bytes += batch.size_bytes() as u64;
        let passed = DAY.as_millis() as u64 * bytes.min(bytes_max) / bytes_max;
        let moment = Timestamp::from_millis(MORNING_MS + passed * 99 / 100);
        for place in [Some(mixed), alone.get(shard as usize)].into_iter().flatten() {
            place.clock.set(moment.max(place.clock.now()));
            under_way.push(place.log.append(ShardUid(shard), batch.clone()));
        }
        while under_way.len() >= IN_FLIGHT
            && let Some(done) = under_way.next().await
        {
            done?;
        }
    }
    while let Some(done) = under_way.next().await {
        done?;
    }
    Ok(())
}

/// How many segments there are as they were written, and how many cold ones.
fn files(folder: &Path) -> Outcome<(usize, usize)> {
    let (mut written, mut cold) = (0, 0);
    for entry in fs::read_dir(folder.join("log"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        written += usize::from(name.ends_with(".seg") && !name.starts_with("spare"));
        cold += usize::from(name.ends_with(".cold"));
    }
    Ok((written, cold))
}
