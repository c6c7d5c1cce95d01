//! Taking a point: the control store, then everything else, then the manifest.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use hydrant_core::control::ControlError;
use hydrant_core::{Clock, Random, Timestamp};
use hydrant_storage::{SegmentFile, control_version, copy_control, segment_files};
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use tokio::sync::Mutex;

use crate::identity::Identity;
use crate::manifest::{File, MANIFEST_BYTES_MAX, Manifest, Piece};
use crate::prune::Kept;
use crate::segments::Settled;
use crate::upload::Reading;
use crate::{ArchiveError, NamedFiles, Target, blocking};

/// Files that are put at a time.
const FILES_MAX: usize = 4;
/// How often a point is begun anew because something it needs is gone.
const TRIES_MAX: usize = 8;
/// Room that the copy of the control store leaves on the disk.
const ROOM_BYTES_MIN: u64 = 256 << 20;
/// The database of a data directory.
const DATABASE: &str = "hydrant.db";
/// The data directory's own key.
const SECRETS: &str = "secrets.key";

/// How long points are kept beside the newest one.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Most points, the newest one counted.
    pub points: usize,
    /// Points older than this go as well, but for the newest one.
    pub age: Option<std::time::Duration>,
}

/// What is copied, and how.
#[derive(Clone)]
pub struct Options {
    /// The data directory.
    pub data_dir: PathBuf,
    /// A directory that nobody else uses meanwhile; the copy of the control store is in it for as
    /// long as it is put.
    pub scratch: PathBuf,
    /// The files that rows name.
    pub named: NamedFiles,
    /// Whether the directory's own key goes along, which the passwords of secrets are encrypted with.
    pub secrets: bool,
    /// Which older points stay.
    pub keep: Keep,
    /// Where segments are that the directory itself does not have any more, if that is elsewhere.
    pub archived_in: Option<Target>,
}

/// A point that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub number: u64,
    /// Everything acknowledged before this is in it.
    pub at: Timestamp,
    /// Files in it, and their bytes.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// What came of looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// A new point.
    Point(Taken),
    /// Nothing was written since the newest one, which is this.
    Unchanged(Taken),
}

/// An archive that a data directory is copied to, point by point.
pub struct Archive {
    pub(crate) target: Target,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    random: Arc<Random>,
    /// What is known of the archive; none until it was looked at.
    state: Mutex<Option<State>>,
    /// The segments that the newest point names.
    pub(crate) settled: Settled,
}

/// What this process knows of the archive.
struct State {
    identity: Identity,
    newest: Option<Manifest>,
    kept: Kept,
}

impl Archive {
    /// An archive at `target`. Nothing is read before the first point.
    pub fn new(
        target: Target,
        options: Options,
        clock: Arc<dyn Clock>,
        random: Arc<Random>,
    ) -> Self {
        let (state, settled) = (Mutex::new(None), Settled::default());
        Self { target, options, clock, random, state, settled }
    }

    /// Takes a point, if anything was written since the newest one. What was acknowledged before the
    /// call is in it, durable on return. May be repeated after an error; then what was put already
    /// is not put again. Memory: 128 MiB for what is on its way, and about 400 bytes a file.
    pub async fn point(&self) -> Result<Took, ArchiveError> {
        let mut held = self.state.lock().await;
        for _ in 1..TRIES_MAX {
            match self.try_point(&mut held).await {
                Err(ArchiveError::Changed(what)) => {
                    tracing::debug!(what, "a point is begun anew");
                }
                Err(error) => {
                    // Whatever is there now, it is looked at again.
                    *held = None;
                    return Err(error);
                }
                done => return done,
            }
        }
        let last = self.try_point(&mut held).await;
        if last.is_err() {
            *held = None;
        }
        last
    }

    async fn try_point(&self, held: &mut Option<State>) -> Result<Took, ArchiveError> {
        let state = match held.take() {
            Some(state) => held.insert(state),
            None => held.insert(self.look().await?),
        };
        let at = self.clock.now();
        if let Some(newest) = &state.newest
            && self.is_unchanged(newest).await?
        {
            let taken = taken(newest);
            if !state.kept.is_due(self.options.keep, at) {
                return Ok(Took::Unchanged(taken));
            }
            // What goes, goes after a claim only.
            let mut again = newest.clone();
            (again.number, again.at_ms) = (newest.number + 1, at.as_millis());
            self.claim(held, again).await?;
            return Ok(Took::Unchanged(taken));
        }
        let number = state.newest.as_ref().map_or(1, |newest| newest.number + 1);
        let mut next = Manifest::new(number, String::new(), at.as_millis());
        let copy = Scratch(self.options.scratch.join("control.db"));
        let names = self.copy_control(&copy, &mut next).await?;
        let known = Known::of(state.newest.as_ref());
        next.files.push(self.put_file(&copy.0, DATABASE).await?);
        self.put_log(&known, &mut next).await?;
        let files = stream::iter(names).map(|name| self.put_named(name, &known));
        let files: Vec<File> = files.buffer_unordered(FILES_MAX).try_collect().await?;
        next.files.extend(files);
        next.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let taken = taken(&next);
        self.claim(held, next).await?;
        Ok(Took::Point(taken))
    }

    /// Reads what the archive holds, and makes sure that this directory may go on there.
    async fn look(&self) -> Result<State, ArchiveError> {
        let (dir, random) = (self.options.data_dir.clone(), Arc::clone(&self.random));
        let identity = blocking(move || Identity::of(&dir, &random)).await?;
        let numbers = numbers(&self.target).await?;
        let (mut kept, mut newest) = (Kept::default(), None);
        for number in numbers {
            let manifest = match read(&self.target, number).await {
                Ok(manifest) => manifest,
                // An older one is only there to be removed.
                Err(ArchiveError::Damaged(what)) => {
                    tracing::warn!(what, "a point of the archive cannot be read");
                    kept.add_unreadable(number);
                    newest = None;
                    continue;
                }
                Err(e) => return Err(e),
            };
            kept.add(&manifest);
            newest = Some(manifest);
        }
        if let Some(last) = kept.newest().filter(|_| newest.is_none()) {
            // Going on would let go of what only that one names.
            let what = format!("point {last}, the newest, cannot be read: archive to a new place");
            return Err(ArchiveError::Damaged(what));
        }
        if let Some(newest) = newest.as_ref().filter(|newest| !identity.may_follow(newest)) {
            let writer = newest.writer.clone();
            self.settled.set(None);
            return Err(ArchiveError::Taken { writer, number: newest.number });
        }
        // What another one claimed may still be removed by that one.
        self.settled.set(newest.as_ref().filter(|newest| newest.writer == identity.id));
        Ok(State { identity, newest, kept })
    }

    async fn is_unchanged(&self, newest: &Manifest) -> Result<bool, ArchiveError> {
        let dir = self.options.data_dir.clone();
        let version = newest.control_version;
        let same = blocking(move || Ok(control_version(&dir)? == version)).await?;
        if !same {
            return Ok(false);
        }
        let known = Known::of(Some(newest));
        let segments = self.segments().await?;
        let has = |s: &SegmentFile| {
            let file = known.of_life(&format!("log/{}", s.name), &s.life);
            file.is_some_and(|f| f.bytes == s.bytes && f.complete == s.index.is_some())
        };
        let is_segment = |f: &&File| f.path.ends_with(".seg") || f.path.ends_with(".cold");
        let count = newest.files.iter().filter(is_segment).count();
        let has_secrets = newest.files.iter().any(|f| f.path == SECRETS);
        Ok(segments.len() == count
            && segments.iter().all(has)
            && (has_secrets || !self.options.secrets))
    }

    async fn segments(&self) -> Result<Vec<SegmentFile>, ArchiveError> {
        let dir = self.options.data_dir.clone();
        blocking(move || match segment_files(&dir) {
            Ok(segments) => Ok(segments),
            Err(e) => Err(ArchiveError::of_copied("log", &dir.join("log"), e)),
        })
        .await
    }

    /// Copies the control store, and returns what files its rows name.
    async fn copy_control(
        &self,
        copy: &Scratch,
        next: &mut Manifest,
    ) -> Result<Vec<String>, ArchiveError> {
        let (dir, to) = (self.options.data_dir.clone(), copy.0.clone());
        let rows = blocking(move || {
            let _ = fs::remove_file(&to);
            check_room(&dir.join(DATABASE), &to)?;
            Ok(Arc::new(copy_control(&dir, &to)?))
        });
        let rows = rows.await?;
        next.control_version = rows.version()?;
        let mut names = (self.options.named)(rows).await?;
        if self.options.secrets && self.options.data_dir.join(SECRETS).exists() {
            names.push(SECRETS.to_owned());
        }
        Ok(names)
    }

    async fn put_file(&self, path: &Path, name: &str) -> Result<File, ArchiveError> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let own = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let file = Reading::open(dir, own).await?;
        let bytes = file.size().await?;
        let pieces = file.put_all(&self.target.store, 0, bytes).await?;
        Ok(File { path: name.to_owned(), bytes, life: None, complete: false, pieces })
    }

    /// A file that is never changed: known by its name.
    async fn put_named(&self, name: String, known: &Known<'_>) -> Result<File, ArchiveError> {
        if name != SECRETS
            && let Some(file) = known.files.get(name.as_str())
        {
            return Ok((*file).clone());
        }
        self.put_file(&self.options.data_dir.join(&name), &name).await
    }

    async fn put_log(&self, known: &Known<'_>, next: &mut Manifest) -> Result<(), ArchiveError> {
        let segments = self.segments().await?;
        let behind = segments.iter().filter(|s| s.index.is_some() && !known.has_whole(s)).count();
        metrics::gauge!("hydrant_archive_behind_segments").set(behind as f64);
        let mut left = behind;
        for segment in &segments {
            next.last_ms = next.last_ms.max(segment.last_ms);
            let was_known = known.has_whole(segment);
            next.files.extend(self.put_segment(segment, known).await?);
            if segment.index.is_some() && !was_known {
                left = left.saturating_sub(1);
                metrics::counter!("hydrant_archive_uploaded_segments_total").increment(1);
                metrics::gauge!("hydrant_archive_behind_segments").set(left as f64);
            }
        }
        Ok(())
    }

    /// A segment and, if it is complete, its index, which remembers where idle shards ended.
    async fn put_segment(
        &self,
        segment: &SegmentFile,
        known: &Known<'_>,
    ) -> Result<Vec<File>, ArchiveError> {
        let path = format!("log/{}", segment.name);
        let before = known.of_life(&path, &segment.life);
        let index = segment.index.as_ref().map(|(name, _)| format!("log/{name}"));
        if known.has_whole(segment) {
            let index = index.and_then(|name| known.of_life(&name, &segment.life));
            return Ok(before.into_iter().chain(index).cloned().collect());
        }
        if let Some(receipt) = &segment.receipt {
            let mut files = vec![self.put_archived(segment, receipt).await?];
            files.extend(self.put_index(segment, index).await?);
            return Ok(files);
        }
        let file = Reading::open(&self.options.data_dir, &path).await?;
        let mut pieces = self.still_good(&file, before, segment.bytes).await?;
        let mut from: u64 = pieces.iter().map(|p| p.bytes).sum();
        // Small pieces become one with what comes after them, so that there are few in the end, and
        // each byte is put a few times at most.
        while let Some(last) = pieces.last()
            && from < segment.bytes
            && last.bytes <= 2 * (segment.bytes - from)
        {
            from -= last.bytes;
            pieces.pop();
        }
        pieces.extend(file.put_all(&self.target.store, from, segment.bytes).await?);
        let mut files = vec![File {
            path: path.clone(),
            bytes: segment.bytes,
            life: Some(segment.life.clone()),
            complete: index.is_some(),
            pieces,
        }];
        files.extend(self.put_index(segment, index).await?);
        let (dir, segment) = (self.options.data_dir.clone(), segment.clone());
        blocking(move || match segment.is_still_in(&dir) {
            true => Ok(files),
            // It was freed, and its file may have been written anew.
            false => Err(ArchiveError::Changed(path)),
        })
        .await
    }

    async fn put_index(
        &self,
        segment: &SegmentFile,
        index: Option<String>,
    ) -> Result<Option<File>, ArchiveError> {
        let Some(name) = index else { return Ok(None) };
        let file = self.put_file(&self.options.data_dir.join(&name), &name).await?;
        Ok(Some(File { life: Some(segment.life.clone()), ..file }))
    }

    /// The pieces of a segment that it still begins with: a crash, or a full disk, may have taken
    /// back frames that nobody was told of.
    async fn still_good(
        &self,
        file: &Reading,
        before: Option<&File>,
        bytes: u64,
    ) -> Result<Vec<Piece>, ArchiveError> {
        let (mut good, mut at) = (Vec::new(), 0);
        for piece in before.map_or(&[][..], |f| &f.pieces) {
            let fits = at + piece.bytes <= bytes;
            if !fits || file.sum(at, piece.bytes).await? != piece.sum {
                break;
            }
            at += piece.bytes;
            good.push(*piece);
        }
        Ok(good)
    }

    /// Puts the manifest, unless another was faster, and lets go of what is not kept.
    async fn claim(
        &self,
        held: &mut Option<State>,
        mut next: Manifest,
    ) -> Result<(), ArchiveError> {
        let Some(mut state) = held.take() else {
            return Err(ArchiveError::Changed("the archive".to_owned()));
        };
        next.writer.clone_from(&state.identity.id);
        let body = next.encode()?;
        self.target.sync().await?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let object = Manifest::object(next.number);
        match self.target.store.put_opts(&object, body.into(), options).await {
            Ok(_) => {}
            // Ours, if the answer was lost; another's: looking again tells.
            Err(object_store::Error::AlreadyExists { .. }) => {
                // Another's points may name less than ours.
                self.settled.set(None);
                return Err(ArchiveError::Changed(format!("point {}", next.number)));
            }
            Err(e) => return Err(e.into()),
        }
        self.target.sync().await?;
        state.kept.add(&next);
        let (keep, now) = (self.options.keep, Timestamp::from_millis(next.at_ms));
        state.kept.prune(&self.target, keep, now).await;
        self.settled.set(Some(&next));
        metrics::counter!("hydrant_archive_points_total").increment(1);
        state.newest = Some(next);
        *held = Some(state);
        Ok(())
    }
}

/// Refuses to copy a database where that would leave the server without room.
fn check_room(database: &Path, to: &Path) -> Result<(), ArchiveError> {
    let size = fs::metadata(database).map_err(ArchiveError::disk("read", database))?.len();
    let at = to.parent().unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(at).map_err(|e| ArchiveError::disk("look at", at)(e.into()))?;
    match disk.f_bavail.saturating_mul(disk.f_frsize) < size.saturating_add(ROOM_BYTES_MIN) {
        true => Err(ControlError::Full.into()),
        false => Ok(()),
    }
}

fn taken(manifest: &Manifest) -> Taken {
    Taken {
        number: manifest.number,
        at: Timestamp::from_millis(manifest.at_ms),
        files: manifest.files.len(),
        bytes: manifest.files.iter().map(|f| f.bytes).sum(),
    }
}

/// What the newest point has, by name.
struct Known<'a> {
    files: HashMap<&'a str, &'a File>,
}

impl<'a> Known<'a> {
    fn of(newest: Option<&'a Manifest>) -> Self {
        let files = newest.into_iter().flat_map(|m| &m.files);
        Self { files: files.map(|f| (f.path.as_str(), f)).collect() }
    }

    fn of_life(&self, path: &str, life: &str) -> Option<&'a File> {
        self.files.get(path).copied().filter(|f| f.life.as_deref() == Some(life))
    }

    /// Whether it has all there will be of a segment.
    fn has_whole(&self, segment: &SegmentFile) -> bool {
        let file = self.of_life(&format!("log/{}", segment.name), &segment.life);
        let index = segment.index.as_ref();
        let index = index.and_then(|(name, _)| self.of_life(&format!("log/{name}"), &segment.life));
        file.is_some_and(|f| f.complete && f.bytes == segment.bytes) && index.is_some()
    }
}

/// A file that goes with this value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The numbers of the points, lowest first.
pub(crate) async fn numbers(target: &Target) -> Result<Vec<u64>, ArchiveError> {
    let points = crate::manifest::POINTS.into();
    let found: Vec<_> = target.store.list(Some(&points)).try_collect().await?;
    let mut numbers: Vec<_> =
        found.iter().filter_map(|object| Manifest::number_of(&object.location)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The manifest of this number.
pub(crate) async fn read(target: &Target, number: u64) -> Result<Manifest, ArchiveError> {
    let found = target.store.get(&Manifest::object(number)).await?;
    if found.meta.size > MANIFEST_BYTES_MAX {
        return Err(ArchiveError::Damaged(format!("point {number} is too long")));
    }
    let bytes = found.bytes().await?;
    blocking(move || Manifest::decode(number, &bytes)).await
}
