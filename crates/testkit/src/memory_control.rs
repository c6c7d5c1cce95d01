//! The control store in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use hydrant_core::control::{ControlError, ControlStore, Entry, Expected, Write};
use hydrant_core::limits::{
    COMMIT_WRITES_MAX, CONTROL_KEY_BYTES_MAX, CONTROL_VALUE_BYTES_MAX, SCAN_ROWS_MAX,
};
use parking_lot::Mutex;

/// A [`ControlStore`] that is one ordered map.
#[derive(Default)]
pub struct MemoryControl(Mutex<State>);

#[derive(Default)]
struct State {
    version: u64,
    rows: BTreeMap<String, Entry>,
}

impl MemoryControl {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

fn check_size(writes: &[Write]) -> Result<(), ControlError> {
    if writes.len() > COMMIT_WRITES_MAX {
        return Err(ControlError::TooLarge(format!("{} writes in a commit", writes.len())));
    }
    for write in writes {
        if write.key.len() > CONTROL_KEY_BYTES_MAX {
            return Err(ControlError::TooLarge(format!("key of {} bytes", write.key.len())));
        }
        let bytes = write.value.as_ref().map_or(0, String::len);
        if bytes > CONTROL_VALUE_BYTES_MAX {
            return Err(ControlError::TooLarge(format!("{}: value of {bytes} bytes", write.key)));
        }
    }
    Ok(())
}

#[async_trait]
impl ControlStore for MemoryControl {
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError> {
        Ok(self.0.lock().rows.get(key).cloned())
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let state = self.0.lock();
        let rows = state.rows.range::<str, _>((start, Bound::Unbounded));
        Ok(rows
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit.min(SCAN_ROWS_MAX))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect())
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<u64, ControlError> {
        check_size(&writes)?;
        let mut state = self.0.lock();
        for write in &writes {
            let seen = state.rows.get(&write.key).map(|e| Expected::Version(e.version));
            if seen.unwrap_or(Expected::Absent) != write.expected {
                return Err(ControlError::Conflict { key: write.key.clone() });
            }
        }
        if writes.is_empty() {
            return Ok(state.version);
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
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn conforms() {
        crate::control_conformance(async || Arc::new(MemoryControl::new()) as _).await;
    }
}
