//! The values a driver binds to `?` and `:1`, as the text the engine takes.
//!
//! Drivers write dates and times as numbers since the epoch, in units of their own per type.

use std::collections::HashMap;

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use crate::session::SqlError;

/// Most values bound to one statement.
const VALUES_MAX: usize = 65_535;

/// One bound value: its type in Snowflake's words, and its text.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Binding {
    #[serde(rename = "type")]
    kind: String,
    value: Value,
}

/// The values of `"1"`, `"2"`, … in order.
pub(super) fn values(
    bindings: Option<HashMap<String, Binding>>,
) -> Result<Vec<Option<String>>, SqlError> {
    let bindings = bindings.unwrap_or_default();
    if bindings.len() > VALUES_MAX {
        return Err(wrong(format!("more than {VALUES_MAX} bind variables")));
    }
    let at = |index: usize| {
        bindings
            .get(&index.to_string())
            .ok_or_else(|| wrong(format!("Bind variable {index} not set.")))
    };
    (1..=bindings.len()).map(|index| text(at(index)?)).collect()
}

fn text(binding: &Binding) -> Result<Option<String>, SqlError> {
    let given = match &binding.value {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        Value::Array(_) => {
            return Err(SqlError {
                code: 2,
                sqlstate: "0A000",
                message: "Unsupported feature 'array binding'. Send one statement with several \
                          rows, or one statement for each row."
                    .into(),
            });
        }
        other => return Ok(Some(other.to_string())),
    };
    let unreadable =
        || wrong(format!("Bind variable of type {} is not readable: {given}", binding.kind));
    let text = match binding.kind.to_ascii_uppercase().as_str() {
        "DATE" if is_number(given) => date(given).ok_or_else(unreadable)?,
        "TIME" if is_number(given) => {
            let nanos: i64 = given.parse().map_err(|_| unreadable())?;
            let time = DateTime::default().saturating_add(SignedDuration::from_nanos(nanos)).time();
            format!("{time:.9}")
        }
        "TIMESTAMP_NTZ" if is_number(given) => {
            let local = at(given, TimeZone::UTC).ok_or_else(unreadable)?;
            local
                .split_once('+')
                .map(|(local, _)| local.trim().to_owned())
                .ok_or_else(unreadable)?
        }
        "TIMESTAMP_LTZ" | "TIMESTAMP" if is_number(given) => {
            at(given, TimeZone::UTC).ok_or_else(unreadable)?
        }
        "TIMESTAMP_TZ" => zoned(given).ok_or_else(unreadable)?,
        _ => given.clone(),
    };
    Ok(Some(text))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// A date of milliseconds since the epoch.
fn date(ms: &str) -> Option<String> {
    let ms: i64 = ms.parse().ok()?;
    let days = SignedDuration::from_hours(ms.div_euclid(86_400_000).checked_mul(24)?);
    Some(Date::constant(1970, 1, 1).checked_add(days).ok()?.to_string())
}

/// A moment of nanoseconds since the epoch, with its zone's offset.
fn at(nanos: &str, zone: TimeZone) -> Option<String> {
    let nanos: i128 = nanos.parse().ok()?;
    let local = Timestamp::from_nanosecond(nanos).ok()?.to_zoned(zone);
    Some(local.strftime("%Y-%m-%d %H:%M:%S.%9f %:z").to_string())
}

/// Nanoseconds since the epoch, a blank, and the zone's offset in minutes plus 1,440.
fn zoned(value: &str) -> Option<String> {
    let Some((nanos, minutes)) = value.split_once(' ') else {
        return if is_number(value) { at(value, TimeZone::UTC) } else { Some(value.to_owned()) };
    };
    if !is_number(nanos) {
        return Some(value.to_owned());
    }
    let minutes: i32 = minutes.parse().ok()?;
    let seconds = minutes.checked_sub(1_440)?.checked_mul(60)?;
    at(nanos, TimeZone::fixed(Offset::from_seconds(seconds).ok()?))
}

fn wrong(message: String) -> SqlError {
    SqlError {
        code: 2_049,
        sqlstate: "42601",
        message: format!("SQL compilation error:\n{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(kind: &str, value: Value) -> Result<Option<String>, SqlError> {
        text(&Binding { kind: kind.into(), value })
    }

    #[test]
    fn values_as_text() {
        let bound = |kind: &str, value: &str| bound(kind, value.into()).unwrap().unwrap();
        assert_eq!(bound("FIXED", "12"), "12");
        assert_eq!(bound("DATE", "-86400000"), "1969-12-31");
        assert_eq!(bound("DATE", "2024-01-02"), "2024-01-02");
        assert_eq!(bound("TIME", "80000123456789"), "22:13:20.123456789");
        assert_eq!(bound("TIMESTAMP_NTZ", "1700000000123456789"), "2023-11-14 22:13:20.123456789");
        assert_eq!(bound("TIMESTAMP_LTZ", "0"), "1970-01-01 00:00:00.000000000 +00:00");
        assert_eq!(bound("TIMESTAMP_TZ", "0 1530"), "1970-01-01 01:30:00.000000000 +01:30");
        assert_eq!(bound("TIMESTAMP_TZ", "0 900"), "1969-12-31 15:00:00.000000000 -09:00");
    }

    #[test]
    fn what_cannot_be_bound_is_an_error() {
        assert_eq!(bound("TEXT", Value::Null), Ok(None));
        assert!(bound("DATE", "99999999999999999999".into()).is_err());
        assert!(bound("TEXT", serde_json::json!(["a", "b"])).is_err());
        let binding = Binding { kind: "TEXT".into(), value: "a".into() };
        let named = HashMap::from([("name".to_owned(), binding)]);
        assert!(values(Some(named)).is_err());
    }
}
