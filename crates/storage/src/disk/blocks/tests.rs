//! Appends in blocks against a file in memory, on a real directory and on one that refuses.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hydrant_core::Random;

use super::*;
use crate::disk::{Disk, RealDisk};

const FILE_BYTES: u64 = 1 << 20;
const BLOCK: usize = BLOCK_BYTES_MIN;

/// A number below `n`.
fn below(random: &Random, n: u64) -> u64 {
    u64::from_le_bytes(random.bytes()) % n
}

/// Bytes in several buffers, some of them empty.
fn cut(random: &Random, mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(1 + below(random, bytes.len() as u64) as usize);
        pieces.push(piece.to_vec());
        bytes = rest;
    }
    pieces
}

fn slices(pieces: &[Vec<u8>]) -> Vec<IoSlice<'_>> {
    pieces.iter().map(|p| IoSlice::new(p)).collect()
}

/// What a place of the file holds.
fn content(from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|at| (at % 251) as u8).collect()
}

/// A file that was written before, as a recycled one is.
fn used_file(len: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![0xEE; len as usize]).unwrap();
    (dir, path)
}

fn size_of_write(random: &Random) -> u64 {
    match below(random, 4) {
        0 => 1 + below(random, 64),
        1 => 1 + below(random, 3 * BLOCK as u64),
        2 => BLOCK as u64 * (1 + below(random, 3)),
        _ => 1 + below(random, 40_000),
    }
}

#[test]
fn appends_of_any_size_are_there_for_any_reader_while_it_goes_on() {
    for seed in 0..12 {
        let random = Random::from_seed(seed);
        // The last block of some files is not whole.
        let len = FILE_BYTES + [0, 100][seed as usize % 2];
        let (_dir, path) = used_file(len);
        let written = AtomicU64::new(0);
        let reader = RealDisk.open(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut end = 0;
                while end < len {
                    end = written.load(Ordering::Acquire);
                    let from = end.saturating_sub(20_000);
                    let mut bytes = vec![0; (end - from) as usize];
                    let got = reader.read_at(&mut bytes, from).unwrap();
                    assert_eq!(got, bytes.len());
                    assert!(bytes == content(from, end - from), "seed {seed}, before {end}");
                }
            });
            let mut file = RealDisk.open_to_append(&path).unwrap();
            let mut at = 0;
            while at < len {
                // As after a start: nothing is known of the block that is half written.
                if below(&random, 10) == 0 {
                    file = RealDisk.open_to_append(&path).unwrap();
                }
                let size = size_of_write(&random).min(len - at);
                let pieces = cut(&random, &content(at, size));
                file.write_at(&slices(&pieces), at).unwrap();
                let end = at + size;
                if below(&random, 4) == 0 {
                    // What was not acknowledged is written over.
                    continue;
                }
                if below(&random, 8) == 0 {
                    file.sync().unwrap();
                }
                written.store(end, Ordering::Release);
                at = end;
            }
        });
        assert_eq!(std::fs::metadata(&path).unwrap().len(), len, "seed {seed}");
        assert!(std::fs::read(&path).unwrap() == content(0, len), "seed {seed}");
    }
}

#[test]
fn only_the_rest_of_a_block_is_touched() {
    let (_dir, path) = used_file(10 * BLOCK as u64);
    let file = RealDisk.open_to_append(&path).unwrap();
    file.write_at(&[IoSlice::new(&[1; 100])], 0).unwrap();
    file.write_at(&[IoSlice::new(&[2; 5_000])], 100).unwrap();
    let found = std::fs::read(&path).unwrap();
    assert_eq!(found[..100], [1; 100]);
    assert_eq!(found[100..5_100], [2; 5_000]);
    assert!(
        found[5_100..2 * BLOCK].iter().all(|b| *b == 0) || found[5_100..] == vec![0xEE; 35_860]
    );
    assert_eq!(found[2 * BLOCK..], vec![0xEE; 8 * BLOCK]);
}

#[test]
fn more_than_the_buffer_goes_in_pieces_and_behind_the_end_makes_the_file_longer() {
    let len = GATHERED_BYTES_MAX as u64 * 2 + 777;
    let (_dir, path) = used_file(len);
    let file = RealDisk.open_to_append(&path).unwrap();
    file.write_at(&[IoSlice::new(&content(0, 50))], 0).unwrap();
    file.write_at(&[IoSlice::new(&content(50, len - 1_000))], 50).unwrap();
    assert_eq!(file.size().unwrap(), len);
    file.write_at(&[IoSlice::new(&content(len - 950, 5_000))], len - 950).unwrap();
    assert_eq!(file.size().unwrap(), len + 4_050);
    assert!(std::fs::read(&path).unwrap() == content(0, len + 4_050));
}

/// A file that takes whole blocks from aligned memory alone, and refuses the `n`-th of them.
struct Strict {
    file: Arc<dyn DiskFile>,
    writes: AtomicUsize,
    refuses: usize,
    with: io::ErrorKind,
}

impl DiskFile for Strict {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let [buffer] = buffers else { panic!("{} buffers", buffers.len()) };
        let of_a_block = [at as usize, buffer.len(), buffer.as_ptr().addr()];
        assert!(of_a_block.iter().all(|n| n % BLOCK == 0), "{of_a_block:?}");
        if self.writes.fetch_add(1, Ordering::Relaxed) == self.refuses {
            let part = [IoSlice::new(&buffer[..buffer.len() / 2])];
            self.file.write_at(&part, at)?;
            return Err(self.with.into());
        }
        self.file.write_at(buffers, at)
    }
    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn size(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn strict(path: &std::path::Path, refuses: usize, with: io::ErrorKind) -> (BlockFile, Arc<Strict>) {
    let file = RealDisk.open(path).unwrap();
    let strict = Strict { file: file.clone(), writes: AtomicUsize::new(0), refuses, with };
    let strict = Arc::new(strict);
    (BlockFile::new(file, strict.clone(), BLOCK).unwrap(), strict)
}

#[test]
fn a_file_that_refuses_blocks_is_written_as_any_other() {
    for refuses in [0, 1, 5] {
        let (_dir, path) = used_file(FILE_BYTES);
        let (file, direct) = strict(&path, refuses, io::ErrorKind::InvalidInput);
        let random = Random::from_seed(refuses as u64);
        let mut at = 0;
        while at < FILE_BYTES {
            let size = size_of_write(&random).min(FILE_BYTES - at);
            file.write_at(&slices(&cut(&random, &content(at, size))), at).unwrap();
            at += size;
        }
        assert_eq!(direct.writes.load(Ordering::Relaxed), refuses + 1, "asked no more");
        assert!(std::fs::read(&path).unwrap() == content(0, FILE_BYTES), "{refuses}");
    }
}

#[test]
fn a_disk_without_room_is_asked_in_the_ordinary_way() {
    let (_dir, path) = used_file(FILE_BYTES);
    let (file, direct) = strict(&path, 1, io::ErrorKind::StorageFull);
    let mut at = 0;
    for size in [5_000, 9_000, 3_000] {
        file.write_at(&[IoSlice::new(&content(at, size))], at).unwrap();
        at += size;
    }
    assert_eq!(direct.writes.load(Ordering::Relaxed), 3, "it may have room again");
    assert!(std::fs::read(&path).unwrap()[..at as usize] == content(0, at));
}

#[test]
fn a_write_that_fails_changes_nothing_before_it_and_can_be_made_again() {
    let (_dir, path) = used_file(FILE_BYTES);
    let (file, _) = strict(&path, 1, io::ErrorKind::Other);
    file.write_at(&[IoSlice::new(&content(0, 5_000))], 0).unwrap();
    let failed = file.write_at(&[IoSlice::new(&[7; 9_000])], 5_000);
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::Other);
    assert!(std::fs::read(&path).unwrap()[..5_000] == content(0, 5_000));
    file.write_at(&[IoSlice::new(&content(5_000, 10))], 5_000).unwrap();
    file.write_at(&[IoSlice::new(&content(5_010, 9_000))], 5_010).unwrap();
    assert!(std::fs::read(&path).unwrap()[..14_010] == content(0, 14_010));
    // Anywhere before what is known of the last block.
    file.write_at(&[IoSlice::new(&[9; 10])], 3_000).unwrap();
    assert!(std::fs::read(&path).unwrap()[..3_000] == content(0, 3_000));
}

#[test]
fn whole_blocks_are_written_from_where_they_are() {
    let (_dir, path) = used_file(FILE_BYTES);
    let (file, direct) = strict(&path, usize::MAX, io::ErrorKind::Other);
    let mut memory = Aligned::default();
    let zeros = memory.room(3 * BLOCK, BLOCK_BYTES_MAX);
    file.write_at(&[IoSlice::new(&content(0, 100))], 0).unwrap();
    // Ahead of the block that is half written, which stays known.
    file.write_at(&[IoSlice::new(zeros)], BLOCK as u64).unwrap();
    file.write_at(&[IoSlice::new(&content(100, 5_000))], 100).unwrap();
    let found = std::fs::read(&path).unwrap();
    assert!(found[..5_100] == content(0, 5_100));
    assert!(found[5_100..4 * BLOCK].iter().all(|b| *b == 0));
    // Over it.
    file.write_at(&[IoSlice::new(zeros)], 0).unwrap();
    file.write_at(&[IoSlice::new(&[3; 10])], 5_100).unwrap();
    let found = std::fs::read(&path).unwrap();
    assert!(found[..5_100].iter().all(|b| *b == 0));
    assert_eq!(found[5_100..5_110], [3; 10]);
    assert_eq!(direct.writes.load(Ordering::Relaxed), 5);
}
