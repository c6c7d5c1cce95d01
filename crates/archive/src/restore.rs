//! A data directory made of a point of an archive.
//!
//! Whatever is cut short can be repeated: files that are there and good are kept, and a server refuses the
//! directory until all are. The last step makes the directory one of its own: records to come are
//! numbered above any that the lost one may have acknowledged after the point, and no shard gets the
//! number of one that was made after it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hydrant_core::catalog::allocate_above;
use hydrant_core::{Clock, Random, Timestamp};
use hydrant_storage::{Control, DataDir, ready_restored};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::identity::{Identity, Point};
use crate::manifest::{File, Manifest, Sum};
use crate::object::Object;
use crate::point::{numbers, read};
use crate::{ArchiveError, Target, blocking};

/// The file that is in a directory for as long as it is being restored. No server may use it then.
pub const RESTORING: &str = "restoring.json";
/// Files that are fetched at a time.
const FILES_MAX: usize = 8;
/// Chunks of a file that wait for the disk.
const CHUNKS_WAITING: usize = 8;
/// Bytes read at a time of a file that is there already.
const LOOK_BYTES: usize = 1 << 20;
/// How far the clocks of two machines that keep the time may differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(10);

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The point's number.
    pub number: u64,
    /// Everything that was acknowledged before this is there.
    pub at: Timestamp,
    /// No record arrived later than this.
    pub last: Timestamp,
    /// Files, and their bytes.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Segments of the log.
    pub segments: usize,
    /// Whether the data directory's own key was in it.
    pub secrets: bool,
}

/// What a directory is being made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Restoring {
    #[serde(flatten)]
    point: Point,
}

/// Makes a data directory of the point `number`, or the newest. Refuses a directory that holds anything
/// but what an earlier call for the same point left. On return a server can start from it; after an
/// error the call can be repeated.
pub async fn restore(
    target: &Target,
    data_dir: &Path,
    number: Option<u64>,
    clock: &dyn Clock,
    random: &Random,
) -> Result<Restored, ArchiveError> {
    let before = look(data_dir)?;
    let (manifest, goes_on) = choose(target, number, before.as_ref(), data_dir).await?;
    let dir = DataDir::open(data_dir)?;
    let point = Point { writer: manifest.writer.clone(), number: manifest.number };
    if !goes_on {
        begin(data_dir, &Restoring { point: point.clone() })?;
    }
    clear(data_dir, &manifest)?;
    for folder in folders(&manifest) {
        make_folder(&data_dir.join(folder))?;
    }
    let fetches = manifest.files.iter().map(|file| fetch(target, data_dir, file));
    stream::iter(fetches).buffer_unordered(FILES_MAX).try_collect::<()>().await?;
    for folder in folders(&manifest).into_iter().chain([PathBuf::new()]) {
        sync_dir(&data_dir.join(folder))?;
    }
    let floor = floor(&manifest, clock.now());
    let log = ready_restored(&dir, floor, random)?;
    let control = Control::open(&dir)?;
    let allocated = allocate_above(control.as_ref(), log.highest_shard).await;
    control.close().await;
    allocated?;
    Identity::draw(random, Some(point)).keep(data_dir)?;
    let marker = data_dir.join(RESTORING);
    fs::remove_file(&marker).map_err(ArchiveError::disk("remove", &marker))?;
    sync_dir(data_dir)?;
    Ok(Restored {
        number: manifest.number,
        at: Timestamp::from_millis(manifest.at_ms),
        last: Timestamp::from_millis(manifest.last_ms),
        files: manifest.files.len(),
        bytes: manifest.files.iter().map(|f| f.bytes).sum(),
        segments: log.segments,
        secrets: manifest.files.iter().any(|f| f.path == "secrets.key"),
    })
}

/// The moment before which no record of the restored log may arrive. The lost one may have gone on
/// since the point: until now, at most, by a clock that was as far ahead as its records are. A number is
/// the record's arrival and a count, so what arrives later is numbered above.
fn floor(manifest: &Manifest, now: Timestamp) -> Timestamp {
    let at = Timestamp::from_millis(manifest.at_ms);
    let ahead = Timestamp::from_millis(manifest.last_ms).since(at);
    now.max(at).plus(ahead).plus(CLOCKS_DIFFER)
}

/// What an earlier call left in the directory. Refuses one that is used.
fn look(data_dir: &Path) -> Result<Option<Restoring>, ArchiveError> {
    let marker = data_dir.join(RESTORING);
    match fs::read(&marker) {
        Ok(text) => {
            return serde_json::from_slice(&text).map(Some).map_err(|_| {
                let dir = data_dir.display();
                ArchiveError::Refused(format!("{dir} holds half of a restore: empty it first"))
            });
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(ArchiveError::disk("read", &marker)(e)),
    }
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(ArchiveError::disk("open", data_dir)(e)),
    };
    for entry in entries {
        let name = entry.map_err(ArchiveError::disk("list", data_dir))?.file_name();
        // What a call leaves that ends before it has begun.
        if name != "lock" && name != format!("{RESTORING}.tmp").as_str() {
            return Err(ArchiveError::Refused(format!(
                "{} is not empty: there is {}; restore into a new directory",
                data_dir.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(None)
}

/// The point to restore, and whether that was begun.
async fn choose(
    target: &Target,
    number: Option<u64>,
    before: Option<&Restoring>,
    data_dir: &Path,
) -> Result<(Manifest, bool), ArchiveError> {
    let numbers = numbers(target).await?;
    let wanted = number.or(before.map(|b| b.point.number)).or(numbers.last().copied());
    let Some(wanted) = wanted else {
        return Err(ArchiveError::Refused("there is no point in this archive".to_owned()));
    };
    if !numbers.contains(&wanted) {
        let there: Vec<_> = numbers.iter().map(u64::to_string).collect();
        return Err(ArchiveError::Refused(format!(
            "there is no point {wanted} in this archive any more, but {}; restore one of them into \
             an empty directory",
            there.join(", ")
        )));
    }
    let manifest = read(target, wanted).await?;
    let is_it = |b: &Restoring| (&b.point.writer, b.point.number) == (&manifest.writer, wanted);
    match before {
        Some(before) if !is_it(before) => Err(ArchiveError::Refused(format!(
            "{} holds half of another point, {}: empty it first",
            data_dir.display(),
            before.point.number
        ))),
        before => Ok((manifest, before.is_some())),
    }
}

/// Marks the directory, durably, before anything else is in it.
fn begin(data_dir: &Path, restoring: &Restoring) -> Result<(), ArchiveError> {
    let marker = data_dir.join(RESTORING);
    let draft = data_dir.join(format!("{RESTORING}.tmp"));
    let write = || {
        let mut file = create(&draft)?;
        file.write_all(&serde_json::to_vec(restoring)?)?;
        file.sync_all()?;
        fs::rename(&draft, &marker)?;
        fs::File::open(data_dir)?.sync_all()
    };
    write().map_err(ArchiveError::disk("write", &marker))
}

fn create(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Removes from the directory what an earlier call made of files, and would be taken for one of them.
fn clear(data_dir: &Path, manifest: &Manifest) -> Result<(), ArchiveError> {
    let named: HashSet<&str> = manifest.files.iter().map(|f| f.path.as_str()).collect();
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ArchiveError::disk("remove", path)(e)),
        _ => Ok(()),
    };
    let log = data_dir.join("log");
    if let Ok(entries) = fs::read_dir(&log) {
        for entry in entries {
            let name = entry.map_err(ArchiveError::disk("list", &log))?.file_name();
            if !named.contains(format!("log/{}", name.to_string_lossy()).as_str()) {
                remove(&log.join(name))?;
            }
        }
    }
    for name in ["hydrant.db-wal", "hydrant.db-shm", "identity.json"] {
        remove(&data_dir.join(name))?;
    }
    Ok(())
}

/// The folders of the files, each behind the one it is in.
fn folders(manifest: &Manifest) -> Vec<PathBuf> {
    let parents = manifest.files.iter().flat_map(|f| Path::new(&f.path).ancestors().skip(1));
    let named = parents.filter(|p| !p.as_os_str().is_empty());
    let all: std::collections::BTreeSet<PathBuf> = named.map(Path::to_path_buf).collect();
    all.into_iter().collect()
}

fn make_folder(path: &Path) -> Result<(), ArchiveError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(ArchiveError::disk("make", path))
}

fn sync_dir(path: &Path) -> Result<(), ArchiveError> {
    let synced = fs::File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(ArchiveError::disk("sync", path))
}

/// Puts a file in place, whole or not at all. One that is there and good stays.
async fn fetch(target: &Target, data_dir: &Path, file: &File) -> Result<(), ArchiveError> {
    let path = data_dir.join(&file.path);
    let (there, wanted) = (path.clone(), file.clone());
    if blocking(move || Ok(is_good(&there, &wanted))).await? {
        return Ok(());
    }
    let draft = PathBuf::from(format!("{}.part", path.display()));
    let fetched = fetch_to(target, file, &draft, true).await;
    if fetched.is_err() {
        let _ = fs::remove_file(&draft);
        return fetched;
    }
    fs::rename(&draft, &path).map_err(ArchiveError::disk("write", &path))
}

/// Writes the bytes of a file to this path, synced if that is wanted. After an error, anything may be
/// there.
pub(crate) async fn fetch_to(
    target: &Target,
    file: &File,
    to: &Path,
    synced: bool,
) -> Result<(), ArchiveError> {
    let (chunks, waiting) = mpsc::channel::<Bytes>(CHUNKS_WAITING);
    let to = to.to_owned();
    let writing = tokio::task::spawn_blocking(move || write(&to, synced, waiting));
    let fetched = fetch_pieces(target, file, &chunks).await;
    drop(chunks);
    let written = writing
        .await
        .map_err(|e| ArchiveError::Store(object_store::Error::JoinError { source: e }))?;
    written.and(fetched)
}

/// Hands the bytes of the pieces on; fails if they are not what the manifest says.
async fn fetch_pieces(
    target: &Target,
    file: &File,
    chunks: &mpsc::Sender<Bytes>,
) -> Result<(), ArchiveError> {
    for piece in &file.pieces {
        let damaged = |what: &str| {
            format!(
                "{}: {} {what} in the archive; an older point may be whole: --point N",
                file.path, piece.sum
            )
        };
        let mut object = Object::open(target, piece);
        while let Some(chunk) = object.next().await.map_err(|error| error.told(damaged))? {
            if chunks.send(chunk).await.is_err() {
                // The disk failed, and says how.
                return Ok(());
            }
        }
    }
    Ok(())
}

fn write(to: &Path, synced: bool, mut chunks: mpsc::Receiver<Bytes>) -> Result<(), ArchiveError> {
    let mut written = || {
        let mut file = create(to)?;
        while let Some(chunk) = chunks.blocking_recv() {
            file.write_all(&chunk)?;
        }
        if synced { file.sync_all() } else { Ok(()) }
    };
    written().map_err(ArchiveError::disk("write", to))
}

/// Whether the file is there, with its own bytes, and durable.
fn is_good(path: &Path, file: &File) -> bool {
    let look = || -> io::Result<bool> {
        let mut there = fs::File::open(path)?;
        if there.metadata()?.len() != file.bytes {
            return Ok(false);
        }
        let mut buffer = vec![0; LOOK_BYTES];
        for piece in &file.pieces {
            let (mut hash, mut left) = (Sha256::new(), piece.bytes);
            while left > 0 {
                let part =
                    &mut buffer[..LOOK_BYTES.min(usize::try_from(left).unwrap_or(LOOK_BYTES))];
                io::Read::read_exact(&mut there, part)?;
                hash.update(&*part);
                left -= part.len() as u64;
            }
            if Sum::of(hash) != piece.sum {
                return Ok(false);
            }
        }
        // It may be in memory only.
        there.sync_all()?;
        Ok(true)
    };
    look().unwrap_or(false)
}
