//! The delivery streams: one row each in the control store, read from memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hydrant_core::control::{ControlError, ControlStore, Write, scan_all};
use hydrant_core::names::{DeliveryStreamName, Scope};
use parking_lot::RwLock;

use crate::stream::DeliveryStream;

/// What the keys of the delivery streams' rows begin with. A row's `name` is the stream's, its `uid` the
/// shard that holds the stream's own records.
pub const STREAM_ROWS: &str = "delivery/streams/";

/// A delivery stream and the version a change must name.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) stream: Arc<DeliveryStream>,
    pub(crate) version: u64,
}

type Key = (Scope, DeliveryStreamName);

/// Every delivery stream of this installation. One process writes, so what is held is the rows.
pub(crate) struct DeliveryCatalog {
    store: Arc<dyn ControlStore>,
    held: RwLock<BTreeMap<Key, Held>>,
}

impl DeliveryCatalog {
    pub(crate) async fn open(store: Arc<dyn ControlStore>) -> Result<Self, ControlError> {
        let mut held = BTreeMap::new();
        for (key, entry) in scan_all(store.as_ref(), STREAM_ROWS).await? {
            let stream: DeliveryStream = entry.json(&key)?;
            let id = (stream.scope.clone(), stream.name.clone());
            held.insert(id, Held { stream: Arc::new(stream), version: entry.version });
        }
        Ok(Self { store, held: RwLock::new(held) })
    }

    pub(crate) fn get(&self, scope: &Scope, name: &DeliveryStreamName) -> Option<Held> {
        self.held.read().get(&(scope.clone(), name.clone())).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Held> {
        self.held.read().values().cloned().collect()
    }

    /// Those of one account and region behind `after`, by name, that `wanted` takes, at most `limit`.
    pub(crate) fn list(
        &self,
        scope: &Scope,
        after: Option<&DeliveryStreamName>,
        limit: usize,
        wanted: impl Fn(&DeliveryStream) -> bool,
    ) -> Vec<Arc<DeliveryStream>> {
        let held = self.held.read();
        // Without a name to start behind, the first of the scope is found by passing over the others.
        let from = match after {
            Some(name) => Bound::Excluded((scope.clone(), name.clone())),
            None => Bound::Unbounded,
        };
        held.range((from, Bound::Unbounded))
            .skip_while(|((s, _), _)| s != scope)
            .take_while(|((s, _), _)| s == scope)
            .filter(|(_, held)| wanted(&held.stream))
            .take(limit)
            .map(|(_, held)| Arc::clone(&held.stream))
            .collect()
    }

    pub(crate) fn count(&self, scope: &Scope) -> usize {
        self.held.read().keys().filter(|(s, _)| s == scope).count()
    }

    /// Writes a delivery stream: a new one if `seen` is `None`, else a change of that version.
    /// Durable on return.
    pub(crate) async fn put(
        &self,
        stream: DeliveryStream,
        seen: Option<u64>,
    ) -> Result<Held, ControlError> {
        let row = row_key(&stream);
        let write = match seen {
            None => Write::insert(row, &stream),
            Some(version) => Write::update(row, version, &stream),
        };
        let version = match self.store.commit(vec![write]).await {
            Ok(version) => version,
            Err(ControlError::Unavailable(why)) => self.was_written(&stream, why).await?,
            Err(e) => return Err(e),
        };
        let id = (stream.scope.clone(), stream.name.clone());
        let new = Held { stream: Arc::new(stream), version };
        let mut held = self.held.write();
        // Two commits may return in either order; the later version is the truth.
        let slot = held.entry(id).or_insert_with(|| new.clone());
        if slot.version < version {
            *slot = new.clone();
        }
        Ok(new)
    }

    /// After a commit of which nobody knows whether it took effect: the row's version if it did.
    async fn was_written(&self, stream: &DeliveryStream, why: String) -> Result<u64, ControlError> {
        let row = row_key(stream);
        match self.store.get(&row).await? {
            Some(entry) if entry.json::<DeliveryStream>(&row)? == *stream => Ok(entry.version),
            _ => Err(ControlError::Unavailable(why)),
        }
    }

    /// Removes a delivery stream that was read at `version`. Durable on return.
    pub(crate) async fn remove(&self, held: &Held) -> Result<(), ControlError> {
        let row = row_key(&held.stream);
        self.store.commit(vec![Write::delete(row, held.version)]).await?;
        let id = (held.stream.scope.clone(), held.stream.name.clone());
        let mut rows = self.held.write();
        if rows.get(&id).is_some_and(|h| h.version <= held.version) {
            rows.remove(&id);
        }
        Ok(())
    }
}

fn row_key(stream: &DeliveryStream) -> String {
    format!("{STREAM_ROWS}{}/{}", stream.scope, stream.name)
}
