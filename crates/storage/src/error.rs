//! Why a data directory cannot be used, in words that say what to do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Called, with the reason, when going on could lose acknowledged data: a failed sync is never
/// retried, because the kernel may call the second try a success without having written anything.
/// Does not return in production ([`abort`]); a test's hook may, and then nothing is acknowledged
/// any more.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// The [`Fatal`] of production: logs the reason and aborts the process.
pub fn abort() -> Fatal {
    Arc::new(|reason| {
        tracing::error!(reason, "stopping at once: going on could lose acknowledged data");
        std::process::abort();
    })
}

/// Why the data directory cannot be used. Nothing in it was changed, unless the text says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path is there and is something else.
    #[error("{0} is not a directory; name another data directory, or move that file away")]
    NotADirectory(PathBuf),
    /// The operating system refused.
    #[error(
        "cannot {action} {path}: {source}; give the user that runs hydrant read and write access \
         to the data directory, or name another one"
    )]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "the data directory is in use by another hydrant, which holds {0}; stop that one, or name \
         another data directory"
    )]
    Locked(PathBuf),
    /// No room for what has to be written before the first record.
    #[error("no room to {action} {path}: free some space on that disk, then start again")]
    Full {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// Some other failure of the disk.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// A newer hydrant wrote it, or it is not hydrant's.
    #[error(
        "{path} has format {found}, and this hydrant reads format {known}; start the version that \
         wrote it, or name another data directory"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What the file says it is.
        found: String,
        /// What this build can read.
        known: u32,
    },
    /// A file is not what was written, in a way that no crash of ours explains.
    #[error(
        "{path} is damaged at byte {at}: {what}. Acknowledged data may be lost, so hydrant does not \
         start. Restore the file from a backup. To go on without it: copy the whole data directory \
         aside, then: {way_on}"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes from its start.
        at: u64,
        /// What is wrong there.
        what: String,
        /// The way to go on, and what it costs.
        way_on: &'static str,
    },
    /// SQLite could not open or prepare the control store.
    #[error("{path}: {what}")]
    Control {
        /// The database.
        path: PathBuf,
        /// SQLite's words.
        what: String,
    },
}

impl OpenError {
    /// The variant that fits what the operating system answered.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { action, path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { action, path }
            }
            io::ErrorKind::NotADirectory => Self::NotADirectory(path),
            _ => Self::Io { action, path, source },
        }
    }
}
