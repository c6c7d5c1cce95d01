//! Running sources: what is stored of them, and the task that each has.

mod append;
mod board;
mod captures;
mod columns;
mod feed;
mod follow;
mod marks;
mod metrics;
mod settings;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod transcribe;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::capture::MakeStream;
use hydrant_core::catalog::StreamCatalog;
use hydrant_core::control::{ControlError, ControlStore};
use hydrant_core::encryption::Seal;
use hydrant_core::log::LogEngine;
use hydrant_core::{Clock, Random};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::source::board::Board;
use crate::source::store::{SourceRow, Store};
use crate::source::worker::{Order, Worker};

/// What sources stand on.
#[derive(Clone)]
pub struct Ports {
    /// Where records go. It encrypts what asks for it.
    pub log: Arc<dyn LogEngine>,
    /// Where settings and progress are kept.
    pub control: Arc<dyn ControlStore>,
    /// Encrypts passwords before they are kept there.
    pub seal: Arc<dyn Seal>,
    /// The streams and their shards.
    pub streams: Arc<StreamCatalog>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Names of slots, and how long to wait.
    pub random: Arc<Random>,
    /// Makes the stream of a source, if it is not there.
    pub make_stream: Arc<dyn MakeStream>,
}

/// What an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections that read one snapshot at once, 1 to 16.
    pub snapshot_readers: usize,
    /// How long `CREATE SOURCE` waits for what validation finds.
    pub create_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { snapshot_readers: 3, create_wait: Duration::from_secs(5) }
    }
}

/// Every source of this installation, each with a task of its own.
pub struct Sources {
    inner: Arc<Inner>,
    sweeper: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    ports: Ports,
    options: Options,
    store: Store,
    /// Orders what statements write.
    writing: tokio::sync::Mutex<()>,
    running: Mutex<BTreeMap<String, Running>>,
    changes: Arc<watch::Sender<u64>>,
}

struct Running {
    board: Arc<Board>,
    orders: watch::Sender<Order>,
    task: JoinHandle<()>,
}

/// How long a source may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

impl Running {
    /// Ends the task: in order if it is quick about it. What is on its way may still be written, and
    /// is found again at the next start.
    async fn stop(self) {
        self.orders.send_modify(|order| order.stop = true);
        let mut task = self.task;
        if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Sources {
    /// Starts every source that is stored. Fails if the rows cannot be read. The caller's duty:
    /// [`Self::shutdown`] before the log is closed.
    pub async fn start(ports: Ports, options: Options) -> Result<Arc<Self>, ControlError> {
        let store = Store::new(ports.control.clone(), ports.seal.clone());
        store.seal_again().await?;
        let inner = Arc::new(Inner {
            ports,
            options,
            store,
            writing: tokio::sync::Mutex::new(()),
            running: Mutex::default(),
            changes: Arc::new(watch::Sender::new(0)),
        });
        for row in inner.store.sources().await? {
            inner.run(row).await?;
        }
        let sweeper = tokio::spawn(captures::sweep(Arc::clone(&inner)));
        Ok(Arc::new(Self { inner, sweeper: Mutex::new(Some(sweeper)) }))
    }

    /// Ends every source in order. Statements afterwards change rows, and start nothing.
    pub async fn shutdown(&self) {
        if let Some(sweeper) = self.sweeper.lock().take() {
            sweeper.abort();
        }
        let running = std::mem::take(&mut *self.inner.running.lock());
        futures::future::join_all(running.into_values().map(Running::stop)).await;
    }

    /// Ends every source at once, as the end of the process does: what is under way is left as it
    /// is, and found again at the next start.
    pub fn abort(&self) {
        if let Some(sweeper) = self.sweeper.lock().take() {
            sweeper.abort();
        }
        let running = std::mem::take(&mut *self.inner.running.lock());
        running.into_values().for_each(|running| running.task.abort());
    }

    /// Appends what `/metrics` shows of the sources, as Prometheus reads it.
    pub fn write_metrics(&self, out: &mut String) {
        let boards: Vec<Arc<Board>> =
            self.inner.running.lock().values().map(|running| running.board.clone()).collect();
        metrics::write(&boards, out);
    }
}

impl Inner {
    /// Starts a source's task.
    async fn run(self: &Arc<Self>, row: SourceRow) -> Result<(), ControlError> {
        let name = row.settings.name.clone();
        let progress = self.store.progress(&row.uid).await?;
        let tables = self.store.tables(&row.uid).await?;
        let board = Board::new(&row, &progress, &tables, self.ports.clock.clone(), &self.changes);
        let (orders, receiver) = watch::channel(Order { row: Arc::new(row), stop: false });
        let worker = Worker::new(
            self.ports.clone(),
            self.options.clone(),
            board.clone(),
            receiver,
            progress,
            tables,
        );
        let task = tokio::spawn(worker.run());
        self.running.lock().insert(name, Running { board, orders, task });
        Ok(())
    }
}
