//! The embedded log: one for all shards, written by one thread, synced in groups.

pub(crate) mod archived;
mod cache;
pub(crate) mod copy;
mod directory;
mod dump;
mod files;
mod frame;
mod index;
mod loss;
mod merge;
mod queue;
mod reader;
mod recovery;
mod salvage;
mod segment;
mod shards;
mod shared;
mod spare;
mod steady;
#[cfg(test)]
mod tests;
mod upkeep;
mod verify;
mod walk;
mod writer;

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::control::{ControlStore, scan_each};
use hydrant_core::limits::{APPEND_BYTES_IN_FLIGHT_MAX, FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use hydrant_core::log::{Durable, LogEngine, LogError, ReadLimit, ReadPage, ShardUid, Tail};
use hydrant_core::record::{Frame, RecordBatch};
use hydrant_core::sequence::{IndexRange, RecordIndex};
use hydrant_core::{Clock, Random, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

pub use self::dump::{Found, FrameFound, Wanted};
pub use self::files::{FoundSegment, LogFiles};
pub use self::loss::{Damage, Loss};
pub use self::salvage::Salvaged;
pub use self::shards::PREFIX as SHARD_ROWS;
pub use self::verify::{SegmentReport, SegmentState, Verdict, Verification};

use self::queue::{Append, Command, Queue};
use self::reader::{Given, Unread};
use self::segment::{DATA_START, RESERVED_BYTES};
use self::shards::{PREFIX, Row, Stripes, control_error, uid_of};
use self::shared::{Segment, Shared};
use self::steady::Steady;
use self::upkeep::{Kept, Task, Upkeep};
use self::writer::Writer;
use crate::dir::{DataDir, make_dir};
use crate::disk::{Disk, LogDir, RealDisk};
use crate::error::{Fatal, OpenError, abort};
use crate::planted::{Bug, planted};

/// How often expired segments are looked for.
const RECLAIM_EVERY: Duration = Duration::from_secs(60);
/// Most reads of the disk at a time.
const DISK_READS_MAX: usize = 32;
/// What an append in flight costs beside its bytes, so that many small ones are bounded too.
const APPEND_OVERHEAD_BYTES: usize = 256;
/// A log whose latest record is this far ahead of the clock is worth a warning.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// How the log uses its disk and memory.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Size of a segment, in bytes. A batch has to fit into one.
    pub segment_bytes: u64,
    /// Most bytes of recent records kept in memory for readers at the tail.
    pub cache_bytes: usize,
    /// Free space that no new segment is made from, in bytes: with less, appends answer
    /// [`LogError::Full`] once the segments at hand are full, and reads go on.
    pub free_bytes_min: u64,
    /// Neighbouring segments of which little is kept, because their shards have different
    /// retentions, are copied into one once there are this many; half of `free_bytes_min` may be
    /// used for it.
    pub merged_min: usize,
    /// A complete segment in which the frames of a shard stand together in fewer bytes than this, on
    /// average, is written anew, one shard after the other.
    pub scattered_bytes: u64,
}

impl Default for LogOptions {
    /// 256 MiB each, eight neighbours, and 8 KiB.
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            cache_bytes: 256 << 20,
            free_bytes_min: 256 << 20,
            merged_min: 8,
            scattered_bytes: 8 << 10,
        }
    }
}

/// The [`LogEngine`] of one machine.
///
/// What `append` acknowledges has been synced; what a reader sees, too. Appends that arrive while a
/// sync is under way share the next one. A failed write or sync ends the process.
pub struct Log {
    shared: Arc<Shared>,
    control: Arc<dyn ControlStore>,
    queue: Arc<Queue>,
    in_flight: Arc<Semaphore>,
    disk_reads: Arc<Semaphore>,
    stripes: Stripes,
    upkeep: Mutex<Option<Sender<Task>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The synchronous state machines that the log is made of: each does what it is given and has no
/// will of its own. One thread each drives them.
struct Machines {
    /// Writes what is queued.
    writer: Writer,
    /// What the upkeep has to do.
    tasks: Receiver<Task>,
}

impl Log {
    /// Recovers the log in `log/` of the data directory, or makes an empty one, and starts its
    /// threads. Refuses to start, saying which file and byte, if acknowledged records were lost.
    ///
    /// `control` keeps a row for each shard; salts are drawn from `random`. The caller's duty: to
    /// call it within a tokio runtime, and [`Log::close`] at the end.
    pub fn open(
        dir: &DataDir,
        options: LogOptions,
        control: Arc<dyn ControlStore>,
        clock: Arc<dyn Clock>,
        random: &Random,
    ) -> Result<Arc<Self>, OpenError> {
        make_dir(&dir.path().join("log"))?;
        Self::open_on(Arc::new(RealDisk), dir, options, control, clock, random, abort())
    }

    /// Like [`Log::open`], on any disk, with a hook for failures that must end the process. The
    /// caller's duty: a `log/` that is there, and a hook that does not return outside of tests.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &DataDir,
        options: LogOptions,
        control: Arc<dyn ControlStore>,
        clock: Arc<dyn Clock>,
        random: &Random,
        fatal: Fatal,
    ) -> Result<Arc<Self>, OpenError> {
        let log_dir = LogDir { disk, path: dir.path().join("log") };
        let lock = Some(dir.clone());
        let (log, machines) =
            Self::assemble(lock, log_dir, options, control, clock, random, fatal)?;
        let Machines { writer, tasks } = machines;
        let threads = vec![
            spawn("log-writer", {
                let queue = log.queue.clone();
                move || writer.run(&queue)
            }),
            spawn("log-upkeep", {
                let shared = log.shared.clone();
                move || upkeep::run(&shared, &tasks)
            }),
        ];
        let threads = threads.into_iter().collect::<io::Result<Vec<_>>>();
        *log.threads.lock() =
            threads.map_err(|e| OpenError::io("start the threads of", dir.path(), e))?;
        tokio::spawn(reclaim_at_times(Arc::downgrade(&log)));
        Ok(log)
    }

    /// Recovers the log, and hands out its machines for somebody to drive: threads of their own, or
    /// a simulation that decides whose turn it is.
    fn assemble(
        lock: Option<DataDir>,
        log_dir: LogDir,
        options: LogOptions,
        control: Arc<dyn ControlStore>,
        clock: Arc<dyn Clock>,
        random: &Random,
        fatal: Fatal,
    ) -> Result<(Arc<Self>, Machines), OpenError> {
        let found = recovery::recover(&log_dir, &options)?;
        let clock: Arc<dyn Clock> = Arc::new(Steady::new(clock));
        warn_if_ahead(found.last_ms, clock.now());
        let (next, last_ms) = (found.next, found.last_ms);
        let salts = Random::from_entropy(random.bytes());
        let shared = Shared::new(options, lock, log_dir, clock, fatal, salts, found);
        let shared = Arc::new(shared);
        let (tasks, todo) = std::sync::mpsc::channel();
        let random = Random::from_entropy(random.bytes());
        let upkeep = Upkeep::new(tasks.clone());
        let writer = Writer::start(shared.clone(), upkeep, random, next, last_ms);
        let log = Arc::new(Self {
            shared,
            control,
            queue: Arc::new(Queue::default()),
            in_flight: Arc::new(Semaphore::new(APPEND_BYTES_IN_FLIGHT_MAX)),
            disk_reads: Arc::new(Semaphore::new(DISK_READS_MAX)),
            stripes: Stripes::default(),
            upkeep: Mutex::new(Some(tasks)),
            threads: Mutex::default(),
        });
        Ok((log, Machines { writer, tasks: todo }))
    }

    /// Writes what is queued, then ends the log's threads. Later appends are refused; reads go on.
    pub async fn close(&self) {
        self.queue.close();
        self.upkeep.lock().take();
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        if !matches!(joined.await, Ok(true)) {
            tracing::error!("a thread of the log did not end well");
        }
    }

    /// Frees the segments in which every shard is past its retention, trimmed or dropped, and
    /// returns how many. The log does so by itself every minute.
    pub async fn reclaim(&self) -> Result<usize, LogError> {
        // Before the rows are read: a shard made after that has no record in these.
        let segments = self.complete_segments();
        let mut kept = HashMap::new();
        if !segments.is_empty() {
            let seen = scan_each(&*self.control, PREFIX, |key, entry| {
                let row: Row = entry.json(&key)?;
                if let Some(shard) = uid_of(&key) {
                    let retention = Duration::from_millis(row.retention_ms);
                    kept.insert(shard, Kept { retention, trimmed: row.trimmed });
                }
                Ok(())
            });
            seen.await.map_err(control_error)?;
        }
        let (reply, answer) = oneshot::channel();
        self.task(Task::Reclaim { segments, kept, reply })?;
        answer.await.map_err(|_| closed())
    }

    /// The complete segments but the newest, which knows where every shard ended.
    fn complete_segments(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.shared.segments.read().clone();
        segments.retain(|s| !s.is_active());
        segments.pop();
        segments
    }

    /// Has the upkeep do something.
    fn task(&self, task: Task) -> Result<(), LogError> {
        let tasks = self.upkeep.lock().clone();
        tasks.and_then(|tasks| tasks.send(task).ok()).ok_or_else(closed)
    }

    /// Runs a read of the disk off the runtime's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let permit = self.disk_reads.clone().acquire_owned().await.map_err(|_| closed())?;
        let shared = self.shared.clone();
        // Without a runtime there are no other threads, and nobody else to wait for.
        if tokio::runtime::Handle::try_current().is_err() {
            return read(&shared);
        }
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&shared)
        });
        task.await.map_err(|_| closed())?
    }

    fn check_size(&self, batch: &RecordBatch) -> Result<(), LogError> {
        if batch.is_empty() {
            return Err(LogError::Invalid("it holds no record"));
        }
        let room = self.shared.options.segment_bytes.saturating_sub(DATA_START + RESERVED_BYTES);
        let bytes = batch.encoded_bytes();
        if bytes > FRAME_BYTES_MAX
            || batch.len() > FRAME_RECORDS_MAX
            || frame::frame_bytes(bytes) > room
        {
            return Err(LogError::Invalid("it is larger than a frame may be"));
        }
        if batch.data_key().is_some() {
            return Err(LogError::Invalid("it has to be encrypted first"));
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn closed() -> LogError {
    LogError::Unavailable("it was closed".to_owned())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn warn_if_ahead(last_ms: u64, now: Timestamp) {
    let last = Timestamp::from_millis(last_ms);
    if last > now.plus(AHEAD_MAX) {
        tracing::warn!(
            %last, %now,
            "the clock is behind the log's latest record: records carry that one's time until the \
             clock has caught up"
        );
    }
}

async fn reclaim_at_times(log: Weak<Log>) {
    loop {
        tokio::time::sleep(RECLAIM_EVERY).await;
        let Some(log) = log.upgrade() else { return };
        if log.upkeep.lock().is_none() {
            return;
        }
        match log.reclaim().await {
            Ok(0) => {}
            Ok(freed) => tracing::info!(freed, "segments of the log hold nothing any more"),
            Err(error) => tracing::warn!(%error, "freeing segments of the log"),
        }
    }
}

#[async_trait]
impl LogEngine for Log {
    async fn create(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError> {
        self.insert_row(shard, retention).await
    }

    async fn append(
        &self,
        shard: ShardUid,
        batch: RecordBatch,
    ) -> Result<Durable<IndexRange>, LogError> {
        self.check_size(&batch)?;
        self.shared.check()?;
        self.touch(shard).await?;
        let bytes = batch.encoded_bytes() + APPEND_OVERHEAD_BYTES;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = self.in_flight.clone().acquire_many_owned(bytes).await;
        let permit = permit.map_err(|_| closed())?;
        let (offsets, records) = batch.into_parts();
        // A key longer than a record can say would make records that nobody can read.
        Frame::new(RecordIndex::MIN, Timestamp::ZERO, offsets.clone(), records.clone())
            .map_err(|_| LogError::Invalid("a key or a record is longer than a frame can say"))?;
        let body_crc = crc32c::crc32c_append(crc32c::crc32c(&offsets), &records);
        let (reply, answer) = oneshot::channel();
        let append = Append { shard, offsets, records, body_crc, reply, permit };
        self.queue.push(Command::Append(append)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn fetch(&self, shard: ShardUid, from: RecordIndex) -> Result<(), LogError> {
        let horizon = self.tail(shard).await?.horizon;
        if !self.shared.may_fetch(from.max(horizon)) {
            return Ok(());
        }
        self.read(shard, from, ReadLimit { records_max: 1, bytes_max: 1 }).await.map(drop)
    }

    async fn read(
        &self,
        shard: ShardUid,
        from: RecordIndex,
        limit: ReadLimit,
    ) -> Result<ReadPage, LogError> {
        let tail = self.tail(shard).await?;
        let mut pager = reader::Pager::new(from, limit, tail);
        if pager.is_full() || self.shared.read_cached(shard, &mut pager) {
            return Ok(pager.finish());
        }
        let mut fetched = None;
        let page = loop {
            let given = fetched.take();
            let (back, missing) = self
                .blocking(move |shared| match shared.read_segments(shard, &mut pager, given) {
                    Ok(()) => Ok((pager, None)),
                    Err(Unread::Archived(segment)) => Ok((pager, Some(segment))),
                    Err(Unread::Failed(error)) => Err(error),
                })
                .await?;
            match missing {
                // What there is until then is a page.
                Some(segment) if back.is_empty() => {
                    pager = back;
                    fetched = match self.fetched(&segment).await {
                        Ok(file) => Some(Given { segment, file }),
                        // It expired meanwhile, or was merged.
                        Err(_) if !self.shared.has(&segment) => None,
                        Err(error) => return Err(error),
                    };
                }
                _ => break back.finish(),
            }
        };
        // Dropped while we read: what was found is nobody's any more.
        self.tail(shard).await?;
        Ok(page)
    }

    async fn wait(&self, shard: ShardUid, past: RecordIndex) -> Result<Tail, LogError> {
        self.wait_past(shard, past).await
    }

    async fn locate(&self, shard: ShardUid, time: Timestamp) -> Result<RecordIndex, LogError> {
        Ok(RecordIndex::at(time).max(self.tail(shard).await?.horizon))
    }

    async fn tail(&self, shard: ShardUid) -> Result<Tail, LogError> {
        self.touch(shard).await?;
        let now = self.shared.clock.now();
        let shards = self.shared.shards.lock();
        shards.get(&shard).map(|s| s.tail(now)).ok_or(LogError::NotFound)
    }

    async fn seal(&self, shard: ShardUid) -> Result<Tail, LogError> {
        let tail = self.tail(shard).await?;
        if tail.sealed {
            return Ok(tail);
        }
        let (reply, answer) = oneshot::channel();
        self.queue.push(Command::Seal(shard, reply)).map_err(|_| closed())?;
        let end = answer.await.map_err(|_| closed())??;
        if planted(Bug::SealNotStored) {
            if let Some(state) = self.shared.shards.lock().get_mut(&shard) {
                (state.sealed, state.end) = (true, end);
            }
            return self.tail(shard).await;
        }
        self.change_row(shard, |row| row.sealed_end = Some(row.sealed_end.unwrap_or(end))).await?;
        self.tail(shard).await
    }

    async fn trim(&self, shard: ShardUid, before: RecordIndex) -> Result<(), LogError> {
        let before = before.min(self.tail(shard).await?.end);
        self.change_row(shard, |row| {
            row.trimmed = match planted(Bug::TrimBack) {
                true => before,
                false => row.trimmed.max(before),
            }
        })
        .await
    }

    async fn set_retention(&self, shard: ShardUid, retention: Duration) -> Result<(), LogError> {
        self.touch(shard).await?;
        let retention_ms = shards::millis(retention);
        self.change_row(shard, |row| row.retention_ms = retention_ms).await
    }

    async fn drop_shard(&self, shard: ShardUid) -> Result<(), LogError> {
        self.delete_row(shard).await
    }
}
