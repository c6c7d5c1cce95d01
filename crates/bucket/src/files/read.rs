//! Reading data files, each block checked before a byte of it is handed out.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use s3s::crypto::{Checksum, Crc32c};

use super::write::blocking;
use super::{BLOCK_BYTES, FileId, Files, Lease, TRANSFER_BYTES};
use crate::index::Segment;

/// Why a read stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file is not there: its object was replaced or deleted since its row was read, or an
    /// operator has to look.
    #[error("data file {0} is missing")]
    Missing(FileId),
    /// The file is not what was written. An operator has to look; never served.
    #[error("data file {file} is damaged at byte {at}")]
    Damaged {
        /// The file.
        file: FileId,
        /// Where the damaged block begins.
        at: u64,
    },
    /// The disk failed.
    #[error("data file {file}: {error}")]
    Io {
        /// The file.
        file: FileId,
        /// What it said.
        error: io::Error,
    },
}

struct Span {
    segment: Segment,
    range: Range<u64>,
}

/// Reads a range of an object, [`TRANSFER_BYTES`] at a time.
pub(crate) struct Reader {
    files: Arc<Files>,
    spans: VecDeque<Span>,
    open: Option<Arc<File>>,
    _lease: Option<Lease>,
}

impl Reader {
    /// Of `range` within the segments laid end to end. Opens the first file, so that a later
    /// removal of it does not matter; the lease keeps the others.
    pub(crate) async fn open(
        files: &Arc<Files>,
        segments: &[Segment],
        range: Range<u64>,
        lease: Option<Lease>,
    ) -> Result<Self, ReadError> {
        let mut spans = VecDeque::new();
        let mut start = 0;
        for segment in segments {
            let end = start + segment.size_bytes;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                spans.push_back(Span { segment: *segment, range: from - start..to - start });
            }
            start = end;
        }
        let mut reader = Self { files: Arc::clone(files), spans, open: None, _lease: lease };
        if let Some(file) = reader.spans.front().map(|span| span.segment.file) {
            reader.open_file(file).await?;
        }
        Ok(reader)
    }

    async fn open_file(&mut self, id: FileId) -> Result<Arc<File>, ReadError> {
        let files = Arc::clone(&self.files);
        let file =
            blocking(move || files.open_to_read(id)).await.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ReadError::Missing(id),
                _ => ReadError::Io { file: id, error },
            })?;
        let file = Arc::new(file);
        self.open = Some(Arc::clone(&file));
        Ok(file)
    }

    /// The next bytes, or `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let Some(span) = self.spans.front_mut() else { return Ok(None) };
        let segment = span.segment;
        let block = BLOCK_BYTES as u64;
        let from = span.range.start;
        let aligned = from - from % block;
        let end = (aligned + TRANSFER_BYTES as u64).min(segment.size_bytes);
        let to = end.min(span.range.end);
        span.range.start = to;
        let done = span.range.is_empty();
        let file = match &self.open {
            Some(file) => Arc::clone(file),
            None => self.open_file(segment.file).await?,
        };
        if done {
            self.spans.pop_front();
            self.open = None;
        }
        // Whole blocks up to the one that holds the last wanted byte.
        let end = (to.div_ceil(block) * block).min(segment.size_bytes);
        let read = tokio::task::spawn_blocking(move || checked_read(&file, segment, aligned..end));
        let data = read.await.map_err(|error| ReadError::Io {
            file: segment.file,
            error: io::Error::other(error),
        })??;
        let slice = (from - aligned) as usize..(to - aligned) as usize;
        Ok(Some(data.slice(slice)))
    }
}

/// Reads whole blocks and compares each with the table at the file's end.
fn checked_read(file: &File, segment: Segment, range: Range<u64>) -> Result<Bytes, ReadError> {
    let id = segment.file;
    let read = |buffer: &mut [u8], at: u64| {
        file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Damaged { file: id, at },
            _ => ReadError::Io { file: id, error },
        })
    };
    let mut data = vec![0; (range.end - range.start) as usize];
    read(&mut data, range.start)?;
    let mut table = vec![0; data.len().div_ceil(BLOCK_BYTES) * 4];
    read(&mut table, segment.size_bytes + range.start / BLOCK_BYTES as u64 * 4)?;
    for (n, (block, expected)) in data.chunks(BLOCK_BYTES).zip(table.chunks(4)).enumerate() {
        let is = u32::from_be_bytes(Crc32c::checksum(block)).to_le_bytes();
        if is != expected {
            let at = range.start + (n * BLOCK_BYTES) as u64;
            return Err(ReadError::Damaged { file: id, at });
        }
    }
    Ok(data.into())
}
