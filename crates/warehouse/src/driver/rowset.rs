//! An answer as the JSON that drivers read: `rowtype` and `rowset`.
//!
//! Every value is a string: numbers in decimal, booleans `1` and `0`, dates in days and times in
//! seconds since the epoch with nine decimals, binary in hex.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::RESULT_BYTES_MAX;
use crate::cells::{Cell, Cells, write_decimal, write_real};
use crate::session::{Answer, Column, ColumnType, SqlError};

const NANOS: i64 = 1_000_000_000;
const SPECIAL: [&str; 3] = ["NaN", "inf", "-inf"];

/// The columns, as drivers describe them.
pub(super) fn rowtype(columns: &[Column]) -> Value {
    columns.iter().map(column).collect()
}

fn column(column: &Column) -> Value {
    let (kind, precision, scale, length, bytes) = match column.kind {
        ColumnType::Number { precision, scale } => {
            ("fixed", Some(precision), Some(scale), None, None)
        }
        ColumnType::Real => ("real", None, None, None, None),
        ColumnType::Text => ("text", None, None, Some(16_777_216), Some(16_777_216)),
        ColumnType::Boolean => ("boolean", None, None, None, None),
        ColumnType::Date => ("date", None, None, None, None),
        ColumnType::Time => ("time", Some(0), Some(9), None, None),
        ColumnType::TimestampNtz => ("timestamp_ntz", Some(0), Some(9), None, None),
        ColumnType::TimestampLtz => ("timestamp_ltz", Some(0), Some(9), None, None),
        ColumnType::Binary => ("binary", None, None, Some(8_388_608), Some(8_388_608)),
        ColumnType::Variant => ("variant", None, None, None, None),
        ColumnType::Object => ("object", None, None, None, None),
        ColumnType::Array => ("array", None, None, None, None),
    };
    json!({
        "name": column.name,
        "database": "",
        "schema": "",
        "table": "",
        "type": kind,
        "precision": precision,
        "scale": scale,
        "length": length,
        "byteLength": bytes,
        "nullable": column.nullable,
        "collation": null,
    })
}

/// The rows as a JSON array of arrays, and how many.
pub(super) fn rowset(answer: &Answer) -> Result<(String, usize), SqlError> {
    let mut out = String::from("[");
    let mut text = String::new();
    let mut rows = 0;
    for batch in &answer.batches {
        let columns = answer.columns.iter().zip(batch.columns());
        let cells: Vec<Cells> =
            columns.map(|(column, array)| Cells::of(column, array)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            out.push_str(if rows == 0 { "[" } else { ",[" });
            for (index, cells) in cells.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_cell(&mut out, cells.get(row), &mut text);
            }
            out.push(']');
            rows += 1;
            if out.len() > RESULT_BYTES_MAX {
                return Err(too_large());
            }
        }
    }
    out.push(']');
    Ok((out, rows))
}

fn too_large() -> SqlError {
    SqlError {
        code: 607,
        sqlstate: "54000",
        message: format!(
            "The result has more than {RESULT_BYTES_MAX} bytes, which is the most that this \
             protocol returns here: select fewer rows, or read it through the PostgreSQL endpoint."
        ),
    }
}

fn write_cell(out: &mut String, cell: Cell<'_>, text: &mut String) {
    text.clear();
    let _ = match cell {
        Cell::Null => return out.push_str("null"),
        Cell::Text(value) => return write_string(out, value),
        Cell::Integer(value) => write!(text, "{value}"),
        Cell::Decimal(value, scale) => {
            write_decimal(text, value, scale);
            Ok(())
        }
        Cell::Real(value) => {
            write_real(text, value, SPECIAL);
            Ok(())
        }
        Cell::Boolean(value) => write!(text, "{}", u8::from(value)),
        Cell::Date(days) => write!(text, "{days}"),
        Cell::Time(nanos) | Cell::Timestamp(nanos) => write_seconds(text, nanos),
        Cell::Binary(bytes) => {
            text.push_str(&hex::encode_upper(bytes));
            Ok(())
        }
    };
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// Seconds with nine decimals: `-0.000000001` for one nanosecond before the epoch.
fn write_seconds(to: &mut String, nanos: i64) -> std::fmt::Result {
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, part) = (nanos.unsigned_abs() / NANOS as u64, nanos.unsigned_abs() % NANOS as u64);
    write!(to, "{sign}{whole}.{part:09}")
}

fn write_string(out: &mut String, value: &str) {
    // A string always has a JSON form.
    out.push_str(&serde_json::to_string(value).unwrap_or_default());
}
