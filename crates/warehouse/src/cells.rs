//! An answer's arrays, read value by value: what both endpoints write from.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
    Int64Array, StringArray, Time64NanosecondArray, TimestampNanosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit};

use crate::session::{Column, ColumnType, SqlError};

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Integer(i64),
    /// The digits, and how many of them stand behind the point.
    Decimal(i128, u8),
    Real(f64),
    Text(&'a str),
    Boolean(bool),
    /// Days since 1970-01-01.
    Date(i32),
    /// Nanoseconds since midnight.
    Time(i64),
    /// Nanoseconds since 1970-01-01T00:00:00.
    Timestamp(i64),
    Binary(&'a [u8]),
}

/// One column of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Cells {
    Integer(Int64Array),
    Decimal(Decimal128Array, u8),
    Real(Float64Array),
    Text(StringArray),
    Boolean(BooleanArray),
    Date(Date32Array),
    Time(Time64NanosecondArray),
    Timestamp(TimestampNanosecondArray),
    Binary(BinaryArray),
}

impl Cells {
    /// The values of `array`, which is `column`'s. An array of another type than the column's is
    /// converted; one that cannot be is an internal error (000603).
    pub(crate) fn of(column: &Column, array: &ArrayRef) -> Result<Self, SqlError> {
        let wanted = arrow_type(column.kind, array.data_type());
        let array = match array.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, _)
                if matches!(wanted, DataType::Timestamp(..)) =>
            {
                Arc::clone(array)
            }
            found if *found == wanted => Arc::clone(array),
            _ => cast(array, &wanted).map_err(|e| unreadable(column, &e.to_string()))?,
        };
        let scale = match column.kind {
            ColumnType::Number { scale, .. } => scale,
            _ => 0,
        };
        let array = array.as_any();
        let cells = match wanted {
            DataType::Int64 => array.downcast_ref().cloned().map(Self::Integer),
            DataType::Decimal128(..) => {
                array.downcast_ref().cloned().map(|array| Self::Decimal(array, scale))
            }
            DataType::Float64 => array.downcast_ref().cloned().map(Self::Real),
            DataType::Boolean => array.downcast_ref().cloned().map(Self::Boolean),
            DataType::Date32 => array.downcast_ref().cloned().map(Self::Date),
            DataType::Time64(_) => array.downcast_ref().cloned().map(Self::Time),
            DataType::Timestamp(..) => array.downcast_ref().cloned().map(Self::Timestamp),
            DataType::Binary => array.downcast_ref().cloned().map(Self::Binary),
            _ => array.downcast_ref().cloned().map(Self::Text),
        };
        cells.ok_or_else(|| unreadable(column, "unexpected array"))
    }

    /// The value in `row`, which must be below the batch's number of rows.
    pub(crate) fn get(&self, row: usize) -> Cell<'_> {
        if self.array().is_null(row) {
            return Cell::Null;
        }
        match self {
            Self::Integer(array) => Cell::Integer(array.value(row)),
            Self::Decimal(array, scale) => Cell::Decimal(array.value(row), *scale),
            Self::Real(array) => Cell::Real(array.value(row)),
            Self::Text(array) => Cell::Text(array.value(row)),
            Self::Boolean(array) => Cell::Boolean(array.value(row)),
            Self::Date(array) => Cell::Date(array.value(row)),
            Self::Time(array) => Cell::Time(array.value(row)),
            Self::Timestamp(array) => Cell::Timestamp(array.value(row)),
            Self::Binary(array) => Cell::Binary(array.value(row)),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Integer(array) => array,
            Self::Decimal(array, _) => array,
            Self::Real(array) => array,
            Self::Text(array) => array,
            Self::Boolean(array) => array,
            Self::Date(array) => array,
            Self::Time(array) => array,
            Self::Timestamp(array) => array,
            Self::Binary(array) => array,
        }
    }
}

/// The type a column's array is read as, given the one it has.
fn arrow_type(kind: ColumnType, found: &DataType) -> DataType {
    match kind {
        ColumnType::Number { scale: 0, .. } if *found == DataType::Int64 => DataType::Int64,
        ColumnType::Number { precision, scale } => match found {
            DataType::Decimal128(_, s) if *s == scale as i8 => found.clone(),
            _ => DataType::Decimal128(precision.max(scale).max(1), scale as i8),
        },
        ColumnType::Real => DataType::Float64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Date => DataType::Date32,
        ColumnType::Time => DataType::Time64(TimeUnit::Nanosecond),
        ColumnType::TimestampNtz | ColumnType::TimestampLtz => {
            DataType::Timestamp(TimeUnit::Nanosecond, None)
        }
        ColumnType::Binary => DataType::Binary,
        ColumnType::Text | ColumnType::Variant | ColumnType::Object | ColumnType::Array => {
            DataType::Utf8
        }
    }
}

fn unreadable(column: &Column, why: &str) -> SqlError {
    SqlError {
        code: 603,
        sqlstate: "XX000",
        message: format!("SQL execution internal error: column {}: {why}", column.name),
    }
}

/// Writes a decimal's digits with its point: `-0.05` for -5 with a scale of 2.
pub(crate) fn write_decimal(to: &mut String, value: i128, scale: u8) {
    let scale = usize::from(scale);
    if value < 0 {
        to.push('-');
    }
    let start = to.len();
    let _ = write!(to, "{:0width$}", value.unsigned_abs(), width = scale + 1);
    if scale > 0 {
        to.insert(to.len() - scale, '.');
    }
    debug_assert!(to.len() > start);
}

/// Writes a double with the fewest digits that read back as the same, in the form PostgreSQL and
/// Snowflake share: an exponent where there would be many zeros, `NaN` and `Infinity` in `special`.
pub(crate) fn write_real(to: &mut String, value: f64, special: [&str; 3]) {
    if value.is_nan() {
        return to.push_str(special[0]);
    }
    if value.is_infinite() {
        return to.push_str(if value > 0.0 { special[1] } else { special[2] });
    }
    let scientific = format!("{value:e}");
    let exponent =
        scientific.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or_default();
    if (-4..15).contains(&exponent) {
        let _ = write!(to, "{value}");
        return;
    }
    let digits = scientific.split('e').next().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(to, "{digits}e{sign}{:02}", exponent.unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_text() {
        let decimal = |value, scale| {
            let mut text = String::new();
            write_decimal(&mut text, value, scale);
            text
        };
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(150, 2), "1.50");
        assert_eq!(decimal(0, 0), "0");
        assert_eq!(decimal(i128::MIN, 38), "-1.70141183460469231731687303715884105728");
        let real = |value| {
            let mut text = String::new();
            write_real(&mut text, value, ["NaN", "Infinity", "-Infinity"]);
            text
        };
        assert_eq!(real(0.1), "0.1");
        assert_eq!(real(-0.0), "-0");
        assert_eq!(real(1e15), "1e+15");
        assert_eq!(real(123_456_789_012_345.0), "123456789012345");
        assert_eq!(real(1.5e-7), "1.5e-07");
        assert_eq!(real(f64::NEG_INFINITY), "-Infinity");
    }
}
