//! What is on its way to the log's writer.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hydrant_core::log::{Durable, LogError, ShardUid};
use hydrant_core::sequence::{IndexRange, RecordIndex};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A batch on its way to the disk.
pub(super) struct Append {
    pub(super) shard: ShardUid,
    pub(super) offsets: Bytes,
    pub(super) records: Bytes,
    pub(super) body_crc: u32,
    pub(super) reply: oneshot::Sender<Result<Durable<IndexRange>, LogError>>,
    /// Its share of the bytes in flight, given back once it is answered.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Append {
    /// Bytes of the frame's body.
    pub(super) fn body_bytes(&self) -> usize {
        self.offsets.len() + self.records.len()
    }

    /// How many records.
    pub(super) fn count(&self) -> u32 {
        (self.offsets.len() / 4) as u32
    }
}

/// What the writer is asked to do, in order.
pub(super) enum Command {
    /// Write a batch.
    Append(Append),
    /// Take no more records for the shard; answers with its end.
    Seal(ShardUid, oneshot::Sender<Result<RecordIndex, LogError>>),
}

/// Commands on their way to the writer. Bounded by the bytes in flight, not by itself.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<(VecDeque<Command>, bool)>,
    filled: Condvar,
}

/// What the writer finds when it looks.
pub(super) enum Taken {
    /// Everything that was queued, in order.
    Commands(Vec<Command>),
    /// Nothing for that long.
    Quiet,
    /// Nothing, and nothing will come.
    Closed,
}

impl Queue {
    /// Queues a command; gives it back once the log is closed.
    pub(super) fn push(&self, command: Command) -> Result<(), Command> {
        let mut state = self.state.lock();
        if state.1 {
            return Err(command);
        }
        state.0.push_back(command);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes no more commands. The writer ends once it has done those that are queued.
    pub(super) fn close(&self) {
        self.state.lock().1 = true;
        self.filled.notify_one();
    }

    /// Waits for commands, or for as long as the log is to be called quiet.
    pub(super) fn take(&self, quiet_after: Option<Duration>) -> Taken {
        let mut state = self.state.lock();
        while state.0.is_empty() {
            if state.1 {
                return Taken::Closed;
            }
            match quiet_after {
                Some(after) => {
                    if self.filled.wait_for(&mut state, after).timed_out() && state.0.is_empty() {
                        return Taken::Quiet;
                    }
                }
                None => self.filled.wait(&mut state),
            }
        }
        Taken::Commands(state.0.drain(..).collect())
    }

    /// What is queued at this moment.
    #[cfg(test)]
    pub(super) fn take_queued(&self) -> Vec<Command> {
        self.state.lock().0.drain(..).collect()
    }

    /// Whether something is queued.
    #[cfg(test)]
    pub(super) fn is_filled(&self) -> bool {
        !self.state.lock().0.is_empty()
    }
}
