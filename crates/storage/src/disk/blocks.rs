//! Appends past the page cache: the bytes are gathered in a buffer of our own and go to the disk in
//! whole blocks.
//!
//! A write through the cache takes a page for every 4 KiB, copies, and leaves the rest to the sync,
//! which has to find the pages again. A log that was just written is read from the memory of its
//! process, so the copy that the kernel keeps is of little use to anybody.

use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DiskFile, is_full};

/// The shortest block: a page, which is what file systems allot by.
pub(crate) const BLOCK_BYTES_MIN: usize = 4 << 10;
/// The longest block; a disk that wants longer ones is written through the page cache.
pub(crate) const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Most bytes gathered at a time, and so the size of a file's buffer: what stays in a processor's
/// cache from one time to the next.
const GATHERED_BYTES_MAX: usize = 1 << 20;

/// A file that is written in whole blocks, and read as any other.
///
/// Guarantee: where the file ends, and every byte of it outside of what was written, is as it would be
/// without blocks, but for the bytes between the end of a write and the end of its block: they become
/// zeros. A file that refuses blocks is written as any other from then on.
pub(crate) struct BlockFile {
    /// Through the page cache.
    file: Arc<dyn DiskFile>,
    /// None once it was refused.
    blocks: Mutex<Option<Blocks>>,
}

/// The way past the cache.
struct Blocks {
    /// The same file, which takes whole blocks from memory that starts at a multiple of one.
    direct: Arc<dyn DiskFile>,
    block: usize,
    /// Length of the file in bytes.
    len: u64,
    /// The block in which the last write ended, as far as it is written.
    tail: Vec<u8>,
    /// Where that block starts.
    tail_at: u64,
    gathered: Aligned,
}

impl BlockFile {
    /// A file opened twice: in the ordinary way, and to write blocks of `block` bytes, a power of two.
    pub(crate) fn new(
        file: Arc<dyn DiskFile>,
        direct: Arc<dyn DiskFile>,
        block: usize,
    ) -> io::Result<Self> {
        let len = file.size()?;
        let gathered = Aligned::default();
        let blocks = Blocks { direct, block, len, tail: Vec::new(), tail_at: 0, gathered };
        Ok(Self { file, blocks: Mutex::new(Some(blocks)) })
    }
}

impl DiskFile for BlockFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(into, at)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let mut blocks = self.blocks.lock();
        if let Some(direct) = &mut *blocks {
            match direct.write_at(&*self.file, buffers, at) {
                // The file system takes no such writes, or not everywhere in this file.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => *blocks = None,
                // The file system is full, or the disk below it, which promised the room and does not
                // have it. Only the first refuses the write through the cache, too; the second fails
                // the sync, and what is on it is unknown.
                Err(e) if is_full(&e) => direct.tail.clear(),
                done => return done,
            }
        }
        self.file.write_at(buffers, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut blocks = self.blocks.lock();
        self.file.allocate(len)?;
        blocks.as_mut().map_or(Ok(()), |blocks| blocks.measure(&*self.file))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut blocks = self.blocks.lock();
        self.file.truncate(len)?;
        blocks.as_mut().map_or(Ok(()), |blocks| blocks.measure(&*self.file))
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn will_need(&self, at: u64, len: u64) {
        self.file.will_need(at, len);
    }
}

impl Blocks {
    fn measure(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        self.tail.clear();
        self.len = file.size()?;
        Ok(())
    }

    fn write_at(
        &mut self,
        file: &dyn DiskFile,
        buffers: &[IoSlice<'_>],
        at: u64,
    ) -> io::Result<()> {
        let bytes: usize = buffers.iter().map(|b| b.len()).sum();
        if bytes == 0 {
            return Ok(());
        }
        let end = at + bytes as u64;
        let start = at - at % self.block as u64;
        let held = (at - start) as usize;
        if end.next_multiple_of(self.block as u64) > self.len {
            // A block that is not all in the file would make it longer than what is written.
            self.tail.clear();
            file.write_at(buffers, at)?;
            self.len = self.len.max(end);
            return Ok(());
        }
        if let [buffer] = buffers
            && [start as usize, bytes, buffer.as_ptr().addr()].iter().all(|n| n % self.block == 0)
            && held == 0
        {
            if (start..end).contains(&self.tail_at) {
                self.tail.clear();
            }
            return self.direct.write_at(buffers, at);
        }
        let wanted = (held + bytes).next_multiple_of(self.block).min(GATHERED_BYTES_MAX);
        let gathered = self.gathered.room(wanted, self.block);
        if self.tail_at == start && self.tail.len() >= held {
            // Whatever comes of this write, it changes nothing before `at`.
            self.tail.truncate(held);
            gathered[..held].copy_from_slice(&self.tail);
        } else {
            self.tail.clear();
            if file.read_at(&mut gathered[..held], start)? < held {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let (mut filled, mut place) = (held, start);
        for buffer in buffers {
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(wanted - filled));
                gathered[filled..filled + piece.len()].copy_from_slice(piece);
                (filled, rest) = (filled + piece.len(), more);
                if filled == wanted {
                    self.direct.write_at(&[IoSlice::new(gathered)], place)?;
                    (filled, place) = (0, place + wanted as u64);
                }
            }
        }
        if filled > 0 {
            let padded = filled.next_multiple_of(self.block);
            gathered[filled..padded].fill(0);
            self.direct.write_at(&[IoSlice::new(&gathered[..padded])], place)?;
        }
        let last = filled - filled % self.block;
        self.tail.clear();
        self.tail.extend_from_slice(&gathered[last..filled]);
        self.tail_at = place + last as u64;
        Ok(())
    }
}

/// Memory that starts at a multiple of a block, at first all zeros.
#[derive(Default)]
pub(crate) struct Aligned {
    /// A block more than is used, of which the middle is.
    bytes: Vec<u8>,
}

impl Aligned {
    /// `len` bytes, as they were left if there was as much room before.
    pub(crate) fn room(&mut self, len: usize, align: usize) -> &mut [u8] {
        if self.bytes.len() < len + align {
            self.bytes = vec![0; len.next_power_of_two() + align];
        }
        let address = self.bytes.as_ptr().addr();
        let from = address.next_multiple_of(align) - address;
        &mut self.bytes[from..from + len]
    }
}

#[cfg(test)]
mod tests;
