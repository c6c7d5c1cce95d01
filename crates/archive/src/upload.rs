//! Bytes of files on their way into the archive, each under the name of its checksum.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};

use crate::manifest::{Piece, Sum};
use crate::{ArchiveError, blocking};

/// Bytes read and put at a time. What one upload holds in memory, three times.
pub(crate) const PART_BYTES: u64 = 8 << 20;
/// Parts of one object on their way at a time, beside the one that is read.
const PARTS_MAX: usize = 2;
/// Most bytes of a file in one object: far below what 10,000 parts may have.
pub(crate) const PIECE_BYTES_MAX: u64 = 1 << 30;
/// Bytes read at a time to be looked at only.
const LOOK_BYTES: u64 = 1 << 20;

/// A file that is read.
#[derive(Clone)]
pub(crate) struct Reading {
    name: Arc<str>,
    path: Arc<Path>,
    file: Arc<fs::File>,
}

impl Reading {
    /// Opens `name` in the data directory. Fails with [`ArchiveError::Changed`] if it is gone.
    pub(crate) async fn open(dir: &Path, name: &str) -> Result<Self, ArchiveError> {
        let (path, name): (Arc<Path>, Arc<str>) = (dir.join(name).into(), name.into());
        blocking(move || {
            let file = fs::File::open(&path);
            let file = file.map_err(|e| ArchiveError::of_copied(&name, &path, e))?;
            Ok(Self { name, path, file: Arc::new(file) })
        })
        .await
    }

    pub(crate) async fn size(&self) -> Result<u64, ArchiveError> {
        let this = self.clone();
        blocking(move || {
            let size = this.file.metadata().map(|m| m.len());
            size.map_err(|e| ArchiveError::of_copied(&this.name, &this.path, e))
        })
        .await
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ArchiveError> {
        let read = self.file.read_exact_at(into, at);
        read.map_err(|e| ArchiveError::of_copied(&self.name, &self.path, e))
    }

    async fn bytes(&self, at: u64, len: u64) -> Result<Bytes, ArchiveError> {
        let this = self.clone();
        blocking(move || {
            let mut bytes = vec![0; len as usize];
            this.read(at, &mut bytes)?;
            Ok(bytes.into())
        })
        .await
    }

    /// The checksum of a part of the file.
    pub(crate) async fn sum(&self, from: u64, len: u64) -> Result<Sum, ArchiveError> {
        let this = self.clone();
        blocking(move || {
            let (mut hash, mut at, end) = (Sha256::new(), from, from + len);
            let mut bytes = vec![0; LOOK_BYTES.min(len) as usize];
            while at < end {
                let part = &mut bytes[..LOOK_BYTES.min(end - at) as usize];
                this.read(at, part)?;
                hash.update(&*part);
                at += part.len() as u64;
            }
            Ok(Sum::of(hash))
        })
        .await
    }

    /// Puts a part of the file, unless the archive has it. The caller's duty: no more than
    /// [`PIECE_BYTES_MAX`].
    pub(crate) async fn put(
        &self,
        store: &Arc<dyn ObjectStore>,
        from: u64,
        len: u64,
    ) -> Result<Piece, ArchiveError> {
        if len <= PART_BYTES {
            let bytes = self.bytes(from, len).await?;
            let sum = Sum::of(Sha256::new_with_prefix(&bytes));
            store.put(&sum.object(), bytes.into()).await?;
            uploaded(len);
            return Ok(Piece { sum, bytes: len });
        }
        let sum = self.sum(from, len).await?;
        let object = sum.object();
        match store.head(&object).await {
            Ok(found) if found.size == len => return Ok(Piece { sum, bytes: len }),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        let upload = store.put_multipart(&object).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES as usize);
        let sent = self.send(&mut upload, from, len).await;
        // The object must hold what its name says.
        let sent = sent.and_then(|sent| match sent == sum {
            true => Ok(()),
            false => Err(ArchiveError::Changed(self.name.to_string())),
        });
        if let Err(error) = sent {
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, "an upload to the archive was left unfinished");
            }
            return Err(error);
        }
        upload.finish().await?;
        uploaded(len);
        Ok(Piece { sum, bytes: len })
    }

    async fn send(
        &self,
        upload: &mut WriteMultipart,
        from: u64,
        len: u64,
    ) -> Result<Sum, ArchiveError> {
        let (mut hash, mut at, end) = (Sha256::new(), from, from + len);
        while at < end {
            let part = self.bytes(at, PART_BYTES.min(end - at)).await?;
            hash.update(&part);
            at += part.len() as u64;
            upload.wait_for_capacity(PARTS_MAX).await?;
            upload.put(part);
        }
        Ok(Sum::of(hash))
    }

    /// Puts all of the file from `from` to `end`, in as many pieces as it takes.
    pub(crate) async fn put_all(
        &self,
        store: &Arc<dyn ObjectStore>,
        from: u64,
        end: u64,
    ) -> Result<Vec<Piece>, ArchiveError> {
        let (mut at, mut pieces) = (from, Vec::new());
        while at < end {
            let piece = self.put(store, at, PIECE_BYTES_MAX.min(end - at)).await?;
            at += piece.bytes;
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

fn uploaded(bytes: u64) {
    metrics::counter!("hydrant_archive_uploaded_bytes_total").increment(bytes);
}
