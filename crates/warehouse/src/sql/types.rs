//! Snowflake's types: their names, and the Arrow types that hold them.

use datafusion::arrow::datatypes::{DataType, TimeUnit};

use crate::error::{SqlResult, error, unsupported};
use crate::session::ColumnType;

/// Longest VARCHAR, and the length when none is given (Snowflake: 16 MiB by default).
pub(crate) const VARCHAR_CHARS_MAX: u32 = 16_777_216;
/// Most digits of a NUMBER (Snowflake).
pub(crate) const NUMBER_DIGITS_MAX: u8 = 38;
/// Most digits that Int64 always holds.
const INT64_DIGITS: u8 = 18;
/// The zone of TIMESTAMP_LTZ.
pub(crate) const UTC: &str = "UTC";

/// A type as it is written, with the length a VARCHAR or BINARY may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) kind: ColumnType,
    pub(crate) length: Option<u32>,
}

/// Reads `NUMBER(10, 2)` and its many names.
pub(crate) fn parse(text: &str) -> SqlResult<Written> {
    let text = text.trim().to_uppercase();
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => (name.trim(), rest.trim_end_matches(')').trim()),
        None => (text.as_str(), ""),
    };
    let numbers: Vec<u32> = if arguments.is_empty() {
        Vec::new()
    } else {
        let parsed: Result<_, _> = arguments.split(',').map(|a| a.trim().parse()).collect();
        parsed.map_err(|_| unsupported(format!("data type {text}")))?
    };
    let plain = |kind| Written { kind, length: None };
    let written = match name {
        "NUMBER" | "DECIMAL" | "NUMERIC" | "DEC" => plain(number(&numbers, &text)?),
        "INT" | "INTEGER" | "BIGINT" | "SMALLINT" | "TINYINT" | "BYTEINT" => {
            plain(ColumnType::Number { precision: 38, scale: 0 })
        }
        "FLOAT" | "FLOAT4" | "FLOAT8" | "DOUBLE" | "DOUBLE PRECISION" | "REAL" => {
            plain(ColumnType::Real)
        }
        "VARCHAR" | "STRING" | "TEXT" | "NVARCHAR" | "NVARCHAR2" | "CHAR VARYING"
        | "CHARACTER VARYING" | "NCHAR VARYING" => text_type(numbers.first().copied(), &text)?,
        "CHAR" | "CHARACTER" | "NCHAR" => text_type(Some(*numbers.first().unwrap_or(&1)), &text)?,
        "BOOLEAN" | "BOOL" => plain(ColumnType::Boolean),
        "DATE" => plain(ColumnType::Date),
        "TIME" => plain(full_precision(ColumnType::Time, &numbers)?),
        "TIMESTAMP"
        | "DATETIME"
        | "TIMESTAMP_NTZ"
        | "TIMESTAMPNTZ"
        | "TIMESTAMP WITHOUT TIME ZONE" => {
            plain(full_precision(ColumnType::TimestampNtz, &numbers)?)
        }
        "TIMESTAMP_LTZ"
        | "TIMESTAMPLTZ"
        | "TIMESTAMP_TZ"
        | "TIMESTAMPTZ"
        | "TIMESTAMP WITH LOCAL TIME ZONE"
        | "TIMESTAMP WITH TIME ZONE" => plain(full_precision(ColumnType::TimestampLtz, &numbers)?),
        "BINARY" | "VARBINARY" => {
            Written { kind: ColumnType::Binary, length: numbers.first().copied() }
        }
        "VARIANT" => plain(ColumnType::Variant),
        "OBJECT" => plain(ColumnType::Object),
        "ARRAY" => plain(ColumnType::Array),
        _ => return Err(unsupported(format!("data type {text}"))),
    };
    Ok(written)
}

fn number(arguments: &[u32], text: &str) -> SqlResult<ColumnType> {
    let precision = arguments.first().copied().unwrap_or(38);
    let scale = arguments.get(1).copied().unwrap_or(0);
    if !(1..=38).contains(&precision) || scale > 37 || scale > precision || arguments.len() > 2 {
        let why = format!("SQL compilation error:\ninvalid precision or scale in {text}");
        return Err(error(1008, "22023", why));
    }
    Ok(ColumnType::Number { precision: precision as u8, scale: scale as u8 })
}

fn text_type(length: Option<u32>, text: &str) -> SqlResult<Written> {
    match length {
        Some(0) | Some(134_217_729..) => {
            Err(error(1008, "22023", format!("SQL compilation error:\ninvalid length in {text}")))
        }
        _ => Ok(Written { kind: ColumnType::Text, length }),
    }
}

fn full_precision(kind: ColumnType, arguments: &[u32]) -> SqlResult<ColumnType> {
    match arguments {
        [] | [9] => Ok(kind),
        _ => Err(unsupported("fractional precision other than 9; leave it out")),
    }
}

/// The type's full name, as DESC TABLE shows it.
pub(crate) fn name(kind: ColumnType, length: Option<u32>) -> String {
    match kind {
        ColumnType::Number { precision, scale } => format!("NUMBER({precision},{scale})"),
        ColumnType::Real => "FLOAT".into(),
        ColumnType::Text => format!("VARCHAR({})", length.unwrap_or(VARCHAR_CHARS_MAX)),
        ColumnType::Boolean => "BOOLEAN".into(),
        ColumnType::Date => "DATE".into(),
        ColumnType::Time => "TIME(9)".into(),
        ColumnType::TimestampNtz => "TIMESTAMP_NTZ(9)".into(),
        ColumnType::TimestampLtz => "TIMESTAMP_LTZ(9)".into(),
        ColumnType::Binary => format!("BINARY({})", length.unwrap_or(8_388_608)),
        ColumnType::Variant => "VARIANT".into(),
        ColumnType::Object => "OBJECT".into(),
        ColumnType::Array => "ARRAY".into(),
    }
}

/// What holds the type inside the engine. VARIANT is `LargeUtf8` there, so that the engine can tell
/// JSON from a text by its type alone, through any projection, join or grouping.
pub(crate) fn arrow(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Number { precision, scale: 0 } if precision <= INT64_DIGITS => DataType::Int64,
        ColumnType::Number { precision, scale } => DataType::Decimal128(precision, scale as i8),
        ColumnType::Real => DataType::Float64,
        ColumnType::Text => DataType::Utf8,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Date => DataType::Date32,
        ColumnType::Time => DataType::Time64(TimeUnit::Nanosecond),
        ColumnType::TimestampNtz => DataType::Timestamp(TimeUnit::Nanosecond, None),
        ColumnType::TimestampLtz => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
        ColumnType::Binary => DataType::Binary,
        ColumnType::Variant | ColumnType::Object | ColumnType::Array => DataType::LargeUtf8,
    }
}

/// What an answer calls a type of the engine, and what its array is turned into.
pub(crate) fn of_arrow(arrow: &DataType) -> Option<ColumnType> {
    Some(match arrow {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            ColumnType::Number { precision: NUMBER_DIGITS_MAX, scale: 0 }
        }
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            ColumnType::Number { precision: NUMBER_DIGITS_MAX, scale: 0 }
        }
        DataType::UInt64 => ColumnType::Number { precision: NUMBER_DIGITS_MAX, scale: 0 },
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => ColumnType::Number {
            precision: (*p).min(NUMBER_DIGITS_MAX),
            scale: u8::try_from(*s).ok()?,
        },
        DataType::Float16 | DataType::Float32 | DataType::Float64 => ColumnType::Real,
        DataType::Utf8 | DataType::Utf8View | DataType::Null => ColumnType::Text,
        DataType::LargeUtf8 => ColumnType::Variant,
        DataType::Boolean => ColumnType::Boolean,
        DataType::Date32 | DataType::Date64 => ColumnType::Date,
        DataType::Time32(_) | DataType::Time64(_) => ColumnType::Time,
        DataType::Timestamp(_, None) => ColumnType::TimestampNtz,
        DataType::Timestamp(_, Some(_)) => ColumnType::TimestampLtz,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ColumnType::Binary,
        _ => return None,
    })
}

/// The array type of an answer's column: as [`crate::session::ColumnType`] promises.
pub(crate) fn answer_arrow(inner: &DataType, kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Number { scale: 0, .. } if inner.is_integer() => match inner {
            DataType::UInt64 => DataType::Decimal128(NUMBER_DIGITS_MAX, 0),
            _ => DataType::Int64,
        },
        ColumnType::Number { precision, scale } => DataType::Decimal128(precision, scale as i8),
        ColumnType::Variant | ColumnType::Object | ColumnType::Array => DataType::Utf8,
        other => arrow(other),
    }
}
