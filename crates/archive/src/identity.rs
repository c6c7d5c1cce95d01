//! Which data directory this is, so that two do not write to one archive.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hydrant_core::Random;
use serde::{Deserialize, Serialize};

use crate::ArchiveError;
use crate::manifest::Manifest;

/// The file in the data directory.
const FILE: &str = "identity.json";

/// A point of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) writer: String,
    pub(crate) number: u64,
}

/// A data directory's name for itself, drawn once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) id: String,
    /// What it was restored from: there, and only there, it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restored: Option<Point>,
}

impl Identity {
    pub(crate) fn draw(random: &Random, restored: Option<Point>) -> Self {
        Self { id: hex::encode(random.bytes::<16>()), restored }
    }

    /// The identity of a directory, drawn if it has none.
    pub(crate) fn of(dir: &Path, random: &Random) -> Result<Self, ArchiveError> {
        let path = dir.join(FILE);
        let read = || fs::read(&path);
        let bytes = match read() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Self::draw(random, None).keep(dir)?;
                read()
            }
            read => read,
        };
        let bytes = bytes.map_err(ArchiveError::disk("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|_| {
            let path = path.display();
            let what = format!("{path} is not as written; remove it, and archive to a new place");
            ArchiveError::Damaged(what)
        })
    }

    /// Writes it down, unless another did before. Durable on return.
    pub(crate) fn keep(&self, dir: &Path) -> Result<(), ArchiveError> {
        let path = dir.join(FILE);
        let draft = dir.join(format!("{FILE}.{}.tmp", std::process::id()));
        let write = || {
            let text = serde_json::to_vec(self)?;
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            match fs::hard_link(&draft, &path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            fs::remove_file(&draft)?;
            fs::File::open(dir)?.sync_all()
        };
        write().map_err(ArchiveError::disk("write", &path))
    }

    /// Whether this directory goes on where the archive's newest point ends.
    pub(crate) fn may_follow(&self, newest: &Manifest) -> bool {
        let is_it = |p: &Point| p.writer == newest.writer && p.number == newest.number;
        newest.writer == self.id || self.restored.as_ref().is_some_and(is_it)
    }
}
