//! What the operations that change one item have in common.

use std::collections::BTreeSet;

use hydrant_wire::shape::Text;
use serde::Serialize;

use crate::capacity::{Consumed, Wanted, of_write};
use crate::checks;
use crate::error::{CheckedItem, Error};
use crate::expression::Condition;
use crate::store::{Change, Changed, Decide};
use crate::table::Table;
use crate::value::{Item, item_bytes};
use crate::{Leases, capacity};

/// A condition that has to hold before a change, and whether a refusal shows the item.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    pub(super) condition: Option<Condition>,
    shows_old: bool,
}

impl Guard {
    /// A guard with `ReturnValuesOnConditionCheckFailure` as the request has it.
    pub(super) fn new(
        condition: Option<Condition>,
        on_failure: Option<&Text<'_>>,
    ) -> Result<Self, Error> {
        let words = ["NONE", "ALL_OLD"];
        let shown = checks::one_of(on_failure, "returnValuesOnConditionCheckFailure", &words)?;
        Ok(Self { condition, shows_old: shown == "ALL_OLD" })
    }

    /// Whether the condition holds for the item as it is.
    pub(super) fn check(&self, item: Option<&Item>) -> Result<(), Error> {
        let absent = Item::new();
        match &self.condition {
            Some(condition) if !condition.holds(item.unwrap_or(&absent)) => {
                let shown = item.filter(|_| self.shows_old).cloned().map(CheckedItem);
                Err(Error::ConditionalCheckFailed(shown))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses expressions and what came before them in one request.
pub(super) fn check_mixed(
    legacy: &[(&str, bool)],
    expressions: &[(&str, bool)],
) -> Result<bool, Error> {
    let given = |all: &[(&str, bool)]| -> Vec<String> {
        all.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned()).collect()
    };
    let (legacy, expressions) = (given(legacy), given(expressions));
    if legacy.is_empty() || expressions.is_empty() {
        return Ok(!expressions.is_empty());
    }
    Err(Error::validation(format!(
        "Can not use both expression and non-expression parameters in the same request: \
         Non-expression parameters: {{{}}} Expression parameters: {{{}}}",
        legacy.join(", "),
        expressions.join(", ")
    )))
}

/// `ReturnItemCollectionMetrics`: there is nothing to return without local indexes, as with AWS.
pub(super) fn check_metrics(text: Option<&Text<'_>>) -> Result<(), Error> {
    checks::one_of(text, "returnItemCollectionMetrics", &["NONE", "SIZE"]).map(|_| ())
}

/// What a change of one item answers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attributes: Option<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Consumed>,
}

impl Reply {
    /// The reply to a change that was made.
    pub(super) fn to(
        table: &str,
        changed: &Changed,
        wanted: Wanted,
        attributes: Option<Item>,
    ) -> Self {
        Self { attributes, consumed_capacity: wanted.tell(table, units(changed)) }
    }
}

/// The write units of a change.
pub(super) fn units(changed: &Changed) -> f64 {
    let bytes = |item: &Option<Item>| item.as_ref().map_or(0, item_bytes);
    of_write(bytes(&changed.before), bytes(&changed.after))
}

/// `ReturnConsumedCapacity`.
pub(super) fn wanted(text: Option<&Text<'_>>) -> Result<Wanted, Error> {
    capacity::Wanted::read(text)
}

/// `ReturnValues` of an operation that can return the old item only.
pub(super) fn returns_old(text: Option<&Text<'_>>) -> Result<bool, Error> {
    let words = ["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"];
    match checks::one_of(text, "returnValues", &words)? {
        "NONE" => Ok(false),
        "ALL_OLD" => Ok(true),
        _ => Err(Error::validation("Return values set to invalid value")),
    }
}

/// Changes one item of one table.
pub(super) async fn one<'a>(
    leases: &Leases,
    scope: &hydrant_core::names::Scope,
    table: &str,
    make: impl FnOnce(Table) -> Result<(Item, Decide<'a>), Error>,
) -> Result<Changed, Error> {
    let names = BTreeSet::from([table]);
    let (writing, tables) = leases.writable(scope, &names).await?;
    let table = tables.first().ok_or_else(Error::no_table)?;
    let (key, decide) = make(table.clone())?;
    leases.change(&writing, Change { table, key, decide }).await
}
