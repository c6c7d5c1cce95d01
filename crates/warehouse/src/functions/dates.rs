//! DATEADD, DATEDIFF, and dates as text.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Builder, StringBuilder};
use datafusion::arrow::array::{Date32Builder, TimestampNanosecondBuilder};
use datafusion::arrow::compute::cast as arrow_cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType};
use jiff::Span;
use jiff::civil::DateTime;

use super::{Function, Planned, cast, moment, row_text};
use crate::error::{SqlResult, error, internal, invalid_value};
use crate::session::ColumnType;
use crate::sql::types::{UTC, Written};

const NTZ: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

pub(super) fn functions() -> Vec<Function> {
    vec![
        // dateadd('unit', n, date or time)
        Function::new("dateadd", 3..=3, dateadd_type, dateadd),
        // datediff('unit', from, to)
        Function::new("datediff", 3..=3, |_| Ok(DataType::Int64), datediff),
        // to_char(date or time, 'format')
        Function::new(
            "format$",
            2..=2,
            |_| Ok(DataType::Utf8),
            |args, _| {
                let nanos = nanos(&args[0])?;
                let mut out = StringBuilder::new();
                for (row, at) in nanos.as_primitive::<TimestampNanosecondType>().iter().enumerate()
                {
                    match (at, row_text(&args[1], row)) {
                        (Some(at), Some(format)) => out.append_value(moment::format(at, &format)?),
                        _ => out.append_null(),
                    }
                }
                Ok(Arc::new(out.finish()))
            },
        ),
        // What date_trunc and date_part get for a text or a VARIANT.
        Function::new(
            "moment$",
            1..=1,
            |p| match &p.types[0] {
                DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Ok(NTZ),
                other => Ok(other.clone()),
            },
            |args, to| {
                if args[0].data_type() == to { Ok(Arc::clone(&args[0])) } else { nanos(&args[0]) }
            },
        ),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

impl Unit {
    fn parse(text: &str) -> SqlResult<Self> {
        Ok(match text.to_lowercase().as_str() {
            "year" | "y" | "yy" | "yyy" | "yyyy" | "yr" | "years" | "yrs" => Self::Year,
            "quarter" | "q" | "qtr" | "qtrs" | "quarters" => Self::Quarter,
            "month" | "mm" | "mon" | "mons" | "months" => Self::Month,
            "week" | "w" | "wk" | "weekofyear" | "woy" | "wy" | "weeks" => Self::Week,
            "day" | "d" | "dd" | "days" | "dayofmonth" => Self::Day,
            "hour" | "h" | "hh" | "hr" | "hours" | "hrs" => Self::Hour,
            "minute" | "m" | "mi" | "min" | "minutes" | "mins" => Self::Minute,
            "second" | "s" | "sec" | "seconds" | "secs" => Self::Second,
            "millisecond" | "ms" | "msec" | "milliseconds" => Self::Millisecond,
            "microsecond" | "us" | "usec" | "microseconds" => Self::Microsecond,
            "nanosecond" | "ns" | "nsec" | "nanosec" | "nanoseconds" => Self::Nanosecond,
            _ => return Err(invalid_value(text, "date or time part")),
        })
    }

    fn span(self, n: i64) -> Option<Span> {
        let span = Span::new();
        match self {
            Self::Year => span.try_years(n),
            Self::Quarter => span.try_months(n.checked_mul(3)?),
            Self::Month => span.try_months(n),
            Self::Week => span.try_weeks(n),
            Self::Day => span.try_days(n),
            Self::Hour => span.try_hours(n),
            Self::Minute => span.try_minutes(n),
            Self::Second => span.try_seconds(n),
            Self::Millisecond => span.try_milliseconds(n),
            Self::Microsecond => span.try_microseconds(n),
            Self::Nanosecond => span.try_nanoseconds(n),
        }
        .ok()
    }

    /// How many of the unit's boundaries lie before a moment.
    fn boundaries(self, at: i64) -> i64 {
        const DAY: i64 = 86_400_000_000_000;
        let wall = moment::civil(at);
        let (year, month) = (i64::from(wall.year()), i64::from(wall.month()));
        match self {
            Self::Year => year,
            Self::Quarter => year * 4 + (month - 1) / 3,
            Self::Month => year * 12 + month,
            // The epoch was a Thursday; weeks begin on Monday.
            Self::Week => (at.div_euclid(DAY) + 3).div_euclid(7),
            Self::Day => at.div_euclid(DAY),
            Self::Hour => at.div_euclid(3_600_000_000_000),
            Self::Minute => at.div_euclid(60_000_000_000),
            Self::Second => at.div_euclid(1_000_000_000),
            Self::Millisecond => at.div_euclid(1_000_000),
            Self::Microsecond => at.div_euclid(1_000),
            Self::Nanosecond => at,
        }
    }

    fn within_day(self) -> bool {
        !matches!(self, Self::Year | Self::Quarter | Self::Month | Self::Week | Self::Day)
    }
}

/// Any date, time, text or VARIANT as TIMESTAMP_NTZ.
fn nanos(array: &ArrayRef) -> SqlResult<ArrayRef> {
    let ntz = Written { kind: ColumnType::TimestampNtz, length: None };
    cast::cast(array, ntz, false)
}

fn dateadd_type(p: &Planned<'_>) -> SqlResult<DataType> {
    let unit = Unit::parse(p.text(0)?)?;
    Ok(match &p.types[2] {
        DataType::Date32 if !unit.within_day() => DataType::Date32,
        DataType::Timestamp(_, Some(_)) => {
            DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into()))
        }
        _ => NTZ,
    })
}

fn dateadd(args: &[ArrayRef], to: &DataType) -> SqlResult<ArrayRef> {
    let unit = Unit::parse(&row_text(&args[0], 0).unwrap_or_default())?;
    let number = Written { kind: ColumnType::Number { precision: 18, scale: 0 }, length: None };
    let counts = cast::cast(&args[1], number, false)?;
    let from = nanos(&args[2])?;
    let add = |n: i64, at: i64| {
        let moved: Option<DateTime> =
            unit.span(n).and_then(|span| moment::civil(at).checked_add(span).ok());
        moved
            .and_then(moment::nanos)
            .ok_or_else(|| error(100_035, "22007", "Timestamp is outside of 1677 to 2262"))
    };
    let mut out = TimestampNanosecondBuilder::with_capacity(from.len());
    let pairs = counts.as_primitive::<Int64Type>().iter();
    for pair in pairs.zip(from.as_primitive::<TimestampNanosecondType>()) {
        match pair {
            (Some(n), Some(at)) => out.append_value(add(n, at)?),
            _ => out.append_null(),
        }
    }
    let moved: ArrayRef = Arc::new(out.finish());
    if to == &DataType::Date32 {
        let mut days = Date32Builder::new();
        for at in moved.as_primitive::<TimestampNanosecondType>() {
            days.append_option(at.map(|n| n.div_euclid(86_400_000_000_000) as i32));
        }
        return Ok(Arc::new(days.finish()));
    }
    arrow_cast(&moved, to).map_err(internal)
}

fn datediff(args: &[ArrayRef], _: &DataType) -> SqlResult<ArrayRef> {
    let unit = Unit::parse(&row_text(&args[0], 0).unwrap_or_default())?;
    let (from, to) = (nanos(&args[1])?, nanos(&args[2])?);
    let mut out = Int64Builder::with_capacity(from.len());
    let to = to.as_primitive::<TimestampNanosecondType>().iter();
    for pair in from.as_primitive::<TimestampNanosecondType>().iter().zip(to) {
        match pair {
            (Some(a), Some(b)) => out.append_value(unit.boundaries(b) - unit.boundaries(a)),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}
