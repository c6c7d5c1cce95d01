//! `UpdateItem`.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Map, Text};
use serde::Deserialize;

use super::write::{self, Guard, Reply};
use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::expression::{self, Action, Condition, Placeholders, Projection, TOO_LARGE, Update};
use crate::legacy::{self, Expected, Updates};
use crate::store::{Changed, Decide, Next};
use crate::table::Table;
use crate::value::{Item, RawItem, check_item, into_item};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<RawItem<'a>>,
    #[serde(borrow)]
    attribute_updates: Option<Updates<'a>>,
    #[serde(borrow)]
    expected: Option<Expected<'a>>,
    #[serde(borrow)]
    conditional_operator: Option<Text<'a>>,
    #[serde(borrow)]
    update_expression: Option<Text<'a>>,
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
    let mut request: Request<'_> = call.read()?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let key = into_item(checks::required(request.key.take(), "key")?)?;
    let words = ["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"];
    let returned = checks::one_of(request.return_values.as_ref(), "returnValues", &words)?;
    let wanted = write::wanted(request.return_consumed_capacity.as_ref())?;
    write::check_metrics(request.return_item_collection_metrics.as_ref())?;
    let on_failure = request.return_values_on_condition_check_failure.take();
    let is_legacy = request.attribute_updates.is_some();
    let (update, condition) = asked(request)?;
    let guard = Guard::new(condition, on_failure.as_ref())?;
    // Taking away from what is not there makes nothing, where it is said in the older way.
    let may_create =
        !is_legacy || update.0.iter().any(|(_, action)| !matches!(action, Action::Remove));
    let shown = Projection(update.paths().cloned().collect());
    let made = |table: Table| apply(table, key, update, guard, may_create);
    let changed = write::one(leases, call.scope(), &name, made).await?;
    let attributes = attributes(returned, &changed, &shown);
    Ok(call.write(&Reply::to(&name, &changed, wanted, attributes))?)
}

fn asked(request: Request<'_>) -> Result<(Update, Option<Condition>), Error> {
    let legacy_given = [
        ("AttributeUpdates", request.attribute_updates.is_some()),
        ("Expected", request.expected.is_some()),
        ("ConditionalOperator", request.conditional_operator.is_some()),
    ];
    let expressions = [
        ("UpdateExpression", request.update_expression.is_some()),
        ("ConditionExpression", request.condition_expression.is_some()),
    ];
    let has_expressions = write::check_mixed(&legacy_given, &expressions)?;
    let mut placeholders = Placeholders::read(
        request.expression_attribute_names,
        request.expression_attribute_values,
        has_expressions,
        "UpdateExpression and ConditionExpression are null",
    )?;
    let update = match (&request.update_expression, request.attribute_updates) {
        (Some(text), _) => expression::update(text, &mut placeholders)?,
        (None, Some(updates)) => legacy::update(updates)?,
        (None, None) => Update::default(),
    };
    let condition = match &request.condition_expression {
        Some(text) => Some(expression::condition("ConditionExpression", text, &mut placeholders)?),
        None => legacy::condition(request.expected, request.conditional_operator.as_ref())?,
    };
    placeholders.finish()?;
    Ok((update, condition))
}

/// Updates an item, or makes one, if the guard lets it.
pub(super) fn apply(
    table: Table,
    key: Item,
    update: Update,
    guard: Guard,
    may_create: bool,
) -> Result<(Item, Decide<'static>), Error> {
    table.check_key(&key)?;
    if let Some(path) = update.paths().find(|path| table.keys.has(&path.attribute)) {
        return Err(Error::invalid(&format!(
            "Cannot update attribute {}. This attribute is part of the key",
            path.attribute
        )));
    }
    let made_from = key.clone();
    let decide = move |before: Option<&Item>| {
        guard.check(before)?;
        if before.is_none() && !may_create {
            return Ok(Next::Same);
        }
        let mut item = before.unwrap_or(&made_from).clone();
        update.apply(&mut item)?;
        check_item(&item, TOO_LARGE)?;
        table.check_index_keys(&item)?;
        Ok(Next::Put(item))
    };
    Ok((key, Box::new(decide)))
}

fn attributes(returned: &str, changed: &Changed, updated: &Projection) -> Option<Item> {
    let Changed { before, after } = changed;
    match returned {
        "ALL_OLD" => before.clone(),
        "ALL_NEW" => after.clone(),
        "UPDATED_OLD" => before.as_ref().map(|item| updated.of(item)),
        "UPDATED_NEW" => after.as_ref().map(|item| updated.of(item)),
        _ => None,
    }
    .filter(|item| !item.is_empty())
}
