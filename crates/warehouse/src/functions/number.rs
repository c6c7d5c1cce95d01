//! Numbers out of text, exactly: digits are never taken through floating point.

use crate::error::{SqlResult, error};
use crate::session::SqlError;

/// Largest power of ten an exponent may move a number by before it is out of range anyway.
const EXPONENT_MAX: i64 = 400;

pub(crate) fn not_a_number(text: &str) -> SqlError {
    let text: String = text.chars().take(200).collect();
    error(100_038, "22018", format!("Numeric value '{text}' is not recognized"))
}

pub(crate) fn out_of_range(precision: u8, scale: u8, value: &str) -> SqlError {
    let value: String = value.chars().take(200).collect();
    let text = format!(
        "Number out of representable range: type FIXED[SB16]({precision},{scale}){{nullable}}, \
         value {value}"
    );
    error(100_039, "22003", text)
}

/// The parts of a number's text: whether it is below zero, its digits before and behind the point,
/// and its exponent.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

fn parts(text: &str) -> SqlResult<Parts<'_>> {
    let bad = || not_a_number(text);
    let trimmed = text.trim();
    let (negative, unsigned) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i64>().map_err(|_| bad())?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = whole.bytes().chain(fraction.bytes()).peekable();
    if digits.peek().is_none() || !digits.all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    Ok(Parts { negative, whole, fraction, exponent })
}

/// Bound of the exponent in a key: what is beyond it counts as one.
const KEY_EXPONENT_MAX: i64 = 49_999;

/// A text that sorts as the number sorts, and is the same for the same number however it is written.
pub(crate) fn order_key(text: &str) -> SqlResult<String> {
    let Parts { negative, whole, fraction, exponent } = parts(text)?;
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    // The number is 0.SIGNIFICANT times ten to this power.
    let leading = (digits.len() - significant.len()) as i64;
    let power = (whole.len() as i64 - leading).saturating_add(exponent);
    let power = power.clamp(-KEY_EXPONENT_MAX, KEY_EXPONENT_MAX);
    let significant = significant.trim_end_matches('0');
    Ok(match (significant.is_empty(), negative) {
        (true, _) => "1".to_owned(),
        (false, false) => format!("2{:05}{significant}", power + KEY_EXPONENT_MAX),
        (false, true) => {
            let mirrored = significant.bytes().map(|b| char::from(b'9' - (b - b'0')));
            let mirrored: String = mirrored.collect();
            // Behind every digit, so that the longer of two with the same beginning comes first.
            format!("0{:05}{mirrored}~", KEY_EXPONENT_MAX - power)
        }
    })
}

/// The number a text is, times `10^scale`, rounded half away from zero.
pub(crate) fn parse_decimal(text: &str, precision: u8, scale: u8) -> SqlResult<i128> {
    let Parts { negative, whole, fraction, exponent } = parts(text)?;
    let digits = || whole.bytes().chain(fraction.bytes());
    let range = || out_of_range(precision, scale, text);
    if exponent.abs() > EXPONENT_MAX {
        return if exponent < 0 || digits().all(|b| b == b'0') { Ok(0) } else { Err(range()) };
    }
    // How many of the digits, zeros appended, are in the result.
    let keep = whole.len() as i64 + exponent + i64::from(scale);
    let mut value: i128 = 0;
    let mut places = 0_i64;
    for digit in digits() {
        if places >= keep {
            break;
        }
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(i128::from(digit - b'0')))
            .ok_or_else(range)?;
        places += 1;
    }
    while places < keep && value != 0 {
        value = value.checked_mul(10).ok_or_else(range)?;
        places += 1;
    }
    let next = usize::try_from(keep).ok().and_then(|k| digits().nth(k));
    if next.is_some_and(|d| d >= b'5') {
        value += 1;
    }
    if value >= 10_i128.pow(u32::from(precision)) {
        return Err(range());
    }
    Ok(if negative { -value } else { value })
}

pub(crate) fn parse_float(text: &str) -> SqlResult<f64> {
    text.trim().parse().map_err(|_| not_a_number(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_the_same_for_the_same_number() {
        for (a, b) in
            [("1", "1.0"), ("1e3", "1000"), ("-0.50", "-5e-1"), ("0", "-0.00"), ("7", "007")]
        {
            assert_eq!(order_key(a), order_key(b), "{a} {b}");
        }
        assert_ne!(order_key("9007199254740993"), order_key("9007199254740992"));
    }

    #[test]
    fn decimals_are_exact_and_round_half_away_from_zero() {
        let parse = |t, p, s| parse_decimal(t, p, s).ok();
        assert_eq!(
            parse("12345678901234567890123456789012345678", 38, 0),
            Some(12345678901234567890123456789012345678)
        );
        assert_eq!(parse("1.25", 10, 1), Some(13));
        assert_eq!(parse("-1.25", 10, 1), Some(-13));
        assert_eq!(parse("1.5e3", 38, 0), Some(1500));
        assert_eq!(parse("15e-1", 38, 0), Some(2));
        assert_eq!(parse("4e-9", 38, 0), Some(0));
        assert_eq!(parse("0.5", 38, 0), Some(1));
        assert_eq!(parse(".5", 38, 2), Some(50));
        assert_eq!(parse("9.99", 2, 1), None);
        assert_eq!(parse("1e39", 38, 0), None);
        for bad in ["", "-", ".", "1x", "0x1", "1e", "--1", "1 2"] {
            assert_eq!(parse_decimal(bad, 38, 0).unwrap_err().code, 100_038, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn integers_come_back(n: i64) {
            prop_assert_eq!(parse_decimal(&n.to_string(), 38, 0), Ok(i128::from(n)));
        }

        #[test]
        fn keys_sort_as_numbers_do(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000,
                                   s in 0u8..9, t in 0u8..9) {
            let text = |n: i64, scale: u8| format!("{n}e-{scale}");
            let value = |n: i64, scale: u8| i128::from(n) * 10_i128.pow(9 - u32::from(scale));
            let (x, y) = (order_key(&text(a, s)).unwrap(), order_key(&text(b, t)).unwrap());
            prop_assert_eq!(x.cmp(&y), value(a, s).cmp(&value(b, t)));
        }

        #[test]
        fn nothing_panics(text in "[-+.0-9eE]{0,50}", scale in 0u8..38) {
            let _ = parse_decimal(&text, 38, scale);
            let _ = order_key(&text);
        }
    }
}
