//! Fills the shards of a data directory with records of zeros, which take next to no room on the disk:
//! for tests of how a server starts on much data.
//!
//! The log writes them as it writes everything, on a disk that leaves out blocks of zeros. Prints one
//! JSON object.
#![allow(clippy::print_stdout, reason = "a terminal program says what it did")]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hydrant_core::control::{ControlStore, scan_all};
use hydrant_core::log::{LogEngine, ShardUid};
use hydrant_core::record::RecordBatch;
use hydrant_core::{Random, SystemClock};
use hydrant_storage::{
    Control, DataDir, Disk, DiskFile, Log, LogOptions, RealDisk, SHARD_ROWS, abort,
};

const RECORD_BYTES_MAX: u64 = 10 << 20;
const IN_FLIGHT: usize = 4;
const BLOCK_BYTES: usize = 4_096;
const SECTOR_BYTES: u64 = 512;

/// Fills every shard of a data directory that no server uses.
#[derive(Parser)]
struct Settings {
    /// The data directory.
    folder: PathBuf,
    /// How much in all, in GiB.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    gib: u64,
}

/// The machine's file system, without the blocks of zeros. Nothing is synced: what is made is made
/// again if the machine fails.
struct SparseDisk;

struct SparseFile {
    file: Arc<dyn DiskFile>,
    /// Whether what was not written yet is zeros.
    is_sparse: bool,
}

impl Disk for SparseDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SparseFile { file: RealDisk.create(path)?, is_sparse: true }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let found = OpenOptions::new().read(true).open(path)?.metadata()?;
        let is_sparse = found.blocks() * SECTOR_BYTES < found.len() / 2;
        Ok(Arc::new(SparseFile { file: RealDisk.open(path)?, is_sparse }))
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

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for SparseFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(into, at)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], mut at: u64) -> io::Result<()> {
        if !self.is_sparse {
            return self.file.write_at(buffers, at);
        }
        let length = self.file.size()?;
        for buffer in buffers {
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let to_boundary = BLOCK_BYTES - (at % BLOCK_BYTES as u64) as usize;
                let (piece, more) = rest.split_at(to_boundary.min(rest.len()));
                let is_hole = piece == &[0; BLOCK_BYTES][..piece.len()];
                if !is_hole || at + piece.len() as u64 > length {
                    self.file.write_at(&[IoSlice::new(piece)], at)?;
                }
                at += piece.len() as u64;
                rest = more;
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::parse();
    let dir = DataDir::open(&settings.folder)?;
    let control = Control::open(&dir)?;
    let random = Random::from_seed(1);
    let options = LogOptions { cache_bytes: 0, ..LogOptions::default() };
    let store: Arc<dyn ControlStore> = control.clone();
    let clock = Arc::new(SystemClock);
    let disk = Arc::new(SparseDisk);
    let log = Log::open_on(disk, &dir, options, store.clone(), clock, &random, abort())?;
    let rows = scan_all(&*store, SHARD_ROWS).await?;
    let shards: Vec<_> = rows
        .iter()
        .filter_map(|(key, _)| key.strip_prefix(SHARD_ROWS)?.parse().ok().map(ShardUid))
        .collect();
    let bytes_max = settings.gib << 30;
    let each = (bytes_max / (shards.len().max(1) as u64)).clamp(1, RECORD_BYTES_MAX);
    let mut batch = RecordBatch::new();
    batch.push(b"zeros", &vec![0; each as usize]);
    let batch = batch.shared();
    let mut bytes = 0;
    let mut under_way = FuturesUnordered::new();
    for shard in shards.iter().cycle() {
        if bytes >= bytes_max {
            break;
        }
        bytes += each;
        under_way.push(log.append(*shard, batch.clone()));
        if under_way.len() >= IN_FLIGHT
            && let Some(done) = under_way.next().await
        {
            done?;
        }
    }
    while let Some(done) = under_way.next().await {
        done?;
    }
    drop(under_way);
    log.close().await;
    control.close().await;
    println!("{}", serde_json::json!({"shards": shards.len(), "bytes": bytes}));
    Ok(())
}
