//! Why there is no copy, or nothing restored from one.

use std::io;
use std::path::{Path, PathBuf};

use hydrant_core::control::ControlError;
use hydrant_storage::OpenError;

/// Why a point was not taken, or not restored. What was archived before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store refused, or did not answer.
    #[error("the archive: {0}")]
    Store(#[from] object_store::Error),
    /// The disk refused.
    #[error("cannot {action} {path}: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The control store could not be copied.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file went while it was copied, or became another. Try again.
    #[error("{0} was changed or removed while it was copied")]
    Changed(String),
    /// Another data directory writes to the archive. Nothing is changed there.
    #[error(
        "the newest point of the archive, {number}, is of another data directory ({writer}); give \
         this one an archive of its own, or restore that point and serve from there"
    )]
    Taken {
        /// Who wrote the point.
        writer: String,
        /// Its number.
        number: u64,
    },
    /// What the archive holds is not what was put there.
    #[error("{0}")]
    Damaged(String),
    /// The request makes no sense, and says what to do.
    #[error("{0}")]
    Refused(String),
}

impl ArchiveError {
    /// The error of the operating system's answer.
    pub(crate) fn disk(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Disk { action, path, source }
    }

    /// The error of a file that is read for a copy: one that is gone was removed since it was named.
    pub(crate) fn of_copied(name: &str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => {
                Self::Changed(name.to_owned())
            }
            _ => Self::Disk { action: "read", path: path.to_owned(), source },
        }
    }
}
