//! Segments that are in an archive only: they are read like the others, and no crash on the way there
//! or away loses one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hydrant_core::control::scan_all;

use super::sim::Draw;
use super::sim::disk::{Fault, SimDisk};
use super::*;
use crate::disk::LogDir;
use crate::log::archived::{ArchiveUse, SegmentArchive, evict};
use crate::log::copy::segment_files;
use crate::log::frame::HEADER_BYTES;
use crate::log::index::Index;
use crate::log::segment::SegmentHeader;
use crate::log::verify::SegmentState;

const SEGMENT_BYTES: u64 = 64 << 10;
const LOCAL: Duration = Duration::from_secs(3_600);

/// An archive in memory, of a log on some disk.
struct Shelf {
    disk: Arc<dyn Disk>,
    dir: std::path::PathBuf,
    kept: SyncMutex<HashMap<String, Vec<u8>>>,
    away: AtomicBool,
    damaged: AtomicBool,
    fetches: AtomicUsize,
    /// One permit a fetch; closed once nobody waits for it any more.
    gate: Semaphore,
}

impl Shelf {
    fn of(bench: &Bench, disk: Arc<dyn Disk>) -> Arc<Self> {
        let gate = Semaphore::new(0);
        gate.close();
        Arc::new(Self {
            disk,
            dir: bench.log_dir(),
            kept: SyncMutex::default(),
            away: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            fetches: AtomicUsize::new(0),
            gate,
        })
    }

    fn put(&self, name: &str) -> io::Result<()> {
        let read = |name: &str, len: usize| {
            let file = self.disk.open(&self.dir.join(name))?;
            let mut bytes = vec![0; len];
            let got = file.read_at(&mut bytes, 0)?;
            bytes.truncate(got);
            Ok::<_, io::Error>((file, bytes))
        };
        let (_, head) = read(name, DATA_START as usize)?;
        let header = SegmentHeader::decode(&head).unwrap();
        let index = self.disk.open(&self.dir.join(header.index_name()))?;
        let bytes = Index::read(&*index, &header)?.data_end() as usize + HEADER_BYTES;
        self.kept.lock().insert(name.to_owned(), read(name, bytes)?.1);
        Ok(())
    }

    fn used(self: &Arc<Self>, cache_bytes: u64) -> ArchiveUse {
        ArchiveUse { archive: self.clone(), local_retention: Some(LOCAL), cache_bytes }
    }

    fn fetches(&self) -> usize {
        self.fetches.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl SegmentArchive for Shelf {
    async fn receipt(&self, name: &str, life: &str) -> io::Result<Option<Vec<u8>>> {
        if self.away.load(Ordering::SeqCst) {
            return Err(io::Error::other("away"));
        }
        assert_eq!(life.len(), 32);
        self.put(name)?;
        Ok(Some(name.as_bytes().to_vec()))
    }

    async fn fetch(&self, receipt: &[u8], to: &Path) -> io::Result<()> {
        let _ = self.gate.acquire().await.map(tokio::sync::SemaphorePermit::forget);
        self.fetches.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(io::Error::other("away"));
        }
        let mut bytes = self.kept.lock()[std::str::from_utf8(receipt).unwrap()].clone();
        if self.damaged.load(Ordering::SeqCst) {
            bytes.pop();
        }
        self.disk.create(to)?.write_at(&[io::IoSlice::new(&bytes)], 0)
    }
}

/// A log with several segments, and what is in each of its shards.
async fn several(bench: &Bench, log: &Log) -> HashMap<ShardUid, Vec<String>> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for shard in [A, B] {
        log.create(shard, DAY).await.unwrap();
    }
    for n in 0..120 {
        let shard = if n < 30 && n % 3 == 0 { B } else { A };
        let text = format!("{n} {}", "x".repeat(n * 97 % 5_000));
        put(log, shard, &text).await;
        all.entry(shard).or_default().push(text);
        bench.clock.advance(Duration::from_millis(3));
    }
    log.reclaim().await.unwrap();
    all
}

fn named(bench: &Bench, ending: &str) -> usize {
    let files = std::fs::read_dir(bench.log_dir()).unwrap();
    files.filter(|f| f.as_ref().unwrap().file_name().to_str().unwrap().ends_with(ending)).count()
}

fn cold_options() -> LogOptions {
    LogOptions { cache_bytes: 0, ..options(SEGMENT_BYTES) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_is_read_like_the_rest() {
    let bench = Bench::new();
    let log = bench.open(cold_options());
    let all = several(&bench, &log).await;
    let shelf = Shelf::of(&bench, Arc::new(RealDisk));
    log.archive_to(shelf.used(2 * SEGMENT_BYTES));
    let before = bench.files("seg").len();
    assert_eq!(log.evict().await.unwrap(), 0, "none is old enough");
    bench.clock.advance(LOCAL);
    let evicted = log.evict().await.unwrap();
    assert!(evicted >= 3, "{evicted} of {before}");
    assert_eq!((bench.files("seg").len(), named(&bench, ".archived")), (before - evicted, evicted));
    assert_eq!((log.archived_segments(), log.evict().await.unwrap()), (evicted, 0));

    for shard in [A, B] {
        assert_eq!(data(&log, shard).await.unwrap(), all[&shard]);
    }
    assert!(shelf.fetches() >= evicted, "more are read than there is room for");
    assert!(named(&bench, ".fetched") <= 2, "the cache is bounded");
    // From a moment in the middle of an archived segment.
    let at = bench.clock.now().minus(LOCAL + Duration::from_millis(3 * 120 - 3 * 40));
    let page = log.read(A, log.locate(A, at).await.unwrap(), ALL).await.unwrap();
    let first = page.frames[0].records().next().unwrap().data.to_vec();
    assert!(String::from_utf8(first).unwrap().starts_with("40 "));
    // Merging and gathering leave them alone.
    let scattered = LogOptions { scattered_bytes: 1 << 20, merged_min: 1, ..cold_options() };
    close(log).await;
    let log = bench.open(scattered);
    assert_eq!(named(&bench, ".fetched"), 0, "a start begins with none");
    assert_eq!(log.archived_segments(), evicted);
    log.archive_to(shelf.used(u64::MAX));
    log.reclaim().await.unwrap();
    assert_eq!(log.archived_segments(), evicted);
    shelf.fetches();
    assert_eq!(data(&log, A).await.unwrap(), all[&A]);
    assert_eq!(data(&log, A).await.unwrap(), all[&A]);
    assert_eq!((shelf.fetches(), named(&bench, ".fetched")), (evicted, evicted), "each once");

    // What has expired goes, whatever it is.
    put(&log, A, "new").await;
    bench.clock.advance(DAY + LOCAL);
    put(&log, A, "last").await;
    assert!(log.reclaim().await.unwrap() >= evicted);
    let left = [".archived", ".fetched"].map(|ending| named(&bench, ending));
    assert_eq!((log.archived_segments(), left), (0, [0, 0]));
    assert_eq!(data(&log, A).await.unwrap(), ["last"]);
    close(log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_wait_for_one_fetch_and_none_for_a_bucket_that_is_away() {
    let bench = Bench::new();
    let log = bench.open(cold_options());
    let all = several(&bench, &log).await;
    let shelf = Shelf::of(&bench, Arc::new(RealDisk));
    log.archive_to(shelf.used(u64::MAX));
    bench.clock.advance(LOCAL);
    shelf.away.store(true, Ordering::SeqCst);
    log.evict().await.unwrap_err();
    assert_eq!(log.archived_segments(), 0);
    shelf.away.store(false, Ordering::SeqCst);
    assert!(log.evict().await.unwrap() >= 3);

    for fault in [&shelf.away, &shelf.damaged] {
        fault.store(true, Ordering::SeqCst);
        let failed = log.read(A, RecordIndex::MIN, ALL).await.unwrap_err();
        assert!(matches!(failed, LogError::Unavailable(_)), "{failed}");
        assert_eq!((named(&bench, ".tmp"), named(&bench, ".fetched")), (0, 0));
        // Others go on, writers and readers.
        let new = put(&log, B, "new").await.first;
        let page = log.read(B, new, ALL).await.unwrap();
        assert_eq!(page.frames[0].records().count(), 1);
        fault.store(false, Ordering::SeqCst);
    }
    shelf.fetches();
    // More than there are threads for reads of the disk.
    let gated = Arc::new(Shelf {
        disk: Arc::new(RealDisk),
        dir: bench.log_dir(),
        kept: SyncMutex::new(shelf.kept.lock().clone()),
        away: AtomicBool::new(false),
        damaged: AtomicBool::new(false),
        fetches: AtomicUsize::new(0),
        gate: Semaphore::new(0),
    });
    close(log).await;
    let log = bench.open(cold_options());
    log.archive_to(gated.used(u64::MAX));
    let limit = ReadLimit { records_max: 1, ..ALL };
    let readers: Vec<_> = (0..3 * DISK_READS_MAX)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { log.read(A, RecordIndex::MIN, limit).await })
        })
        .collect();
    // One that went away does not take the fetch along.
    readers[0].abort();
    let beside = put(&log, B, "beside").await.first;
    assert_eq!(log.read(B, beside, ALL).await.unwrap().frames.len(), 1);
    assert_eq!(gated.fetches(), 0, "it waits at the gate");
    gated.gate.add_permits(1);
    for reader in readers.into_iter().skip(1) {
        let page = reader.await.unwrap().unwrap();
        let record = page.frames[0].records().next().unwrap().data.to_vec();
        assert_eq!(String::from_utf8(record).unwrap(), all[&A][0]);
    }
    assert_eq!(gated.fetches(), 1);
    gated.gate.close();
    close(log).await;
    // Without an archive, only what is in it cannot be read.
    let log = bench.open(cold_options());
    let failed = log.read(A, RecordIndex::MIN, ALL).await.unwrap_err();
    assert!(failed.to_string().contains("none is given"), "{failed}");
    let newest = RecordIndex::at(bench.clock.now());
    assert_eq!(log.read(B, newest, ALL).await.unwrap().frames.len(), 3);
    close(log).await;
}

#[tokio::test]
async fn tools_and_copies_know_what_is_archived() {
    let bench = Bench::new();
    let log = bench.open(cold_options());
    several(&bench, &log).await;
    let shelf = Shelf::of(&bench, Arc::new(RealDisk));
    let names = |files: &[crate::SegmentFile]| -> Vec<_> {
        files.iter().map(|f| (f.name.clone(), f.life.clone(), f.last_ms)).collect()
    };
    let before = segment_files(bench.temp.path()).unwrap();
    log.archive_to(shelf.used(u64::MAX));
    bench.clock.advance(LOCAL);
    let evicted = log.evict().await.unwrap();
    close(log).await;
    let after = segment_files(bench.temp.path()).unwrap();
    assert_eq!(names(&before), names(&after));
    let archived: Vec<_> = after.iter().filter(|f| f.receipt.is_some()).collect();
    assert_eq!(archived.len(), evicted);
    assert!(archived.iter().all(|f| f.is_still_in(bench.temp.path())));
    assert_eq!(archived[0].bytes, shelf.kept.lock()[&archived[0].name].len() as u64);

    let files = LogFiles::on(Arc::new(RealDisk), &bench.log_dir());
    let mut reports = Vec::new();
    let mut found = files.verify(bench.clock.now(), &mut |r| reports.push(r.clone())).unwrap();
    for (key, row) in scan_all(&*bench.control, PREFIX).await.unwrap() {
        found.row(&key, &row, bench.clock.now()).unwrap();
    }
    let verdict = found.finish(bench.clock.now());
    assert!(verdict.is_whole(), "{:?}", verdict.damages);
    assert!(verdict.notes.iter().any(|note| note.contains("archive only")), "{:?}", verdict.notes);
    assert_eq!(reports.iter().filter(|r| r.state == SegmentState::Archived).count(), evicted);
    assert_eq!(reports.iter().map(|r| r.records).sum::<u64>(), 120);

    // An index that cannot be made anew is not removed, and is told.
    let index = bench.files("idx")[1].clone();
    let whole = std::fs::read(&index).unwrap();
    std::fs::write(&index, &whole[..whole.len() - 1]).unwrap();
    let verdict = files.verify(bench.clock.now(), &mut |_| {}).unwrap().finish(bench.clock.now());
    assert_eq!(verdict.damages.len(), 1);
    std::fs::remove_file(&index).unwrap();
    let refused = bench.try_open(cold_options()).err().unwrap().to_string();
    assert!(refused.contains("hydrant restore"), "{refused}");
    std::fs::write(&index, &whole).unwrap();
    close(bench.open(cold_options())).await;
}

/// Does `work` to the first segment of a disk, cut at each of its operations, and hands out what the
/// next process finds.
async fn cut_anywhere(
    bench: &Bench,
    disk: &SimDisk,
    work: impl Fn(&Log, &Arc<Segment>) -> io::Result<()>,
    mut check: impl AsyncFnMut(SimDisk, Arc<Log>, u64),
) {
    let assemble = |disk: &SimDisk| {
        let dir = LogDir { disk: Arc::new(disk.clone()), path: bench.log_dir() };
        let (control, clock) = (bench.control.clone(), bench.clock.clone());
        Log::assemble(None, dir, cold_options(), control, clock, &bench.random, no_fatal()).unwrap()
    };
    for n in 1.. {
        let mut went_through = false;
        for draw in 0..16 {
            let cut = disk.after(false, Draw::new(n * 100 + draw));
            let (log, _machines) = assemble(&cut);
            let segment = log.shared.segments.read()[0].clone();
            cut.fail_at(n, Fault::Cut);
            let done = work(&log, &segment);
            assert_eq!(done.is_err(), cut.is_dead(), "operation {n}: {done:?}");
            went_through = !cut.is_dead();
            // Also a process that was killed, and a cut while the next one puts things in order.
            let mut next = cut.after(draw % 4 != 0, Draw::new(n * 1_000 + draw));
            if draw % 2 == 1 {
                drop(assemble(&next));
                next = next.after(true, Draw::new(n * 10_000 + draw));
            }
            let (log, _machines) = assemble(&next);
            check(next, log, n).await;
        }
        if went_through {
            assert!(n > 4, "{n} operations");
            return;
        }
    }
}

#[tokio::test]
async fn a_cut_at_any_operation_of_an_eviction_loses_nothing() {
    let bench = Bench::new();
    let disk = SimDisk::new(Draw::new(11), u64::MAX >> 1);
    let log = bench.open_on(Arc::new(disk.clone()), cold_options(), no_fatal()).unwrap();
    let all = several(&bench, &log).await;
    close(log).await;
    let first = disk.after(false, Draw::new(1));
    let name = "000000000001.seg";
    let kept = Shelf::of(&bench, Arc::new(first.clone()));
    kept.put(name).unwrap();
    let evict_it = |log: &Log, segment: &Arc<Segment>| {
        evict(&log.shared, segment, name.as_bytes()).map(|went| assert!(went))
    };
    let read_all = async |disk: SimDisk, log: Arc<Log>, n: u64| {
        let shelf = Shelf::of(&bench, Arc::new(disk.clone()));
        *shelf.kept.lock() = kept.kept.lock().clone();
        log.archive_to(shelf.used(u64::MAX));
        let names = disk.list(&bench.log_dir()).unwrap();
        let is_there = |name: &str| names.iter().any(|n| n == name);
        let archived = log.archived_segments() == 1;
        assert_eq!(is_there(name), !archived, "operation {n}");
        assert_eq!(is_there("000000000001.seg.archived"), archived, "operation {n}: {names:?}");
        for shard in [A, B] {
            assert_eq!(data(&log, shard).await.unwrap(), all[&shard], "operation {n}");
        }
        assert_eq!(shelf.fetches(), usize::from(archived));
    };
    cut_anywhere(&bench, &first, evict_it, read_all).await;

    // And of letting go of one that has expired.
    let dir = LogDir { disk: Arc::new(first.clone()), path: bench.log_dir() };
    let (control, clock) = (bench.control.clone(), bench.clock.clone());
    let (log, machines) =
        Log::assemble(None, dir, cold_options(), control, clock, &bench.random, no_fatal())
            .unwrap();
    let segment = log.shared.segments.read()[0].clone();
    evict_it(&log, &segment).unwrap();
    let count = log.shared.segments.read().len();
    drop((log, machines));
    let free_it = |log: &Log, segment: &Arc<Segment>| upkeep::free(&log.shared, segment);
    let gone_or_not = async |disk: SimDisk, log: Arc<Log>, n: u64| {
        let names = disk.list(&bench.log_dir()).unwrap();
        let of_it = names.iter().filter(|name| name.starts_with("000000000001.")).count();
        match log.archived_segments() {
            0 => assert_eq!(
                (of_it, log.shared.segments.read().len()),
                (0, count - 1),
                "{n}: {names:?}"
            ),
            _ => {
                assert_eq!((of_it, log.shared.segments.read().len()), (2, count), "{n}: {names:?}")
            }
        }
    };
    cut_anywhere(&bench, &first, free_it, gone_or_not).await;
}
