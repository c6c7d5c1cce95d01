//! The catalog over a store that loses answers.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::*;
use crate::control::Entry;

/// A map that, when told to, takes the next commit and loses the answer.
#[derive(Default)]
struct Store {
    rows: parking_lot::Mutex<BTreeMap<String, Entry>>,
    lose: AtomicBool,
}

#[async_trait]
impl ControlStore for Store {
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError> {
        Ok(self.rows.lock().get(key).cloned())
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        _limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError> {
        let rows = self.rows.lock();
        let found = rows.iter().filter(|(k, _)| k.starts_with(prefix));
        let found = found.filter(|(k, _)| after.is_none_or(|a| k.as_str() > a));
        Ok(found.map(|(k, e)| (k.clone(), e.clone())).collect())
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<u64, ControlError> {
        use crate::control::Expected;
        let mut rows = self.rows.lock();
        let version = rows.values().map(|e| e.version).max().unwrap_or(0) + 1;
        for write in writes {
            let expected = match rows.get(&write.key) {
                Some(entry) => Expected::Version(entry.version),
                None => Expected::Absent,
            };
            if expected != write.expected {
                return Err(ControlError::Conflict { key: write.key });
            }
            match write.value {
                Some(value) => rows.insert(write.key, Entry { version, value: value.into() }),
                None => rows.remove(&write.key),
            };
        }
        if self.lose.swap(false, Ordering::Relaxed) {
            return Err(ControlError::Unavailable("lost".to_owned()));
        }
        Ok(version)
    }
}

fn stream() -> Stream {
    Stream {
        scope: Scope {
            account: "000000000000".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        },
        name: "s".parse().unwrap(),
        created: Timestamp::ZERO,
        state: StreamState::Active,
        mode: StreamMode::Provisioned,
        retention_hours: 24,
        shards: Vec::new(),
        tags: BTreeMap::new(),
        id: "0123456789abcdefghij-xyz".to_owned(),
        settings: StreamSettings::default(),
        capacity: Capacity::default(),
        consumers: Vec::new(),
    }
}

#[test]
fn a_clock_that_is_set_back_brings_no_state_back() {
    let now = Timestamp::from_millis(1_763_000_000_000);
    let soon = now.plus(Duration::from_millis(20));
    let before = now.minus(Duration::from_secs(86_400));
    let at = |state, now| Stream { state, ..stream() }.status(now);
    assert_eq!(at(StreamState::Creating(soon), now), Some(StreamStatus::Creating));
    assert_eq!(at(StreamState::Creating(soon), before), Some(StreamStatus::Active));
    assert_eq!(at(StreamState::Creating(Timestamp::MAX), now), Some(StreamStatus::Creating));
    assert_eq!(at(StreamState::Deleting(soon), now), Some(StreamStatus::Deleting));
    assert_eq!(at(StreamState::Deleting(soon), before), None);
    let consumer = |state| Consumer {
        name: "c".to_owned(),
        created: now,
        state,
        tags: BTreeMap::new(),
        policy: None,
    };
    let creating = consumer(ConsumerState::Creating(soon));
    assert_eq!(creating.status(now), Some(ConsumerStatus::Creating));
    assert_eq!(creating.status(before), Some(ConsumerStatus::Active));
    assert_eq!(consumer(ConsumerState::Deleting(soon)).status(before), None);
}

#[tokio::test]
async fn a_lost_answer_does_not_leave_the_copy_behind() {
    let store = Arc::new(Store::default());
    let catalog = StreamCatalog::open(store.clone()).await.unwrap();
    let seen = || catalog.get(&stream().scope, &stream().name);

    store.lose.store(true, Ordering::Relaxed);
    assert!(matches!(catalog.put(stream(), None).await, Err(ControlError::Unavailable(_))));
    let held = seen().expect("the row is there, so the copy has it");

    store.lose.store(true, Ordering::Relaxed);
    let longer = Stream { retention_hours: 48, ..stream() };
    assert!(catalog.put(longer, Some(held.version)).await.is_err());
    let held = seen().unwrap();
    assert_eq!(held.stream.retention_hours, 48);

    store.lose.store(true, Ordering::Relaxed);
    assert!(catalog.remove(&held.stream, held.version).await.is_err());
    assert!(seen().is_none());
}

#[tokio::test]
async fn shard_names_are_given_out_once_also_across_a_restart() {
    let store = Arc::new(Store::default());
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let catalog = StreamCatalog::open(store.clone()).await.unwrap();
        for count in [1, 999, 1, 5_000, 2] {
            for uid in catalog.allocate_shards(count).await.unwrap() {
                assert!(given.insert(uid), "{uid:?} was given out twice");
            }
        }
    }
}
