//! Damage at many points: it is found where it is, told as what is lost, and salvaged down to that.

use hydrant_core::control::scan_all;

use super::sim::Draw;
use super::sim::disk::{Fault, SimDisk};
use super::*;
use crate::disk::LogDir;
use crate::log::files::LogFiles;
use crate::log::frame::HEADER_BYTES;
use crate::log::loss::Loss;
use crate::log::verify::{SegmentState, Verdict};

/// A record, as a test tells it apart.
type Seen = (ShardUid, RecordIndex, Vec<u8>);

/// A log of several segments, all but the newest with an index, closed as `kill -9` leaves it.
async fn several(bench: &Bench) -> Vec<Seen> {
    let log = bench.open(options(64 << 10));
    for shard in [A, B] {
        log.create(shard, DAY).await.unwrap();
    }
    for n in 0..150 {
        let shard = if n % 3 == 0 { B } else { A };
        put(&log, shard, &format!("{n} {}", "x".repeat(n * 97 % 4_000))).await;
        bench.clock.advance(Duration::from_millis(3));
    }
    log.reclaim().await.unwrap();
    close(log).await;
    assert!(bench.files("seg").len() > 3 && !bench.files("idx").is_empty());
    let seen = records(&files(bench));
    assert_eq!(seen.len(), 150);
    seen
}

fn files(bench: &Bench) -> LogFiles {
    LogFiles::on(Arc::new(RealDisk), &bench.log_dir())
}

fn records(files: &LogFiles) -> Vec<Seen> {
    let (mut seen, wanted) = (Vec::new(), Wanted { records: true, ..Wanted::default() });
    for segment in files.segments().unwrap() {
        let visited = files.visit::<OpenError>(segment, &wanted, &mut |found| {
            if let Found::Frame(frame) = found {
                let shard = frame.shard;
                let of = |r: hydrant_core::record::Record<'_>| (shard, r.index, r.data.to_vec());
                seen.extend(frame.records.unwrap().records().map(of));
            }
            Ok(true)
        });
        visited.unwrap();
    }
    seen.sort();
    seen
}

async fn verify(files: &LogFiles, bench: &Bench) -> Verdict {
    let now = bench.clock.now();
    let mut found = files.verify(now, &mut |_| {}).unwrap();
    for (key, row) in scan_all(&*bench.control, PREFIX).await.unwrap() {
        found.row(&key, &row, now).unwrap();
    }
    found.finish(now)
}

fn salvage(files: &LogFiles, verdict: &Verdict, bench: &Bench) -> Result<(), OpenError> {
    let dir = LogDir { disk: files.dir.disk.clone(), path: files.dir.path.clone() };
    verdict.salvage_in(dir, &bench.random, bench.clock.now()).map(|_| ())
}

fn is_lost(losses: &[Loss], (shard, index, _): &Seen) -> bool {
    losses.iter().any(|loss| {
        loss.shard.is_none_or(|of| of == *shard) && (loss.first..loss.end).contains(index)
    })
}

/// A copy of the log, to be damaged.
async fn copy(bench: &Bench) -> Bench {
    let copy = Bench { control: bench.control.clone(), clock: bench.clock.clone(), ..Bench::new() };
    copy_dir(&bench.log_dir(), &copy.log_dir());
    std::fs::create_dir_all(copy.log_dir().join("damaged")).unwrap();
    copy
}

/// Verifies and salvages a damaged log, and starts a server on it. Everything that was not told as
/// lost is there, and what was told as lost of a known shard is not; there is no second refusal.
async fn goes_on(case: &Bench, all: &[Seen], what: &str) -> Verdict {
    let (files, before) = (files(case), dir_of(case));
    let verdict = verify(&files, case).await;
    assert!(!verdict.is_whole(), "{what}: nobody noticed");
    assert_eq!(dir_of(case), before, "{what}: looking changes nothing");
    let losses: Vec<_> = verdict.damages.iter().flat_map(|d| d.lost.clone()).collect();
    salvage(&files, &verdict, case).unwrap();
    let again = verify(&files, case).await;
    assert!(again.is_whole(), "{what}: {again:?}");
    let left = records(&files);
    for seen in all {
        let (is_there, lost) = (left.contains(seen), is_lost(&losses, seen));
        assert!(
            is_there || lost,
            "{what}: {:?} of {:?} is gone untold: {losses:?}",
            seen.1,
            seen.0
        );
    }
    let known: Vec<_> = losses.iter().filter(|l| l.shard.is_some()).copied().collect();
    for seen in &left {
        assert!(all.contains(seen), "{what}: {:?} was never written", seen.1);
        assert!(!is_lost(&known, seen) || known.is_empty(), "{what}: {:?} is there", seen.1);
    }
    let log = case.open(LogOptions { cache_bytes: 0, ..options(64 << 10) });
    for shard in [A, B] {
        let Tail { horizon, end, .. } = log.tail(shard).await.unwrap();
        let of = left.iter().filter(|(s, index, _)| *s == shard && *index >= horizon);
        let of: Vec<_> = of.map(|(.., d)| String::from_utf8(d.clone()).unwrap()).collect();
        assert_eq!(data(&log, shard).await.unwrap(), of, "{what}");
        // A reader that comes past the gap is through, and what is put now is behind all there was.
        let page = log.read(shard, RecordIndex(end.0.saturating_sub(1)), ALL).await.unwrap();
        assert_eq!(page.next, end, "{what}");
        let put = put(&log, shard, "on").await;
        assert!(all.iter().all(|(s, index, _)| *s != shard || *index < put.first), "{what}");
    }
    close(log).await;
    verdict
}

fn dir_of(bench: &Bench) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(bench.log_dir())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
        .map(|p| (p.display().to_string(), std::fs::read(p).unwrap()))
        .collect();
    found.sort();
    found
}

/// Where a segment's frames are: start, end.
fn frames(files: &LogFiles, n: usize) -> Vec<(u64, u64)> {
    let mut places = Vec::new();
    let visit = &mut |found| {
        if let Found::Frame(frame) = found {
            places.push((frame.at, frame.at + frame.bytes));
        }
        Ok::<_, OpenError>(true)
    };
    files.visit(files.segments().unwrap()[n], &Wanted::default(), visit).unwrap();
    places
}

fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at as usize] ^= 1 << (at % 8);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_whole_log_is_whole() {
    let bench = Bench::new();
    several(&bench).await;
    let mut segments = Vec::new();
    let found = files(&bench).verify(bench.clock.now(), &mut |s| segments.push(s.clone())).unwrap();
    let verdict = found.finish(bench.clock.now());
    assert!(verdict.is_whole(), "{verdict:?}");
    assert_eq!(segments.iter().map(|s| s.records).sum::<u64>(), 150);
    let open = segments.iter().filter(|s| s.state == SegmentState::Open).count();
    assert_eq!((open, segments.iter().filter(|s| s.torn_at.is_some()).count()), (1, 0));
    let verdict = verify(&files(&bench), &bench).await;
    assert!(verdict.is_whole() && verdict.notes.is_empty(), "{verdict:?}");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_a_segment() {
    let bench = Bench::new();
    let all = several(&bench).await;
    let segments = bench.files("seg");
    for n in [0, segments.len() - 1] {
        let places = frames(&files(&bench), n);
        let (second, last) = (places[1].0, places[places.len() - 1]);
        // The segment's header; headers and bodies of the first, a middle and the last frame.
        let mut bytes = vec![0, 8, 16, 24, 39, 48, 60, 2_000, 4_095];
        bytes.extend([4_096, 4_100, 4_112, 4_120, 4_130, 4_150, 4_096 + HEADER_BYTES as u64]);
        bytes.extend([second, second + 9, second + 70, last.0 + 2, last.0 + 66]);
        // The frame that ends or covers the segment.
        bytes.extend([last.1, last.1 + 50]);
        for at in bytes {
            let case = copy(&bench).await;
            let path = &case.files("seg")[n];
            flip(path, at);
            let what = format!("segment {n}, byte {at}");
            if n > 0 && at >= last.1 {
                // Nothing behind it proves that anything was: a write that was cut short.
                assert!(verify(&files(&case), &case).await.is_whole(), "{what}");
                continue;
            }
            let verdict = goes_on(&case, &all, &what).await;
            let damage = &verdict.damages[0];
            assert!((damage.at..damage.end).contains(&at), "{what}: {damage:?}");
            let lost: u64 = damage.lost.iter().filter_map(|loss| loss.records).sum();
            let is_frame = (4_096..last.1).contains(&at);
            match n {
                0 => assert_eq!(lost, u64::from(is_frame), "{what}: {damage:?}"),
                _ => assert_eq!(damage.lost.is_empty(), !is_frame, "{what}: {damage:?}"),
            }
            let kept = std::fs::read_dir(case.log_dir().join("damaged")).unwrap();
            assert!(kept.count() >= 1, "{what}: the damaged file is kept");
        }
    }
}

#[tokio::test]
async fn what_is_cut_off_zeroed_or_missing() {
    let bench = Bench::new();
    let all = several(&bench).await;
    let newest = bench.files("seg").len() - 1;
    for n in [0, 1, newest] {
        let places = frames(&files(&bench), n);
        for cut in [0, 100, 4_096, places[0].0 + 30, places[1].0, places[1].0 + 100] {
            let case = copy(&bench).await;
            let path = &case.files("seg")[n];
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(cut).unwrap();
            let what = format!("segment {n} cut at {cut}");
            if n == newest && cut >= 4_096 {
                // Like a disk that lost what came last: nothing is left that says otherwise.
                continue;
            }
            goes_on(&case, &all, &what).await;
        }
        for (from, to) in [(0, 4_096), (0, 512), (places[0].0, places[1].1), (4_000, 4_200)] {
            let case = copy(&bench).await;
            let path = &case.files("seg")[n];
            let mut bytes = std::fs::read(path).unwrap();
            bytes[from as usize..to as usize].fill(0);
            std::fs::write(path, bytes).unwrap();
            goes_on(&case, &all, &format!("segment {n}, zeros from {from} to {to}")).await;
        }
        let case = copy(&bench).await;
        std::fs::remove_file(&case.files("seg")[n]).unwrap();
        if n == newest {
            continue;
        }
        let verdict = goes_on(&case, &all, &format!("segment {n} is missing")).await;
        let of = |d: &Damage| d.lost.iter().filter_map(|loss| loss.records).sum::<u64>();
        assert_eq!(of(&verdict.damages[0]), places.len() as u64);
    }
    let case = copy(&bench).await;
    for index in case.files("idx").into_iter().skip(1) {
        std::fs::remove_file(index).unwrap();
    }
    assert!(verify(&files(&case), &case).await.is_whole(), "an index that is missing is made anew");
}

#[tokio::test]
async fn a_damaged_index_loses_nothing() {
    let bench = Bench::new();
    let all = several(&bench).await;
    let len = std::fs::read(&bench.files("idx")[0]).unwrap().len() as u64;
    for at in [0, 9, 20, 30, 45, 60, 93, 96, 130, len - 20, len - 1] {
        let case = copy(&bench).await;
        flip(&case.files("idx")[0], at);
        let verdict = goes_on(&case, &all, &format!("index, byte {at}")).await;
        assert!(verdict.damages.iter().all(|d| d.lost.is_empty()), "{verdict:?}");
        assert!(verdict.damages[0].file.ends_with(".idx"), "{verdict:?}");
    }
}

#[tokio::test]
async fn a_torn_tail_is_no_damage() {
    let bench = Bench::new();
    several(&bench).await;
    let newest = bench.files("seg").len() - 1;
    let (start, end) = *frames(&files(&bench), newest).last().unwrap();
    for torn in [start + 20, start + 64, start + 70, end - 9] {
        let case = copy(&bench).await;
        let path = &case.files("seg")[newest];
        let mut bytes = std::fs::read(path).unwrap();
        // With the frame that covers it.
        bytes[torn as usize..end as usize + HEADER_BYTES].fill(0);
        std::fs::write(path, bytes).unwrap();
        let mut segments = Vec::new();
        let told = &mut |s: &SegmentReport| segments.push(s.clone());
        let found = files(&case).verify(bench.clock.now(), told).unwrap();
        assert!(found.finish(bench.clock.now()).is_whole(), "torn at {torn}");
        let is_told = segments[newest].torn_at == Some(start);
        assert!(is_told || torn < start + 64, "torn at {torn}: {segments:?}");
    }
}

#[tokio::test]
async fn a_cold_segment_is_salvaged_like_any_other() {
    let bench = Bench::new();
    let log = bench.open(options(64 << 10));
    log.create(A, Duration::from_secs(3_600)).await.unwrap();
    log.create(B, 100 * DAY).await.unwrap();
    for n in 0..60 {
        put(&log, A, &"x".repeat(9_000)).await;
        put(&log, B, &format!("kept {n}")).await;
    }
    bench.clock.advance(2 * DAY);
    assert!(log.reclaim().await.unwrap() > 0);
    close(log).await;
    let of_cold = |bench: &Bench| {
        let mut names = std::fs::read_dir(bench.log_dir()).unwrap().map(|e| e.unwrap().path());
        names.find(|p| p.extension().is_some_and(|e| e == "cold")).unwrap()
    };
    let all: Vec<_> = records(&files(&bench));
    let verdict = verify(&files(&bench), &bench).await;
    assert!(verdict.is_whole(), "{verdict:?}");
    for at in [30, 4_100, 4_170] {
        let case = copy(&bench).await;
        let path = of_cold(&case);
        flip(&path, at);
        let verdict = goes_on(&case, &all, &format!("cold, byte {at}")).await;
        assert!(verdict.damages[0].file.ends_with(".cold"), "{verdict:?}");
    }
    let case = copy(&bench).await;
    std::fs::remove_file(of_cold(&case)).unwrap();
    goes_on(&case, &all, "the cold segment is missing").await;
}

#[tokio::test]
async fn a_salvage_that_is_cut_short_is_done_again() {
    let bench = Bench::new();
    let all = several(&bench).await;
    let case = copy(&bench).await;
    let places = frames(&files(&case), 0);
    flip(&case.files("seg")[0], places[1].0 + 5);
    flip(&case.files("seg")[1], 30);
    std::fs::remove_file(&case.files("seg")[2]).unwrap();
    let path = case.log_dir();
    let disk = SimDisk::new(Draw::new(7), u64::MAX >> 1);
    for (name, bytes) in dir_of(&case) {
        let file = disk.create(Path::new(&name)).unwrap();
        file.write_at(&[io::IoSlice::new(&bytes)], 0).unwrap();
        file.sync().unwrap();
    }
    disk.sync_dir(&path).unwrap();
    let on = |disk: &SimDisk| LogFiles::on(Arc::new(disk.clone()), &path);
    let verdict = verify(&on(&disk), &case).await;
    assert_eq!(verdict.damages.len(), 3, "{verdict:?}");
    let losses: Vec<_> = verdict.damages.iter().flat_map(|d| d.lost.clone()).collect();
    let want: Vec<_> = all.iter().filter(|seen| !is_lost(&losses, seen)).cloned().collect();
    let mut cuts = 0;
    for n in 1.. {
        let draw = Draw::new(n);
        let cut = disk.after(true, draw.clone());
        cut.fail_at(n, Fault::Cut);
        let done = salvage(&on(&cut), &verdict, &case);
        if done.is_ok() && !cut.is_dead() {
            break;
        }
        cuts += 1;
        let cut = cut.after(true, Draw::new(n + 1_000));
        assert_eq!(records(&on(&cut)), want, "cut at {n}: nothing that is whole was lost");
        let verdict = verify(&on(&cut), &case).await;
        salvage(&on(&cut), &verdict, &case).unwrap();
        let again = verify(&on(&cut), &case).await;
        assert!(again.is_whole(), "cut at {n}: {again:?}");
        assert_eq!(records(&on(&cut)), want, "cut at {n}");
    }
    assert!(cuts > 20, "{cuts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_writes_is_not_disturbed_nor_taken_for_damage() {
    let bench = Bench::new();
    let log = bench.open(options(64 << 10));
    for shard in [A, B] {
        log.create(shard, Duration::from_secs(3_600)).await.unwrap();
    }
    let (done, stop) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), Arc::clone(&log));
    let writing = tokio::spawn({
        let (done, clock) = (done.clone(), bench.clock.clone());
        async move {
            let mut n = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) || n < 200 {
                put(&stop, if n % 5 == 0 { B } else { A }, &"y".repeat(n * 131 % 9_000)).await;
                clock.advance(Duration::from_secs(20));
                if n % 40 == 0 {
                    stop.reclaim().await.unwrap();
                }
                n += 1;
            }
        }
    });
    for _ in 0..30 {
        let verdict = verify(&files(&bench), &bench).await;
        assert!(verdict.is_whole(), "{verdict:?}");
        tokio::task::yield_now().await;
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    writing.await.unwrap();
    close(log).await;
}
