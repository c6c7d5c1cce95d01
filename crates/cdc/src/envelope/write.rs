//! Numbers and moments, written without a detour through `String`.

/// Digits of the largest number.
const DIGITS_MAX: usize = 20;

/// The digits of a number, two at a time, at the end of `digits`; where they begin.
fn digits(mut n: u64, digits: &mut [u8; DIGITS_MAX]) -> usize {
    let mut at = DIGITS_MAX;
    while n >= 100 {
        let pair = (n % 100) as u8;
        n /= 100;
        at -= 2;
        digits[at] = b'0' + pair / 10;
        digits[at + 1] = b'0' + pair % 10;
    }
    at -= 1;
    digits[at] = b'0' + (n % 10) as u8;
    if n >= 10 {
        at -= 1;
        digits[at] = b'0' + (n / 10) as u8;
    }
    at
}

/// Appends a number.
pub(super) fn number(n: u64, out: &mut Vec<u8>) {
    let mut buffer = [0; DIGITS_MAX];
    let start = digits(n, &mut buffer);
    out.extend_from_slice(&buffer[start..]);
}

/// Appends a moment, microseconds since the Unix epoch, as milliseconds, microseconds and
/// nanoseconds, each behind its own text. From 1970 on the three have the same digits.
pub(super) fn three(us: i64, [ms, micros, ns]: [&[u8]; 3], out: &mut Vec<u8>) {
    let Ok(positive @ 1_000..) = u64::try_from(us) else {
        for (before, n) in
            [(ms, us.div_euclid(1_000)), (micros, us), (ns, us.saturating_mul(1_000))]
        {
            out.extend_from_slice(before);
            signed(n, out);
        }
        return;
    };
    let mut buffer = [0; DIGITS_MAX];
    let start = digits(positive, &mut buffer);
    let written = &buffer[start..];
    out.extend_from_slice(ms);
    out.extend_from_slice(&written[..written.len() - 3]);
    out.extend_from_slice(micros);
    out.extend_from_slice(written);
    out.extend_from_slice(ns);
    out.extend_from_slice(written);
    out.extend_from_slice(b"000");
}

/// Appends a number that may be below zero.
pub(super) fn signed(n: i64, out: &mut Vec<u8>) {
    if n < 0 {
        out.push(b'-');
    }
    number(n.unsigned_abs(), out);
}

/// Appends half of a position, eight hexadecimal digits.
pub(super) fn hex(half: u32, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for shift in (0..8).rev() {
        out.push(DIGITS[(half >> (4 * shift)) as usize & 15]);
    }
}

/// Appends a moment, microseconds since the Unix epoch, as RFC 3339 in UTC with six digits behind
/// the second, in quotes. Outside of the years 1 to 9999 it is the nearest within them.
pub(super) fn moment(us: i64, out: &mut Vec<u8>) {
    const DAY_S: i64 = 86_400;
    let us = us.clamp(-62_135_596_800_000_000, 253_402_300_799_999_999);
    let (seconds, fraction) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let (year, month, day) = date(seconds.div_euclid(DAY_S));
    let second = seconds.rem_euclid(DAY_S);
    let mut part = |before: u8, n: i64, width: u32| {
        out.push(before);
        for place in (0..width).rev() {
            out.push(b'0' + (n / 10_i64.pow(place) % 10) as u8);
        }
    };
    part(b'"', year, 4);
    part(b'-', month, 2);
    part(b'-', day, 2);
    part(b'T', second / 3_600, 2);
    part(b':', second / 60 % 60, 2);
    part(b':', second % 60, 2);
    part(b'.', fraction, 6);
    out.extend_from_slice(b"Z\"");
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar: its 400 years are
/// taken to begin in March, so that a leap day is the last of its year.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_are_those_of_a_calendar(us in -62_135_596_800_000_000..=253_402_300_799_999_999_i64) {
            let mut out = Vec::new();
            moment(us, &mut out);
            let want = jiff::Timestamp::from_microsecond(us).unwrap();
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("\"{want:.6}\""));
        }

        #[test]
        fn three_are_one_moment(us in prop_oneof![-2_000_i64..2_000, -9_000_000_000_000_000..=9_000_000_000_000_000_i64]) {
            let mut out = Vec::new();
            three(us, [b"", b" ", b" "], &mut out);
            let want = format!("{} {us} {}", us.div_euclid(1_000), us * 1_000);
            prop_assert_eq!(String::from_utf8(out).unwrap(), want);
        }

        #[test]
        fn numbers_are_theirs(n: i64, lsn: u32) {
            let mut out = Vec::new();
            signed(n, &mut out);
            hex(lsn, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{n}{lsn:08X}"));
        }
    }
}
