//! Copies of a data directory that are of one moment: an archive that a server keeps up while it runs,
//! and backups.
//!
//! ```text
//! points/<number>.json   a manifest: the files that a data directory had, and what holds their bytes
//! data/<2>/<62 hex>      bytes, under the name of their SHA-256
//! ```
//!
//! **What a point is.** Every file of a data directory but two is written once, before a row of the control
//! store names it: objects of the bucket, files of tables, complete segments of the log. The two are
//! the control store itself, and the segment that is being written, to which frames are added. A point is
//! made in this order:
//!
//! 1. the control store is copied as of one commit;
//! 2. the files that the rows *of the copy* name are put, and the log, up to its last good frame;
//! 3. the manifest is put, under a number that nobody has had.
//!
//! **Why the control store first.** A row names a place in the log (a checkpoint, where a shard was sealed,
//! a source's cut) only once the log is durable up to there, so a log that is copied later has all of it.
//! The other way round, rows would name records that the copy does not have, and be believed. What the log
//! has beyond the rows is what a crash leaves at any time, and is met the same way: what was delivered and
//! not yet checkpointed is delivered again under the same name, what a source wrote beyond its cut is
//! recognized. Only shards made in between have records and no rows: their numbers are not given again.
//!
//! **What may go meanwhile.** Objects are overwritten, segments expire. A file that is gone, or is not
//! what it was, is noticed, and the point is begun anew; what was put before need not be put again. A
//! stream that is deleted while a point is made may be in it without its records.
//!
//! **What is only here.** A server may let go of the file of a segment that its newest point names. Each
//! later point names it as well, for as long as the directory has the segment's index, so that it is
//! removed here after it has expired there.
//!
//! **Who writes.** The number of a point is claimed by a put that fails if the object exists. A writer whose
//! newest point is not its own, or the one it was restored from, stops: a server that was believed lost
//! cannot remove what its successor needs. Nothing is removed but right after a claim.

mod error;
mod identity;
mod manifest;
mod object;
mod point;
mod prune;
mod restore;
mod segments;
mod target;
#[cfg(test)]
mod tests;
mod upload;
mod worker;

use std::sync::Arc;

use futures::future::BoxFuture;
use hydrant_core::control::ControlError;
use hydrant_storage::ControlCopy;

pub use error::ArchiveError;
pub use point::{Archive, Keep, Options, Taken, Took};
pub use restore::{RESTORING, Restored, restore};
pub use segments::Segments;
pub use target::{StoreSettings, Target};
pub use worker::run;

/// Tells which files the rows of a control store name, from the data directory.
pub type NamedFiles = Arc<
    dyn Fn(Arc<ControlCopy>) -> BoxFuture<'static, Result<Vec<String>, ControlError>> + Send + Sync,
>;

/// Runs what waits for the disk off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    let ended = |e: tokio::task::JoinError| {
        ArchiveError::Store(object_store::Error::JoinError { source: e })
    };
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}
