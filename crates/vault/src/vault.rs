//! The data keys of this process, and what is encrypted with them.
//!
//! What stands for the data of an encrypted record in the log:
//!
//! ```text
//! data key u64 | nonce 12 bytes | ciphertext, as long as the data | tag 16 bytes     (little endian)
//! ```
//!
//! The tag also covers the shard, the data key's name and the partition key, so that a record cannot
//! be passed off as one of another shard or key.
//!
//! **No nonce is used twice with a key.** A nonce is a salt of 64 bits and a count of 32. The count
//! never repeats under a salt: one process counts under it, for all keys together, and takes another
//! salt when the count is through. Salts are drawn at random at each start and each wrap, so that
//! neither a restart nor a copy of the data directory that goes its own way comes upon an earlier
//! one: among 2^20 salts, as many as 2^52 records take, two are alike with a chance below 2^-25.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;
use hydrant_core::Random;
use hydrant_core::encryption::{DataKeyId, WrappedKey};
use hydrant_core::log::{KeyError, LogError, ShardUid};
use hydrant_core::names::Scope;
use hydrant_core::record::{DECRYPTED, ENCRYPTED, Frame, RecordBatch};
use parking_lot::{Mutex, RwLock};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::kms::{self, AWS_KINESIS, KeyState, KmsKey};
use crate::master::MasterKey;

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 8 + NONCE_LEN;
/// What an encrypted record takes more than a plain one.
const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;

type DataKey = Result<Arc<LessSafeKey>, KeyError>;

/// Draws, wraps and unwraps data keys, and encrypts with them.
///
/// A data key that is drawn or loaded stays at hand until it is forgotten. No key is ever shown: not
/// in an error, not by `Debug`.
pub struct Vault {
    master: Option<MasterKey>,
    kms_keys: Vec<KmsKey>,
    random: Arc<Random>,
    keys: RwLock<HashMap<DataKeyId, DataKey>>,
    nonces: Mutex<Nonces>,
}

/// Where the nonces go on: see the module's text.
struct Nonces {
    salt: u64,
    next: u64,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("kms_keys", &self.kms_keys).finish_non_exhaustive()
    }
}

impl Vault {
    /// With the master key, if there is one, and the KMS keys that callers may name. With a master
    /// key, `alias/aws/kinesis` is always one of them, enabled unless `kms_keys` says otherwise.
    pub fn new(master: Option<MasterKey>, mut kms_keys: Vec<KmsKey>, random: Arc<Random>) -> Self {
        if !kms_keys.iter().any(|key| key.name == AWS_KINESIS) {
            kms_keys.push(KmsKey { name: AWS_KINESIS.to_owned(), state: KeyState::Enabled });
        }
        let nonces = Mutex::new(Nonces { salt: random.next_u64(), next: 0 });
        Self { master, kms_keys, random, keys: RwLock::default(), nonces }
    }

    /// Draws a data key for the stream with this `StreamId`, has it at hand, and returns it wrapped
    /// under the KMS key that `key_id` means. Fails if there is no such key or it may not be used.
    pub fn draw(
        &self,
        key_id: &str,
        scope: &Scope,
        stream_id: &str,
    ) -> Result<WrappedKey, KeyError> {
        let master = self.master(key_id)?;
        let kms_key = kms::find(&self.kms_keys, key_id, scope)?;
        kms::check(kms_key)?;
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        self.random.fill(&mut bytes[..]);
        let data_key = data_key(&bytes[..])?;
        let id = DataKeyId(self.random.next_u64());
        let nonce: [u8; NONCE_LEN] = self.random.bytes();
        let wrapping = master.wrapping_key(&kms_key.name).ok_or_else(broken)?;
        // In place: what was the key is its ciphertext from here on.
        let tag = wrapping.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(wrapping_context(id, stream_id)),
            &mut bytes[..],
        );
        let tag = tag.map_err(|_| broken())?;
        let text = STANDARD.encode([&nonce[..], &bytes[..], tag.as_ref()].concat());
        self.keys.write().insert(id, Ok(Arc::new(data_key)));
        Ok(WrappedKey { id, kms_key: kms_key.name.clone(), wrapped: text })
    }

    /// Has a data key of a stream at hand. If it cannot be unwrapped, everything that needs it is told
    /// why, as is the caller.
    pub fn load(&self, key: &WrappedKey, scope: &Scope, stream_id: &str) -> Result<(), KeyError> {
        let unwrapped = self.unwrap(key, scope, stream_id).map(Arc::new);
        let told = unwrapped.as_ref().map(|_| ()).map_err(KeyError::clone);
        self.keys.write().insert(key.id, unwrapped);
        told
    }

    /// Forgets a data key that no record is encrypted with any more.
    pub fn forget(&self, id: DataKeyId) {
        self.keys.write().remove(&id);
    }

    /// Whether records can be encrypted and decrypted with this data key now.
    pub fn check(&self, id: DataKeyId) -> Result<(), KeyError> {
        self.data_key(id).map(|_| ())
    }

    /// Whether two of a caller's `KeyId`s mean the same KMS key, be there one or not.
    pub fn same_key(&self, one: &str, other: &str, scope: &Scope) -> bool {
        let name = |key_id| kms::find(&self.kms_keys, key_id, scope).map(|key| &key.name);
        one == other || matches!((name(one), name(other)), (Ok(a), Ok(b)) if a == b)
    }

    fn master(&self, key: &str) -> Result<&MasterKey, KeyError> {
        self.master.as_ref().ok_or_else(|| {
            KeyError::NotFound(format!(
                "{key} is not found: hydrant has no master key. Give it one in HYDRANT_MASTER_KEY or \
                 --master-key-file (`openssl rand -base64 32` makes one) and start it again."
            ))
        })
    }

    fn unwrap(
        &self,
        key: &WrappedKey,
        scope: &Scope,
        stream_id: &str,
    ) -> Result<LessSafeKey, KeyError> {
        let name = &key.kms_key;
        let master = self.master(name)?;
        kms::check(kms::find(&self.kms_keys, name, scope)?)?;
        let denied = || {
            KeyError::Denied(format!(
                "The data key under {name} cannot be unwrapped: the master key is not the one that it \
                 was wrapped under. Start hydrant with that one."
            ))
        };
        let bytes = STANDARD.decode(&key.wrapped).map_err(|_| denied())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(denied)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let wrapping = master.wrapping_key(name).ok_or_else(broken)?;
        let opened = wrapping.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(wrapping_context(key.id, stream_id)),
            &mut sealed,
        );
        data_key(opened.map_err(|_| denied())?)
    }

    fn data_key(&self, id: DataKeyId) -> DataKey {
        let missing = || Err(KeyError::NotFound(format!("data key {:016x} is not known", id.0)));
        self.keys.read().get(&id).cloned().unwrap_or_else(missing)
    }

    /// A salt, and the first of `count` numbers that nobody has had under it.
    fn nonces(&self, count: u32) -> (u64, u32) {
        let mut nonces = self.nonces.lock();
        if nonces.next + u64::from(count) > 1 << 32 {
            *nonces = Nonces { salt: self.random.next_u64(), next: 0 };
        }
        let first = nonces.next as u32;
        nonces.next += u64::from(count);
        (nonces.salt, first)
    }

    /// The batch with the data of its records encrypted.
    pub(crate) fn encrypt(
        &self,
        shard: ShardUid,
        batch: &RecordBatch,
        id: DataKeyId,
    ) -> Result<RecordBatch, LogError> {
        let key = self.data_key(id)?;
        let count = u32::try_from(batch.len());
        let count = count.map_err(|_| LogError::Invalid("it is larger than a frame may be"))?;
        let (salt, first) = self.nonces(count);
        let bytes = batch.encoded_bytes() + batch.len() * OVERHEAD_BYTES;
        let mut out = RecordBatch::with_capacity(batch.len(), bytes);
        let mut context = Context::new(shard, id);
        for (n, (partition_key, data)) in (first..).zip(batch.records()) {
            out.try_push_with(ENCRYPTED, partition_key, data.len() + OVERHEAD_BYTES, |room| {
                let nonce = nonce(salt, n);
                room.put_u64_le(id.0);
                room.put_slice(&nonce);
                let at = room.len();
                room.put_slice(data);
                let aad = Aad::from(context.with(partition_key));
                let nonce = Nonce::assume_unique_for_key(nonce);
                let sealed = key.seal_in_place_separate_tag(nonce, aad, &mut room[at..]);
                let tag = sealed.map_err(|_| {
                    // No plain text, whatever happens to the batch.
                    room[at..].fill(0);
                    LogError::Invalid("a record is too long to be encrypted")
                })?;
                room.put_slice(tag.as_ref());
                Ok::<_, LogError>(())
            })?;
        }
        Ok(out)
    }

    /// The frame with the data of its records decrypted; `None` if none of it is encrypted.
    pub(crate) fn decrypt(
        &self,
        shard: ShardUid,
        frame: &Frame,
    ) -> Result<Option<Frame>, LogError> {
        if !frame.may_have_ciphertext() {
            return Ok(None);
        }
        let mut out = RecordBatch::with_capacity(frame.len(), frame.size_bytes());
        // Records that were put together have one key.
        let mut last: Option<(DataKeyId, Arc<LessSafeKey>, Context)> = None;
        for record in frame.records() {
            let damaged = || {
                let (index, shard) = (record.index.0, shard.0);
                LogError::Corrupt(format!("record {index:#x} of shard {shard} is not as encrypted"))
            };
            if !record.is_ciphertext() {
                out.push(record.partition_key, record.data);
                continue;
            }
            let (head, sealed) =
                record.data.split_first_chunk::<HEAD_BYTES>().ok_or_else(damaged)?;
            let (id, nonce) = read_head(head);
            let len = sealed.len().checked_sub(TAG_BYTES).ok_or_else(damaged)?;
            let (_, key, context) = match &mut last {
                Some(known) if known.0 == id => known,
                other => other.insert((id, self.data_key(id)?, Context::new(shard, id))),
            };
            let (data, tag) = sealed.split_at(len);
            let tag = tag.try_into().map_err(|_| damaged())?;
            let aad = Aad::from(context.with(record.partition_key));
            let nonce = Nonce::assume_unique_for_key(nonce);
            out.try_push_with(DECRYPTED, record.partition_key, len, |room| {
                let at = room.len();
                room.put_slice(data);
                let opened = key.open_in_place_separate_tag(nonce, aad, tag, &mut room[at..], 0..);
                opened.map(|_| ()).map_err(|_| damaged())
            })?;
        }
        let (offsets, records) = out.into_parts();
        let plain = Frame::new(frame.first(), frame.arrival(), offsets, records);
        plain.map(Some).map_err(|e| LogError::Corrupt(e.to_string()))
    }
}

/// What the tag of a record covers beside its data; made once for all records of a batch.
struct Context {
    bytes: Vec<u8>,
}

impl Context {
    const FIXED_BYTES: usize = 16;

    fn new(shard: ShardUid, id: DataKeyId) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.put_u64_le(shard.0);
        bytes.put_u64_le(id.0);
        Self { bytes }
    }

    fn with(&mut self, partition_key: &[u8]) -> &[u8] {
        self.bytes.truncate(Self::FIXED_BYTES);
        self.bytes.extend(partition_key);
        &self.bytes
    }
}

fn wrapping_context(id: DataKeyId, stream_id: &str) -> Vec<u8> {
    [&id.0.to_le_bytes()[..], stream_id.as_bytes()].concat()
}

fn nonce(salt: u64, n: u32) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&salt.to_le_bytes());
    nonce[8..].copy_from_slice(&n.to_le_bytes());
    nonce
}

fn read_head(head: &[u8; HEAD_BYTES]) -> (DataKeyId, [u8; NONCE_LEN]) {
    let (mut id, mut nonce) = ([0; 8], [0; NONCE_LEN]);
    id.copy_from_slice(&head[..8]);
    nonce.copy_from_slice(&head[8..]);
    (DataKeyId(u64::from_le_bytes(id)), nonce)
}

fn data_key(bytes: &[u8]) -> Result<LessSafeKey, KeyError> {
    let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| broken())?;
    Ok(LessSafeKey::new(key))
}

/// Lengths are what the algorithms want, so this is not to be seen.
pub(crate) fn broken() -> KeyError {
    KeyError::InvalidState("the cipher refused a key".to_owned())
}
