//! Values of a source's records as those of a table's columns.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float64Builder, Int64Builder, LargeStringBuilder, StringBuilder, Time64NanosecondBuilder,
    TimestampNanosecondBuilder,
};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, Time64NanosecondType,
    TimestampNanosecondType,
};

use crate::error::{SqlResult, internal};
use crate::functions::moment;
use crate::functions::number::{parse_decimal, parse_float};
use crate::json;
use crate::json::raw::unquote;
use crate::session::ColumnType;
use crate::sql::types::{self, UTC};

/// A value of a row that is not in a file yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    /// It is as it was before the change.
    Unchanged,
    Bool(bool),
    /// A NUMBER's digits, or a day or moment as the array has it.
    Number(i128),
    Real(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

/// The value that a column of type `kind` has for the JSON text `raw`; `is_list` says whether it is an
/// array in PostgreSQL. `None` if the type has no such value.
pub(super) fn read(raw: &str, kind: ColumnType, is_list: bool) -> Option<Value> {
    if raw == "null" {
        return Some(Value::Null);
    }
    let quoted = raw.starts_with('"');
    let text: Cow<'_, str> = if quoted { unquote(raw)? } else { Cow::Borrowed(raw) };
    let number = |n: i64| Value::Number(n.into());
    Some(match kind {
        ColumnType::Text => Value::Text(text.into()),
        ColumnType::Boolean => Value::Bool(text.parse().ok()?),
        ColumnType::Number { precision, scale } => {
            Value::Number(parse_decimal(&text, precision, scale).ok()?)
        }
        ColumnType::Real => Value::Real(parse_float(&text).ok()?),
        ColumnType::Date => {
            let date: jiff::civil::Date = is_day(&text).then(|| text.parse().ok())??;
            let epoch = jiff::civil::Date::constant(1970, 1, 1);
            number(date.duration_since(epoch).as_hours() / 24)
        }
        ColumnType::Time => number(moment::parse_time(&text).ok()?),
        ColumnType::TimestampNtz if is_day(text.get(..10)?) => {
            number(moment::parse_timestamp(&text, true).ok()?)
        }
        ColumnType::TimestampLtz if is_day(text.get(..10)?) => {
            number(moment::parse_timestamp(&text, false).ok()?)
        }
        ColumnType::TimestampNtz | ColumnType::TimestampLtz => return None,
        ColumnType::Binary => Value::Bytes(STANDARD.decode(text.as_bytes()).ok()?.into()),
        ColumnType::Variant | ColumnType::Object | ColumnType::Array => {
            // `json` comes as a string that holds it; an array as an array, or as a string where JSON
            // has no such array.
            let json = match quoted && !is_list {
                true => json::check(&text).ok().map(|()| text.as_ref())?,
                false => raw,
            };
            (json.len() <= json::VARIANT_BYTES_MAX).then(|| Value::Text(json.into()))?
        }
    })
}

/// `YYYY-MM-DD`, so that neither `infinity` nor a year of five digits is taken for a day.
fn is_day(text: &str) -> bool {
    let digit = |(n, byte): (usize, u8)| match n {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(digit)
}

/// Appends values one by one, turned by an expression.
macro_rules! build {
    ($values:expr, $builder:expr, $pattern:pat => $value:expr) => {{
        let mut builder = $builder;
        for value in $values {
            match value {
                $pattern => builder.append_value($value),
                _ => builder.append_null(),
            }
        }
        Arc::new(builder.finish())
    }};
}

/// A column's array.
pub(super) fn array<'a>(
    values: impl Iterator<Item = &'a Value>,
    kind: ColumnType,
) -> SqlResult<ArrayRef> {
    Ok(match types::arrow(kind) {
        DataType::Int64 => build!(values, Int64Builder::new(), Value::Number(n) => *n as i64),
        DataType::Decimal128(precision, scale) => {
            let builder = Decimal128Builder::new()
                .with_precision_and_scale(precision, scale)
                .map_err(internal)?;
            build!(values, builder, Value::Number(n) => *n)
        }
        DataType::Float64 => build!(values, Float64Builder::new(), Value::Real(n) => *n),
        DataType::Boolean => build!(values, BooleanBuilder::new(), Value::Bool(b) => *b),
        DataType::Date32 => build!(values, Date32Builder::new(), Value::Number(n) => *n as i32),
        DataType::Time64(_) => {
            build!(values, Time64NanosecondBuilder::new(), Value::Number(n) => *n as i64)
        }
        DataType::Timestamp(_, None) => {
            build!(values, TimestampNanosecondBuilder::new(), Value::Number(n) => *n as i64)
        }
        DataType::Timestamp(_, Some(_)) => {
            let builder = TimestampNanosecondBuilder::new().with_timezone(UTC);
            build!(values, builder, Value::Number(n) => *n as i64)
        }
        DataType::Binary => build!(values, BinaryBuilder::new(), Value::Bytes(b) => b),
        DataType::LargeUtf8 => build!(values, LargeStringBuilder::new(), Value::Text(t) => t),
        DataType::Utf8 => build!(values, StringBuilder::new(), Value::Text(t) => t),
        other => return Err(internal(format!("a column of type {other}"))),
    })
}

/// The value in a row of a file's array.
pub(super) fn at(array: &ArrayRef, row: usize) -> SqlResult<Value> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let number = |n: i64| Value::Number(n.into());
    Ok(match array.data_type() {
        DataType::Int64 => number(array.as_primitive::<Int64Type>().value(row)),
        DataType::Decimal128(..) => {
            Value::Number(array.as_primitive::<Decimal128Type>().value(row))
        }
        DataType::Float64 => Value::Real(array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Date32 => number(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Time64(_) => number(array.as_primitive::<Time64NanosecondType>().value(row)),
        DataType::Timestamp(..) => {
            number(array.as_primitive::<TimestampNanosecondType>().value(row))
        }
        DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row).into()),
        DataType::LargeUtf8 => Value::Text(array.as_string::<i64>().value(row).into()),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).into()),
        other => return Err(internal(format!("a column of type {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str, kind: ColumnType) -> Option<Value> {
        super::read(raw, kind, raw.contains('['))
    }

    #[test]
    fn values_of_postgresql_are_read_or_refused() {
        let day = |n| Some(Value::Number(n));
        assert_eq!(read("\"1970-01-02\"", ColumnType::Date), day(1));
        assert_eq!(read("\"1969-12-31\"", ColumnType::Date), day(-1));
        assert_eq!(read("\"9999-12-31\"", ColumnType::Date), day(2_932_896));
        for bad in ["infinity", "-infinity", "0044-03-15 BC", "12024-01-01"] {
            let raw = format!("\"{bad}\"");
            for kind in [ColumnType::Date, ColumnType::TimestampNtz, ColumnType::TimestampLtz] {
                assert_eq!(read(&raw, kind), None, "{bad}");
            }
            assert_eq!(read(&raw, ColumnType::Text), Some(Value::Text(bad.into())));
        }
        assert_eq!(read("\"24:00:00\"", ColumnType::Time), None);
        let ns = 1_000_000_000;
        assert_eq!(read("\"00:00:01\"", ColumnType::Time), day(ns));
        assert_eq!(read("\"1970-01-01 00:00:01\"", ColumnType::TimestampNtz), day(ns));
        assert_eq!(read("\"1970-01-01T00:00:01Z\"", ColumnType::TimestampLtz), day(ns));
        let number = ColumnType::Number { precision: 10, scale: 2 };
        assert_eq!(read("\"1.25\"", number), day(125));
        assert_eq!(read("\"NaN\"", number), None);
        assert!(matches!(read("\"NaN\"", ColumnType::Real), Some(Value::Real(n)) if n.is_nan()));
        let text = |t: &str| Some(Value::Text(t.into()));
        assert_eq!(read(r#""{\"a\": 1e400}""#, ColumnType::Variant), text("{\"a\": 1e400}"));
        assert_eq!(read("[1,2]", ColumnType::Variant), text("[1,2]"));
        assert_eq!(super::read("\"{}\"", ColumnType::Variant, true), text("\"{}\""));
        assert_eq!(read("\"{{1},{2}}\"", ColumnType::Variant), None);
        assert_eq!(read("\"AAE=\"", ColumnType::Binary), Some(Value::Bytes([0, 1].into())));
    }
}
