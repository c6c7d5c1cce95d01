//! Writing a data file.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::Random;
use s3s::crypto::{Checksum, Crc32c};

use super::{BLOCK_BYTES, Files, Pending, TRANSFER_BYTES};

/// A file being written. Dropped before [`Draft::finish`], it is removed.
pub(crate) struct Draft {
    files: Arc<Files>,
    /// What has not been handed to the disk. A copy: the pieces of a connection may be a byte each,
    /// and each would keep all that was received with it.
    buffer: Vec<u8>,
    /// `None` only while a write is under way.
    state: Option<Open>,
}

struct Open {
    // Before `pending`: closed, then removed.
    file: File,
    pending: Pending,
    block: Crc32c,
    block_bytes: usize,
    table: Vec<u8>,
    size_bytes: u64,
}

/// A complete, synced file that waits for its row.
pub(crate) struct Written {
    pub(crate) pending: Pending,
    pub(crate) size_bytes: u64,
}

impl Draft {
    /// Makes an empty file.
    pub(crate) async fn create(files: &Arc<Files>, random: &Random) -> io::Result<Self> {
        let pending = files.pend(random);
        let owner = Arc::clone(files);
        let state = blocking(move || {
            let file = owner.create(pending.id())?;
            let (block, table) = (Crc32c::new(), Vec::new());
            Ok(Open { file, pending, block, block_bytes: 0, table, size_bytes: 0 })
        })
        .await?;
        let files = Arc::clone(files);
        Ok(Self { files, buffer: Vec::new(), state: Some(state) })
    }

    /// Adds bytes; goes to the disk once there is enough of them.
    pub(crate) async fn write(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            let now = data.split_to(data.len().min(TRANSFER_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(&now);
            if self.buffer.len() == TRANSFER_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut open = self.state.take().ok_or_else(abandoned)?;
        let written = blocking(move || {
            open.append(&buffer)?;
            buffer.clear();
            Ok((open, buffer))
        });
        let (open, buffer) = written.await?;
        (self.state, self.buffer) = (Some(open), buffer);
        Ok(())
    }

    /// Writes what is left and syncs file and directory: after this the file survives a crash.
    pub(crate) async fn finish(mut self) -> io::Result<Written> {
        self.flush().await?;
        let mut open = self.state.take().ok_or_else(abandoned)?;
        let files = self.files;
        blocking(move || {
            open.end_block();
            open.file.write_all(&open.table)?;
            let path = files.path(open.pending.id());
            files.sync(&open.file, &path)?;
            if let Some(parent) = path.parent() {
                files.sync_dir(parent)?;
            }
            Ok(Written { pending: open.pending, size_bytes: open.size_bytes })
        })
        .await
    }
}

impl Open {
    fn append(&mut self, mut data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.size_bytes += data.len() as u64;
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(BLOCK_BYTES - self.block_bytes));
            self.block.update(now);
            self.block_bytes += now.len();
            data = later;
            if self.block_bytes == BLOCK_BYTES {
                self.end_block();
            }
        }
        Ok(())
    }

    fn end_block(&mut self) {
        if self.block_bytes > 0 {
            let crc = std::mem::replace(&mut self.block, Crc32c::new()).finalize();
            self.table.extend_from_slice(&u32::from_be_bytes(crc).to_le_bytes());
            self.block_bytes = 0;
        }
    }
}

fn abandoned() -> io::Error {
    io::Error::other("an earlier write of this file failed")
}

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}
