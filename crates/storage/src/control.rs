//! The control store on SQLite: one thread that writes, several connections that read.

mod copy;
mod sql;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use hydrant_core::control::{ControlError, ControlStore, Entry, Write};
use hydrant_core::limits::{
    COMMIT_WRITES_MAX, CONTROL_KEY_BYTES_MAX, CONTROL_VALUE_BYTES_MAX, SCAN_ROWS_MAX,
};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use self::copy::{ControlCopy, control_version, copy_control};
use crate::dir::{DataDir, sync_dir};
use crate::error::{Fatal, OpenError, abort};

/// The database's file in the data directory.
const DATABASE: &str = "hydrant.db";
/// Most commits waiting for the writer; further ones wait their turn.
const COMMITS_QUEUED_MAX: usize = 1_024;
/// Most commits in one transaction, which is one sync.
const COMMITS_GROUPED_MAX: usize = 256;
/// Most bytes of values in one transaction, unless a single commit has more.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Most reads at a time, each on a connection of its own.
const READERS_MAX: usize = 8;

/// One commit on its way to the writer, and where its answer goes.
struct Commit {
    writes: Vec<Write>,
    reply: oneshot::Sender<Result<u64, ControlError>>,
}

impl Commit {
    fn bytes(&self) -> usize {
        self.writes.iter().map(|w| w.key.len() + w.value.as_ref().map_or(0, String::len)).sum()
    }
}

/// The [`ControlStore`] of one machine: `hydrant.db` in the data directory, which an operator may
/// read with `sqlite3` while hydrant runs.
///
/// Commits that arrive while one is being synced share the next transaction; a conflict fails only
/// its own. A failed sync ends the process.
pub struct Control {
    path: PathBuf,
    commits: Mutex<Option<mpsc::Sender<Commit>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Mutex<Vec<Connection>>>,
    reads: Arc<Semaphore>,
    _dir: DataDir,
}

impl Control {
    /// Opens the store, or makes an empty one (mode 0600).
    pub fn open(dir: &DataDir) -> Result<Arc<Self>, OpenError> {
        Self::open_with(dir, abort())
    }

    /// Like [`Control::open`], with a hook for failures that must end the process.
    pub fn open_with(dir: &DataDir, fatal: Fatal) -> Result<Arc<Self>, OpenError> {
        let path = dir.path().join(DATABASE);
        let made = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        made.map_err(|e| OpenError::io("write", &path, e))?;
        let writer = sql::Writer::open(&path, fatal)?;
        sync_dir(dir.path()).map_err(|e| OpenError::io("sync", dir.path(), e))?;
        let (sender, receiver) = mpsc::channel(COMMITS_QUEUED_MAX);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn({
                let dir = dir.clone();
                move || run(writer, receiver, &dir)
            })
            .map_err(|e| OpenError::io("start the writer of", &path, e))?;
        Ok(Arc::new(Self {
            path,
            commits: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(thread)),
            readers: Arc::default(),
            reads: Arc::new(Semaphore::new(READERS_MAX)),
            _dir: dir.clone(),
        }))
    }

    /// Finishes the commits that are queued, moves them from the write-ahead log into the database,
    /// and ends the writer. Later commits are refused; reads go on.
    pub async fn close(&self) {
        self.commits.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the control store's writer did not end well");
            }
        }
    }

    /// Runs `read` on a connection of its own, off the runtime's threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let permit = self.reads.clone().acquire_owned().await.map_err(|_| closed())?;
        let (readers, path) = (self.readers.clone(), self.path.clone());
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let pooled = readers.lock().pop();
            let connection = match pooled {
                Some(connection) => connection,
                None => sql::open_reader(&path)?,
            };
            let found = read(&connection)?;
            readers.lock().push(connection);
            Ok(found)
        });
        task.await.map_err(|_| closed())?
    }
}

/// The rows of a data directory's control store, for whoever only looks: a server may run meanwhile.
pub struct ControlReader(Connection);

impl ControlReader {
    /// Opens `hydrant.db` in the data directory. Nothing of it will be changed.
    ///
    /// # Errors
    /// It is not there, or is no database.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join(DATABASE);
        std::fs::metadata(&path).map_err(|e| OpenError::io("read", &path, e))?;
        let failed =
            |e: ControlError| OpenError::Control { path: path.clone(), what: e.to_string() };
        sql::open_reader(&path).map(Self).map_err(failed)
    }

    /// Calls `each` with every row whose key starts with `prefix`, in the order of the keys.
    ///
    /// # Errors
    /// The store's, or the first one of `each`.
    pub fn each(
        &self,
        prefix: &str,
        mut each: impl FnMut(&str, &Entry) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let mut after = None;
        loop {
            let page = sql::scan(&self.0, prefix, after.as_deref(), SCAN_ROWS_MAX)?;
            for (key, entry) in &page {
                each(key, entry)?;
            }
            let Some((last, _)) = page.into_iter().next_back() else { return Ok(()) };
            after = Some(last);
        }
    }
}

fn closed() -> ControlError {
    ControlError::Unavailable("it was closed".to_owned())
}

/// The writer's thread: takes what has queued up, commits it as one, answers, until the handle is
/// gone. Keeps the directory locked meanwhile.
fn run(mut writer: sql::Writer, mut commits: mpsc::Receiver<Commit>, _lock: &DataDir) {
    let mut next = None;
    while let Some(first) = next.take().or_else(|| commits.blocking_recv()) {
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < COMMITS_GROUPED_MAX {
            let Ok(commit) = commits.try_recv() else { break };
            bytes += commit.bytes();
            if bytes > GROUP_BYTES_MAX {
                next = Some(commit);
                break;
            }
            group.push(commit);
        }
        let (writes, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|c| (c.writes, c.reply)).unzip();
        let answers = writer.commit_group(&writes);
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Whoever asked may be gone; the commit stands.
            let _ = reply.send(answer);
        }
        writer.checkpoint_if_due();
    }
    writer.close();
}

fn check_size(writes: &[Write]) -> Result<(), ControlError> {
    if writes.len() > COMMIT_WRITES_MAX {
        return Err(ControlError::TooLarge(format!(
            "{} writes in one commit, at most {COMMIT_WRITES_MAX}",
            writes.len()
        )));
    }
    for write in writes {
        if write.key.len() > CONTROL_KEY_BYTES_MAX {
            let bytes = write.key.len();
            return Err(ControlError::TooLarge(format!(
                "a key of {bytes} bytes, at most {CONTROL_KEY_BYTES_MAX}"
            )));
        }
        let bytes = write.value.as_ref().map_or(0, String::len);
        if bytes > CONTROL_VALUE_BYTES_MAX {
            return Err(ControlError::TooLarge(format!(
                "{}: a value of {bytes} bytes, at most {CONTROL_VALUE_BYTES_MAX}",
                write.key
            )));
        }
    }
    Ok(())
}

#[async_trait]
impl ControlStore for Control {
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError> {
        let key = key.to_owned();
        self.read(move |c| sql::get(c, &key)).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let limit = limit.min(SCAN_ROWS_MAX);
        self.read(move |c| sql::scan(c, &prefix, after.as_deref(), limit)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<u64, ControlError> {
        check_size(&writes)?;
        let commits = self.commits.lock().clone().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        commits.send(Commit { writes, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}
