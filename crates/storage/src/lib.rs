//! hydrant on one machine: the embedded log and the SQLite control store, in one data directory.
//!
//! ```text
//! lock               held by the process that uses the directory
//! hydrant.db         the control store (SQLite, WAL, synchronous=FULL)
//! log/N.seg, N.idx   the log's segments, and where in each the shards' frames are
//! log/F-N.cold, .cix what is still kept of the segments from F to N, and its index
//! log/*.archived     stands for a segment that is in the archive only
//! log/*.fetched      one of those, fetched to be read
//! log/damaged/        files that `hydrant log salvage` put aside, and the losses agreed to
//! log/spare-N.seg    segments to come: allocated, written once, or recycled
//! ```

mod control;
mod dir;
mod disk;
mod error;
mod log;
mod planted;

pub use control::{Control, ControlCopy, ControlReader, control_version, copy_control};
pub use dir::DataDir;
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{Fatal, OpenError, abort};
pub use log::archived::{ArchiveUse, SegmentArchive};
pub use log::copy::{ReadyLog, SegmentFile, ready_restored, segment_files};
pub use log::{
    Damage, Found, FoundSegment, FrameFound, Log, LogFiles, LogOptions, Loss, SHARD_ROWS, Salvaged,
    SegmentReport, SegmentState, Verdict, Verification, Wanted,
};
