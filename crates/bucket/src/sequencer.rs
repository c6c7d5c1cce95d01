//! Numbers for notifications: unique and growing, also over restarts and between processes.

use std::ops::Range;
use std::sync::Arc;

use hydrant_core::control::{ControlError, ControlStore, Write};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::index::SEQUENCER;

/// Numbers claimed at a time; what is left of them at a crash is skipped.
const CLAIM: u64 = 4_096;

#[derive(Serialize, Deserialize)]
struct SequencerRow {
    next: u64,
}

/// See the module.
pub(crate) struct Sequencer {
    control: Arc<dyn ControlStore>,
    claimed: Mutex<Range<u64>>,
}

impl Sequencer {
    pub(crate) fn new(control: Arc<dyn ControlStore>) -> Self {
        Self { control, claimed: Mutex::new(0..0) }
    }

    /// A number greater than every one this process has had.
    pub(crate) async fn next(&self) -> Result<u64, ControlError> {
        let mut claimed = self.claimed.lock().await;
        loop {
            if let Some(number) = claimed.next() {
                return Ok(number);
            }
            let seen = self.control.get(SEQUENCER).await?;
            let first = match &seen {
                Some(entry) => entry.json::<SequencerRow>(SEQUENCER)?.next,
                None => 1,
            };
            let next = first.saturating_add(CLAIM);
            let write = Write::put(SEQUENCER, seen.as_ref(), &SequencerRow { next });
            match self.control.commit(vec![write]).await {
                Ok(_) => *claimed = first..next,
                Err(ControlError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
