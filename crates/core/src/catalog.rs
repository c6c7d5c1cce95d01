//! The streams: what is known of each, kept in the control store and read from memory.
//!
//! `kinesis` writes it; `delivery` and `cdc` read it to find a stream's shards. The rows are the
//! truth, one a stream; this process's copy of them is what the hot path reads, without a lock held
//! across an await.

mod capacity;
mod consumer;
mod held;
mod shard;
mod state;

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::arn::Arn;
use crate::clock::Timestamp;
use crate::control::{ControlError, ControlStore, Write, scan_each};
use crate::encryption::{Encryption, KeyUse};
use crate::limits::RECORD_BYTES_MAX;
use crate::log::ShardUid;
use crate::monitoring::ShardMetric;
use crate::names::{Scope, StreamName};
use crate::policy::Policy;

pub use capacity::{Capacity, PlannedShard, Reshard};
pub use consumer::{Consumer, ConsumerState, ConsumerStatus};
pub use held::Held;
pub use shard::{InvalidShardId, Shard, ShardId};
use state::lasts;
pub use state::{StreamMode, StreamState, StreamStatus};

/// What the keys of the streams' rows begin with; each holds a [`Stream`].
pub const STREAM_ROWS: &str = "streams/";
const NEXT_UID: &str = "log/next-shard-uid";
/// Shard names claimed from the store at a time.
const UIDS_CLAIMED: u64 = 1_000;
/// Times that a claim is tried again because another was faster.
const CLAIMS_MAX: usize = 32;
const WRITE_LOCKS: usize = 64;

/// Sees to it that no shard to come has a number up to `highest`: a log that was restored may have
/// records of shards that the control store, which is from a moment before, knows nothing of.
pub async fn allocate_above(store: &dyn ControlStore, highest: u64) -> Result<(), ControlError> {
    claim(store, |next| next.max(highest.saturating_add(1))).await.map(drop)
}

/// Claims the shard names from the next one up to what `end` makes of it.
async fn claim(
    store: &dyn ControlStore,
    end: impl Fn(u64) -> u64,
) -> Result<Range<u64>, ControlError> {
    for _ in 0..CLAIMS_MAX {
        let seen = store.get(NEXT_UID).await?;
        let first: u64 = seen.as_ref().map_or(Ok(1), |e| e.json(NEXT_UID))?;
        let end = end(first);
        if end == first {
            return Ok(first..end);
        }
        match store.commit(vec![Write::put(NEXT_UID, seen.as_ref(), &end)]).await {
            Ok(_) => return Ok(first..end),
            Err(ControlError::Conflict { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Err(ControlError::Unavailable(format!("{NEXT_UID} was claimed by others each time")))
}

/// A stream: one row of the control store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub name: StreamName,
    /// When it was created.
    pub created: Timestamp,
    /// What it is doing.
    pub state: StreamState,
    /// Who decides on the number of shards.
    pub mode: StreamMode,
    /// How long records are kept.
    pub retention_hours: u32,
    /// Every shard that has not expired, by number.
    pub shards: Vec<Shard>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// `StreamId`: drawn when the stream is made, unlike that of every other one.
    pub id: String,
    /// What can be set of it beyond that.
    #[serde(default)]
    pub settings: StreamSettings,
    /// What it can take, and how that is being changed.
    #[serde(default)]
    pub capacity: Capacity,
    /// Its consumers, by name; also those whose deletion is through, until the next registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<Consumer>,
}

/// `RecordDistributionStrategy`: what decides on a record's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distribution {
    /// Its partition key, or the hash key it names.
    UserPartitionKey,
    /// The stream, which spreads its records evenly and needs no partition key.
    Auto,
}

/// What can be set of a stream; the default is that of a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// Encryption at rest, once it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Box<Encryption>>,
    /// When encryption was started and when it was stopped within the last day, where AWS's quotas
    /// hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub encryption_starts: Vec<Timestamp>,
    /// See there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub encryption_stops: Vec<Timestamp>,
    /// `MaxRecordSizeInKiB`.
    pub max_record_kib: u32,
    /// `RecordDistributionStrategy`; what counts is [`Stream::spreads`].
    pub distribution: Distribution,
    /// Its resource policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<Policy>>,
    /// Metrics that are also kept by shard, in the order of AWS's model, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shard_metrics: Vec<ShardMetric>,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            encryption: None,
            encryption_starts: Vec::new(),
            encryption_stops: Vec::new(),
            max_record_kib: (RECORD_BYTES_MAX >> 10) as u32,
            distribution: Distribution::UserPartitionKey,
            policy: None,
            shard_metrics: Vec::new(),
        }
    }
}

impl Stream {
    /// Its ARN.
    pub fn arn(&self) -> Arn {
        Arn::new("kinesis", &self.scope, format!("stream/{}", self.name))
    }

    /// Its status at `now`; `None` once a deletion is through.
    pub fn status(&self, now: Timestamp) -> Option<StreamStatus> {
        match self.state {
            StreamState::Creating(until) if lasts(until, now) => Some(StreamStatus::Creating),
            StreamState::Updating(until) if now < until => Some(StreamStatus::Updating),
            StreamState::Deleting(until) if lasts(until, now) => Some(StreamStatus::Deleting),
            StreamState::Deleting(_) => None,
            // Time alone does not end it: its shards have to be there first.
            _ if self.capacity.reshard.is_some() => Some(StreamStatus::Updating),
            _ => Some(StreamStatus::Active),
        }
    }

    /// How long records are kept.
    pub fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_hours) * 3600)
    }

    /// What a record that arrives at `now` is encrypted with, if it is.
    pub fn encryption(&self, now: Timestamp) -> Option<&KeyUse> {
        self.settings.encryption.as_ref()?.at(now)
    }

    /// Whether records go to all shards alike, whatever their partition keys. Only an on-demand stream
    /// can do that (AWS); one that becomes provisioned goes by the keys from then on.
    pub fn spreads(&self) -> bool {
        self.mode == StreamMode::OnDemand && self.settings.distribution == Distribution::Auto
    }

    /// The shard with this number.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        let place = self.shards.binary_search_by_key(&id, |s| s.id).ok()?;
        self.shards.get(place)
    }

    /// The moment from which on the shard took records: that at which its parents were closed. For
    /// one whose parents have expired it is the epoch, as long ago as anybody may ask.
    pub fn opened(&self, shard: &Shard) -> Timestamp {
        let Some(parent) = shard.parent else { return shard.created };
        self.shard(parent).and_then(|parent| parent.closed).unwrap_or(Timestamp::ZERO)
    }

    /// When all records of a shard have expired, with the present retention; `None` while it is open.
    pub fn expires(&self, shard: &Shard) -> Option<Timestamp> {
        shard.closed.map(|closed| closed.plus(self.retention()))
    }
}

/// The shards a stream has open, and those it is about to have, as if none were closed for them.
fn shards_at_most(stream: &Stream) -> usize {
    let open = stream.shards.iter().filter(|s| s.is_open()).count();
    open + stream.capacity.reshard.as_ref().map_or(0, |reshard| reshard.children.len())
}

type Key = (Scope, StreamName);

/// A stream, found by its id.
struct ById(Arc<Stream>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

/// Every stream of this installation.
///
/// One process writes; its copy in memory is therefore the rows' content. (With a shared control
/// store, later, the copy is held under a lease.) A write whose answer is lost, or that nobody waits
/// for any more, is followed up, so that the copy does not stay behind.
pub struct StreamCatalog {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ControlStore>,
    held: RwLock<BTreeMap<Key, Held>>,
    /// Which stream has an id. What is in `held`, and nothing else.
    ids: RwLock<HashSet<ById>>,
    /// By account and region, what [`shards_at_most`] says of all their streams together.
    shards: RwLock<HashMap<Scope, usize>>,
    changes: watch::Sender<u64>,
    /// Orders the writes of one stream; a stream's name says which lock is its.
    writing: [Mutex<()>; WRITE_LOCKS],
    /// Shard names claimed from the store and not given out.
    claimed: Mutex<Range<u64>>,
}

impl StreamCatalog {
    /// Reads every row. Fails if the store does, or if a row is damaged.
    pub async fn open(store: Arc<dyn ControlStore>) -> Result<Self, ControlError> {
        // A tree that is made of all of them at once has full nodes, one that they are added to in
        // order has them half full; and a set that knows how many will come hashes each once.
        let mut held = Vec::new();
        let mut shards: HashMap<Scope, usize> = HashMap::new();
        // The rows of one account and region stand together.
        let mut last: Option<(Scope, usize)> = None;
        scan_each(store.as_ref(), STREAM_ROWS, |key, entry| {
            let mut stream: Stream = entry.json(&key)?;
            if let Some((scope, count)) = last.take_if(|(scope, _)| *scope != stream.scope) {
                *shards.entry(scope).or_default() += count;
            }
            let (scope, count) = last.get_or_insert_with(|| (stream.scope.clone(), 0));
            make_small(&mut stream, Some(scope));
            *count += shards_at_most(&stream);
            let id = (stream.scope.clone(), stream.name.clone());
            held.push((id, Held::new(Arc::new(stream), entry.version)));
            Ok(())
        })
        .await?;
        if let Some((scope, count)) = last {
            *shards.entry(scope).or_default() += count;
        }
        let ids =
            held.iter().map(|(_, held): &(Key, Held)| ById(Arc::clone(&held.stream))).collect();
        let inner = Inner {
            store,
            held: RwLock::new(held.into_iter().collect()),
            ids: RwLock::new(ids),
            shards: RwLock::new(shards),
            changes: watch::Sender::new(0),
            writing: std::array::from_fn(|_| Mutex::default()),
            claimed: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The stream, whatever its status.
    pub fn get(&self, scope: &Scope, name: &StreamName) -> Option<Held> {
        self.inner.held.read().get(&(scope.clone(), name.clone())).cloned()
    }

    /// The name of the stream with this id, in the time of one look-up.
    pub fn name_of(&self, scope: &Scope, id: &str) -> Option<StreamName> {
        let ids = self.inner.ids.read();
        let ById(stream) = ids.get(id)?;
        (stream.scope == *scope).then(|| stream.name.clone())
    }

    /// Streams of one account and region by name, those after `after`, at most `limit`.
    pub fn list(
        &self,
        scope: &Scope,
        after: Option<&StreamName>,
        limit: usize,
    ) -> Vec<Arc<Stream>> {
        let from = match after {
            Some(name) => Bound::Excluded((scope.clone(), name.clone())),
            None => Bound::Included((scope.clone(), StreamName::least())),
        };
        self.inner
            .held
            .read()
            .range((from, Bound::Unbounded))
            .take_while(|((s, _), _)| s == scope)
            .take(limit)
            .map(|(_, held)| Arc::clone(&held.stream))
            .collect()
    }

    /// A number of shards that the streams of an account and region together do not have open, nor
    /// are about to, more of. Takes no longer the more streams there are.
    pub fn shards_at_most(&self, scope: &Scope) -> usize {
        self.inner.shards.read().get(scope).copied().unwrap_or_default()
    }

    /// Every stream, of every account and region.
    pub fn all(&self) -> Vec<Arc<Stream>> {
        self.which(|_| true)
    }

    /// The streams, of every account and region, that `wanted` says of; no others are touched. The
    /// caller's duty: it asks nothing of the catalog.
    pub fn which(&self, wanted: impl Fn(&Stream) -> bool) -> Vec<Arc<Stream>> {
        let held = self.inner.held.read();
        held.values().filter(|h| wanted(&h.stream)).map(|h| Arc::clone(&h.stream)).collect()
    }

    /// Writes a stream: a new one if `seen` is `None`, else a change of that version. Durable on
    /// return. Fails with [`ControlError::Conflict`] if somebody else was faster: read, decide again.
    /// After [`ControlError::Unavailable`] what is read says whether it took effect.
    pub async fn put(&self, stream: Stream, seen: Option<u64>) -> Result<Held, ControlError> {
        let inner = Arc::clone(&self.inner);
        to_its_end(async move { inner.put(stream, seen).await }).await
    }

    /// Removes a stream that was read at `version`. Durable on return; fails as [`Self::put`] does.
    pub async fn remove(&self, stream: &Stream, version: u64) -> Result<(), ControlError> {
        let inner = Arc::clone(&self.inner);
        let id = (stream.scope.clone(), stream.name.clone());
        to_its_end(async move { inner.remove(id, version).await }).await
    }

    /// `count` shard names nobody has had. Durable on return: a crash may skip some, never repeat.
    pub async fn allocate_shards(&self, count: u32) -> Result<Vec<ShardUid>, ControlError> {
        let mut claimed = self.inner.claimed.lock().await;
        while claimed.end - claimed.start < u64::from(count) {
            // What is left of the last claim is given up: names need not be dense.
            let more = u64::from(count).max(UIDS_CLAIMED);
            *claimed = claim(self.inner.store.as_ref(), |first| first + more).await?;
        }
        let first = claimed.start;
        claimed.start += u64::from(count);
        Ok((first..claimed.start).map(ShardUid).collect())
    }

    /// Sees a new value whenever any stream changed: what a tap waits on for new shards.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }
}

/// Makes the stream as small as a million of them in memory should be: its account and region are
/// `scope`, if they are there already, and its lists have no room to grow.
fn make_small(stream: &mut Stream, scope: Option<&Scope>) {
    if let Some(scope) = scope {
        stream.scope = scope.clone();
    }
    stream.shards.shrink_to_fit();
    stream.consumers.shrink_to_fit();
    stream.id.shrink_to_fit();
}

/// Runs a write to its end even if the caller goes away.
async fn to_its_end<T: Send + 'static>(
    write: impl Future<Output = Result<T, ControlError>> + Send + 'static,
) -> Result<T, ControlError> {
    let ended = tokio::spawn(write).await;
    ended.unwrap_or_else(|e| Err(ControlError::Unavailable(e.to_string())))
}

impl Inner {
    async fn put(&self, mut stream: Stream, seen: Option<u64>) -> Result<Held, ControlError> {
        self.make_small(&mut stream);
        let id = (stream.scope.clone(), stream.name.clone());
        let _order = self.lock(&id).await;
        let row = row_key(&id);
        let write = match seen {
            None => Write::insert(row, &stream),
            Some(version) => Write::update(row, version, &stream),
        };
        match self.store.commit(vec![write]).await {
            Ok(version) => {
                let new = Held::new(Arc::new(stream), version);
                self.publish(id, Some(new.clone()));
                Ok(new)
            }
            Err(e) => Err(self.follow_up(id, e).await),
        }
    }

    async fn remove(&self, id: Key, version: u64) -> Result<(), ControlError> {
        let _order = self.lock(&id).await;
        match self.store.commit(vec![Write::delete(row_key(&id), version)]).await {
            Ok(_) => {
                self.publish(id, None);
                Ok(())
            }
            Err(e) => Err(self.follow_up(id, e).await),
        }
    }

    /// After a write of which it is unknown what it did, the row says it.
    async fn follow_up(&self, id: Key, error: ControlError) -> ControlError {
        if !matches!(error, ControlError::Conflict { .. } | ControlError::Unavailable(_)) {
            return error;
        }
        let key = row_key(&id);
        let row = async {
            let Some(entry) = self.store.get(&key).await? else { return Ok(None) };
            let mut stream = entry.json(&key)?;
            self.make_small(&mut stream);
            Ok(Some(Held::new(Arc::new(stream), entry.version)))
        };
        match row.await {
            Ok(held) => {
                self.publish(id, held);
                error
            }
            Err(e) => e,
        }
    }

    fn make_small(&self, stream: &mut Stream) {
        let shards = self.shards.read();
        make_small(stream, shards.get_key_value(&stream.scope).map(|(scope, _)| scope));
    }

    async fn lock(&self, id: &Key) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        self.writing[hasher.finish() as usize % WRITE_LOCKS].lock().await
    }

    fn publish(&self, id: Key, new: Option<Held>) {
        {
            let (mut held, mut ids) = (self.held.write(), self.ids.write());
            let added = new.as_ref().map(|new| ById(Arc::clone(&new.stream)));
            let more = new.as_ref().map_or(0, |new| shards_at_most(&new.stream));
            let gone = match new {
                Some(new) => held.insert(id.clone(), new),
                None => held.remove(&id),
            };
            let fewer = gone.as_ref().map_or(0, |gone| shards_at_most(&gone.stream));
            let mut shards = self.shards.write();
            let count = shards.entry(id.0.clone()).or_default();
            *count = (*count + more).saturating_sub(fewer);
            if let Some(gone) = gone {
                ids.remove(gone.stream.id.as_str());
            }
            if let Some(added) = added {
                ids.insert(added);
            }
        }
        self.changes.send_modify(|n| *n += 1);
    }
}

fn row_key((scope, name): &Key) -> String {
    format!("{STREAM_ROWS}{scope}/{name}")
}

#[cfg(test)]
mod tests;
