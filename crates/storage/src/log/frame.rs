//! The log's frame: 64 bytes of header, then a batch as
//! [`RecordBatch`](hydrant_core::record::RecordBatch) encodes it, padded to 8.
//!
//! ```text
//!  0 header crc u32   CRC32C of bytes 4..64, seeded with the segment's salt, so that no frame of
//!                     the file's former life ever verifies
//!  4 body crc u32     CRC32C of the body
//!  8 body length u32 | 12 records u32 | 16 kind u8 | 17 codec u8 | 18 flags u16
//! 20 segment u32      the low half of its number: two lives of a file may draw equal seeds, one
//!                     in four thousand million, but never have the same number
//! 24 shard u64 | 32 first index u64 | 40 arrival in ms u64
//! 48 group u64        grows with every group of the segment
//! 56 durable up to u64  every byte of the segment before it was synced before this was written
//! ```
//! All little endian.

use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;

use crate::planted::{Bug, planted};

/// Size of the header, in bytes.
pub(super) const HEADER_BYTES: usize = 64;
/// Frames start at multiples of this.
pub(super) const ALIGN: u64 = 8;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Records of one shard.
    Records,
    /// Nothing but the proof, in `durable_upto`, that the group before it was synced.
    Cover,
    /// The last frame of a segment that was left for the next one.
    End,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Records),
            2 => Some(Self::Cover),
            3 => Some(Self::End),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Records => 1,
            Self::Cover => 2,
            Self::End => 3,
        }
    }
}

/// What ties a frame to the one life of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// What checksums start from.
    pub(super) seed: u32,
    /// The low half of the segment's number.
    pub(super) segment: u32,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) body_crc: u32,
    pub(super) body_bytes: u32,
    pub(super) count: u32,
    pub(super) kind: Kind,
    pub(super) shard: ShardUid,
    pub(super) first: RecordIndex,
    pub(super) arrival_ms: u64,
    pub(super) group: u64,
    pub(super) durable_upto: u64,
}

impl Header {
    /// A frame without records.
    pub(super) fn mark(kind: Kind, group: u64, at: u64) -> Self {
        Self {
            body_crc: 0,
            body_bytes: 0,
            count: 0,
            kind,
            shard: ShardUid(0),
            first: RecordIndex::MIN,
            arrival_ms: 0,
            group,
            durable_upto: at,
        }
    }

    /// Bytes of the whole frame, padding included.
    pub(super) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_bytes as usize)
    }

    /// The header as written into the segment with this stamp.
    pub(super) fn encode(&self, stamp: Stamp) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(4, &self.body_crc.to_le_bytes());
        put(8, &self.body_bytes.to_le_bytes());
        put(12, &self.count.to_le_bytes());
        put(16, &[self.kind.byte(), 0, 0, 0]);
        put(20, &stamp.segment.to_le_bytes());
        put(24, &self.shard.0.to_le_bytes());
        put(32, &self.first.0.to_le_bytes());
        put(40, &self.arrival_ms.to_le_bytes());
        put(48, &self.group.to_le_bytes());
        put(56, &self.durable_upto.to_le_bytes());
        let crc = crc32c::crc32c_append(stamp.seed, &out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header, if these bytes are one of the segment with this stamp.
    pub(super) fn decode(bytes: &[u8], stamp: Stamp) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        // Cheap refusals first: most of what is probed is zeros.
        let kind = Kind::of(bytes[16])?;
        let crc = crc32c::crc32c_append(stamp.seed, &bytes[4..]);
        let of_this_life = u32_at(bytes, 20) == stamp.segment || planted(Bug::StaleFrames);
        if crc != u32_at(bytes, 0) || bytes[17..20] != [0; 3] || !of_this_life {
            return None;
        }
        Some(Self {
            body_crc: u32_at(bytes, 4),
            body_bytes: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            kind,
            shard: ShardUid(u64_at(bytes, 24)),
            first: RecordIndex(u64_at(bytes, 32)),
            arrival_ms: u64_at(bytes, 40),
            group: u64_at(bytes, 48),
            durable_upto: u64_at(bytes, 56),
        })
    }
}

/// Bytes of a frame with a body of `body_bytes`.
pub(super) fn frame_bytes(body_bytes: usize) -> u64 {
    (HEADER_BYTES + body_bytes).next_multiple_of(ALIGN as usize) as u64
}

/// The number at `at`. The caller's duty: `at + 4` is inside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The number at `at`. The caller's duty: `at + 8` is inside.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_notices_every_bit() {
        let header = Header {
            body_crc: 1,
            body_bytes: 2,
            count: 3,
            kind: Kind::Records,
            shard: ShardUid(4),
            first: RecordIndex(5),
            arrival_ms: 6,
            group: 7,
            durable_upto: 8,
        };
        let stamp = Stamp { seed: 99, segment: 3 };
        let bytes = header.encode(stamp);
        assert_eq!(Header::decode(&bytes, stamp), Some(header));
        assert_eq!(Header::decode(&bytes, Stamp { seed: 98, ..stamp }), None, "another salt");
        assert_eq!(Header::decode(&bytes, Stamp { segment: 4, ..stamp }), None, "a later life");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, stamp), None, "bit {bit}");
        }
    }
}
