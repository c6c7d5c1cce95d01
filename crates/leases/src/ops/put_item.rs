//! `PutItem`.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Map, Text};
use serde::Deserialize;

use super::write::{self, Guard, Reply};
use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::expression::{Condition, Placeholders, condition};
use crate::legacy::{self, Expected};
use crate::store::{Decide, Next};
use crate::table::Table;
use crate::value::{Item, RawItem, check_item, into_item};

/// What an item that is too large to be put is refused with.
pub(super) const TOO_LARGE: &str = "Item size has exceeded the maximum allowed size";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(borrow)]
    item: Option<RawItem<'a>>,
    #[serde(borrow)]
    expected: Option<Expected<'a>>,
    #[serde(borrow)]
    conditional_operator: Option<Text<'a>>,
    #[serde(borrow)]
    condition_expression: Option<Text<'a>>,
    #[serde(borrow)]
    expression_attribute_names: Option<Map<'a, Text<'a>>>,
    #[serde(borrow)]
    expression_attribute_values: Option<RawItem<'a>>,
    #[serde(borrow)]
    return_values: Option<Text<'a>>,
    #[serde(borrow)]
    return_values_on_condition_check_failure: Option<Text<'a>>,
    #[serde(borrow)]
    return_consumed_capacity: Option<Text<'a>>,
    #[serde(borrow)]
    return_item_collection_metrics: Option<Text<'a>>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let item = into_item(checks::required(request.item, "item")?)?;
    let returns_old = write::returns_old(request.return_values.as_ref())?;
    let wanted = write::wanted(request.return_consumed_capacity.as_ref())?;
    write::check_metrics(request.return_item_collection_metrics.as_ref())?;
    let condition = either_condition(
        request.expected,
        request.conditional_operator.as_ref(),
        request.condition_expression.as_ref(),
        request.expression_attribute_names,
        request.expression_attribute_values,
    )?;
    let on_failure = request.return_values_on_condition_check_failure.as_ref();
    let guard = Guard::new(condition, on_failure)?;
    let made = |table: Table| put(table, item, guard);
    let changed = write::one(leases, call.scope(), &name, made).await?;
    let attributes = changed.before.clone().filter(|_| returns_old);
    Ok(call.write(&Reply::to(&name, &changed, wanted, attributes))?)
}

/// The condition of a request that has no other expression.
pub(super) fn either_condition(
    expected: Option<Expected<'_>>,
    operator: Option<&Text<'_>>,
    expression: Option<&Text<'_>>,
    names: Option<Map<'_, Text<'_>>>,
    values: Option<RawItem<'_>>,
) -> Result<Option<Condition>, Error> {
    let legacy_given =
        [("Expected", expected.is_some()), ("ConditionalOperator", operator.is_some())];
    let has_expression =
        write::check_mixed(&legacy_given, &[("ConditionExpression", expression.is_some())])?;
    let mut placeholders =
        Placeholders::read(names, values, has_expression, "ConditionExpression is null")?;
    let read = match expression {
        Some(text) => Some(condition("ConditionExpression", text, &mut placeholders)?),
        None => legacy::condition(expected, operator)?,
    };
    placeholders.finish()?;
    Ok(read)
}

/// Puts an item, if the guard lets it.
pub(super) fn put(
    table: Table,
    item: Item,
    guard: Guard,
) -> Result<(Item, Decide<'static>), Error> {
    table.check_item(&item)?;
    check_item(&item, TOO_LARGE)?;
    let key = table.key_of(&item);
    let decide = move |before: Option<&Item>| {
        guard.check(before)?;
        Ok(Next::Put(item.clone()))
    };
    Ok((key, Box::new(decide)))
}
