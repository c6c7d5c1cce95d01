//! Segments that are in an archive and not on the disk any more: a mark stands for each, beside its
//! index, and one that is read is fetched into a cache of bounded size.
//!
//! ```text
//! N.seg.archived, F-N.cold.archived   the segment's header, 4 KiB | length of the receipt u32
//!                                     | crc of the receipt u32 | the archive's receipt
//! N.seg.fetched, F-N.cold.fetched     the segment once more, while it is read; a start removes it
//! ```
//!
//! The mark is durable before the segment's file goes: a start that finds both takes the file, and the
//! mark goes. A mark goes, durably, before its index does, so that no crash leaves one without.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::log::LogError;
use hydrant_core::sequence::RecordIndex;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};

use super::copy::life_of;
use super::frame::{HEADER_BYTES, u32_at};
use super::segment::{DATA_START, SegmentHeader};
use super::shared::{Segment, Shared, unavailable, write_file};
use super::upkeep::Task;
use super::{Log, closed};
use crate::disk::{DiskFile, is_full};

/// How often segments are looked for that are old enough to be in the archive only.
const EVICT_EVERY: Duration = Duration::from_secs(5);
/// The same after the archive did not answer.
const PAUSE: Duration = Duration::from_secs(60);
/// Segments that are fetched at a time.
const FETCHES_MAX: usize = 4;
/// Largest mark.
const MARK_BYTES_MAX: u64 = 1 << 20;

/// Where complete segments are kept for longer than on the disk.
#[async_trait]
pub trait SegmentArchive: Send + Sync + 'static {
    /// What a segment is fetched with, if the archive holds all of it and of its index, durably, and
    /// keeps them for as long as the data directory has either. The segment goes by its name and life,
    /// as in [`SegmentFile`](crate::SegmentFile). The file on the disk may go then.
    async fn receipt(&self, name: &str, life: &str) -> io::Result<Option<Vec<u8>>>;

    /// Writes a segment to a file, replacing what is there. Fails, whatever is in the file then, if the
    /// archive does not answer or a byte is not as it was put.
    async fn fetch(&self, receipt: &[u8], to: &Path) -> io::Result<()>;
}

/// How segments are kept in an archive and read from it.
pub struct ArchiveUse {
    /// The archive.
    pub archive: Arc<dyn SegmentArchive>,
    /// How long after its newest record a segment stays on the disk, at least; without, always.
    pub local_retention: Option<Duration>,
    /// Most bytes of fetched segments on the disk; those being fetched, four at most, may be above.
    pub cache_bytes: u64,
}

type Key = (u64, Option<u64>);
type Answer = Option<Result<Arc<dyn DiskFile>, LogError>>;

/// What is known of the archive, and what was fetched from it.
pub(super) struct Archived {
    used: OnceLock<ArchiveUse>,
    cache: Mutex<Cache>,
    fetches: Semaphore,
}

#[derive(Default)]
struct Cache {
    there: HashMap<Key, Fetched>,
    under_way: HashMap<Key, watch::Receiver<Answer>>,
    /// Of those that are there or under way.
    bytes: u64,
    uses: u64,
}

struct Fetched {
    name: String,
    bytes: u64,
    used: u64,
}

impl Default for Archived {
    fn default() -> Self {
        let fetches = Semaphore::new(FETCHES_MAX);
        Self { used: OnceLock::new(), cache: Mutex::default(), fetches }
    }
}

impl Cache {
    /// Takes out what was not used for longest until there is room for so much more.
    fn make_room(&mut self, bytes: u64, max: u64) -> Vec<String> {
        let mut names = Vec::new();
        while self.bytes + bytes > max {
            let oldest = self.there.iter().min_by_key(|(_, fetched)| fetched.used);
            let Some(key) = oldest.map(|(key, _)| *key) else { break };
            names.extend(self.take(key));
        }
        names
    }

    /// Bytes that are held for what is not there yet.
    fn awaited_bytes(&self) -> u64 {
        self.bytes - self.there.values().map(|fetched| fetched.bytes).sum::<u64>()
    }

    fn take(&mut self, key: Key) -> Option<String> {
        let fetched = self.there.remove(&key)?;
        self.bytes -= fetched.bytes;
        Some(fetched.name)
    }
}

/// The name of the mark that stands for a segment's file.
pub(super) fn mark_name(segment: &str) -> String {
    format!("{segment}.archived")
}

/// The name of the segment that a mark stands for.
pub(super) fn marked(name: &str) -> Option<&str> {
    name.strip_suffix(".archived")
}

/// Whether the file is a segment that was fetched.
pub(super) fn is_fetched(name: &str) -> bool {
    name.ends_with(".fetched")
}

fn fetched_name(segment: &str) -> String {
    format!("{segment}.fetched")
}

fn mark(header: &SegmentHeader, receipt: &[u8]) -> Vec<u8> {
    let mut out = header.encode();
    out.extend_from_slice(&(receipt.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(receipt).to_le_bytes());
    out.extend_from_slice(receipt);
    out
}

/// The receipt in a mark; `None` if that is not as written.
fn receipt_in(mark: &[u8]) -> Option<&[u8]> {
    let rest = mark.get(DATA_START as usize..).filter(|rest| rest.len() >= 8)?;
    let receipt = &rest[8..];
    let is_whole =
        receipt.len() == u32_at(rest, 0) as usize && crc32c::crc32c(receipt) == u32_at(rest, 4);
    is_whole.then_some(receipt)
}

/// The receipt in the file of a mark; `None` if that is not as written.
pub(super) fn receipt_of(mark: &dyn DiskFile) -> io::Result<Option<Vec<u8>>> {
    Ok(receipt_in(&read_mark(mark)?).map(<[u8]>::to_vec))
}

fn read_mark(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.size()?.min(MARK_BYTES_MAX) as usize];
    let got = file.read_at(&mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// Lets go of the file of a segment that the archive has. Says whether it went: it may have been freed
/// or merged since the archive was asked.
pub(super) fn evict(shared: &Shared, segment: &Arc<Segment>, receipt: &[u8]) -> io::Result<bool> {
    if !shared.has(segment) || segment.is_archived() {
        return Ok(false);
    }
    let name = segment.name();
    match write_file(&shared.dir, &mark_name(&name), &mark(&segment.header, receipt)) {
        Err(e) if is_full(&e) => {
            tracing::warn!(name, "no room for the mark of an archived segment");
            // It may be there, if only the directory's own sync found no room.
            let _ = shared.dir.disk.remove(&shared.dir.file(&mark_name(&name)));
            shared.dir.sync()?;
            return Ok(false);
        }
        written => written?,
    }
    segment.is_archived.store(true, Ordering::Release);
    shared.dir.disk.remove(&shared.dir.file(&name))?;
    shared.dir.sync()?;
    Ok(true)
}

/// Lets go of what is left of an archived segment.
pub(super) fn free(shared: &Shared, segment: &Segment) -> io::Result<()> {
    shared.forget_fetched(segment);
    let disk = &shared.dir.disk;
    disk.remove(&shared.dir.file(&mark_name(&segment.name())))?;
    shared.dir.sync()?;
    disk.remove(&shared.dir.file(&segment.header.index_name()))?;
    shared.dir.sync()
}

impl Shared {
    /// How many segments are in the archive only.
    pub(super) fn count_archived(&self) -> usize {
        let archived = self.segments.read().iter().filter(|s| s.is_archived()).count();
        metrics::gauge!("hydrant_log_archived_segments").set(archived as f64);
        archived
    }

    /// Whether who reads at `from` or above may have to wait for a segment from the archive there is.
    pub(super) fn may_fetch(&self, from: RecordIndex) -> bool {
        let is_wanted = |segment: &Arc<Segment>| segment.is_archived() && segment.reaches(from);
        self.archived.used.get().is_some() && self.segments.read().iter().any(is_wanted)
    }

    /// The file of an archived segment, if it was fetched.
    pub(super) fn open_fetched(&self, segment: &Segment) -> Option<Arc<dyn DiskFile>> {
        let name = {
            let mut cache = self.archived.cache.lock();
            cache.uses += 1;
            let uses = cache.uses;
            let fetched = cache.there.get_mut(&segment.header.key())?;
            fetched.used = uses;
            fetched.name.clone()
        };
        // It may go at any time.
        self.dir.disk.open(&self.dir.file(&name)).ok()
    }

    /// Lets go of what was fetched of a segment.
    pub(super) fn forget_fetched(&self, segment: &Segment) {
        let name = self.archived.cache.lock().take(segment.header.key());
        self.remove_fetched(name);
    }

    fn remove_fetched(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if let Err(error) = self.dir.disk.remove(&self.dir.file(&name)) {
                tracing::warn!(name, %error, "removing a segment that was fetched");
            }
        }
    }

    /// Makes room for a segment of so many bytes, and holds it for it.
    fn hold_room(&self, bytes: u64, max: u64) -> Result<(), LogError> {
        let names = {
            let mut cache = self.archived.cache.lock();
            let names = cache.make_room(bytes, max);
            cache.bytes += bytes;
            names
        };
        self.remove_fetched(names);
        let has_room = || {
            let awaited = self.archived.cache.lock().awaited_bytes();
            let free = self.dir.free_bytes().unwrap_or(0);
            free >= awaited.saturating_add(self.options.free_bytes_min)
        };
        if has_room() {
            return Ok(());
        }
        let names = self.archived.cache.lock().make_room(bytes, 0);
        self.remove_fetched(names);
        match has_room() {
            true => Ok(()),
            false => {
                self.archived.cache.lock().bytes -= bytes;
                Err(LogError::Unavailable("no room on the disk to fetch a segment".to_owned()))
            }
        }
    }

    /// What an archived segment is fetched with, and the bytes of its file.
    fn look_up(&self, segment: &Segment) -> Result<(Vec<u8>, u64), LogError> {
        let name = mark_name(&segment.name());
        let read = self.dir.disk.open(&self.dir.file(&name)).and_then(|file| read_mark(&*file));
        let mark = read.map_err(|e| unavailable(&name, &e))?;
        let is_its = SegmentHeader::decode(&mark).is_ok_and(|header| header == segment.header);
        let receipt = receipt_in(&mark).filter(|_| is_its).ok_or_else(|| {
            LogError::Corrupt(format!("{} is not as written", self.dir.file(&name).display()))
        })?;
        Ok((receipt.to_vec(), self.index(segment)?.data_end() + HEADER_BYTES as u64))
    }

    /// Takes what was fetched for the segment, if it is that.
    fn take_in(
        &self,
        segment: &Segment,
        draft: &str,
        bytes: u64,
    ) -> Result<Arc<dyn DiskFile>, LogError> {
        let name = fetched_name(&segment.name());
        let look = || -> io::Result<Arc<dyn DiskFile>> {
            let file = self.dir.disk.open(&self.dir.file(draft))?;
            let mut head = vec![0; DATA_START as usize];
            let got = file.read_at(&mut head, 0)?;
            let header = SegmentHeader::decode(&head[..got]);
            if header.as_ref() != Ok(&segment.header) || file.size()? != bytes {
                return Err(io::Error::other("the archive gave another file"));
            }
            self.dir.rename(draft, &name)?;
            Ok(file)
        };
        let file = look().map_err(|e| unavailable(&name, &e))?;
        let mut cache = self.archived.cache.lock();
        cache.uses += 1;
        let used = cache.uses;
        let old = cache.there.insert(segment.header.key(), Fetched { name, bytes, used });
        // One whose file somebody removed.
        cache.bytes -= old.map_or(0, |old| old.bytes);
        Ok(file)
    }
}

/// Fetches a segment. What fails is told, and leaves nothing.
async fn fetch(
    shared: &Arc<Shared>,
    segment: &Arc<Segment>,
) -> Result<Arc<dyn DiskFile>, LogError> {
    let _permit = shared.archived.fetches.acquire().await.map_err(|_| closed())?;
    let Some(used) = shared.archived.used.get() else {
        let name = segment.name();
        return Err(LogError::Unavailable(format!("{name} is in an archive, and none is given")));
    };
    let (max, of) = (used.cache_bytes, segment.clone());
    let (receipt, bytes) = off_runtime(shared, move |shared| {
        let found = shared.look_up(&of)?;
        shared.hold_room(found.1, max)?;
        Ok(found)
    })
    .await?;
    let draft = format!("{}.tmp", fetched_name(&segment.name()));
    let fetched = used.archive.fetch(&receipt, &shared.dir.file(&draft)).await;
    let of = segment.clone();
    let taken = off_runtime(shared, move |shared| {
        let taken = match fetched {
            Ok(()) => shared.take_in(&of, &draft, bytes),
            Err(e) => Err(unavailable(&of.name(), &e)),
        };
        if taken.is_err() {
            let _ = shared.dir.disk.remove(&shared.dir.file(&draft));
            shared.archived.cache.lock().bytes -= bytes;
        } else if !shared.has(&of) {
            // It was freed meanwhile, and nobody else lets go of it.
            shared.forget_fetched(&of);
        }
        taken
    })
    .await;
    match &taken {
        Ok(_) => {
            metrics::counter!("hydrant_log_fetched_segments_total").increment(1);
            metrics::counter!("hydrant_log_fetched_bytes_total").increment(bytes);
        }
        Err(error) => {
            metrics::counter!("hydrant_log_fetch_failures_total").increment(1);
            let name = segment.name();
            tracing::warn!(name, %error, "an archived segment cannot be read; readers are to retry");
        }
    }
    taken
}

async fn off_runtime<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || work(&shared)).await.map_err(|_| closed())?
}

impl Log {
    /// Has segments kept in an archive: those that are old enough, and that it has, leave the disk; what
    /// is read of them is fetched. Once, before the first read. The caller's duty: within a runtime.
    pub fn archive_to(self: &Arc<Self>, used: ArchiveUse) {
        let evicts = used.local_retention.is_some();
        if self.shared.archived.used.set(used).is_ok() && evicts {
            tokio::spawn(evict_at_times(Arc::downgrade(self)));
        }
    }

    /// How many segments are in the archive only: without it, their records cannot be read.
    pub fn archived_segments(&self) -> usize {
        self.shared.count_archived()
    }

    /// Lets go of the files of segments that are old enough, and in the archive, and returns how many
    /// went. The log does so by itself every few seconds. The newest complete segment stays.
    pub async fn evict(&self) -> Result<usize, LogError> {
        let Some(used) = self.shared.archived.used.get() else { return Ok(0) };
        let Some(after) = used.local_retention else { return Ok(0) };
        let until = self.shared.clock.now().minus(after).as_millis();
        let mut evicted = 0;
        for segment in self.complete_segments() {
            let is_old = segment.last_ms.load(Ordering::Acquire) <= until;
            if !is_old || segment.is_archived() || !segment.is_indexed() {
                continue;
            }
            let (name, life) = (segment.name(), life_of(&segment.header));
            let receipt = used.archive.receipt(&name, &life).await;
            let Some(receipt) = receipt.map_err(|e| unavailable(&name, &e))? else { continue };
            let (reply, answer) = oneshot::channel();
            self.task(Task::Evict { segment, receipt, reply })?;
            evicted += usize::from(answer.await.map_err(|_| closed())?);
        }
        self.shared.count_archived();
        Ok(evicted)
    }

    /// The file of an archived segment, fetched once however many wait for it.
    pub(super) async fn fetched(
        &self,
        segment: &Arc<Segment>,
    ) -> Result<Arc<dyn DiskFile>, LogError> {
        let key = segment.header.key();
        let (mut answer, begun) = {
            let mut cache = self.shared.archived.cache.lock();
            match cache.under_way.get(&key) {
                Some(answer) => (answer.clone(), None),
                None => {
                    let (tell, answer) = watch::channel(None);
                    cache.under_way.insert(key, answer.clone());
                    (answer, Some(tell))
                }
            }
        };
        if let Some(tell) = begun {
            let (shared, segment) = (self.shared.clone(), segment.clone());
            // Of its own: whoever asked first may go away.
            tokio::spawn(async move {
                // Another reader's fetch may have ended since this one looked.
                let there = shared.open_fetched(&segment);
                let fetched = match there {
                    Some(file) => Ok(file),
                    None => fetch(&shared, &segment).await,
                };
                shared.archived.cache.lock().under_way.remove(&key);
                let _ = tell.send(Some(fetched));
            });
        }
        let answered = answer.wait_for(Option::is_some).await.ok();
        match answered.and_then(|answer| answer.clone()) {
            Some(answer) => answer,
            None => {
                self.shared.archived.cache.lock().under_way.remove(&key);
                Err(closed())
            }
        }
    }
}

async fn evict_at_times(log: Weak<Log>) {
    let mut pause = EVICT_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = EVICT_EVERY;
        let Some(log) = log.upgrade() else { return };
        if log.upkeep.lock().is_none() {
            return;
        }
        match log.evict().await {
            Ok(0) => {}
            Ok(evicted) => tracing::info!(evicted, "segments of the log are in the archive only"),
            Err(error) => {
                tracing::warn!(%error, "segments of the log stay on the disk for longer");
                pause = PAUSE;
            }
        }
    }
}
