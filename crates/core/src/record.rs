//! Records as they travel between the edge, the log and its readers: encoded once, never parsed
//! into an object each.
//!
//! A batch is two buffers, the very bytes a frame of the log holds:
//!
//! ```text
//! offsets: count × u32 little endian, where each record starts in `records`
//! records: key length u16 | flags u8 | data length u32 | key | data      (little endian, packed)
//! ```
//!
//! The flags of a record are 0, [`ENCRYPTED`] or [`DECRYPTED`].

use std::convert::Infallible;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::encryption::DataKeyId;
use crate::sequence::RecordIndex;

const HEAD_BYTES: usize = 2 + 1 + 4;

/// Flag of a record whose data is encrypted: what the log holds of it, and no reader is shown.
pub const ENCRYPTED: u8 = 1;
/// Flag of a record whose data the log holds encrypted, and which has been decrypted since.
pub const DECRYPTED: u8 = 2;

/// Records on their way into one shard, in order. Build it, then hand it to
/// [`LogEngine::append`](crate::log::LogEngine::append).
#[derive(Clone, Debug, Default)]
pub struct RecordBatch {
    offsets: Buffer,
    records: Buffer,
    data_key: Option<DataKeyId>,
}

/// Bytes that grow, or that are shared: one of the two is empty.
#[derive(Clone, Debug, Default)]
struct Buffer {
    growing: Vec<u8>,
    shared: Bytes,
}

impl Buffer {
    fn with_capacity(bytes: usize) -> Self {
        Self { growing: Vec::with_capacity(bytes), shared: Bytes::new() }
    }

    /// To append to; copies what is shared.
    fn grow(&mut self) -> &mut Vec<u8> {
        if !self.shared.is_empty() {
            self.growing.extend_from_slice(&std::mem::take(&mut self.shared));
        }
        &mut self.growing
    }

    fn freeze(self) -> Bytes {
        if self.shared.is_empty() { self.growing.into() } else { self.shared }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.shared.is_empty() { &self.growing } else { &self.shared }
    }
}

impl RecordBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `count` records of `bytes` bytes in all.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Self {
            offsets: Buffer::with_capacity(count * 4),
            records: Buffer::with_capacity(bytes + count * HEAD_BYTES),
            data_key: None,
        }
    }

    /// The same batch, made to be cloned: a clone is two reference counts, where that of a batch that
    /// grows is a copy. Whoever pushes to it all the same copies it first.
    #[must_use]
    pub fn shared(self) -> Self {
        let share = |buffer: Buffer| Buffer { growing: Vec::new(), shared: buffer.freeze() };
        Self { offsets: share(self.offsets), records: share(self.records), ..self }
    }

    /// Asks that the data be encrypted with this key on its way into the log. An engine that does not
    /// encrypt refuses such a batch.
    #[must_use]
    pub fn encrypted_with(self, data_key: Option<DataKeyId>) -> Self {
        Self { data_key, ..self }
    }

    /// The key to encrypt the data with, if it is to be encrypted.
    pub fn data_key(&self) -> Option<DataKeyId> {
        self.data_key
    }

    /// Adds a record, with an empty key if its producer gave none. The caller's duty: a key of at most
    /// 65,535 bytes, and less than 4 GiB in all;
    /// the limits of [`crate::limits`] are far below both.
    pub fn push(&mut self, key: &[u8], data: &[u8]) {
        let Ok(()) = self.try_push_with(0, key, data.len(), |room| {
            room.extend_from_slice(data);
            Ok::<_, Infallible>(())
        });
    }

    /// Adds a record with these flags whose data `write` appends to the buffer: `data_bytes` of it, no
    /// more and no less. If it fails, the batch is as it was before. The caller's duty as with
    /// [`Self::push`].
    pub fn try_push_with<E>(
        &mut self,
        flags: u8,
        key: &[u8],
        data_bytes: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(key.len() <= usize::from(u16::MAX));
        let records = self.records.grow();
        let at = records.len();
        let ([k0, k1], [d0, d1, d2, d3]) =
            ((key.len() as u16).to_le_bytes(), (data_bytes as u32).to_le_bytes());
        records.reserve(HEAD_BYTES + key.len() + data_bytes);
        records.extend_from_slice(&[k0, k1, flags, d0, d1, d2, d3]);
        records.extend_from_slice(key);
        if let Err(error) = write(records) {
            records.truncate(at);
            return Err(error);
        }
        debug_assert_eq!(records.len(), at + HEAD_BYTES + key.len() + data_bytes);
        self.offsets.grow().extend_from_slice(&(at as u32).to_le_bytes());
        Ok(())
    }

    /// The records as they were pushed, in order: key and data.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.records[..];
        std::iter::from_fn(move || {
            let (head, body) = rest.split_at_checked(HEAD_BYTES)?;
            let (key, data) = lengths(head);
            let (record, next) = body.split_at_checked(key + data)?;
            rest = next;
            Some(record.split_at(key))
        })
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.offsets.len() / 4
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes that count towards AWS's limits: the data and partition keys of all records.
    pub fn size_bytes(&self) -> usize {
        self.records.len() - self.len() * HEAD_BYTES
    }

    /// Bytes the batch takes in a frame, without the frame's header.
    pub fn encoded_bytes(&self) -> usize {
        self.offsets.len() + self.records.len()
    }

    /// The two buffers of a frame's body: offsets, then records.
    pub fn into_parts(self) -> (Bytes, Bytes) {
        (self.offsets.freeze(), self.records.freeze())
    }
}

/// The bytes are not a frame's body. Whoever read them knows where they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame body")]
pub struct MalformedFrame;

/// Records of one shard with consecutive indices that arrived together, or a run of them.
///
/// Cloning is two reference counts; the bytes are shared with the log's cache.
#[derive(Clone, Debug)]
pub struct Frame {
    first: RecordIndex,
    arrival: Timestamp,
    offsets: Bytes,
    records: Bytes,
    skip: u32,
    count: u32,
    /// All flags that a record of the body has.
    flags: u8,
}

impl Frame {
    /// A frame over a body as [`RecordBatch::into_parts`] makes it. Checks every offset and length,
    /// so that reading the records later can neither fail nor reach outside.
    pub fn new(
        first: RecordIndex,
        arrival: Timestamp,
        offsets: Bytes,
        records: Bytes,
    ) -> Result<Self, MalformedFrame> {
        let count = u32::try_from(offsets.len() / 4).map_err(|_| MalformedFrame)?;
        let mut frame = Self { first, arrival, offsets, records, skip: 0, count, flags: 0 };
        let (mut expected, mut flags) = (0, 0);
        for n in 0..count {
            let at = frame.start_of(n);
            let head = frame.records.get(at..at + HEAD_BYTES).ok_or(MalformedFrame)?;
            let (key, data) = lengths(head);
            if at != expected {
                return Err(MalformedFrame);
            }
            flags |= head[2];
            expected = at + HEAD_BYTES + key + data;
        }
        frame.flags = flags;
        if expected == frame.records.len() && frame.offsets.len().is_multiple_of(4) {
            Ok(frame)
        } else {
            Err(MalformedFrame)
        }
    }

    /// Index of the first record.
    pub fn first(&self) -> RecordIndex {
        self.first.plus(u64::from(self.skip))
    }

    /// The first index past the frame.
    pub fn end(&self) -> RecordIndex {
        self.first.plus(u64::from(self.skip + self.count))
    }

    /// When the records arrived: the `ApproximateArrivalTimestamp` of each.
    pub fn arrival(&self) -> Timestamp {
        self.arrival
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that count towards AWS's limits: the data and partition keys of its records. Reads none of
    /// them.
    pub fn size_bytes(&self) -> usize {
        let end = self.skip + self.count;
        let end_at = match end as usize * 4 < self.offsets.len() {
            true => self.start_of(end),
            false => self.records.len(),
        };
        let start_at = if self.count == 0 { end_at } else { self.start_of(self.skip) };
        end_at - start_at - self.len() * HEAD_BYTES
    }

    /// Bytes that stay in memory as long as the frame does: those of the whole that it may be a part of.
    pub fn held_bytes(&self) -> usize {
        self.offsets.len() + self.records.len()
    }

    /// Whether a record may have data that [is encrypted](Record::is_ciphertext). Reads none of them.
    pub fn may_have_ciphertext(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    /// The part of the frame with indices from `from` on, at most `records_max` records.
    #[must_use]
    pub fn slice(&self, from: RecordIndex, records_max: usize) -> Self {
        let drop = from.0.saturating_sub(self.first().0).min(u64::from(self.count)) as u32;
        let left = (self.count - drop).min(u32::try_from(records_max).unwrap_or(u32::MAX));
        Self { skip: self.skip + drop, count: left, ..self.clone() }
    }

    /// The `n`-th record, from 0. The caller's duty: `n < len()`.
    pub fn get(&self, n: usize) -> Record<'_> {
        let n = n as u32;
        let at = self.start_of(self.skip + n);
        let head = &self.records[at..at + HEAD_BYTES];
        let (key, data) = lengths(head);
        let flags = head[2];
        let body = &self.records[at + HEAD_BYTES..at + HEAD_BYTES + key + data];
        let (partition_key, data) = body.split_at(key);
        Record {
            index: self.first().plus(u64::from(n)),
            arrival: self.arrival,
            partition_key,
            data,
            flags,
        }
    }

    /// The records, in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.len()).map(|n| self.get(n))
    }

    fn start_of(&self, n: u32) -> usize {
        let at = n as usize * 4;
        let bytes = &self.offsets[at..at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
    }
}

fn lengths(head: &[u8]) -> (usize, usize) {
    let key = u16::from_le_bytes([head[0], head[1]]);
    let data = u32::from_le_bytes([head[3], head[4], head[5], head[6]]);
    (usize::from(key), data as usize)
}

/// One record, borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the shard.
    pub index: RecordIndex,
    /// When it arrived.
    pub arrival: Timestamp,
    /// Its partition key, UTF-8 as the producer sent it; empty if the producer sent none.
    pub partition_key: &'a [u8],
    /// Its data blob; what stands for it in the log if it is ciphertext.
    pub data: &'a [u8],
    flags: u8,
}

impl Record<'_> {
    /// Bytes that count towards AWS's limits: data and partition key.
    pub fn size_bytes(&self) -> usize {
        self.partition_key.len() + self.data.len()
    }

    /// Whether [`Self::data`] is encrypted. False for whatever an engine's reader is shown.
    pub fn is_ciphertext(&self) -> bool {
        self.flags == ENCRYPTED
    }

    /// Whether the log holds its data encrypted: what `EncryptionType` tells.
    pub fn is_encrypted(&self) -> bool {
        self.flags != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_batch_reads_back_from_its_frame(
            records in prop::collection::vec((".{0,20}", prop::collection::vec(any::<u8>(), 0..50)), 0..20),
            from in 0u64..25, take in 0usize..25,
        ) {
            let mut batch = RecordBatch::new();
            for (key, data) in &records {
                batch.push(key.as_bytes(), data);
            }
            let (offsets, body) = batch.into_parts();
            let frame = Frame::new(RecordIndex(100), Timestamp::ZERO, offsets, body).unwrap();
            let part = frame.slice(RecordIndex(100 + from), take);
            let want: Vec<_> = records.iter().enumerate().skip(from as usize).take(take).collect();
            prop_assert_eq!(part.len(), want.len());
            let bytes: usize = part.records().map(|record| record.size_bytes()).sum();
            prop_assert_eq!(part.size_bytes(), bytes);
            for (got, (n, (key, data))) in part.records().zip(want) {
                prop_assert_eq!(got.index, RecordIndex(100 + n as u64));
                prop_assert_eq!(got.partition_key, key.as_bytes());
                prop_assert_eq!(got.data, &data[..]);
            }
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(offsets: Vec<u8>, records: Vec<u8>) {
            let _ = Frame::new(RecordIndex::MIN, Timestamp::ZERO, offsets.into(), records.into())
                .map(|f| f.records().count());
        }
    }
}
