//! Data files: immutable, named by chance and never by key, with a checksum of every block.
//!
//! ```text
//! data/<2 hex>/<30 hex>:  bytes of the object | CRC-32C of each 64 KiB of them, little-endian
//! ```
//!
//! A file is written, synced and its directory synced before a row may name it; a file that no row
//! names is not there. What the crash between the two leaves is swept.

mod read;
mod write;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use hydrant_core::Random;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

pub(crate) use self::read::{ReadError, Reader};
pub(crate) use self::write::{Draft, Written};

/// Bytes that one checksum covers.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;
/// Bytes read or written at a time: what one transfer holds in memory, twice.
pub(crate) const TRANSFER_BYTES: usize = 1 << 20;

/// Name of a data file or of a layout: 128 bits by chance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct FileId([u8; 16]);

impl FileId {
    pub(crate) fn draw(random: &Random) -> Self {
        Self(random.bytes())
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a data file")]
pub(crate) struct InvalidFileId;

impl FromStr for FileId {
    type Err = InvalidFileId;

    fn from_str(text: &str) -> Result<Self, InvalidFileId> {
        let mut bytes = [0; 16];
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        let valid = lower && hex::decode_to_slice(text, &mut bytes).is_ok();
        valid.then_some(Self(bytes)).ok_or(InvalidFileId)
    }
}

impl TryFrom<String> for FileId {
    type Error = InvalidFileId;

    fn try_from(text: String) -> Result<Self, InvalidFileId> {
        text.parse()
    }
}

impl From<FileId> for String {
    fn from(id: FileId) -> Self {
        id.to_string()
    }
}

/// Called when a sync fails: the kernel may have dropped what was to be written, so nothing that
/// process says afterwards can be trusted. In production it does not return.
pub type OnSyncError = Arc<dyn Fn(&Path, &io::Error) + Send + Sync>;

/// Syncs a file or directory; tests make it fail.
pub(crate) type SyncFile = fn(&File) -> io::Result<()>;

/// The directory of data files.
pub(crate) struct Files {
    root: PathBuf,
    sync: SyncFile,
    on_sync_error: OnSyncError,
    use_of: Mutex<Use>,
}

#[derive(Default)]
struct Use {
    /// Files that are being written, or whose commit is under way: no row names them yet.
    pending: HashSet<FileId>,
    /// Layouts that somebody is reading the files of.
    reading: HashMap<FileId, usize>,
    /// Files to remove when the last reader of their layout is done.
    doomed: HashMap<FileId, Vec<FileId>>,
}

impl Files {
    /// Opens the directory, making it and its 256 subdirectories (mode 0700) if need be.
    pub(crate) fn open(
        root: PathBuf,
        sync: SyncFile,
        on_sync_error: OnSyncError,
    ) -> io::Result<Self> {
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        let is_new = !root.exists();
        make(&root)?;
        for n in 0..=u8::MAX {
            make(&root.join(hex::encode([n])))?;
        }
        let files = Self { root, sync, on_sync_error, use_of: Mutex::default() };
        files.sync_dir(&files.root)?;
        // The directory above too, in which the parent's own name is.
        for above in files.root.ancestors().skip(1).take(if is_new { 2 } else { 0 }) {
            let named = !above.as_os_str().is_empty();
            files.sync_dir(if named { above } else { Path::new(".") })?;
        }
        Ok(files)
    }

    fn path(&self, id: FileId) -> PathBuf {
        let name = id.to_string();
        self.root.join(&name[..2]).join(&name[2..])
    }

    fn open_to_read(&self, id: FileId) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(self.path(id))
    }

    fn create(&self, id: FileId) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(self.path(id))
    }

    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        (self.sync)(file).inspect_err(|error| (self.on_sync_error)(path, error))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(&File::open(path)?, path)
    }

    /// Removes files that no row names any more. A file that cannot be removed is left to the sweep.
    pub(crate) fn remove(&self, ids: &[FileId]) {
        for id in ids {
            let path = self.path(*id);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %id, %error, "a data file could not be removed");
            }
        }
    }

    /// Removes the files of a layout whose row is gone, now or when its last reader is done.
    pub(crate) fn retire(&self, layout: FileId, ids: Vec<FileId>) {
        {
            let mut use_of = self.use_of.lock();
            if use_of.reading.contains_key(&layout) {
                use_of.doomed.insert(layout, ids);
                return;
            }
        }
        self.remove(&ids);
    }

    /// Keeps the files of a layout while the lease lives. To be taken before its row is read.
    pub(crate) fn lease(self: &Arc<Self>, layout: FileId) -> Lease {
        *self.use_of.lock().reading.entry(layout).or_default() += 1;
        Lease { files: Arc::clone(self), layout }
    }

    /// Marks a file as being written.
    pub(crate) fn pend(self: &Arc<Self>, random: &Random) -> Pending {
        let id = FileId::draw(random);
        self.use_of.lock().pending.insert(id);
        Pending { files: Arc::clone(self), id, fate: Fate::Remove }
    }

    /// Every file that is there and not being written. Blocks.
    pub(crate) fn settled(&self) -> io::Result<Vec<FileId>> {
        let mut found = Vec::new();
        for n in 0..=u8::MAX {
            let first = hex::encode([n]);
            for entry in fs::read_dir(self.root.join(&first))? {
                let name = entry?.file_name();
                let id = name.to_str().and_then(|rest| format!("{first}{rest}").parse().ok());
                found.extend::<Option<FileId>>(id);
            }
        }
        // Asked after listing: a file that was listed is pending, or its commit is over.
        let use_of = self.use_of.lock();
        let doomed: HashSet<&FileId> = use_of.doomed.values().flatten().collect();
        found.retain(|id| !use_of.pending.contains(id) && !doomed.contains(id));
        Ok(found)
    }
}

/// See [`Files::lease`].
pub(crate) struct Lease {
    files: Arc<Files>,
    layout: FileId,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let doomed = {
            let mut use_of = self.files.use_of.lock();
            let last = use_of.reading.get_mut(&self.layout).is_none_or(|readers| {
                *readers -= 1;
                *readers == 0
            });
            if !last {
                return;
            }
            use_of.reading.remove(&self.layout);
            use_of.doomed.remove(&self.layout)
        };
        if let Some(ids) = doomed {
            off_thread(Arc::clone(&self.files), move |files| files.remove(&ids));
        }
    }
}

enum Fate {
    Remove,
    Keep,
    Unknown,
}

/// A file that no row names yet. Dropped as it is, the file is removed.
pub(crate) struct Pending {
    files: Arc<Files>,
    id: FileId,
    fate: Fate,
}

impl Pending {
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// A row names the file now.
    pub(crate) fn keep(mut self) {
        self.fate = Fate::Keep;
    }

    /// A commit that names the file begins. Until its answer is here, whether a row names the file
    /// is not known: whatever ends the wait, it stays, and out of the sweep until a restart.
    pub(crate) fn commit_begins(&mut self) {
        self.fate = Fate::Unknown;
    }

    /// The commit was refused: no row names the file.
    pub(crate) fn commit_refused(&mut self) {
        self.fate = Fate::Remove;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let id = self.id;
        match self.fate {
            Fate::Unknown => {}
            Fate::Keep => {
                self.files.use_of.lock().pending.remove(&id);
            }
            Fate::Remove => off_thread(Arc::clone(&self.files), move |files| {
                files.remove(&[id]);
                files.use_of.lock().pending.remove(&id);
            }),
        }
    }
}

/// Removing a large file takes a while: not on a thread that serves others.
pub(crate) fn off_thread(files: Arc<Files>, work: impl FnOnce(&Files) + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || work(&files))),
        Err(_) => work(&files),
    }
}

#[cfg(test)]
mod tests;
