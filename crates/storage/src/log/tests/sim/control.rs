//! A control store that takes its time, and may leave its caller in doubt.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use hydrant_core::control::{ControlError, ControlStore, Entry, Expected, Write};
use parking_lot::Mutex;

use super::{Draw, pause};

#[derive(Clone, Default)]
struct State {
    version: u64,
    rows: BTreeMap<String, Entry>,
    /// One commit in so many is in doubt: done or not, its caller is told neither.
    doubt: Option<u64>,
}

/// Durable the moment a commit takes effect, as SQLite's is. A clone is the same store.
#[derive(Clone)]
pub(super) struct SimControl {
    state: Arc<Mutex<State>>,
    /// Decides how long a call takes; without one all are done at once.
    draw: Option<Draw>,
}

impl SimControl {
    /// An empty store.
    pub(super) fn new(draw: Draw) -> Self {
        Self { state: Arc::default(), draw: Some(draw) }
    }

    /// What a process that starts after a crash at this moment finds.
    pub(super) fn image(&self) -> Self {
        let state = State { doubt: None, ..self.state.lock().clone() };
        Self { state: Arc::new(Mutex::new(state)), draw: None }
    }

    /// Leaves one commit in `of` in doubt.
    pub(super) fn doubt(&self, of: Option<u64>) {
        self.state.lock().doubt = of;
    }

    async fn take_time(&self) {
        if let Some(draw) = &self.draw {
            for _ in 0..draw.below(3) {
                pause().await;
            }
        }
    }

    fn chance(&self, of: u64) -> bool {
        self.draw.as_ref().is_some_and(|draw| draw.chance(of))
    }
}

#[async_trait]
impl ControlStore for SimControl {
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError> {
        self.take_time().await;
        Ok(self.state.lock().rows.get(key).cloned())
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError> {
        self.take_time().await;
        let state = self.state.lock();
        let rows = state.rows.iter().filter(|(key, _)| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        Ok(rows.take(limit).map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<u64, ControlError> {
        self.take_time().await;
        let doubt = self.state.lock().doubt;
        let in_doubt = doubt.is_some_and(|of| self.chance(of));
        if in_doubt && self.chance(2) {
            return Err(ControlError::Unavailable("in doubt".to_owned()));
        }
        let version = {
            let mut state = self.state.lock();
            for write in &writes {
                let seen = state.rows.get(&write.key).map(|e| Expected::Version(e.version));
                if seen.unwrap_or(Expected::Absent) != write.expected {
                    return Err(ControlError::Conflict { key: write.key.clone() });
                }
            }
            state.version += 1;
            let version = state.version;
            for write in writes {
                match write.value {
                    Some(value) => {
                        state.rows.insert(write.key, Entry { version, value: value.into() });
                    }
                    None => {
                        state.rows.remove(&write.key);
                    }
                }
            }
            version
        };
        self.take_time().await;
        match in_doubt {
            true => Err(ControlError::Unavailable("in doubt".to_owned())),
            false => Ok(version),
        }
    }
}
