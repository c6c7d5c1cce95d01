//! Dates and times out of text and numbers, and back.

use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::error::{SqlResult, error, unsupported};

/// Below this many, a whole number is seconds, then milliseconds, then microseconds (Snowflake).
const SECONDS_BELOW: i128 = 31_536_000_000;

fn bad(kind: &str, code: u32, text: &str) -> crate::session::SqlError {
    let text: String = text.chars().take(200).collect();
    error(code, "22007", format!("{kind} '{text}' is not recognized"))
}

fn range(text: &str) -> crate::session::SqlError {
    error(100_035, "22007", format!("Timestamp '{text}' is outside of 1677 to 2262"))
}

/// Nanoseconds since the epoch of a whole number of seconds, milliseconds, microseconds or
/// nanoseconds: which of them, its size says.
pub(crate) fn guess_epoch(n: i128) -> Option<i64> {
    let size = n.abs();
    let factor = if size < SECONDS_BELOW {
        1_000_000_000
    } else if size < SECONDS_BELOW * 1_000 {
        1_000_000
    } else if size < SECONDS_BELOW * 1_000_000 {
        1_000
    } else {
        1
    };
    i64::try_from(n.checked_mul(factor)?).ok()
}

/// Nanoseconds since the epoch. With `keep_wall_clock` a zone in the text is dropped
/// (TIMESTAMP_NTZ), without it is taken off (TIMESTAMP_LTZ).
pub(crate) fn parse_timestamp(text: &str, keep_wall_clock: bool) -> SqlResult<i64> {
    let trimmed = text.trim();
    let unsigned = trimmed.strip_prefix('-').unwrap_or(trimmed);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let number: i128 = trimmed.parse().map_err(|_| bad("Timestamp", 100_035, text))?;
        return guess_epoch(number).ok_or_else(|| range(text));
    }
    let (wall, offset) = pieces(trimmed)
        .or_else(|| named(trimmed))
        .ok_or_else(|| bad("Timestamp", 100_035, text))?;
    let zone = if keep_wall_clock { Offset::UTC } else { offset.unwrap_or(Offset::UTC) };
    let instant = zone.to_timestamp(wall).map_err(|_| range(text))?;
    i64::try_from(instant.as_nanosecond()).map_err(|_| range(text))
}

fn pieces(text: &str) -> Option<(DateTime, Option<Offset>)> {
    // `2024-05-01 10:00:00 +0000`: the blank before the zone is Snowflake's, not RFC 3339's.
    let joined = match text.rsplit_once(' ') {
        Some((rest, zone)) if rest.contains(':') && zone.starts_with(['+', '-']) => {
            Some(format!("{rest}{zone}"))
        }
        Some((rest, "Z")) => Some(format!("{rest}Z")),
        _ => None,
    };
    let pieces = Pieces::parse(joined.as_deref().unwrap_or(text)).ok()?;
    let wall = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
    Some((wall, pieces.to_numeric_offset()))
}

/// `Wed Sep 26 06:12:01 +0000 2018` and `Wed, 26 Sep 2018 06:12:01 +0000`.
fn named(text: &str) -> Option<(DateTime, Option<Offset>)> {
    for format in ["%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%m/%d/%Y %H:%M:%S"] {
        if let Ok(time) = jiff::fmt::strtime::parse(format, text) {
            return Some((time.to_datetime().ok()?, time.offset()));
        }
    }
    None
}

/// Days since the epoch.
pub(crate) fn parse_date(text: &str) -> SqlResult<i32> {
    let trimmed = text.trim();
    if let Ok(date) = trimmed.parse::<Date>() {
        return Ok(days(date));
    }
    if let Ok(date) = Date::strptime("%m/%d/%Y", trimmed) {
        return Ok(days(date));
    }
    match parse_timestamp(trimmed, true) {
        Ok(nanos) => Ok(nanos.div_euclid(86_400_000_000_000) as i32),
        Err(_) => Err(bad("Date", 100_040, text)),
    }
}

fn days(date: Date) -> i32 {
    let epoch = Date::constant(1970, 1, 1);
    date.duration_since(epoch).as_hours().div_euclid(24) as i32
}

/// Nanoseconds since midnight.
pub(crate) fn parse_time(text: &str) -> SqlResult<i64> {
    let time: Time = text.trim().parse().map_err(|_| bad("Time", 100_108, text))?;
    Ok(time.duration_since(Time::midnight()).as_nanos() as i64)
}

/// The wall clock in UTC.
pub(crate) fn civil(nanos: i64) -> DateTime {
    Timestamp::UNIX_EPOCH
        .saturating_add(SignedDuration::from_nanos(nanos))
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_zoned(TimeZone::UTC)
        .datetime()
}

pub(crate) fn nanos(wall: DateTime) -> Option<i64> {
    i64::try_from(Offset::UTC.to_timestamp(wall).ok()?.as_nanosecond()).ok()
}

/// `YYYY-MM-DD HH24:MI:SS.FF3`, with ` +0000` for a moment (Snowflake's output formats).
pub(crate) fn format_timestamp(nanos: i64, zoned: bool) -> String {
    let wall = civil(nanos);
    let zone = if zoned { " +0000" } else { "" };
    format!("{} {}{zone}", wall.date(), wall.strftime("%H:%M:%S.%3f"))
}

pub(crate) fn format_date(days: i32) -> String {
    civil(i64::from(days).saturating_mul(86_400_000_000_000)).date().to_string()
}

pub(crate) fn format_time(nanos: i64) -> String {
    civil(nanos).strftime("%H:%M:%S").to_string()
}

/// Formats by one of Snowflake's formats, such as `YYYY-MM-DD HH24:MI`.
pub(crate) fn format(nanos: i64, format: &str) -> SqlResult<String> {
    const PARTS: &[(&str, &str)] = &[
        ("YYYY", "%Y"),
        ("MMMM", "%B"),
        ("HH24", "%H"),
        ("HH12", "%I"),
        ("MON", "%b"),
        ("TZHTZM", "+0000"),
        ("TZH:TZM", "+00:00"),
        ("FF3", "%3f"),
        ("FF6", "%6f"),
        ("FF9", "%9f"),
        ("FF0", ""),
        ("FF", "%9f"),
        ("YY", "%y"),
        ("MM", "%m"),
        ("DD", "%d"),
        ("DY", "%a"),
        ("MI", "%M"),
        ("SS", "%S"),
        ("AM", "%p"),
        ("PM", "%p"),
    ];
    let mut out = String::new();
    let mut rest = format;
    while let Some(c) = rest.chars().next() {
        let upper = rest.to_ascii_uppercase();
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end].replace('%', "%%"));
            rest = quoted.get(end + 1..).unwrap_or_default();
        } else if let Some((part, code)) = PARTS.iter().find(|(p, _)| upper.starts_with(p)) {
            out.push_str(code);
            rest = &rest[part.len()..];
        } else if c == '%' {
            out.push_str("%%");
            rest = &rest[1..];
        } else if c.is_ascii_alphabetic() && c != 'T' && c != 'Z' {
            return Err(unsupported(format!("date format '{format}'")));
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    let wall = civil(nanos).to_zoned(TimeZone::UTC).map_err(|_| range(format))?;
    jiff::fmt::strtime::format(&out, &wall)
        .map_err(|_| unsupported(format!("date format '{format}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_moments() {
        let ltz = |t| parse_timestamp(t, false).map(|n| format_timestamp(n, false));
        let ntz = |t| parse_timestamp(t, true).map(|n| format_timestamp(n, false));
        assert_eq!(ltz("2024-05-01T10:00:00Z").unwrap(), "2024-05-01 10:00:00.000");
        assert_eq!(ltz("2024-05-01 10:00:00.5 +0200").unwrap(), "2024-05-01 08:00:00.500");
        assert_eq!(ntz("2024-05-01 10:00:00.5 +0200").unwrap(), "2024-05-01 10:00:00.500");
        assert_eq!(ltz("Wed Sep 26 06:12:01 +0000 2018").unwrap(), "2018-09-26 06:12:01.000");
        assert_eq!(ltz("1700000000").unwrap(), "2023-11-14 22:13:20.000");
        assert_eq!(ltz("1700000000123").unwrap(), "2023-11-14 22:13:20.123");
        assert_eq!(ltz("2024-05-01").unwrap(), "2024-05-01 00:00:00.000");
        assert_eq!(ltz("soon").unwrap_err().code, 100_035);
        assert_eq!(format_date(parse_date("2024-02-29").unwrap()), "2024-02-29");
        assert_eq!(format_date(parse_date("1969-12-31").unwrap()), "1969-12-31");
        assert_eq!(format_time(parse_time("10:11:12").unwrap()), "10:11:12");
        assert_eq!(format(0, "YYYY-MM-DD\"T\"HH24:MI:SS.FF3").unwrap(), "1970-01-01T00:00:00.000");
    }
}
