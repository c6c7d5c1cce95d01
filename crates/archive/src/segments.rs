//! Segments of the log that the archive has: which they are, and reading them back.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hydrant_storage::{SegmentArchive, SegmentFile};
use object_store::{ObjectStoreExt, WriteMultipart};
use parking_lot::Mutex;

use crate::manifest::{File, Manifest, Piece};
use crate::object::Object;
use crate::restore::fetch_to;
use crate::upload::PART_BYTES;
use crate::{Archive, ArchiveError, Target};

/// Complete segments, and their indexes, that the newest point names. Every later point names them, too,
/// for as long as the data directory has either, and what a point names is not removed.
#[derive(Default)]
pub(crate) struct Settled(Mutex<HashMap<String, File>>);

impl Settled {
    /// Takes what a point names. The caller's duty: it is the newest, and this directory's.
    pub(crate) fn set(&self, newest: Option<&Manifest>) {
        let files = newest.into_iter().flat_map(|manifest| &manifest.files);
        let of_log = files.filter(|file| file.life.is_some());
        *self.0.lock() = of_log.map(|file| (file.path.clone(), file.clone())).collect();
    }

    fn find(&self, path: &str, life: &str) -> Option<File> {
        self.0.lock().get(path).filter(|file| file.life.as_deref() == Some(life)).cloned()
    }

    /// A segment and its index, if both are there, whole.
    fn segment(&self, name: &str, life: &str) -> Option<(File, File)> {
        let (stem, extension) = name.rsplit_once('.')?;
        let index = if extension == "cold" { "cix" } else { "idx" };
        let index = self.find(&format!("log/{stem}.{index}"), life)?;
        let segment = self.find(&format!("log/{name}"), life).filter(|file| file.complete)?;
        Some((segment, index))
    }
}

/// An archive, as the log uses it. Its receipts are a segment's row of a manifest.
pub struct Segments {
    archive: Arc<Archive>,
    target: Target,
}

impl Segments {
    /// The segments of an archive, read through `target`: the same place, where a request that fails
    /// need not be repeated for as long as one of a point.
    pub fn of(archive: Arc<Archive>, target: Target) -> Self {
        Self { archive, target }
    }
}

#[async_trait]
impl SegmentArchive for Segments {
    async fn receipt(&self, name: &str, life: &str) -> io::Result<Option<Vec<u8>>> {
        let Some((segment, index)) = self.archive.settled.segment(name, life) else {
            return Ok(None);
        };
        // Somebody may have removed what he took for old.
        for piece in segment.pieces.iter().chain(&index.pieces) {
            if !has(&self.target, piece).await.map_err(io::Error::other)? {
                tracing::error!(name, object = %piece.sum.object(), "the archive lost a part of a segment");
                return Ok(None);
            }
        }
        Ok(Some(serde_json::to_vec(&segment)?))
    }

    async fn fetch(&self, receipt: &[u8], to: &Path) -> io::Result<()> {
        let file: File = serde_json::from_slice(receipt)?;
        fetch_to(&self.target, &file, to, false).await.map_err(io::Error::other)
    }
}

/// Whether the archive has the object, by its size.
async fn has(target: &Target, piece: &Piece) -> Result<bool, ArchiveError> {
    match target.store.head(&piece.sum.object()).await {
        Ok(found) => Ok(found.size == piece.bytes),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

impl Archive {
    /// The row of a segment that is on the disk no more: its bytes are copied from the archive that has
    /// them, unless they are here.
    pub(crate) async fn put_archived(
        &self,
        segment: &SegmentFile,
        receipt: &[u8],
    ) -> Result<File, ArchiveError> {
        let name = format!("log/{}", segment.name);
        let file: File = serde_json::from_slice(receipt)
            .map_err(|_| ArchiveError::Damaged(format!("{name}.archived is not as written")))?;
        for piece in &file.pieces {
            if has(&self.target, piece).await? {
                continue;
            }
            let Some(from) = &self.options.archived_in else {
                return Err(ArchiveError::Refused(format!(
                    "{name} is not on the disk any more, and not here: it is in the archive that it \
                     was put into; name that with --archive-url"
                )));
            };
            copy(from, &self.target, piece, &name).await?;
        }
        Ok(file)
    }
}

/// Copies an object from one place to another.
async fn copy(from: &Target, to: &Target, piece: &Piece, name: &str) -> Result<(), ArchiveError> {
    let object = piece.sum.object();
    let mut body = Object::open(from, piece);
    let damaged = |what: &str| format!("{name}: {object} {what} in the archive");
    let upload = to.store.put_multipart(&object).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES as usize);
    let copied: Result<(), ArchiveError> = async {
        while let Some(chunk) = body.next().await.map_err(|error| error.told(damaged))? {
            upload.wait_for_capacity(1).await?;
            upload.put(chunk);
        }
        Ok(())
    }
    .await;
    if let Err(error) = copied {
        if let Err(error) = upload.abort().await {
            tracing::warn!(%error, "an upload was left unfinished");
        }
        return Err(error);
    }
    upload.finish().await?;
    Ok(())
}
