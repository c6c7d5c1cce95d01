//! `DeleteItem`.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Map, Text};
use serde::Deserialize;

use super::put_item::either_condition;
use super::write::{self, Guard, Reply};
use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::legacy::Expected;
use crate::store::{Decide, Next};
use crate::table::Table;
use crate::value::{Item, RawItem, into_item};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<RawItem<'a>>,
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
    let key = into_item(checks::required(request.key, "key")?)?;
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
    let made = |table: Table| delete(&table, key, guard);
    let changed = write::one(leases, call.scope(), &name, made).await?;
    let attributes = changed.before.clone().filter(|_| returns_old);
    Ok(call.write(&Reply::to(&name, &changed, wanted, attributes))?)
}

/// Deletes an item, if the guard lets it; one that is not there is no error.
pub(super) fn delete(
    table: &Table,
    key: Item,
    guard: Guard,
) -> Result<(Item, Decide<'static>), Error> {
    table.check_key(&key)?;
    let decide = move |before: Option<&Item>| {
        guard.check(before)?;
        Ok(Next::Delete)
    };
    Ok((key, Box::new(decide)))
}
