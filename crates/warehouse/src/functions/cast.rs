//! Casts, as Snowflake makes them: out of VARIANT by what the value is, out of text by parsing it.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float64Builder, Int64Builder, LargeStringBuilder, StringBuilder, Time64NanosecondBuilder,
    TimestampNanosecondBuilder,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, Time64NanosecondType, TimeUnit,
    TimestampNanosecondType,
};
use datafusion::error::DataFusionError;

use super::moment;
use super::number::{order_key, out_of_range, parse_decimal, parse_float};
use crate::error::{SqlResult, datafusion, error, unsupported};
use crate::json::raw::{Kind, kind, unquote};
use crate::json::write;
use crate::session::{ColumnType, SqlError};
use crate::sql::types::{self, UTC, Written};

/// A value before the cast.
enum Input<'a> {
    Null,
    /// JSON that is not null.
    Json(&'a str),
    Text(&'a str),
}

impl<'a> Input<'a> {
    fn json(value: &'a str) -> Self {
        if kind(value) == Some(Kind::Null) { Self::Null } else { Self::Json(value) }
    }

    /// The text of a value that has one: strings, numbers, booleans.
    fn scalar(&self, to: &str) -> SqlResult<Cow<'a, str>> {
        match *self {
            Self::Null => Ok(Cow::Borrowed("")),
            Self::Text(text) => Ok(Cow::Borrowed(text)),
            Self::Json(json) => match kind(json) {
                Some(Kind::Object | Kind::Array) => {
                    let shown: String = write::compact(json).chars().take(200).collect();
                    let text = format!("Failed to cast variant value {shown} to {to}");
                    Err(error(100_071, "22000", text))
                }
                _ => Ok(text_of(json)),
            },
        }
    }
}

/// What a cast of a VARIANT to VARCHAR gives; for a JSON null there is nothing to cast.
pub(crate) fn text_of(json: &str) -> Cow<'_, str> {
    match kind(json) {
        Some(Kind::Text) => unquote(json).unwrap_or(Cow::Borrowed(json)),
        Some(Kind::Object | Kind::Array) => Cow::Owned(write::compact(json)),
        _ => Cow::Borrowed(json),
    }
}

/// Casts an array. With `lenient`, what cannot be cast is NULL (TRY_CAST).
pub(crate) fn cast(from: &ArrayRef, to: Written, lenient: bool) -> SqlResult<ArrayRef> {
    match from.data_type() {
        DataType::LargeUtf8 => {
            let values = from.as_string::<i64>();
            let rows = values.iter().map(|v| v.map_or(Input::Null, Input::json));
            cast_rows(rows, from.len(), to, lenient)
        }
        DataType::Utf8 => {
            let values = from.as_string::<i32>();
            let rows = values.iter().map(|v| v.map_or(Input::Null, Input::Text));
            cast_rows(rows, from.len(), to, lenient)
        }
        DataType::Utf8View => {
            let values = from.as_string_view();
            let rows = values.iter().map(|v| v.map_or(Input::Null, Input::Text));
            cast_rows(rows, from.len(), to, lenient)
        }
        _ => cast_typed(from, to, lenient),
    }
}

/// Fills a builder row by row; an error is a NULL if `lenient`.
macro_rules! fill {
    ($rows:expr, $lenient:expr, $builder:expr, $value:expr) => {{
        let mut builder = $builder;
        for row in $rows {
            if matches!(row, Input::Null) {
                builder.append_null();
                continue;
            }
            match $value(&row) {
                Ok(value) => builder.append_value(value),
                Err(_) if $lenient => builder.append_null(),
                Err(e) => return Err(e),
            }
        }
        Ok(Arc::new(builder.finish()))
    }};
}

fn cast_rows<'a>(
    rows: impl Iterator<Item = Input<'a>>,
    count: usize,
    to: Written,
    lenient: bool,
) -> SqlResult<ArrayRef> {
    match to.kind {
        ColumnType::Text => {
            let text = |row: &Input<'a>| -> SqlResult<Cow<'a, str>> {
                let text = match row {
                    Input::Json(json) => text_of(json),
                    other => other.scalar("TEXT")?,
                };
                fits(text, to.length)
            };
            fill!(rows, lenient, StringBuilder::with_capacity(count, count * 16), text)
        }
        ColumnType::Number { precision, scale } => {
            let number = |row: &Input<'_>| -> SqlResult<i128> {
                match row.scalar("FIXED")?.as_ref() {
                    "true" if matches!(row, Input::Json(_)) => Ok(10_i128.pow(u32::from(scale))),
                    "false" if matches!(row, Input::Json(_)) => Ok(0),
                    text => parse_decimal(text, precision, scale),
                }
            };
            if types::arrow(to.kind) == DataType::Int64 {
                let whole = |row: &Input<'_>| Ok::<i64, SqlError>(number(row)? as i64);
                fill!(rows, lenient, Int64Builder::with_capacity(count), whole)
            } else {
                let builder = Decimal128Builder::with_capacity(count)
                    .with_precision_and_scale(precision, scale as i8)
                    .map_err(|e| datafusion(DataFusionError::from(e)))?;
                fill!(rows, lenient, builder, number)
            }
        }
        ColumnType::Real => {
            let float = |row: &Input<'_>| match row.scalar("REAL")?.as_ref() {
                "true" if matches!(row, Input::Json(_)) => Ok(1.0),
                "false" if matches!(row, Input::Json(_)) => Ok(0.0),
                text => parse_float(text),
            };
            fill!(rows, lenient, Float64Builder::with_capacity(count), float)
        }
        ColumnType::Boolean => {
            let boolean = |row: &Input<'_>| parse_boolean(&row.scalar("BOOLEAN")?);
            fill!(rows, lenient, BooleanBuilder::with_capacity(count), boolean)
        }
        ColumnType::Date => {
            let date = |row: &Input<'_>| moment::parse_date(&row.scalar("DATE")?);
            fill!(rows, lenient, Date32Builder::with_capacity(count), date)
        }
        ColumnType::Time => {
            let time = |row: &Input<'_>| moment::parse_time(&row.scalar("TIME")?);
            fill!(rows, lenient, Time64NanosecondBuilder::with_capacity(count), time)
        }
        ColumnType::TimestampNtz => {
            let at = |row: &Input<'_>| moment::parse_timestamp(&row.scalar("TIMESTAMP_NTZ")?, true);
            fill!(rows, lenient, TimestampNanosecondBuilder::with_capacity(count), at)
        }
        ColumnType::TimestampLtz => {
            let at =
                |row: &Input<'_>| moment::parse_timestamp(&row.scalar("TIMESTAMP_LTZ")?, false);
            let builder = TimestampNanosecondBuilder::with_capacity(count).with_timezone(UTC);
            fill!(rows, lenient, builder, at)
        }
        ColumnType::Binary => {
            let bytes = |row: &Input<'_>| {
                let text = row.scalar("BINARY")?;
                hex::decode(text.as_bytes()).map_err(|_| {
                    error(
                        100_115,
                        "22000",
                        format!("The following string is not a legal hex-encoded value: '{text}'"),
                    )
                })
            };
            fill!(rows, lenient, BinaryBuilder::new(), bytes)
        }
        ColumnType::Variant | ColumnType::Object | ColumnType::Array => {
            let value = |row: &Input<'a>| -> SqlResult<Cow<'a, str>> {
                let json = match row {
                    Input::Json(json) => Cow::Borrowed(*json),
                    other => Cow::Owned(write::quote(&other.scalar("VARIANT")?)),
                };
                let wrong = match to.kind {
                    ColumnType::Object => kind(&json) != Some(Kind::Object),
                    ColumnType::Array => kind(&json) != Some(Kind::Array),
                    _ => false,
                };
                if wrong {
                    let (kind, shown) = (types::name(to.kind, None), text_of(&json));
                    let text = format!("Failed to cast variant value {shown} to {kind}");
                    return Err(error(100_071, "22000", text));
                }
                Ok(json)
            };
            fill!(rows, lenient, LargeStringBuilder::with_capacity(count, count * 16), value)
        }
    }
}

fn fits(text: Cow<'_, str>, length: Option<u32>) -> SqlResult<Cow<'_, str>> {
    match length {
        Some(max) if text.len() > max as usize && text.chars().count() > max as usize => {
            let shown: String = text.chars().take(200).collect();
            let why = format!("String '{shown}' is too long and would be truncated");
            Err(error(100_078, "22000", why))
        }
        _ => Ok(text),
    }
}

fn parse_boolean(text: &str) -> SqlResult<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err(error(100_037, "22018", format!("Boolean value '{text}' is not recognized"))),
    }
}

/// Casts out of numbers, booleans, dates and times.
fn cast_typed(from: &ArrayRef, to: Written, lenient: bool) -> SqlResult<ArrayRef> {
    let target = types::arrow(to.kind);
    if from.data_type() == &target {
        return Ok(Arc::clone(from));
    }
    match to.kind {
        ColumnType::Text => {
            let texts: ArrayRef = Arc::new(texts(from)?);
            cast(&texts, to, lenient)
        }
        ColumnType::Variant | ColumnType::Object | ColumnType::Array => {
            let plain = from.data_type().is_numeric() || from.data_type() == &DataType::Boolean;
            let texts = texts(from)?;
            if plain {
                let json: ArrayRef =
                    arrow(&(Arc::new(texts) as ArrayRef), &DataType::LargeUtf8, false)?;
                return cast(&json, to, lenient);
            }
            cast(&(Arc::new(texts) as ArrayRef), to, lenient)
        }
        ColumnType::TimestampNtz | ColumnType::TimestampLtz if from.data_type().is_numeric() => {
            let whole = arrow(from, &DataType::Decimal128(38, 0), lenient)?;
            let whole = whole.as_primitive::<Decimal128Type>();
            let mut builder = TimestampNanosecondBuilder::with_capacity(from.len());
            for value in whole {
                match value.map(|n| moment::guess_epoch(n).ok_or(n)) {
                    None => builder.append_null(),
                    Some(Ok(nanos)) => builder.append_value(nanos),
                    Some(Err(_)) if lenient => builder.append_null(),
                    Some(Err(n)) => {
                        let text = format!("Timestamp '{n}' is not recognized");
                        return Err(error(100_035, "22007", text));
                    }
                }
            }
            arrow(&(Arc::new(builder.finish()) as ArrayRef), &target, lenient)
        }
        ColumnType::Boolean if from.data_type().is_numeric() => {
            let float = arrow(from, &DataType::Float64, lenient)?;
            arrow(&float, &target, lenient)
        }
        ColumnType::Number { precision, scale } => {
            let from = match from.data_type() {
                DataType::Boolean => arrow(from, &DataType::Int64, false)?,
                t if t.is_numeric() => Arc::clone(from),
                DataType::Null => Arc::clone(from),
                t => return Err(no_cast(t, to)),
            };
            if target == DataType::Int64 {
                let wide = DataType::Decimal128(precision, 0);
                return arrow(&arrow(&from, &wide, lenient)?, &target, lenient);
            }
            arrow(&from, &target, lenient).map_err(|_| {
                let shown =
                    texts(&from).ok().and_then(|t| t.iter().flatten().next().map(String::from));
                out_of_range(precision, scale, &shown.unwrap_or_default())
            })
        }
        ColumnType::Real
            if !(from.data_type().is_numeric() || from.data_type() == &DataType::Null) =>
        {
            match from.data_type() {
                DataType::Boolean => arrow(from, &target, lenient),
                t => Err(no_cast(t, to)),
            }
        }
        _ => arrow(from, &target, lenient).map_err(|_| no_cast(from.data_type(), to)),
    }
}

/// Keys that sort numbers, those of VARIANTs among them, by value and to the last digit.
pub(super) fn exact_keys(from: &ArrayRef) -> SqlResult<ArrayRef> {
    let mut out = StringBuilder::with_capacity(from.len(), from.len() * 16);
    let mut put = |value: Option<Cow<'_, str>>| -> SqlResult<()> {
        match value {
            Some(text) => out.append_value(order_key(&text)?),
            None => out.append_null(),
        }
        Ok(())
    };
    if from.data_type() == &DataType::LargeUtf8 {
        for json in from.as_string::<i64>() {
            match json.map_or(Input::Null, Input::json) {
                Input::Null => put(None)?,
                row => put(Some(match row.scalar("FIXED")?.as_ref() {
                    "true" => Cow::Borrowed("1"),
                    "false" => Cow::Borrowed("0"),
                    text => Cow::Owned(text.to_owned()),
                }))?,
            }
        }
    } else {
        for text in &texts(from)? {
            put(text.map(Cow::Borrowed))?;
        }
    }
    Ok(Arc::new(out.finish()))
}

fn no_cast(from: &DataType, to: Written) -> SqlError {
    let from = types::of_arrow(from).map_or_else(|| from.to_string(), |k| types::name(k, None));
    let to = types::name(to.kind, to.length);
    error(1012, "42601", format!("SQL compilation error:\ninvalid type [CAST({from} AS {to})]"))
}

fn arrow(from: &ArrayRef, to: &DataType, lenient: bool) -> SqlResult<ArrayRef> {
    let options = CastOptions { safe: lenient, ..CastOptions::default() };
    cast_with_options(from, to, &options).map_err(|e| datafusion(DataFusionError::from(e)))
}

/// The values as Snowflake prints them.
pub(crate) fn texts(from: &ArrayRef) -> SqlResult<datafusion::arrow::array::StringArray> {
    Ok(match from.data_type() {
        DataType::Timestamp(unit, zone) => {
            let zoned = zone.is_some();
            let nanos = match unit {
                TimeUnit::Nanosecond => Arc::clone(from),
                _ => arrow(from, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()), false)?,
            };
            let nanos = nanos.as_primitive::<TimestampNanosecondType>();
            nanos.iter().map(|v| v.map(|n| moment::format_timestamp(n, zoned))).collect()
        }
        DataType::Date32 => {
            from.as_primitive::<Date32Type>().iter().map(|v| v.map(moment::format_date)).collect()
        }
        DataType::Time64(TimeUnit::Nanosecond) => from
            .as_primitive::<Time64NanosecondType>()
            .iter()
            .map(|v| v.map(moment::format_time))
            .collect(),
        DataType::Float64 => {
            from.as_primitive::<Float64Type>().iter().map(|v| v.map(float_text)).collect()
        }
        DataType::Int64 => {
            from.as_primitive::<Int64Type>().iter().map(|v| v.map(|n| n.to_string())).collect()
        }
        DataType::Binary => {
            from.as_binary::<i32>().iter().map(|v| v.map(hex::encode_upper)).collect()
        }
        DataType::List(_) | DataType::Struct(_) | DataType::Map(_, _) => {
            return Err(unsupported(format!("values of type {}", from.data_type())));
        }
        _ => arrow(from, &DataType::Utf8, false)?.as_string::<i32>().clone(),
    })
}

/// A FLOAT as text: whole numbers without a point, as Snowflake writes them.
fn float_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}
