//! Sequence numbers: the engine's 64-bit index, and the 56-digit number the API shows.
//!
//! The index of a record is `arrival in ms << 20 | counter`, so within a shard the order by index is
//! the order by time, and a search by time is a search by index. It stays under 2^63 until the year
//! 2248 and leaves room for a million records a millisecond and shard.
//!
//! The public number follows the layout that AWS's numbers show (hexadecimal digits, 47 in all):
//!
//! ```text
//! 2 | shard created, s (9) | shard (1) | index (16) | 00 | record, s (9) | shard (8) | 2
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

const COUNTER_BITS: u32 = 20;
const TEN_19: u64 = 10_000_000_000_000_000_000;

/// The place of a record in its shard. Never reused, never out of order, gaps allowed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RecordIndex(pub u64);

impl RecordIndex {
    /// Before every record.
    pub const MIN: Self = Self(0);
    /// After every record: what a closed shard's ending sequence number carries.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The lowest index a record that arrived at `time` can have.
    pub const fn at(time: Timestamp) -> Self {
        Self(time.as_millis() << COUNTER_BITS)
    }

    /// When the record with this index arrived.
    pub const fn time(self) -> Timestamp {
        Timestamp::from_millis(self.0 >> COUNTER_BITS)
    }

    /// The first index of `count` records that arrive at `now` in a shard whose end is `self`: never
    /// below the end, whatever the clock does, and all of them in one millisecond, so that the order
    /// by index stays the order by arrival. The caller's duty: `count` is at most
    /// [`FRAME_RECORDS_MAX`](crate::limits::FRAME_RECORDS_MAX).
    #[must_use]
    pub const fn first_for(self, now: Timestamp, count: u32) -> Self {
        let now = Self::at(now);
        let first = if now.0 > self.0 { now } else { self };
        let counter = first.0 & ((1 << COUNTER_BITS) - 1);
        if counter + count as u64 > 1 << COUNTER_BITS {
            Self(((first.0 >> COUNTER_BITS) + 1) << COUNTER_BITS)
        } else {
            first
        }
    }

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The index `by` places on, at most [`RecordIndex::MAX`].
    #[must_use]
    pub const fn plus(self, by: u64) -> Self {
        match self.0.checked_add(by) {
            Some(n) if n < Self::MAX.0 => Self(n),
            _ => Self::MAX,
        }
    }
}

/// The indices of one append: `first`, `first + 1`, … `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    /// Index of the first record.
    pub first: RecordIndex,
    /// How many records.
    pub count: u32,
}

impl IndexRange {
    /// Index of the `n`-th record of the append, from 0.
    pub const fn nth(self, n: u32) -> RecordIndex {
        self.first.plus(n as u64)
    }

    /// The first index past the range.
    pub const fn end(self) -> RecordIndex {
        self.first.plus(self.count as u64)
    }
}

/// A sequence number as the API shows it: unique in the stream, growing within a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber {
    /// When the shard was created, in whole seconds since the epoch (36 bits).
    pub shard_created_s: u64,
    /// Place of the record in the shard.
    pub index: RecordIndex,
    /// When the record was put, in whole seconds since the epoch (36 bits).
    pub record_s: u64,
    /// The shard's number in its stream: N of `shardId-N`.
    pub shard: u32,
}

/// The text is not a sequence number of any known version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number")]
pub struct InvalidSequenceNumber;

impl SequenceNumber {
    /// Digits of every number that a shard gives out, because its highest of 188 bits are `10`.
    pub const DIGITS: usize = 56;

    /// The number of the record at `index` of a shard.
    pub const fn of(shard: u32, shard_created: Timestamp, index: RecordIndex) -> Self {
        let record_s = index.time().as_secs();
        Self { shard_created_s: shard_created.as_secs(), index, record_s, shard }
    }

    /// The number every record of the shard is above: its `StartingSequenceNumber`.
    pub const fn start_of(shard: u32, shard_created: Timestamp) -> Self {
        let s = shard_created.as_secs();
        Self { shard_created_s: s, index: RecordIndex::MIN, record_s: s, shard }
    }

    /// The number every record of a closed shard is below: its `EndingSequenceNumber`.
    pub const fn end_of(shard: u32, shard_created: Timestamp, closed: Timestamp) -> Self {
        Self {
            shard_created_s: shard_created.as_secs(),
            index: RecordIndex::MAX,
            record_s: closed.as_secs(),
            shard,
        }
    }

    /// The 188 bits, most significant limb first.
    fn limbs(self) -> [u64; 3] {
        const S: u128 = (1 << 36) - 1;
        let high: u128 = 2 << 104
            | (u128::from(self.shard_created_s) & S) << 68
            | u128::from(self.shard & 0xf) << 64
            | u128::from(self.index.0);
        let low: u128 = (u128::from(self.record_s) & S) << 36 | u128::from(self.shard) << 4 | 2;
        // high holds 108 bits, low 80: high << 80 | low.
        let top = (high >> 48) as u64;
        let mid = (high << 16) as u64 | (low >> 64) as u64;
        [top, mid, low as u64]
    }

    fn from_limbs([top, mid, low]: [u64; 3]) -> Result<Self, InvalidSequenceNumber> {
        let high = u128::from(top) << 48 | u128::from(mid >> 16);
        let low = u128::from(mid & 0xffff) << 64 | u128::from(low);
        let number = Self {
            shard_created_s: (high >> 68) as u64 & ((1 << 36) - 1),
            index: RecordIndex(high as u64),
            record_s: (low >> 36) as u64 & ((1 << 36) - 1),
            shard: (low >> 4) as u32,
        };
        if number.limbs() == [top, mid, low as u64] && number.index <= RecordIndex::MAX {
            Ok(number)
        } else {
            Err(InvalidSequenceNumber)
        }
    }
}

/// A sequence number of one of the two layouts that AWS gave out before the present one and still
/// reads. No stream of ours ever gave one out.
///
/// ```text
/// 0:  1 | shard created, s (9) | 00 | random (16) | shard (4)                       below 2^128
/// 1:  2 | shard created, s (9) | shard (1) | 00 | record, s (9) | random (14) | 00 | shard (8) | 1
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldSequenceNumber {
    /// The shard's number in its stream.
    pub shard: u32,
    /// When the record was put, in whole seconds since the epoch, if the layout says it.
    pub record_s: Option<u64>,
    /// The number as AWS repeats it: one of layout 0 with the digit in front that it may be without.
    pub shown: String,
}

impl OldSequenceNumber {
    /// The first second that AWS takes for no date any more.
    const DATE_S_MAX: u64 = 16_025_175_000;
    const LAYOUT_0: u128 = 1 << 124;

    fn of_layout_0(n: u128) -> Result<Self, InvalidSequenceNumber> {
        let n = n & (Self::LAYOUT_0 - 1) | Self::LAYOUT_0;
        let created_s = (n >> 88) as u64 & ((1 << 36) - 1);
        let shard = (n & 0xffff) as u32;
        match created_s < Self::DATE_S_MAX {
            true => Ok(Self { shard, record_s: None, shown: n.to_string() }),
            false => Err(InvalidSequenceNumber),
        }
    }
}

impl FromStr for OldSequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let limbs = limbs_of(text)?;
        let [top, mid, low] = limbs;
        if top == 0 {
            return Self::of_layout_0(u128::from(mid) << 64 | u128::from(low));
        }
        // 188 bits: the first digit is 2, the last the layout.
        if top >> 56 != 2 || low & 0xf != 1 {
            return Err(InvalidSequenceNumber);
        }
        // Nine digits from the fourteenth on.
        let digits = u128::from(top) << 64 | u128::from(mid);
        let record_s = (digits >> 36) as u64 & ((1 << 36) - 1);
        let shard = (low >> 4) as u32;
        Ok(Self { shard, record_s: Some(record_s), shown: text.to_owned() })
    }
}

/// The number in three limbs, the most significant first.
fn limbs_of(text: &str) -> Result<[u64; 3], InvalidSequenceNumber> {
    // 2^188 has 57 digits; anything longer cannot be one of ours.
    if text.is_empty() || text.len() > 57 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidSequenceNumber);
    }
    let mut limbs = [0u64; 3];
    for digit in text.bytes() {
        let mut carry = u128::from(digit - b'0');
        for limb in limbs.iter_mut().rev() {
            let n = u128::from(*limb) * 10 + carry;
            *limb = n as u64;
            carry = n >> 64;
        }
    }
    Ok(limbs)
}

/// A sequence number in decimal, without its text: what many of them are written from, one after the
/// other, without a division for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// The number that it is.
    number: SequenceNumber,
    /// In base 10^19, the most significant first.
    limbs: [u64; 3],
}

impl Decimal {
    /// What one index more adds: the bits below it are 80.
    const STEP: [u64; 2] =
        [((1u128 << 80) / TEN_19 as u128) as u64, ((1u128 << 80) % TEN_19 as u128) as u64];
    /// As many as three limbs have.
    const LIMB_DIGITS: usize = 57;

    /// The number in decimal.
    pub fn of(number: SequenceNumber) -> Self {
        let mut limbs = number.limbs();
        let low = div_rem(&mut limbs, TEN_19);
        let mid = div_rem(&mut limbs, TEN_19);
        Self { number, limbs: [limbs[2], mid, low] }
    }

    /// Becomes this number; cheaply if it is the next one of the same shard and second.
    pub fn move_to(&mut self, number: SequenceNumber) {
        let next = SequenceNumber { index: self.number.index.next(), ..self.number };
        if next != number || next.index == self.number.index {
            *self = Self::of(number);
            return;
        }
        let [top, mid, low] = &mut self.limbs;
        // A limb is below 10^19 and a step's below 6 * 10^18: their sum fits.
        *low += Self::STEP[1];
        *mid += Self::STEP[0] + u64::from(*low >= TEN_19);
        *top += u64::from(*mid >= TEN_19);
        for limb in [low, mid] {
            *limb -= if *limb >= TEN_19 { TEN_19 } else { 0 };
        }
        self.number = number;
    }

    /// Appends its text of 56 digits.
    pub fn write(&self, out: &mut Vec<u8>) {
        // As the first of its 47 hexadecimal digits is a 2, it is above 10^55 and below 10^56.
        out.extend_from_slice(&self.digits()[1..]);
    }

    fn digits(&self) -> [u8; Self::LIMB_DIGITS] {
        let mut digits = [b'0'; Self::LIMB_DIGITS];
        for (limb, place) in self.limbs.iter().zip(digits.chunks_exact_mut(19)) {
            write_digits(*limb, place);
        }
        digits
    }
}

/// Writes a number below 10^19 in 19 digits. The caller's duty: `out` has that length.
fn write_digits(n: u64, out: &mut [u8]) {
    // Two halves that do not wait for each other, and two digits at a time.
    let (mut high, mut low) = (n / 1_000_000_000, n % 1_000_000_000);
    let (front, back) = out.split_at_mut(10);
    for pair in front.rchunks_exact_mut(2) {
        pair.copy_from_slice(&PAIRS[(high % 100) as usize]);
        high /= 100;
    }
    for pair in back.rchunks_exact_mut(2) {
        pair.copy_from_slice(&PAIRS[(low % 100) as usize]);
        low /= 100;
    }
    back[0] = b'0' + low as u8;
}

/// The digits of the numbers below a hundred.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// Divides in place and returns the remainder.
fn div_rem(limbs: &mut [u64; 3], by: u64) -> u64 {
    let mut rest = 0u128;
    for limb in limbs {
        let n = rest << 64 | u128::from(*limb);
        *limb = (n / u128::from(by)) as u64;
        rest = n % u128::from(by);
    }
    rest as u64
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = Decimal::of(*self).digits();
        f.write_str(std::str::from_utf8(&digits[1..]).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_limbs(limbs_of(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn has_fifty_six_digits_and_the_layout_aws_shows() {
        let created = Timestamp::from_millis(1_763_000_000_123);
        let arrived = Timestamp::from_millis(1_763_000_005_000);
        let text = SequenceNumber::of(3, created, RecordIndex::at(arrived).plus(7)).to_string();
        assert_eq!(text.len(), 56);
        assert!(text.starts_with("49"), "{text}");
    }

    #[test]
    fn an_append_holds_the_last_millisecond_and_never_straddles_two() {
        let now = Timestamp::from_millis(1_763_000_000_000);
        let end = RecordIndex::at(now).plus(5);
        assert_eq!(RecordIndex::MIN.first_for(now, 3), RecordIndex::at(now));
        assert_eq!(end.first_for(Timestamp::ZERO, 3), end);
        let nearly = RecordIndex::at(now).plus((1 << COUNTER_BITS) - 3);
        assert_eq!(nearly.first_for(now, 3), nearly);
        assert_eq!(nearly.first_for(now, 4).0, RecordIndex::at(now).0 + (1 << COUNTER_BITS));
    }

    #[test]
    fn earlier_layouts_are_read() {
        let number = |hex: &str| {
            let hex = format!("{hex:0>47}");
            let mut limbs = [0u64; 3];
            for digit in hex.chars() {
                let digit = u64::from(digit.to_digit(16).unwrap());
                limbs = [
                    limbs[0] << 4 | limbs[1] >> 60,
                    limbs[1] << 4 | limbs[2] >> 60,
                    limbs[2] << 4 | digit,
                ];
            }
            let low = div_rem(&mut limbs, TEN_19);
            let mid = div_rem(&mut limbs, TEN_19);
            format!("{}{mid:019}{low:019}", limbs[2]).trim_start_matches('0').to_owned()
        };
        let old = |text: &str| text.parse::<OldSequenceNumber>();
        let zero = old("0").unwrap();
        assert_eq!(
            (zero.shard, zero.shown.as_str()),
            (0, "21267647932558653966460912964485513216")
        );
        assert_eq!(old("5").unwrap().shard, 5);
        let shown = old("425352958651173072921826052383309826").unwrap();
        assert_eq!(shown.shown, "21693000891209827039382739016868823042");
        let large = old(&number("f3bb2cc3d7ff7fffffffffffffff0000")).unwrap();
        assert_eq!(large.shown, "26227199374821822965252748908982894592");
        assert_eq!(old(&number("13bb2cc3d80000000000000000000000")), Err(InvalidSequenceNumber));
        let one = number("2054321000000006789abcd0000000000000000000000071".get(1..).unwrap());
        assert_eq!(old(&one), Err(InvalidSequenceNumber), "its first digit is no 2");
        // 2 | created (9) | 0 | 00 | record (9) | random (14) | 00 | shard (8) | 1
        let one = number(&format!("2{:09x}000{:09x}{:014x}00{:08x}1", 7, 0x6789a, 3, 9));
        let one = old(&one).unwrap();
        assert_eq!((one.shard, one.record_s), (9, Some(0x6789a)));
        assert!(one.shown.parse::<SequenceNumber>().is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(shard in 0u32.., created in 0u64..1 << 36, s in 0u64..1 << 36,
                            index in 0u64..=i64::MAX as u64) {
            let number = SequenceNumber {
                shard, shard_created_s: created, record_s: s, index: RecordIndex(index),
            };
            prop_assert_eq!(number.to_string().parse(), Ok(number));
        }

        #[test]
        fn one_after_the_other_is_as_each_by_itself(
            shard in 0u32.., created in 0u64..1 << 36,
            starts in prop::collection::vec((0u64..=i64::MAX as u64, 1u64..200), 1..4),
        ) {
            let created = Timestamp::from_millis(created * 1_000);
            let number = |index| SequenceNumber::of(shard, created, index);
            let mut decimal = Decimal::of(number(RecordIndex::MIN));
            for (first, count) in starts {
                for n in 0..count {
                    let number = number(RecordIndex(first).plus(n));
                    decimal.move_to(number);
                    let mut text = b"before".to_vec();
                    decimal.write(&mut text);
                    let mut limbs = number.limbs();
                    let (low, mid) = (div_rem(&mut limbs, TEN_19), div_rem(&mut limbs, TEN_19));
                    let want = format!("before{}{mid:019}{low:019}", limbs[2]);
                    prop_assert_eq!(String::from_utf8(text).unwrap(), want);
                }
            }
        }

        #[test]
        fn order_of_numbers_is_order_of_index(a in 0u64..1 << 62, b in 0u64..1 << 62) {
            let created = Timestamp::from_millis(1_700_000_000_000);
            let [x, y] = [a, b].map(|i| SequenceNumber::of(0, created, RecordIndex(i)).to_string());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn any_text_is_a_number_or_an_error(text in "\\PC{0,60}|[0-9]{0,60}") {
            let _ = (text.parse::<SequenceNumber>(), text.parse::<OldSequenceNumber>());
        }
    }
}
