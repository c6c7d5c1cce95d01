//! What every operation works on: index, files, time, and the commit that makes an object visible.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use hydrant_core::control::{ControlError, ControlStore, Entry, Write};
use hydrant_core::names::AccountId;
use hydrant_core::notify::{Doorbell, ObjectCreated, outbox_key};
use hydrant_core::{Clock, Random, Timestamp};
use s3s::dto::ETagCondition;
use s3s::{S3Error, S3Result};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, RwLock};

use crate::error::{
    from_control, internal, invalid_request, no_such_bucket, no_such_key, precondition_failed,
    slow_down,
};
use crate::files::{FileId, Files, Pending, off_thread};
use crate::index::{BucketRow, Data, ObjectRow, Segment, bucket_key, layout_key, object_key};
use crate::sequencer::Sequencer;

/// Locks that commits of one key take turns by.
const KEY_LOCKS: usize = 64;
/// How often a commit is tried again because another process changed the object meanwhile.
const ATTEMPTS_MAX: usize = 100;

/// See the module.
pub(crate) struct Store {
    pub(crate) files: Arc<Files>,
    pub(crate) control: Arc<dyn ControlStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<Random>,
    pub(crate) account: AccountId,
    pub(crate) sequencer: Sequencer,
    pub(crate) doorbell: Doorbell,
    /// Held for reading by a commit of an object, for writing while a bucket is deleted.
    pub(crate) buckets: RwLock<()>,
    keys: Vec<Mutex<()>>,
}

/// An object that is complete but not visible.
pub(crate) struct Unpublished {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) row: ObjectRow,
    pub(crate) condition: Condition,
    /// Its file, unless rows name its files already.
    pub(crate) pending: Option<Pending>,
    /// What has to change together with it.
    pub(crate) with: Vec<Write>,
}

/// `If-Match` and `If-None-Match` of a write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
}

impl Condition {
    /// The condition on the target of a copy, which the protocol crate does not know yet.
    pub(crate) fn of_copy(headers: &http::HeaderMap) -> S3Result<Self> {
        let read = |name: http::HeaderName| match headers.get(&name) {
            None => Ok(None),
            Some(value) => ETagCondition::parse_http_header(value.as_bytes())
                .map(Some)
                .map_err(|_| invalid_request(format!("Invalid header: {name}"))),
        };
        let if_match = read(http::header::IF_MATCH)?;
        Ok(Self { if_match, if_none_match: read(http::header::IF_NONE_MATCH)? })
    }

    /// S3's answers: 404 if there is nothing to match, 412 if it does not match.
    pub(crate) fn check(&self, current: Option<&ObjectRow>) -> S3Result<()> {
        let matches = |condition: &ETagCondition, row: &ObjectRow| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == row.etag,
        };
        if let Some(condition) = &self.if_match {
            let row = current.ok_or_else(no_such_key)?;
            if !matches(condition, row) {
                return Err(precondition_failed());
            }
        }
        match (&self.if_none_match, current) {
            (Some(condition), Some(row)) if matches(condition, row) => Err(precondition_failed()),
            _ => Ok(()),
        }
    }
}

/// Why an object was not published.
pub(crate) enum NotPublished {
    /// One of the rows that had to change with it is not as expected.
    Overtaken,
    /// Anything else.
    Refused(S3Error),
}

impl From<S3Error> for NotPublished {
    fn from(error: S3Error) -> Self {
        Self::Refused(error)
    }
}

impl From<NotPublished> for S3Error {
    fn from(cause: NotPublished) -> Self {
        match cause {
            NotPublished::Overtaken => slow_down(),
            NotPublished::Refused(error) => error,
        }
    }
}

impl Store {
    pub(crate) fn new(
        files: Files,
        control: Arc<dyn ControlStore>,
        clock: Arc<dyn Clock>,
        random: Arc<Random>,
        account: AccountId,
        doorbell: Doorbell,
    ) -> Self {
        Self {
            files: Arc::new(files),
            sequencer: Sequencer::new(Arc::clone(&control)),
            control,
            clock,
            random,
            account,
            doorbell,
            buckets: RwLock::default(),
            keys: (0..KEY_LOCKS).map(|_| Mutex::default()).collect(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A row, parsed, with the version a write has to name.
    pub(crate) async fn row<T: DeserializeOwned>(&self, key: &str) -> S3Result<Option<(Entry, T)>> {
        let Some(entry) = self.control.get(key).await.map_err(from_control)? else {
            return Ok(None);
        };
        let row = entry.json(key).map_err(from_control)?;
        Ok(Some((entry, row)))
    }

    /// The bucket, or `NoSuchBucket`.
    pub(crate) async fn bucket(&self, name: &str) -> S3Result<BucketRow> {
        let row = self.row(&bucket_key(name)).await?;
        row.map(|(_, row)| row).ok_or_else(no_such_bucket)
    }

    /// The object, or `NoSuchBucket`, or `NoSuchKey`.
    pub(crate) async fn object(&self, bucket: &str, key: &str) -> S3Result<ObjectRow> {
        match self.row(&object_key(bucket, key)).await? {
            Some((_, row)) => Ok(row),
            None => Err(self.bucket(bucket).await.map_or_else(|e| e, |_| no_such_key())),
        }
    }

    /// The files of a layout, with its row's version.
    pub(crate) async fn layout(&self, id: FileId) -> S3Result<Option<(Entry, Vec<Segment>)>> {
        self.row(&layout_key(id)).await
    }

    pub(crate) fn key_lock(&self, row_key: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        row_key.hash(&mut hasher);
        &self.keys[hasher.finish() as usize % KEY_LOCKS]
    }

    /// Makes an object visible: one commit of its row, its notification and `with`; then removes
    /// what it replaced. Runs to its end even if the caller goes away.
    pub(crate) async fn publish(
        self: &Arc<Self>,
        object: Unpublished,
    ) -> Result<ObjectRow, NotPublished> {
        let store = Arc::clone(self);
        match tokio::spawn(async move { store.publish_all(object).await }).await {
            Ok(result) => result,
            Err(error) => Err(internal(error).into()),
        }
    }

    async fn publish_all(&self, mut object: Unpublished) -> Result<ObjectRow, NotPublished> {
        let row_key = object_key(&object.bucket, &object.key);
        let _bucket_stays = self.buckets.read().await;
        let _turn = self.key_lock(&row_key).lock().await;
        for _ in 0..ATTEMPTS_MAX {
            self.bucket(&object.bucket).await?;
            let seen = self.row::<ObjectRow>(&row_key).await?;
            object.condition.check(seen.as_ref().map(|(_, row)| row))?;
            object.row.modified = self.now();
            let mut writes = object.with.clone();
            writes.push(Write::put(&row_key, seen.as_ref().map(|(entry, _)| entry), &object.row));
            writes.push(self.notification(&object).await?);
            let replaced = match &seen {
                Some((_, row)) => self.removal_of(row, &mut writes).await?,
                None => Replaced::Nothing,
            };
            object.pending.iter_mut().for_each(Pending::commit_begins);
            let committed = self.control.commit(writes).await;
            if !matches!(committed, Err(ControlError::Unavailable(_))) {
                object.pending.iter_mut().for_each(Pending::commit_refused);
            }
            match committed {
                Ok(_) => {
                    if let Some(pending) = object.pending {
                        pending.keep();
                    }
                    self.doorbell.ring();
                    if seen.is_none() {
                        metrics::gauge!("hydrant_bucket_objects").increment(1.0);
                    }
                    self.discard(replaced);
                    return Ok(object.row);
                }
                Err(ControlError::Conflict { key }) => {
                    if object.with.iter().any(|write| write.key == key) {
                        return Err(NotPublished::Overtaken);
                    }
                }
                Err(error) => return Err(from_control(error).into()),
            }
        }
        Err(slow_down().into())
    }

    /// The row for the pipes. Numbered after the object's row was read, so that of two writes of one
    /// key the later one has the greater number.
    async fn notification(&self, object: &Unpublished) -> S3Result<Write> {
        let created = ObjectCreated {
            bucket: object.bucket.clone(),
            key: object.key.clone(),
            size_bytes: object.row.size_bytes,
            etag: object.row.etag.clone(),
            created: object.row.modified,
        };
        let number = self.sequencer.next().await.map_err(from_control)?;
        Ok(Write::insert(outbox_key(number), &created))
    }

    /// Adds to `writes` what goes with an object's row, and says what to discard after the commit.
    pub(crate) async fn removal_of(
        &self,
        row: &ObjectRow,
        writes: &mut Vec<Write>,
    ) -> S3Result<Replaced> {
        match row.data {
            Data::File(file) => Ok(Replaced::File(file)),
            Data::Layout(id) => match self.layout(id).await? {
                Some((entry, segments)) => {
                    writes.push(Write::delete(layout_key(id), entry.version));
                    Ok(Replaced::Layout(id, segments.iter().map(|s| s.file).collect()))
                }
                None => Ok(Replaced::Nothing),
            },
        }
    }

    /// Removes files that the last commit took out of the index.
    pub(crate) fn discard(&self, replaced: Replaced) {
        let files = Arc::clone(&self.files);
        match replaced {
            Replaced::Nothing => {}
            Replaced::File(file) => off_thread(files, move |files| files.remove(&[file])),
            Replaced::Layout(id, ids) => off_thread(files, move |files| files.retire(id, ids)),
        }
    }
}

/// Files that nothing names once a commit is through.
pub(crate) enum Replaced {
    Nothing,
    File(FileId),
    Layout(FileId, Vec<FileId>),
}
