//! A disk that fills up, and one that fails.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::disk::DiskFile;

/// A disk that does what it is told: full, or failing to sync.
#[derive(Default)]
struct Faults {
    /// Writes into segments stop half way, and nothing new finds room.
    full: AtomicBool,
    /// There is no room for the index of a segment.
    no_index: AtomicBool,
    no_sync: AtomicBool,
    syncs: AtomicU64,
    fatal: SyncMutex<Vec<String>>,
}

struct FaultyDisk(Arc<Faults>);

struct FaultyFile(Arc<dyn DiskFile>, Arc<Faults>);

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let is_index = path.to_string_lossy().ends_with("x.tmp");
        if is_index && self.0.no_index.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Arc::new(FaultyFile(RealDisk.create(path)?, self.0.clone())))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(RealDisk.open(path)?, self.0.clone())))
    }
    fn open_to_append(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(RealDisk.open_to_append(path)?, self.0.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(if self.0.full.load(Ordering::SeqCst) { 0 } else { u64::MAX })
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(into, at)
    }
    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let all: Vec<u8> = buffers.iter().flat_map(|b| b.to_vec()).collect();
        // Writing over what the last write took takes no more room.
        let is_over = all.len() <= crate::log::frame::HEADER_BYTES;
        if self.1.full.load(Ordering::SeqCst) && !is_over {
            self.0.write_at(&[IoSlice::new(&all[..all.len() * 2 / 3])], at)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_at(buffers, at)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        if self.1.no_sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("EIO"));
        }
        self.0.sync()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.1.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.allocate(len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

fn open_faulty(bench: &Bench, segment_bytes: u64) -> (Arc<Log>, Arc<Faults>) {
    open_with(bench, segment_bytes, Faults::default())
}

fn open_full(bench: &Bench, segment_bytes: u64) -> (Arc<Log>, Arc<Faults>) {
    open_with(bench, segment_bytes, Faults { full: AtomicBool::new(true), ..Faults::default() })
}

fn open_with(bench: &Bench, segment_bytes: u64, faults: Faults) -> (Arc<Log>, Arc<Faults>) {
    let faults = Arc::new(faults);
    let fatal: Fatal = Arc::new({
        let faults = faults.clone();
        move |reason| faults.fatal.lock().push(reason.to_owned())
    });
    let disk = Arc::new(FaultyDisk(faults.clone()));
    (bench.open_on(disk, options(segment_bytes), fatal).unwrap(), faults)
}

#[tokio::test]
async fn a_failed_sync_is_fatal_and_acknowledges_nothing() {
    let bench = Bench::new();
    let (log, faults) = open_faulty(&bench, 64 << 10);
    log.create(A, DAY).await.unwrap();
    put(&log, A, "durable").await;
    faults.no_sync.store(true, Ordering::SeqCst);
    let lost = log.append(A, batch(&["lost"])).await;
    assert!(matches!(lost, Err(LogError::Unavailable(_))), "{lost:?}");
    let syncs = faults.syncs.load(Ordering::SeqCst);
    assert_eq!(faults.fatal.lock().len(), 1, "the process ends");
    assert_eq!(data(&log, A).await.unwrap(), ["durable"], "nobody saw the record");
    // The kernel would call the next one a success.
    faults.no_sync.store(false, Ordering::SeqCst);
    let refused = log.append(A, batch(&["late"])).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    let refused = log.seal(A).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    log.close().await;
    assert_eq!(faults.syncs.load(Ordering::SeqCst), syncs, "a failed sync is never tried again");
    assert_eq!(faults.fatal.lock().len(), 1);
}

#[tokio::test]
async fn a_failed_sync_between_segments_is_fatal() {
    let bench = Bench::new();
    let (log, faults) = open_faulty(&bench, 64 << 10);
    log.create(A, DAY).await.unwrap();
    for _ in 0..6 {
        put(&log, A, &"x".repeat(10_000)).await;
    }
    faults.no_sync.store(true, Ordering::SeqCst);
    let lost = log.append(A, batch(&[&"x".repeat(10_000)])).await;
    assert!(matches!(lost, Err(LogError::Unavailable(_))), "{lost:?}");
    assert_eq!(faults.fatal.lock().len(), 1, "the process ends");
    faults.no_sync.store(false, Ordering::SeqCst);
    assert!(log.append(A, batch(&["late"])).await.is_err());
    assert_eq!(data_len(&log).await, 6);
    log.close().await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_got_over() {
    for segment_bytes in [64 << 10, 1 << 20] {
        let bench = Bench::new();
        let (log, faults) = open_faulty(&bench, segment_bytes);
        log.create(A, DAY).await.unwrap();
        let mut want = Vec::new();
        for round in 0..6 {
            for n in 0..10 {
                let data = format!("{round}/{n} {}", "x".repeat(5_000));
                put(&log, A, &data).await;
                want.push(data);
            }
            faults.full.store(true, Ordering::SeqCst);
            for n in 0..5 {
                let data = format!("refused {n} {}", "y".repeat(5_000 + n));
                let refused = log.append(A, batch(&[&data])).await;
                assert_eq!(refused.err(), Some(LogError::Full));
                assert_eq!(data_len(&log).await, want.len(), "reads go on");
            }
            faults.full.store(false, Ordering::SeqCst);
        }
        assert_eq!(data(&log, A).await.unwrap(), want);
        assert!(faults.fatal.lock().is_empty(), "a full disk ends nothing");
        close(log).await;
        let log = bench.open(options(segment_bytes));
        assert_eq!(data(&log, A).await.unwrap(), want, "after opening again");
        close(log).await;
    }
}

#[tokio::test]
async fn a_full_disk_keeps_nobody_from_starting_and_reading() {
    let bench = Bench::new();
    let log = bench.open(options(64 << 10));
    log.create(A, DAY).await.unwrap();
    log.create(B, DAY).await.unwrap();
    put(&log, B, "idle").await;
    for _ in 0..9 {
        put(&log, A, &"x".repeat(10_000)).await;
    }
    close(log).await;
    bench.files("idx").into_iter().for_each(|index| std::fs::remove_file(index).unwrap());
    let (log, faults) = open_full(&bench, 64 << 10);
    assert_eq!(data_len(&log).await, 9);
    assert_eq!(data(&log, B).await.unwrap(), ["idle"]);
    let refused = log.append(A, batch(&["refused"])).await;
    assert_eq!(refused.err(), Some(LogError::Full));
    faults.full.store(false, Ordering::SeqCst);
    put(&log, A, "taken").await;
    assert_eq!(data_len(&log).await, 10);
    log.reclaim().await.unwrap();
    assert!(bench.files("idx").len() >= 2, "the indexes are written once there is room");
    close(log).await;
    let log = bench.open(options(64 << 10));
    assert_eq!((data_len(&log).await, data(&log, B).await.unwrap().len()), (10, 1));
    close(log).await;
}

#[tokio::test]
async fn a_segment_goes_only_once_the_next_knows_the_ends() {
    let bench = Bench::new();
    let (log, faults) = open_faulty(&bench, 64 << 10);
    log.create(A, DAY).await.unwrap();
    log.create(B, DAY).await.unwrap();
    put(&log, B, "idle").await;
    let fill = async || {
        for _ in 0..8 {
            put(&log, A, &"x".repeat(10_000)).await;
        }
    };
    fill().await;
    log.reclaim().await.unwrap();
    assert_eq!(bench.files("idx").len(), 1);
    faults.no_index.store(true, Ordering::SeqCst);
    fill().await;
    fill().await;
    let end = log.tail(B).await.unwrap().end;
    bench.clock.advance(DAY * 2);
    assert_eq!(log.reclaim().await.unwrap(), 0, "what follows has no index");
    close(log).await;
    let log = bench.open(options(64 << 10));
    assert_eq!(log.tail(B).await.unwrap().end, end);
    assert!(log.reclaim().await.unwrap() > 0, "now it has");
    close(log).await;
    let log = bench.open(options(64 << 10));
    assert_eq!(log.tail(B).await.unwrap().end, end, "carried on");
    close(log).await;
}

#[tokio::test]
async fn a_merge_without_room_leaves_nothing_behind() {
    let bench = Bench::new();
    let (log, faults) = open_faulty(&bench, 64 << 10);
    log.create(A, DAY).await.unwrap();
    log.create(B, DAY * 400).await.unwrap();
    for n in 0..50 {
        put(&log, A, &"x".repeat(10_000)).await;
        put(&log, B, &n.to_string()).await;
    }
    assert_eq!(log.reclaim().await.unwrap(), 0, "nothing has expired");
    faults.no_index.store(true, Ordering::SeqCst);
    bench.clock.advance(DAY * 2);
    assert_eq!(log.reclaim().await.unwrap(), 0);
    assert_eq!((ending(&bench, ".tmp"), ending(&bench, ".cold")), (0, 0));
    assert!(faults.fatal.lock().is_empty(), "a full disk ends nothing");
    faults.no_index.store(false, Ordering::SeqCst);
    assert!(log.reclaim().await.unwrap() >= 4, "merged once there is room");
    assert_eq!((ending(&bench, ".tmp"), ending(&bench, ".cold")), (0, 1));
    assert_eq!(data(&log, B).await.unwrap().len(), 50);
    close(log).await;
}

/// How many files of the log have names that end so.
fn ending(bench: &Bench, end: &str) -> usize {
    let files = std::fs::read_dir(bench.log_dir()).unwrap();
    files.filter(|e| e.as_ref().unwrap().path().to_str().unwrap().ends_with(end)).count()
}

async fn data_len(log: &Log) -> usize {
    data(log, A).await.unwrap().len()
}

#[tokio::test]
async fn a_crash_behind_a_refused_group_loses_nothing() {
    // What the refused group left lies behind the next one and has valid checksums.
    let bench = Bench::new();
    let (log, faults) = open_faulty(&bench, 64 << 10);
    log.create(A, DAY).await.unwrap();
    put(&log, A, "one").await;
    faults.full.store(true, Ordering::SeqCst);
    let appends = (0..20).map(|_| log.append(A, batch(&["refused"])));
    let refused = futures_all(appends).await;
    assert!(refused.iter().all(|r| r.as_ref().err() == Some(&LogError::Full)));
    let aside = Bench { control: bench.control.clone(), ..Bench::new() };
    copy_dir(&bench.log_dir(), &aside.log_dir());
    let found = aside.open(options(64 << 10));
    assert_eq!(data(&found, A).await.unwrap(), ["one"], "what was refused stays refused");
    close(found).await;
    faults.full.store(false, Ordering::SeqCst);
    put(&log, A, "two").await;
    let aside = Bench { control: bench.control.clone(), ..Bench::new() };
    copy_dir(&bench.log_dir(), &aside.log_dir());
    close(log).await;
    let log = aside.open(options(64 << 10));
    assert_eq!(data(&log, A).await.unwrap(), ["one", "two"]);
    close(log).await;
}

async fn futures_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    // All are queued before the first is answered.
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *slot = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().map(Option::unwrap).collect()
}

/// A disk on which nothing new can be made, for a reason that a later try does not mend.
struct GoneDisk(AtomicBool);

impl Disk for GoneDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

#[tokio::test]
async fn a_disk_that_is_gone_when_a_segment_is_made_ends_the_process() {
    let bench = Bench::new();
    let said = Arc::new(SyncMutex::new(Vec::new()));
    let fatal: Fatal = Arc::new({
        let said = said.clone();
        move |reason| said.lock().push(reason.to_owned())
    });
    let disk = Arc::new(GoneDisk(AtomicBool::new(true)));
    let log = bench.open_on(disk, options(64 << 10), fatal).unwrap();
    log.create(A, DAY).await.unwrap();
    for _ in 0..2 {
        let refused = log.append(A, batch(&["lost"])).await;
        assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(said.lock().len(), 1, "once");
    close(log).await;
}
