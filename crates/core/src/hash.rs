//! Which shard a record belongs to: MD5 of the partition key against ranges of hash keys.
//!
//! Follows "Kinesis Data Streams terminology and concepts" in the AWS developer guide: the key space
//! is 0 to 2^128 - 1, and a stream's open shards divide it without gap or overlap.

mod lanes;

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// A point in the key space that shards divide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(pub u128);

/// The text is not a whole number from 0 to 2^128 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a hash key")]
pub struct InvalidHashKey;

impl HashKey {
    /// The hash key of a partition key: its MD5, read as a big-endian number.
    pub fn of(partition_key: &[u8]) -> Self {
        Self(u128::from_be_bytes(Md5::digest(partition_key).into()))
    }

    /// The hash keys of many partition keys, in their order: what [`Self::of`] says of each, several
    /// times as fast.
    pub fn of_each<'k>(partition_keys: impl Iterator<Item = &'k [u8]>) -> Vec<Self> {
        let mut found = Vec::with_capacity(partition_keys.size_hint().0);
        // The short ones that wait to be hashed together, and where they go.
        let (mut short, mut places) = ([&[][..]; lanes::LANES], [0; lanes::LANES]);
        let mut waiting = 0;
        for key in partition_keys {
            if key.len() > lanes::SHORT_BYTES_MAX {
                found.push(Self::of(key));
                continue;
            }
            (short[waiting], places[waiting]) = (key, found.len());
            waiting += 1;
            found.push(Self(0));
            if waiting == lanes::LANES {
                let hashed = lanes::hash_keys(&short);
                places.iter().zip(hashed).for_each(|(place, key)| found[*place] = key);
                waiting = 0;
            }
        }
        let hashed = lanes::hash_keys(&short[..waiting]);
        places[..waiting].iter().zip(hashed).for_each(|(place, key)| found[*place] = key);
        found
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for HashKey {
    type Err = InvalidHashKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text == "0" || !text.starts_with(['0', '+', '-']);
        if !plain {
            return Err(InvalidHashKey);
        }
        text.parse().map(Self).map_err(|_| InvalidHashKey)
    }
}

impl Serialize for HashKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The hash keys of one shard, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRange {
    /// Lowest hash key of the shard.
    pub start: HashKey,
    /// Highest hash key of the shard.
    pub end: HashKey,
}

impl HashRange {
    /// The ranges of a new stream's shards: 2^128 / `count` each, rounded down, the last one taking
    /// the rest. The caller's duty: `count` is at least 1.
    pub fn split_evenly(count: u32) -> Vec<Self> {
        let count = u128::from(count.max(1));
        // 2^128 / count, without the number 2^128.
        let width =
            if count == 1 { 0 } else { u128::MAX / count + u128::from(count.is_power_of_two()) };
        (0..count)
            .map(|i| Self {
                start: HashKey(i * width),
                end: HashKey(if i + 1 == count { u128::MAX } else { (i + 1) * width - 1 }),
            })
            .collect()
    }

    /// Whether the shard takes records with this hash key.
    pub fn contains(&self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_and_three_shards_are_what_aws_shows() {
        let two = HashRange::split_evenly(2);
        assert_eq!(two[0].end.to_string(), "170141183460469231731687303715884105727");
        assert_eq!(two[1].start.to_string(), "170141183460469231731687303715884105728");
        let three = HashRange::split_evenly(3);
        assert_eq!(three[0].end.to_string(), "113427455640312821154458202477256070484");
        assert_eq!(three[2].start.to_string(), "226854911280625642308916404954512140970");
        assert_eq!(three[2].end.to_string(), "340282366920938463463374607431768211455");
    }

    #[test]
    fn the_text_is_a_plain_decimal() {
        assert_eq!("0".parse(), Ok(HashKey(0)));
        for bad in ["", "-1", "+1", "01", "1.0", "340282366920938463463374607431768211456"] {
            assert_eq!(bad.parse::<HashKey>(), Err(InvalidHashKey), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn many_keys_are_hashed_as_each_by_itself(
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 0..40),
        ) {
            let each: Vec<_> = keys.iter().map(|key| HashKey::of(key)).collect();
            prop_assert_eq!(HashKey::of_each(keys.iter().map(|key| &key[..])), each);
        }

        #[test]
        fn ranges_cover_the_key_space_once(count in 1u32..10_000, key: u128) {
            let ranges = HashRange::split_evenly(count);
            prop_assert_eq!(ranges.len(), count as usize);
            prop_assert_eq!(ranges[0].start.0, 0);
            prop_assert_eq!(ranges[ranges.len() - 1].end.0, u128::MAX);
            prop_assert!(ranges.windows(2).all(|w| w[0].end.0 + 1 == w[1].start.0));
            prop_assert_eq!(ranges.iter().filter(|r| r.contains(HashKey(key))).count(), 1);
        }
    }
}
