//! What `PutItem` and `DeleteItem` have in common: they write an item whole, under a condition.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Map, Text};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::write::{self, Guard, Reply};
use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::expression::{Condition, Placeholders, condition};
use crate::legacy::{self, Expected};
use crate::store::Decide;
use crate::table::Table;
use crate::value::{Item, RawItem};

/// What either asks for. Each has one of the first two members, and knows nothing of the other.
#[derive(Deserialize)]
#[serde(
    rename_all = "PascalCase",
    bound(deserialize = "I: Deserialize<'de> + Default, K: Deserialize<'de> + Default")
)]
pub(super) struct Request<'a, I, K> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(default)]
    item: I,
    #[serde(default)]
    key: K,
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

/// A `PutItem`.
pub(super) type Put<'a> = Request<'a, Option<RawItem<'a>>, IgnoredAny>;
/// A `DeleteItem`.
pub(super) type Delete<'a> = Request<'a, IgnoredAny, Option<RawItem<'a>>>;

/// Runs either: `subject` reads the item or key out of its member, `make` makes the change of it.
pub(super) async fn write<I, K>(
    leases: &Leases,
    call: &Call,
    request: Request<'_, I, K>,
    subject: impl FnOnce(I, K) -> Result<Item, Error>,
    make: impl FnOnce(Table, Item, Guard) -> Result<(Item, Decide<'static>), Error>,
) -> Result<Bytes, Error> {
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let subject = subject(request.item, request.key)?;
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
    let made = |table: Table| make(table, subject, guard);
    let changed = write::one(leases, call.scope(), &name, made).await?;
    let attributes = changed.before.clone().filter(|_| returns_old);
    Ok(call.write(&Reply::to(&name, &changed, wanted, attributes))?)
}

/// The condition of a request that has no other expression.
fn either_condition(
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
