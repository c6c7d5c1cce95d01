//! Removing what a crash between two steps left: files that no row names, and parts of uploads that
//! are over.

use std::collections::{HashMap, HashSet};

use hydrant_core::control::{ControlError, Entry, Write};
use hydrant_core::limits::SCAN_ROWS_MAX;

use crate::SweepError;
use crate::files::{FileId, off_thread};
use crate::index::{Data, LAYOUTS, OBJECTS, ObjectRow, PARTS, PartRow, Segment};
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

        // A part is told to be over by its upload's row, which is gone for good once it is gone.
        let mut parts: Vec<(Write, PartRow)> = Vec::new();
        self.each(PARTS, |key, entry| {
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
        self.each(LAYOUTS, |key, entry| {
            let segments: Vec<Segment> = entry.json(key)?;
            for segment in segments {
                orphans.remove(&segment.file);
            }
            Ok(())
        })
        .await?;
        self.each(OBJECTS, |key, entry| {
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

    async fn each(
        &self,
        prefix: &str,
        mut visit: impl FnMut(&str, &Entry) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let mut after: Option<String> = None;
        loop {
            let rows = self.control.scan(prefix, after.as_deref(), SCAN_ROWS_MAX / 10).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, entry) in &rows {
                visit(key, entry)?;
            }
        }
    }
}
