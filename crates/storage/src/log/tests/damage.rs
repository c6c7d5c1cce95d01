//! Torn tails are cut; everything else that is not as written is noticed.

use std::path::PathBuf;

use super::*;
use crate::log::frame::HEADER_BYTES;
use crate::log::segment::SegmentHeader;

/// A log with two groups of appends, closed as a crash leaves it: without the frame that covers the
/// last group. Returns the newest segment, and where its last group starts and ends.
async fn crashed(bench: &Bench) -> (PathBuf, u64, u64) {
    let log = bench.open(options(64 << 10));
    log.create(A, DAY).await.unwrap();
    put(&log, A, "first").await;
    put(&log, A, "second").await;
    close(log).await;
    let segment = bench.newest();
    let bytes = std::fs::read(&segment).unwrap();
    let header = SegmentHeader::decode(&bytes).unwrap();
    let file = std::fs::File::open(&segment).unwrap();
    let scan = segment::scan(&file, header.stamp()).unwrap();
    // Without the cover and with it, the frames end here and there.
    let cover = scan.end - HEADER_BYTES as u64;
    let entries = scan.directory.find(A, RecordIndex::MIN, 9);
    let mut bytes = bytes;
    bytes[cover as usize..].fill(0);
    std::fs::write(&segment, bytes).unwrap();
    assert_eq!(u64::from(entries[1].at + entries[1].bytes), cover);
    (segment, entries[1].at.into(), cover)
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_tears() {
    let bench = Bench::new();
    let (segment, start, end) = crashed(&bench).await;
    let whole = std::fs::read(&segment).unwrap();
    for torn in start..=end {
        let case = Bench { control: bench.control.clone(), ..Bench::new() };
        copy_dir(&bench.log_dir(), &case.log_dir());
        let mut bytes = whole.clone();
        bytes[torn as usize..].fill(0);
        std::fs::write(case.newest(), &bytes).unwrap();
        let log = case.open(options(64 << 10));
        let found = data(&log, A).await.unwrap();
        // Zeros of the frame's own end are no tear.
        let is_whole = bytes[..end as usize] == whole[..end as usize];
        let want: &[&str] = if is_whole { &["first", "second"] } else { &["first"] };
        assert_eq!(found, want, "torn at byte {torn}");
        put(&log, A, "third").await;
        close(log).await;
        let log = case.open(options(64 << 10));
        let found = data(&log, A).await.unwrap();
        assert_eq!(found, [want, &["third"]].concat(), "torn at byte {torn}, opened again");
        close(log).await;
    }
}

/// A disk may keep any part of a group that was not synced.
#[tokio::test]
async fn a_group_torn_in_its_middle_never_comes_back() {
    let bench = Bench::new();
    let (segment, start, end) = crashed(&bench).await;
    let mut bytes = std::fs::read(&segment).unwrap();
    let stamp = SegmentHeader::decode(&bytes).unwrap().stamp();
    let frame = bytes[start as usize..end as usize].to_vec();
    let last = frame::Header::decode(&frame, stamp).unwrap();
    // Five more frames of the next group, the first and third of which never reached the disk.
    for n in [1, 3, 4] {
        let first = last.first.plus(1 + n);
        let header = frame::Header { first, group: last.group + 1, durable_upto: end, ..last };
        let at = end as usize + n as usize * frame.len();
        bytes[at..at + HEADER_BYTES].copy_from_slice(&header.encode(stamp));
        bytes[at + HEADER_BYTES..at + frame.len()].copy_from_slice(&frame[HEADER_BYTES..]);
    }
    std::fs::write(&segment, &bytes).unwrap();
    let mut want = vec!["first", "second"];
    for later in ["third", "fourth", "fifth"] {
        let log = bench.open(options(64 << 10));
        assert_eq!(data(&log, A).await.unwrap(), want);
        put(&log, A, later).await;
        want.push(later);
        close(log).await;
    }
    // The same tear with a later group behind it is lost data: that group was written only once
    // this one was synced.
    let bench = Bench::new();
    let (segment, ..) = crashed(&bench).await;
    let header = frame::Header { group: 9, durable_upto: end + 100, ..last };
    let stamp = SegmentHeader::decode(&std::fs::read(&segment).unwrap()).unwrap().stamp();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.len() - 2_000;
    bytes[at..at + HEADER_BYTES].copy_from_slice(&header.encode(stamp));
    std::fs::write(&segment, &bytes).unwrap();
    let refused = bench.try_open(options(64 << 10)).err().unwrap();
    assert!(refused.to_string().contains(&format!("byte {at}")), "{refused}");
}

#[tokio::test]
async fn damage_to_what_was_synced_is_refused() {
    let bench = Bench::new();
    let (segment, start, _) = crashed(&bench).await;
    let whole = std::fs::read(&segment).unwrap();
    let first = 4_096;
    // Padding behind the body is no part of the frame.
    let used = first + (HEADER_BYTES + 4 + 7 + "kfirst".len()) as u64;
    assert!((used..used + 8).contains(&start));
    for at in first..used {
        let mut bytes = whole.clone();
        bytes[at as usize] ^= 1 << (at % 8);
        std::fs::write(&segment, &bytes).unwrap();
        let Err(refused) = bench.try_open(options(64 << 10)) else {
            panic!("byte {at} of {start} flipped, and nobody noticed");
        };
        let OpenError::Damaged { path, at: found, .. } = &refused else { panic!("{refused}") };
        assert_eq!((path, *found), (&segment, first), "{refused}");
        assert!(refused.to_string().contains("hydrant log salvage"), "{refused}");
        assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing was changed");
    }
    // The way on that the refusal names.
    std::fs::rename(&segment, bench.temp.path().join("aside")).unwrap();
    let log = bench.open(options(64 << 10));
    assert_eq!(data(&log, A).await.unwrap(), [""; 0]);
    put(&log, A, "on").await;
    assert_eq!(data(&log, A).await.unwrap(), ["on"]);
    close(log).await;
}

#[tokio::test]
async fn a_covered_group_is_not_taken_for_a_torn_one() {
    let bench = Bench::new();
    let log = bench.open(options(64 << 10));
    log.create(A, DAY).await.unwrap();
    put(&log, A, "only").await;
    close(log).await;
    let segment = bench.newest();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4_096 + 70] ^= 4;
    std::fs::write(&segment, bytes).unwrap();
    let refused = bench.try_open(options(64 << 10)).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

#[tokio::test]
async fn a_flipped_bit_in_a_complete_segment_is_never_served() {
    let bench = Bench::new();
    let log = bench.open(options(64 << 10));
    log.create(A, DAY).await.unwrap();
    log.create(B, DAY).await.unwrap();
    put(&log, A, "good").await;
    put(&log, B, "elsewhere").await;
    for _ in 0..8 {
        put(&log, A, &"x".repeat(10_000)).await;
    }
    close(log).await;
    let log = bench.open(LogOptions { cache_bytes: 0, ..options(64 << 10) });
    let segment = bench.files("seg").remove(0);
    let whole = std::fs::read(&segment).unwrap();
    let index = bench.files("idx").remove(0);
    let index_file = std::fs::File::open(&index).unwrap();
    let header = SegmentHeader::decode(&whole).unwrap();
    let found = index::Index::read(&index_file, &header).unwrap();
    let entry = found.find(&index_file, A, RecordIndex::MIN, 1).unwrap()[0];
    let used = HEADER_BYTES + 4 + 7 + "kgood".len();
    for bit in 0..used * 8 {
        let mut bytes = whole.clone();
        bytes[entry.at as usize + bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&segment, &bytes).unwrap();
        let read = log.read(A, RecordIndex::MIN, ReadLimit { records_max: 1, ..ALL }).await;
        assert!(matches!(read, Err(LogError::Corrupt(_))), "bit {bit}: {read:?}");
        assert_eq!(data(&log, B).await.unwrap(), ["elsewhere"], "other frames are served");
    }
    std::fs::write(&segment, &whole).unwrap();
    assert_eq!(data(&log, A).await.unwrap().len(), 9);
    close(log).await;
}

#[tokio::test]
async fn an_index_is_made_anew() {
    let bench = Bench::new();
    let log = bench.open(options(64 << 10));
    log.create(A, DAY).await.unwrap();
    for n in 0..30 {
        put(&log, A, &format!("{n} {}", "x".repeat(10_000))).await;
    }
    let end = log.tail(A).await.unwrap().end;
    close(log).await;
    for round in 0..3 {
        for (n, index) in bench.files("idx").into_iter().enumerate() {
            match (n + round) % 3 {
                0 => std::fs::remove_file(index).unwrap(),
                1 => {
                    let mut bytes = std::fs::read(&index).unwrap();
                    bytes[20] ^= 1;
                    std::fs::write(&index, bytes).unwrap();
                }
                // Found only when what is behind the header is needed, for the one that is missing.
                _ if round == 2 => {
                    let mut bytes = std::fs::read(&index).unwrap();
                    let last = bytes.len() - 1;
                    bytes[last] ^= 1;
                    std::fs::write(&index, bytes).unwrap();
                }
                _ => {}
            }
        }
        let log = bench.open(options(64 << 10));
        assert_eq!(data(&log, A).await.unwrap().len(), 30);
        assert_eq!(log.tail(A).await.unwrap().end, end);
        close(log).await;
    }
    // A segment that was complete and is not any more is no torn tail.
    let segment = bench.files("seg").remove(0);
    std::fs::remove_file(bench.files("idx").remove(0)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(20_000).unwrap();
    let refused = bench.try_open(options(64 << 10)).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

#[tokio::test]
async fn a_newer_format_and_a_broken_header_are_refused() {
    let bench = Bench::new();
    let (segment, ..) = crashed(&bench).await;
    let whole = std::fs::read(&segment).unwrap();
    let mut newer = whole.clone();
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..4_092]);
    newer[4_092..4_096].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&segment, newer).unwrap();
    let refused = bench.try_open(options(64 << 10)).err().unwrap();
    assert!(refused.to_string().contains("has format 9, and this hydrant reads format 2"));
    std::fs::write(&segment, &whole[1..]).unwrap();
    let refused = bench.try_open(options(64 << 10)).err().unwrap();
    assert!(refused.to_string().contains("damaged at byte 0"), "{refused}");
}
