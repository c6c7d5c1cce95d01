//! Removing what a crash between two steps left: files that no row names, and parts of uploads that
//! are over.

use std::collections::{HashMap, HashSet};

use hydrant_core::control::{ControlError, Write};
use hydrant_core::limits::SCAN_ROWS_MAX;

use crate::SweepError;
use crate::files::{FileId, off_thread};
use crate::index::{Data, LAYOUTS, OBJECTS, ObjectRow, PARTS, PartRow, Segment};
use crate::named::each;
use crate::store::Store;

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects in all buckets.
    pub objects: u64,
    /// Files that nothing named, now removed.
    pub files_removed: u64,
    /// Parts of uploads that were over, now removed.
    pub parts_removed: u64,
}

impl Store {
    /// Files are listed first and rows read after, and rows in the order in which a file's name
    /// moves between them (part, layout): a file that was listed is named by a row that is read, or
    /// by none. Memory: 40 bytes a file.
    pub(crate) async fn sweep(&self) -> Result<Swept, SweepError> {
        let files = std::sync::Arc::clone(&self.files);
        let listed = tokio::task::spawn_blocking(move || files.settled()).await;
        let listed = listed.map_err(std::io::Error::other)??;
        let mut orphans: HashSet<FileId> = listed.into_iter().collect();
        let mut swept = Swept::default();

        let control = self.control.as_ref();
        // A part is told to be over by its upload's row, which is gone for good once it is gone.
        let mut parts: Vec<(Write, PartRow)> = Vec::new();
        each(control, PARTS, |key, entry| {
            parts.push((Write::delete(key, entry.version), entry.json(key)?));
            Ok(())
        })
        .await?;
        let mut alive: HashMap<String, bool> = HashMap::new();
        let mut over: Vec<Write> = Vec::new();
        for (delete, part) in parts {
            let is_alive = match alive.get(&part.upload) {
                Some(is_alive) => *is_alive,
                None => {
                    let is_alive = self.control.get(&part.upload).await?.is_some();
                    alive.insert(part.upload, is_alive);
                    is_alive
                }
            };
            match is_alive {
                true => {
                    orphans.remove(&part.file);
                }
                false => over.push(delete),
            }
        }
        each(control, LAYOUTS, |key, entry| {
            let segments: Vec<Segment> = entry.json(key)?;
            for segment in segments {
                orphans.remove(&segment.file);
            }
            Ok(())
        })
        .await?;
        each(control, OBJECTS, |key, entry| {
            let row: ObjectRow = entry.json(key)?;
            swept.objects += 1;
            if let Data::File(file) = row.data {
                orphans.remove(&file);
            }
            Ok(())
        })
        .await?;

        for writes in over.chunks(SCAN_ROWS_MAX / 10) {
            // Somebody else may be clearing the same parts.
            match self.control.commit(writes.to_vec()).await {
                Ok(_) => swept.parts_removed += writes.len() as u64,
                Err(ControlError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        swept.files_removed = orphans.len() as u64;
        let orphans: Vec<FileId> = orphans.into_iter().collect();
        off_thread(std::sync::Arc::clone(&self.files), move |files| files.remove(&orphans));
        metrics::gauge!("hydrant_bucket_objects").set(swept.objects as f64);
        Ok(swept)
    }
}
