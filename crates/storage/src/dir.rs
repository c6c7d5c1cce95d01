//! The data directory, and the lock that keeps it to one process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

use crate::error::OpenError;

/// A directory that this process alone uses, for as long as a clone of this value lives.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl DataDir {
    /// Makes the directory (mode 0700) if it is not there, and takes its lock. Fails, and says what
    /// to do, if it is a file, cannot be written, or is used by another process.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        make_dir(&path)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| OpenError::io("write", &lock_path, e))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: Arc::new(lock) }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked(lock_path)),
            Err(e) => Err(OpenError::io("lock", lock_path, e.into())),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a directory that only its owner may enter, and makes its name durable.
pub(crate) fn make_dir(path: &Path) -> Result<(), OpenError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(OpenError::NotADirectory(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(OpenError::io("open", path, e)),
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| OpenError::io("create", path, e))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_dir(parent).map_err(|e| OpenError::io("sync", parent, e))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_kept_to_one_and_to_its_owner() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let dir = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        assert!(matches!(refused, OpenError::Locked(_)), "{refused}");
        assert!(refused.to_string().contains("stop that one"), "{refused}");
        let clone = dir.clone();
        drop(dir);
        DataDir::open(&path).unwrap_err();
        drop(clone);
        DataDir::open(&path).unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("lock"))), (0o700, 0o600));
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = DataDir::open(file.path()).unwrap_err();
        assert!(matches!(refused, OpenError::NotADirectory(_)), "{refused}");
        let refused = DataDir::open(file.path().join("below")).unwrap_err();
        assert!(matches!(refused, OpenError::NotADirectory(_)), "{refused}");
    }
}
