//! The port to the disk: what the log asks of a file system, and nothing more.
//!
//! Synchronous, because the core of the log is a state machine that one thread drives; a simulated
//! disk that loses what was not synced is the second implementation.

mod blocks;

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::blocks::{Aligned, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BlockFile};

/// Buffers in one call of `pwritev`, as Linux bounds it.
const VECTORS_MAX: usize = 1_024;

/// Files of the log, by path.
///
/// Guarantee: what a file's [`DiskFile::sync`], or a directory's [`Disk::sync_dir`], covered when it
/// returned success survives a power cut; nothing else is promised to.
pub trait Disk: Send + Sync + 'static {
    /// Makes a file (mode 0600), or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file to read and write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that is written from front to back, each write where the last one ended or over
    /// what that one wrote. The disk may write whole blocks: the bytes between the end of a write and
    /// the end of its block, none of them behind the end of the file, may become zeros. The caller's
    /// duty: nothing else writes to the file meanwhile.
    fn open_to_append(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }
    /// Gives a file another name, replacing whatever had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; fails if something has it.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that may still be written to the disk that `dir` is on.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// One open file of the log.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `into.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of the buffers, or fails. After a failure any part of the range may be written.
    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<()>;
    /// Makes the file's contents durable. The caller's duty: never to try again after a failure.
    fn sync(&self) -> io::Result<()>;
    /// Makes the file `len` bytes long, with room on the disk for all of them.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts the file, or makes it longer without room for it.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Tells that these bytes will be read soon, so that they may be fetched beside others. Changes
    /// nothing but how long that takes; a disk that cannot know does nothing.
    fn will_need(&self, _at: u64, _len: u64) {}
}

/// Whether a disk has no room, rather than something the matter.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a disk no longer does what it is asked, which no later try mends.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::ROFS))
}

/// The machine's file system.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true).mode(0o600);
        Ok(Arc::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open_to_append(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.open(path)?;
        Ok(match open_direct(path) {
            Some((direct, block)) => Arc::new(BlockFile::new(file, Arc::new(direct), block)?),
            None => file,
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        crate::dir::sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let fs = rustix::fs::statvfs(dir)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}

/// A file to be written past the page cache, in blocks of so many bytes. None where its file system has
/// no such thing.
#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<(File, usize)> {
    use rustix::fs::{AtFlags, OFlags, StatxFlags};

    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlags::DIRECT.bits().cast_signed());
    let file = options.open(path).ok()?;
    // Kernels before 6.1 do not say what they want; a page is enough for any.
    let told = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|told| StatxFlags::from_bits_retain(told.stx_mask).contains(StatxFlags::DIOALIGN));
    let block = match told {
        // This file takes none.
        Some(told) if told.stx_dio_offset_align == 0 => return None,
        Some(told) => told.stx_dio_offset_align.max(told.stx_dio_mem_align) as usize,
        None => BLOCK_BYTES_MIN,
    };
    let block = block.max(BLOCK_BYTES_MIN);
    (block.is_power_of_two() && block <= BLOCK_BYTES_MAX).then_some((file, block))
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<(File, usize)> {
    None
}

/// The machine's file system, for whoever only looks: what would change it is refused.
#[derive(Debug)]
pub(crate) struct ReadOnlyDisk;

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        read_only()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match FileExt::read_at(self, &mut into[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], mut at: u64) -> io::Result<()> {
        for buffers in buffers.chunks(VECTORS_MAX) {
            let mut buffers: Vec<IoSlice<'_>> = buffers.to_vec();
            let mut rest = &mut buffers[..];
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(self, rest, at) {
                    // A full disk shows as a short write first, then as nothing at all.
                    Ok(0) => return Err(io::ErrorKind::StorageFull.into()),
                    Ok(n) => {
                        at += n as u64;
                        IoSlice::advance_slices(&mut rest, n);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, len) {
            // A file system without it: the length is set, and room is found as it is written.
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(len),
            done => Ok(done?),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn will_need(&self, at: u64, len: u64) {
        // Advice that is not taken is no failure.
        let _ = rustix::fs::fadvise(self, at, NonZeroU64::new(len), rustix::fs::Advice::WillNeed);
    }
}

/// A directory of the log on its disk, so that callers name files and not paths.
#[derive(Clone)]
pub(crate) struct LogDir {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
}

impl LogDir {
    /// The path of a file in the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the directory's names durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.path)
    }

    /// Renames within the directory; not durable before [`LogDir::sync`].
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.file(from), &self.file(to))
    }

    /// Bytes still free.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes(&self.path)
    }
}
