//! Answers that are not queries: SHOW, DESC, LIST, COPY's report, and one line that says it is done.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{Field, Schema};
use hydrant_core::Timestamp;

use crate::error::{SqlResult, internal};
use crate::session::{Answer, Column, ColumnType, Tag};
use crate::sql::types;

/// A value of such an answer.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Null,
    Text(String),
    Int(i64),
    Real(f64),
    Time(Timestamp),
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn count(n: impl TryInto<i64>) -> Self {
        Self::Int(n.try_into().unwrap_or(i64::MAX))
    }

    /// `Y` or `N`.
    pub(crate) fn flag(b: bool) -> Self {
        Self::text(if b { "Y" } else { "N" })
    }

    pub(crate) fn optional(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Null, Self::text)
    }
}

/// A column's name and type.
pub(crate) type Head = (&'static str, ColumnType);

pub(crate) const TEXT: ColumnType = ColumnType::Text;
pub(crate) const INT: ColumnType = ColumnType::Number { precision: 38, scale: 0 };
pub(crate) const REAL: ColumnType = ColumnType::Real;
pub(crate) const TIME: ColumnType = ColumnType::TimestampLtz;

/// Rows under a head. A cell that does not fit its column's type is NULL.
pub(crate) fn rows(head: &[Head], rows: Vec<Vec<Cell>>) -> SqlResult<Answer> {
    let (columns, batch) = table(head, &rows)?;
    Ok(Answer { columns, batches: vec![batch], tag: Tag::Rows })
}

/// The same as columns and one batch.
pub(crate) fn table(head: &[Head], rows: &[Vec<Cell>]) -> SqlResult<(Vec<Column>, RecordBatch)> {
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (nth, (name, kind)) in head.iter().enumerate() {
        let cells = rows.iter().map(|r| r.get(nth).unwrap_or(&Cell::Null));
        let array: ArrayRef = match kind {
            ColumnType::Number { .. } => {
                let ints = cells.map(|c| if let Cell::Int(n) = c { Some(*n) } else { None });
                Arc::new(ints.collect::<Int64Array>())
            }
            ColumnType::Real => {
                let reals = cells.map(|c| if let Cell::Real(n) = c { Some(*n) } else { None });
                Arc::new(reals.collect::<Float64Array>())
            }
            ColumnType::TimestampLtz => {
                let times = cells.map(|c| match c {
                    Cell::Time(t) => {
                        let ms = i64::try_from(t.as_millis()).unwrap_or_default();
                        Some(ms.saturating_mul(1_000_000))
                    }
                    _ => None,
                });
                let array: TimestampNanosecondArray = times.collect();
                Arc::new(array.with_timezone(types::UTC))
            }
            _ => {
                let texts = cells.map(|c| if let Cell::Text(t) = c { Some(t) } else { None });
                Arc::new(texts.collect::<StringArray>())
            }
        };
        fields.push(Field::new(*name, array.data_type().clone(), true));
        columns.push(Column { name: (*name).to_owned(), kind: *kind, nullable: true });
        arrays.push(array);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(internal)?;
    Ok((columns, batch))
}

/// One line that says what was done.
pub(crate) fn done(words: &'static str, status: impl Into<String>) -> SqlResult<Answer> {
    let answer = rows(&[("status", TEXT)], vec![vec![Cell::text(status)]])?;
    Ok(Answer { tag: Tag::Done(words), ..answer })
}
