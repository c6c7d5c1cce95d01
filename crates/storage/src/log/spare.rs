//! Files for segments to come: recycled, written full of zeros, or just allocated.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hydrant_core::Random;

use super::segment::{SegmentHeader, segment_name};
use super::shared::{Segment, Shared};
use crate::disk::{Aligned, BLOCK_BYTES_MAX, DiskFile};
use crate::planted::{Bug, planted};

/// Zeros written at a time into a file to come.
const ZEROS_BYTES: usize = 1 << 20;
/// What the names of spares start with; one that a start made of a segment nothing was written to has
/// that one's number instead.
const NEW_SPARE: &str = "spare-new-";

/// Why there is no new segment.
#[derive(Debug, thiserror::Error)]
pub(super) enum NewSegmentError {
    /// Nothing is lost; it may work later.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is on the disk is unknown.
    #[error("syncing a new segment of the log: {0}")]
    Sync(io::Error),
}

/// A name that no spare has had since the start, and none that is here has. The writer renames a
/// spare it has taken while the upkeep may make the next one: under the same name that one would
/// empty the segment.
pub(super) fn spare_name(shared: &Shared) -> String {
    if planted(Bug::SpareTwice) {
        return format!("{NEW_SPARE}0.seg");
    }
    format!("{NEW_SPARE}{}.seg", shared.spares_made.fetch_add(1, Ordering::Relaxed))
}

/// The number to give to the next new spare, beside those that were found.
pub(super) fn first_spare_no(found: &[String]) -> u64 {
    let number = |name: &String| -> Option<u64> {
        name.strip_prefix(NEW_SPARE)?.strip_suffix(".seg")?.parse().ok()
    };
    found.iter().filter_map(number).max().map_or(0, |no| no.saturating_add(1))
}

/// Makes sure that there is a spare file, if need be by making one, while the disk keeps
/// `free_bytes_min` of free space. Returns whether it made one: that has room and nothing written.
pub(super) fn prepare_spare(shared: &Shared, free_bytes_min: u64) -> Result<bool, NewSegmentError> {
    if !shared.spares.lock().is_empty() {
        return Ok(false);
    }
    let bytes = shared.options.segment_bytes;
    if shared.dir.free_bytes()? < bytes.saturating_add(free_bytes_min) {
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    }
    let name = spare_name(shared);
    let path = shared.dir.file(&name);
    let file = shared.dir.disk.create(&path)?;
    if let Err(e) = file.allocate(bytes) {
        let _ = shared.dir.disk.remove(&path);
        return Err(e.into());
    }
    file.sync().map_err(NewSegmentError::Sync)?;
    shared.spares.lock().push(name);
    Ok(true)
}

/// Makes a spare into the segment `no`, durable on return. A spare that fails is given up.
pub(super) fn new_segment(
    shared: &Shared,
    random: &Random,
    no: u64,
    floor_ms: u64,
) -> Result<(Arc<Segment>, Arc<dyn DiskFile>), NewSegmentError> {
    let Some(spare) = shared.spares.lock().pop() else {
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    };
    let created_ms = shared.clock.now().as_millis();
    let salt = random.bytes();
    let header = SegmentHeader { no, salt, created_ms, floor_ms, stands_for: None };
    let make = || -> Result<_, NewSegmentError> {
        let file = shared.dir.disk.open_to_append(&shared.dir.file(&spare))?;
        file.write_at(&[IoSlice::new(&header.encode())], 0)?;
        file.sync().map_err(NewSegmentError::Sync)?;
        shared.dir.rename(&spare, &segment_name(no))?;
        if !planted(Bug::SkipDirSync) {
            shared.dir.sync().map_err(NewSegmentError::Sync)?;
        }
        Ok(file)
    };
    let made = make();
    if made.is_err() {
        let _ = shared.dir.disk.remove(&shared.dir.file(&spare));
    }
    Ok((Arc::new(Segment::empty(header)), made?))
}

/// Writes a file full of zeros, so that a sync of a segment later on has no metadata to write.
pub(super) fn prewrite_spare(shared: &Shared) -> io::Result<()> {
    if !shared.spares.lock().is_empty() {
        return Ok(());
    }
    let bytes = shared.options.segment_bytes;
    if shared.dir.free_bytes()? < bytes.saturating_add(shared.options.free_bytes_min) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let name = spare_name(shared);
    let path = shared.dir.file(&name);
    let fill = || {
        shared.dir.disk.create(&path)?.allocate(bytes)?;
        // Zeros in the page cache would be there for nobody.
        let file = shared.dir.disk.open_to_append(&path)?;
        let mut memory = Aligned::default();
        let zeros = memory.room(ZEROS_BYTES, BLOCK_BYTES_MAX);
        let mut at = 0;
        while at < bytes {
            let len = zeros.len().min((bytes - at) as usize);
            file.write_at(&[IoSlice::new(&zeros[..len])], at)?;
            at += len as u64;
        }
        file.sync()
    };
    let filled = fill();
    match filled {
        Ok(()) => shared.spares.lock().push(name),
        Err(_) => shared.dir.disk.remove(&path)?,
    }
    filled
}
