//! Columns and values as PostgreSQL has them: type OIDs, the text and the binary format.
//!
//! <https://www.postgresql.org/docs/current/datatype.html>; the OIDs are those of `pg_type.dat`.
//! PostgreSQL's times have microseconds: what is finer is cut off.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::wire::{Field, Report};
use crate::cells::{Cell, Cells, write_decimal, write_real};
use crate::session::{Column, ColumnType};

pub(super) const BOOL: u32 = 16;
pub(super) const BYTEA: u32 = 17;
pub(super) const INT8: u32 = 20;
pub(super) const INT2: u32 = 21;
pub(super) const INT4: u32 = 23;
pub(super) const TEXT: u32 = 25;
pub(super) const JSON: u32 = 114;
pub(super) const FLOAT4: u32 = 700;
pub(super) const FLOAT8: u32 = 701;
pub(super) const UNKNOWN: u32 = 705;
pub(super) const BPCHAR: u32 = 1042;
pub(super) const VARCHAR: u32 = 1043;
pub(super) const DATE: u32 = 1082;
pub(super) const TIME: u32 = 1083;
pub(super) const TIMESTAMP: u32 = 1114;
pub(super) const TIMESTAMPTZ: u32 = 1184;
pub(super) const NUMERIC: u32 = 1700;
pub(super) const UUID: u32 = 2950;
pub(super) const JSONB: u32 = 3802;

/// Digits that every `int8` has.
const INT8_DIGITS: u8 = 18;
/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL's binary times begin.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
const SPECIAL: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// A column of a result. `integers` tells that its values are `i64`s; before a statement has run
/// that is known from the precision only.
pub(super) fn field(column: &Column, integers: bool) -> Field {
    let (oid, size, modifier) = match column.kind {
        ColumnType::Number { precision, scale: 0 } if integers || precision <= INT8_DIGITS => {
            (INT8, 8, -1)
        }
        ColumnType::Number { precision, scale } => {
            (NUMERIC, -1, ((i32::from(precision) << 16) | i32::from(scale)) + 4)
        }
        ColumnType::Real => (FLOAT8, 8, -1),
        ColumnType::Text => (TEXT, -1, -1),
        ColumnType::Boolean => (BOOL, 1, -1),
        ColumnType::Date => (DATE, 4, -1),
        ColumnType::Time => (TIME, 8, -1),
        ColumnType::TimestampNtz => (TIMESTAMP, 8, -1),
        ColumnType::TimestampLtz => (TIMESTAMPTZ, 8, -1),
        ColumnType::Binary => (BYTEA, -1, -1),
        ColumnType::Variant | ColumnType::Object | ColumnType::Array => (JSON, -1, -1),
    };
    Field { name: column.name.clone(), oid, size, modifier, format: 0 }
}

/// The format of column `index` that a Bind asks for: none is text, one is for all.
pub(super) fn format_of(formats: &[i16], index: usize) -> Result<i16, Report> {
    let format = match formats {
        [] => 0,
        [one] => *one,
        many => many.get(index).copied().unwrap_or_default(),
    };
    match format {
        0 | 1 => Ok(format),
        other => Err(Report::new("22023", format!("unsupported format code: {other}"))),
    }
}

/// Appends a DataRow.
pub(super) fn put_row(
    to: &mut BytesMut,
    fields: &[Field],
    columns: &[Cells],
    row: usize,
    zone: &TimeZone,
    scratch: &mut String,
) -> Result<(), Report> {
    to.put_u8(b'D');
    let start = to.len();
    to.put_u32(0);
    to.put_u16(fields.len() as u16);
    for (field, cells) in fields.iter().zip(columns) {
        let cell = cells.get(row);
        if cell == Cell::Null {
            to.put_i32(-1);
            continue;
        }
        let at = to.len();
        to.put_i32(0);
        if field.format == 1 {
            put_binary(to, field.oid, cell)?;
        } else {
            put_text(to, cell, field.oid, zone, scratch);
        }
        let length = (to.len() - at - 4) as i32;
        to[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    let length = (to.len() - start) as u32;
    to[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn put_text(to: &mut BytesMut, cell: Cell<'_>, oid: u32, zone: &TimeZone, scratch: &mut String) {
    use std::fmt::Write as _;
    scratch.clear();
    match cell {
        Cell::Null => {}
        Cell::Text(text) => return to.put_slice(text.as_bytes()),
        Cell::Boolean(value) => scratch.push(if value { 't' } else { 'f' }),
        Cell::Integer(value) => {
            let _ = write!(scratch, "{value}");
        }
        Cell::Decimal(value, scale) => write_decimal(scratch, value, scale),
        Cell::Real(value) => write_real(scratch, value, SPECIAL),
        Cell::Binary(bytes) => {
            scratch.push_str("\\x");
            scratch.push_str(&hex::encode(bytes));
        }
        Cell::Date(days) => write_date(scratch, days),
        Cell::Time(nanos) => {
            let time = DateTime::default().saturating_add(SignedDuration::from_nanos(nanos));
            write_time(scratch, time);
        }
        Cell::Timestamp(nanos) => {
            let instant = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
            let zone = if oid == TIMESTAMPTZ { zone.clone() } else { TimeZone::UTC };
            let local = instant.to_zoned(zone);
            let _ = write!(scratch, "{} ", local.date());
            write_time(scratch, local.datetime());
            if oid == TIMESTAMPTZ {
                write_zone(scratch, local.offset().seconds());
            }
        }
    }
    to.put_slice(scratch.as_bytes());
}

/// A date as ISO has it; PostgreSQL counts years before 1 in BC.
fn write_date(to: &mut String, days: i32) {
    use std::fmt::Write as _;
    let epoch = Date::constant(1970, 1, 1);
    let date = epoch.saturating_add(SignedDuration::from_hours(i64::from(days) * 24));
    let (year, era) = if date.year() < 1 { (1 - date.year(), " BC") } else { (date.year(), "") };
    let _ = write!(to, "{year:04}-{:02}-{:02}{era}", date.month(), date.day());
}

fn write_time(to: &mut String, time: DateTime) {
    use std::fmt::Write as _;
    let _ = write!(to, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
    let micros = time.subsec_nanosecond() / 1_000;
    if micros > 0 {
        let _ = write!(to, ".{micros:06}");
        to.truncate(to.trim_end_matches('0').len());
    }
}

fn write_zone(to: &mut String, seconds: i32) {
    use std::fmt::Write as _;
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, rest) = (seconds.abs() / 3600, seconds.abs() % 3600);
    let _ = write!(to, "{sign}{hours:02}");
    if rest > 0 {
        let _ = write!(to, ":{:02}", rest / 60);
    }
    if rest % 60 > 0 {
        let _ = write!(to, ":{:02}", rest % 60);
    }
}

fn put_binary(to: &mut BytesMut, oid: u32, cell: Cell<'_>) -> Result<(), Report> {
    match (oid, cell) {
        (NUMERIC, Cell::Integer(value)) => put_numeric(to, i128::from(value), 0),
        (NUMERIC, Cell::Decimal(value, scale)) => put_numeric(to, value, scale),
        (INT8, Cell::Decimal(value, 0)) => match i64::try_from(value) {
            Ok(value) => to.put_i64(value),
            Err(_) => return Err(Report::new("22003", "bigint out of range")),
        },
        (_, Cell::Integer(value)) => to.put_i64(value),
        (_, Cell::Real(value)) => to.put_f64(value),
        (_, Cell::Boolean(value)) => to.put_u8(value.into()),
        (_, Cell::Date(days)) => to.put_i32(days.saturating_sub(EPOCH_DAYS)),
        (_, Cell::Time(nanos)) => to.put_i64(nanos / 1_000),
        (_, Cell::Timestamp(nanos)) => to.put_i64(nanos.div_euclid(1_000) - EPOCH_MICROS),
        (_, Cell::Text(text)) => to.put_slice(text.as_bytes()),
        (_, Cell::Binary(bytes)) => to.put_slice(bytes),
        (oid, cell @ (Cell::Decimal(..) | Cell::Null)) => {
            let text = format!("no binary format of {cell:?} as type {oid}");
            return Err(Report::new("XX000", text));
        }
    }
    Ok(())
}

/// PostgreSQL's numeric: digits to the base of 10,000, with the weight of the first.
fn put_numeric(to: &mut BytesMut, value: i128, scale: u8) {
    let mut rest = value.unsigned_abs();
    let mut digits = Vec::with_capacity(12);
    // The digits behind the point fill whole groups from the left.
    let odd = u32::from(scale % 4);
    let below = i16::from(scale.div_ceil(4));
    if odd > 0 {
        let unit = 10u128.pow(odd);
        digits.push((rest % unit) as i16 * 10i16.pow(4 - odd));
        rest /= unit;
    }
    while rest > 0 {
        digits.push((rest % 10_000) as i16);
        rest /= 10_000;
    }
    let mut weight = digits.len() as i16 - below - 1;
    while digits.last() == Some(&0) {
        digits.pop();
        weight -= 1;
    }
    let zeros = digits.iter().take_while(|&&digit| digit == 0).count();
    digits.drain(..zeros);
    to.put_i16(digits.len() as i16);
    to.put_i16(if digits.is_empty() { 0 } else { weight });
    to.put_u16(if value < 0 { 0x4000 } else { 0 });
    to.put_u16(u16::from(scale));
    digits.iter().rev().for_each(|&digit| to.put_i16(digit));
}

/// A bound value as text, whichever format the client sent it in.
pub(super) fn parameter(oid: u32, format: i16, value: Bytes) -> Result<String, Report> {
    if format == 0 || matches!(oid, TEXT | VARCHAR | BPCHAR | UNKNOWN | JSON | 0) {
        return String::from_utf8(value.into()).map_err(|_| {
            Report::new("22021", "invalid byte sequence for encoding \"UTF8\" in a parameter")
        });
    }
    let wrong = || Report::new("22P03", format!("incorrect binary data format of type {oid}"));
    let mut text = String::new();
    match oid {
        BOOL => text.push_str(if fixed::<1>(&value).ok_or_else(wrong)? == [0] {
            "false"
        } else {
            "true"
        }),
        INT2 => text = i16::from_be_bytes(fixed(&value).ok_or_else(wrong)?).to_string(),
        INT4 => text = i32::from_be_bytes(fixed(&value).ok_or_else(wrong)?).to_string(),
        INT8 => text = i64::from_be_bytes(fixed(&value).ok_or_else(wrong)?).to_string(),
        FLOAT4 => text = f32::from_be_bytes(fixed(&value).ok_or_else(wrong)?).to_string(),
        FLOAT8 => {
            let value = f64::from_be_bytes(fixed(&value).ok_or_else(wrong)?);
            write_real(&mut text, value, ["NaN", "inf", "-inf"]);
        }
        BYTEA => text = hex::encode(&value),
        UUID => text = uuid::Uuid::from_bytes(fixed(&value).ok_or_else(wrong)?).to_string(),
        JSONB if value.first() == Some(&1) => {
            text = String::from_utf8(value[1..].to_vec()).map_err(|_| wrong())?;
        }
        NUMERIC => text = numeric_text(&value).ok_or_else(wrong)?,
        DATE => {
            let days = i32::from_be_bytes(fixed(&value).ok_or_else(wrong)?);
            write_date(&mut text, days.checked_add(EPOCH_DAYS).ok_or_else(wrong)?);
        }
        TIME => {
            let micros = i64::from_be_bytes(fixed(&value).ok_or_else(wrong)?);
            write_time(
                &mut text,
                DateTime::default().saturating_add(SignedDuration::from_micros(micros)),
            );
        }
        TIMESTAMP | TIMESTAMPTZ => {
            let micros = i64::from_be_bytes(fixed(&value).ok_or_else(wrong)?);
            let instant = micros
                .checked_add(EPOCH_MICROS)
                .and_then(|micros| Timestamp::from_microsecond(micros).ok())
                .ok_or_else(wrong)?;
            let local = instant.to_zoned(TimeZone::UTC);
            text = format!("{} ", local.date());
            write_time(&mut text, local.datetime());
            if oid == TIMESTAMPTZ {
                text.push_str(" +00:00");
            }
        }
        other => {
            let text = format!("a parameter of type {other} in binary format is not supported");
            return Err(Report::new("0A000", text));
        }
    }
    Ok(text)
}

fn fixed<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn numeric_text(value: &[u8]) -> Option<String> {
    use std::fmt::Write as _;
    let word = |at: usize| value.get(at..at + 2).map(|b| i16::from_be_bytes([b[0], b[1]]));
    let (count, weight, scale) = (usize::try_from(word(0)?).ok()?, word(2)?, word(6)?);
    if value.len() != 8 + 2 * count || !(0..=38).contains(&scale) || weight.unsigned_abs() > 16 {
        return None;
    }
    let mut text = String::new();
    match word(4)? {
        0 => {}
        0x4000 => text.push('-'),
        _ => return None,
    }
    let digit = |place: i16| -> Option<i16> {
        let index = i32::from(weight) - i32::from(place);
        let Ok(index) = usize::try_from(index) else { return Some(0) };
        if index < count {
            word(8 + 2 * index).filter(|d| (0..10_000).contains(d))
        } else {
            Some(0)
        }
    };
    if weight < 0 {
        text.push('0');
    }
    for place in (0..=weight).rev() {
        let digit = digit(place)?;
        let _ = if place == weight { write!(text, "{digit}") } else { write!(text, "{digit:04}") };
    }
    if scale > 0 {
        text.push('.');
        let point = text.len();
        for group in 1..=scale.unsigned_abs().div_ceil(4) as i16 {
            let _ = write!(text, "{:04}", digit(-group)?);
        }
        text.truncate(point + usize::from(scale.unsigned_abs()));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_reads_back() {
        for (value, scale) in [
            (0, 0),
            (0, 3),
            (1, 0),
            (-1, 2),
            (10_000, 0),
            (123_456_789, 4),
            (100_000_000, 5),
            (5, 9),
            (i128::from(i64::MAX) * 1_000_000_000, 7),
        ] {
            let mut bytes = BytesMut::new();
            put_numeric(&mut bytes, value, scale);
            let mut text = String::new();
            write_decimal(&mut text, value, scale);
            assert_eq!(numeric_text(&bytes), Some(text), "{value} {scale}");
        }
    }

    #[test]
    fn times_as_text() {
        let text = |cell, oid, zone: &TimeZone| {
            let (mut bytes, mut scratch) = (BytesMut::new(), String::new());
            put_text(&mut bytes, cell, oid, zone, &mut scratch);
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let utc = TimeZone::UTC;
        let india =
            TimeZone::fixed(jiff::tz::offset(5).saturating_add(SignedDuration::from_mins(30)));
        assert_eq!(text(Cell::Date(-719_163), DATE, &utc), "0001-12-31 BC");
        assert_eq!(text(Cell::Time(3_661_500_000_000), TIME, &utc), "01:01:01.5");
        assert_eq!(text(Cell::Timestamp(-1), TIMESTAMP, &utc), "1969-12-31 23:59:59.999999");
        assert_eq!(text(Cell::Timestamp(0), TIMESTAMPTZ, &india), "1970-01-01 05:30:00+05:30");
    }
}
