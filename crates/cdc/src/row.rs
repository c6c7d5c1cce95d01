//! A row, whether it came as a change or as a line of COPY.

use std::borrow::Cow;

use crate::copy::{Line, Values};
use crate::pgoutput::{Data, Datum, Old, Tuple};
use crate::relation::Relation;

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// It did not change and was not sent.
    Unchanged,
    /// Its text.
    Text(Cow<'a, [u8]>),
}

/// The values of a row, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row<'a> {
    /// Of a change.
    Tuple(Tuple<'a>),
    /// Of a snapshot.
    Line(Line<'a>),
}

impl<'a> Row<'a> {
    /// Number of its columns.
    pub fn len(&self) -> usize {
        match self {
            Self::Tuple(tuple) => tuple.len(),
            Self::Line(line) => line.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its values. Allocates only for a value of COPY that has a backslash.
    pub fn iter(&self) -> Iter<'a> {
        match self {
            Self::Tuple(tuple) => Iter::Tuple(tuple.iter()),
            Self::Line(line) => Iter::Line(line.values()),
        }
    }
}

/// Walks the values of a row.
#[derive(Clone, Debug)]
pub enum Iter<'a> {
    /// Of a change.
    Tuple(Data<'a>),
    /// Of a snapshot.
    Line(Values<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        Some(match self {
            Self::Tuple(data) => match data.next()? {
                Datum::Null => Value::Null,
                Datum::Unchanged => Value::Unchanged,
                Datum::Text(text) => Value::Text(Cow::Borrowed(text)),
            },
            Self::Line(values) => values.next()?.map_or(Value::Null, Value::Text),
        })
    }
}

/// The row after an update, with what did not change taken from the row before, where that tells it:
/// all of it, or the columns of the replica identity. Both must have the table's columns.
pub(crate) fn filled<'a, 'r>(
    relation: &'r Relation,
    new: Row<'a>,
    old: Option<Old<'a>>,
) -> impl Iterator<Item = Value<'a>> + use<'a, 'r> {
    let full = matches!(old, Some(Old::Full(_)));
    let mut before = old.map(|old| Row::Tuple(old.tuple()).iter());
    new.iter().zip(&relation.columns).map(move |(value, column)| {
        let before = before.as_mut().and_then(Iterator::next);
        match (value, before) {
            (Value::Unchanged, Some(before)) if full || column.identity => before,
            (value, _) => value,
        }
    })
}
