//! `ConsumedCapacity`: what a request would have cost.
//!
//! Follows "DynamoDB read and write operations" in the developer guide. Nothing is throttled by it.

use hydrant_wire::shape::Text;
use serde::Serialize;

use crate::checks;
use crate::error::Error;

const READ_UNIT_BYTES: usize = 4 << 10;
const WRITE_UNIT_BYTES: usize = 1 << 10;

/// What of it a request wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    Total,
    ByTable,
}

impl Wanted {
    /// `ReturnConsumedCapacity`.
    pub(crate) fn read(text: Option<&Text<'_>>) -> Result<Self, Error> {
        let words = ["NONE", "INDEXES", "TOTAL"];
        Ok(match checks::one_of(text, "returnConsumedCapacity", &words)? {
            "INDEXES" => Self::ByTable,
            "TOTAL" => Self::Total,
            _ => Self::Nothing,
        })
    }

    /// What to tell of these units; nothing, unless it is wanted.
    pub(crate) fn tell(self, table: &str, units: f64) -> Option<Consumed> {
        let by_table = (self == Self::ByTable).then_some(Units { capacity_units: units });
        (self != Self::Nothing).then(|| Consumed {
            table_name: table.to_owned(),
            capacity_units: units,
            table: by_table,
        })
    }
}

/// `ConsumedCapacity` of the API.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Consumed {
    table_name: String,
    capacity_units: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Units>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Units {
    capacity_units: f64,
}

/// The units of reading so many bytes.
pub(crate) fn of_read(bytes: usize, consistent: bool) -> f64 {
    let units = bytes.div_ceil(READ_UNIT_BYTES).max(1) as f64;
    if consistent { units } else { units / 2.0 }
}

/// The units of writing an item that had and has so many bytes.
pub(crate) fn of_write(before: usize, after: usize) -> f64 {
    before.max(after).div_ceil(WRITE_UNIT_BYTES).max(1) as f64
}
