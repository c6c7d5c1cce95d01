//! Numbers: exact decimals of up to 38 digits.
//!
//! Follows "Data types: Number" in the DynamoDB developer guide.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Most significant digits (AWS).
const DIGITS_MAX: u32 = 38;
/// Powers of ten of the leading digit (AWS: up to 9.99…E+125, from 1E-130).
const MAGNITUDE_MAX: i32 = 125;
const MAGNITUDE_MIN: i32 = -130;
/// Longest text that is read: a plain number of the greatest and least magnitudes, with room.
const TEXT_BYTES_MAX: usize = 1_024;

/// A decimal number. Two that are equal are the same, however they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Number {
    negative: bool,
    /// At most 38 digits, the last of them not 0, unless the number is 0.
    digits: u128,
    /// The power of ten of the last digit.
    exponent: i32,
}

/// Why a text or a sum is no number that can be kept, in AWS's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidNumber {
    #[error("The parameter cannot be converted to a numeric value: {0}")]
    Text(String),
    #[error("The parameter cannot be converted to a numeric value")]
    Empty,
    #[error("Attempting to store more than 38 significant digits in a Number")]
    Digits,
    #[error(
        "Number overflow. Attempting to store a number with magnitude larger than supported range"
    )]
    Overflow,
    #[error(
        "Number underflow. Attempting to store a number with magnitude smaller than supported range"
    )]
    Underflow,
}

impl Number {
    const ZERO: Self = Self { negative: false, digits: 0, exponent: 0 };

    /// The number of these digits, checked and in its one form.
    fn new(negative: bool, mut digits: u128, mut exponent: i32) -> Result<Self, InvalidNumber> {
        if digits == 0 {
            return Ok(Self::ZERO);
        }
        while digits.is_multiple_of(10) {
            digits /= 10;
            exponent = exponent.saturating_add(1);
        }
        let count = digits.ilog10() + 1;
        let magnitude = exponent.saturating_add(count as i32 - 1);
        if magnitude > MAGNITUDE_MAX {
            return Err(InvalidNumber::Overflow);
        }
        if magnitude < MAGNITUDE_MIN {
            return Err(InvalidNumber::Underflow);
        }
        if count > DIGITS_MAX {
            return Err(InvalidNumber::Digits);
        }
        Ok(Self { negative, digits, exponent })
    }

    /// `self + other`, exactly, or an error if that has more digits than can be kept.
    pub(crate) fn plus(self, other: Self) -> Result<Self, InvalidNumber> {
        if self.digits == 0 {
            return Ok(other);
        }
        if other.digits == 0 {
            return Ok(self);
        }
        let exponent = self.exponent.min(other.exponent);
        // What does not fit even now has more than 38 digits also after the smaller was taken off.
        let a = self.scaled_to(exponent).ok_or(InvalidNumber::Digits)?;
        let b = other.scaled_to(exponent).ok_or(InvalidNumber::Digits)?;
        if self.negative == other.negative {
            let sum = a.checked_add(b).ok_or(InvalidNumber::Digits)?;
            return Self::new(self.negative, sum, exponent);
        }
        let negative = if a >= b { self.negative } else { other.negative };
        Self::new(negative, a.abs_diff(b), exponent)
    }

    /// `self - other`, exactly.
    pub(crate) fn minus(self, other: Self) -> Result<Self, InvalidNumber> {
        let negative = other.digits != 0 && !other.negative;
        self.plus(Self { negative, ..other })
    }

    fn scaled_to(self, exponent: i32) -> Option<u128> {
        let shift = u32::try_from(self.exponent.checked_sub(exponent)?).ok()?;
        self.digits.checked_mul(10u128.checked_pow(shift)?)
    }

    /// What it counts for in the size of an item: two digits a byte, and one more.
    pub(crate) fn size_bytes(self) -> usize {
        let count = self.digits.checked_ilog10().map_or(0, |log| log as usize + 1);
        count.div_ceil(2) + 1 + usize::from(self.negative)
    }

    /// The number as a count of whole units; `None` if it is negative, too large or has a fraction.
    pub(crate) fn whole(self) -> Option<u64> {
        let shift = u32::try_from(self.exponent).ok()?;
        let n = self.digits.checked_mul(10u128.checked_pow(shift)?)?;
        if self.negative { None } else { u64::try_from(n).ok() }
    }
}

impl From<usize> for Number {
    fn from(n: usize) -> Self {
        Self::new(false, n as u128, 0).unwrap_or(Self::ZERO)
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| if n.digits == 0 { 0 } else { 1 - 2 * i32::from(n.negative) };
        let by_sign = sign(self).cmp(&sign(other));
        if by_sign != Ordering::Equal || self.digits == 0 {
            return by_sign;
        }
        let magnitude = |n: &Self| n.exponent + n.digits.ilog10() as i32;
        let by_size = magnitude(self).cmp(&magnitude(other)).then_with(|| {
            // Of one magnitude: to as many digits as the longer has, which is at most 38.
            let exponent = self.exponent.min(other.exponent);
            self.scaled_to(exponent).cmp(&other.scaled_to(exponent))
        });
        if self.negative { by_size.reverse() } else { by_size }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Number {
    type Err = InvalidNumber;

    fn from_str(text: &str) -> Result<Self, InvalidNumber> {
        let wrong = || InvalidNumber::Text(text.chars().take(100).collect());
        if text.is_empty() {
            return Err(InvalidNumber::Empty);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(wrong());
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, power) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().map_err(|_| wrong())?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let bytes = || whole.bytes().chain(fraction.bytes());
        if bytes().next().is_none() || !bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        // Zeros at either end are no significant digits.
        let zeros = bytes().rev().take_while(|b| *b == b'0').count();
        let kept = bytes().count() - zeros;
        let significant = bytes().take(kept).skip_while(|b| *b == b'0');
        let mut digits = 0u128;
        for (n, digit) in significant.enumerate() {
            if n >= DIGITS_MAX as usize {
                return Err(InvalidNumber::Digits);
            }
            digits = digits * 10 + u128::from(digit - b'0');
        }
        let exponent = power
            .saturating_sub(i32::try_from(fraction.len()).unwrap_or(i32::MAX))
            .saturating_add(i32::try_from(zeros).unwrap_or(i32::MAX));
        Self::new(negative, digits, exponent)
    }
}

impl fmt::Display for Number {
    /// All digits, without an exponent, as DynamoDB answers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        let digits = self.digits.to_string();
        if let Ok(zeros) = usize::try_from(self.exponent) {
            return write!(f, "{digits}{}", "0".repeat(zeros));
        }
        let behind = self.exponent.unsigned_abs() as usize;
        match digits.len().checked_sub(behind) {
            Some(before @ 1..) => write!(f, "{}.{}", &digits[..before], &digits[before..]),
            _ => write!(f, "0.{}{digits}", "0".repeat(behind - digits.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        text.parse().unwrap()
    }

    #[test]
    fn one_number_has_one_form() {
        for (text, shown) in [
            ("1", "1"),
            ("-0", "0"),
            ("+007.500", "7.5"),
            ("1e3", "1000"),
            ("1E-3", "0.001"),
            (".5", "0.5"),
            ("5.", "5"),
            ("-12345678901234567890123456789012345678", "-12345678901234567890123456789012345678"),
            ("0.00000000000000000000000000000000000000000000000001e50", "1"),
        ] {
            assert_eq!(number(text).to_string(), shown, "{text}");
        }
        assert_eq!(number("1e125").to_string().len(), 126);
        assert_eq!(number("1e-130").to_string().len(), 132);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for text in ["", "a", "-", "1e", "1.2.3", "1e1.5", "0x1", " 1", "1e99999999999", "--1"] {
            assert!(text.parse::<Number>().is_err(), "{text}");
        }
        assert_eq!("1e126".parse::<Number>(), Err(InvalidNumber::Overflow));
        assert_eq!("1e-131".parse::<Number>(), Err(InvalidNumber::Underflow));
        assert_eq!("1".repeat(39).parse::<Number>(), Err(InvalidNumber::Digits));
        assert!("1".repeat(2_000).parse::<Number>().is_err());
        assert_eq!(number("1e100").plus(number("1")), Err(InvalidNumber::Digits));
        assert_eq!(number("9e125").plus(number("9e125")), Err(InvalidNumber::Overflow));
    }

    #[test]
    fn sums_are_exact() {
        assert_eq!(number("0.1").plus(number("0.2")), Ok(number("0.3")));
        assert_eq!(number("1e38").minus(number("1")), Ok(number(&"9".repeat(38))));
        assert_eq!(number("5").minus(number("5")), Ok(Number::ZERO));
        assert_eq!(number("5").minus(number("7")), Ok(number("-2")));
    }

    proptest! {
        #[test]
        fn order_and_sums_are_those_of_integers(a in -1_000_000_000_000i64.., b in -1_000_000i64..) {
            let (x, y) = (number(&a.to_string()), number(&b.to_string()));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            let sum = i128::from(a) + i128::from(b);
            prop_assert_eq!(x.plus(y).unwrap().to_string(), sum.to_string());
        }

        #[test]
        fn text_round_trips(digits in "[1-9][0-9]{0,37}", exponent in -90i32..80) {
            let n = number(&format!("{digits}e{exponent}"));
            prop_assert_eq!(number(&n.to_string()), n);
        }

        #[test]
        fn any_text_is_a_number_or_an_error(text in "[-+.eE0-9]{0,50}") {
            let _ = text.parse::<Number>();
        }
    }
}
