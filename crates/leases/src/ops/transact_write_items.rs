//! `TransactWriteItems`: several changes, all or none, once for each token.

use std::collections::BTreeSet;

use bytes::Bytes;
use hydrant_core::control::Write;
use hydrant_wire::Call;
use hydrant_wire::shape::{List, Map, Structure, Text};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::delete_item::delete;
use super::put_item::put;
use super::update_item::apply;
use super::write::{self, Guard};
use crate::Leases;
use crate::capacity::Consumed;
use crate::checks;
use crate::error::{Error, Reason};
use crate::expression::{self, Placeholders, Update};
use crate::keep::{TOKEN_LIFE, Token};
use crate::rows;
use crate::store::{Change, Changed, Decide, Next, Outcome};
use crate::table::Table;
use crate::value::{Item, RawItem, into_item, item_bytes};

/// Most actions of one transaction (AWS).
const ACTIONS_MAX: usize = 100;
/// Most bytes of the items of one transaction (AWS: 4 MB).
const BYTES_MAX: usize = 4 << 20;
/// Longest token (AWS).
const TOKEN_CHARS_MAX: usize = 36;
/// Times that a transaction is tried again because another with the same token was faster.
const ATTEMPTS_MAX: usize = 4;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    transact_items: Option<List<Structure<Entry<'a>>>>,
    #[serde(borrow)]
    client_request_token: Option<Text<'a>>,
    #[serde(borrow)]
    return_consumed_capacity: Option<Text<'a>>,
    #[serde(borrow)]
    return_item_collection_metrics: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    condition_check: Option<Structure<Parameters<'a>>>,
    #[serde(borrow)]
    put: Option<Structure<Parameters<'a>>>,
    #[serde(borrow)]
    delete: Option<Structure<Parameters<'a>>>,
    #[serde(borrow)]
    update: Option<Structure<Parameters<'a>>>,
}

/// What any of the four actions may have.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameters<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<RawItem<'a>>,
    #[serde(borrow)]
    item: Option<RawItem<'a>>,
    #[serde(borrow)]
    update_expression: Option<Text<'a>>,
    #[serde(borrow)]
    condition_expression: Option<Text<'a>>,
    #[serde(borrow)]
    expression_attribute_names: Option<Map<'a, Text<'a>>>,
    #[serde(borrow)]
    expression_attribute_values: Option<RawItem<'a>>,
    #[serde(borrow)]
    return_values_on_condition_check_failure: Option<Text<'a>>,
}

#[derive(Clone)]
enum Kind {
    Check,
    Put(Item),
    Delete,
    Update(Update),
}

/// One action, read and checked as far as that needs no table.
#[derive(Clone)]
struct Action {
    table: String,
    key: Item,
    kind: Kind,
    guard: Guard,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumed_capacity: Vec<Consumed>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let mut request: Request<'_> = call.read()?;
    let wanted = write::wanted(request.return_consumed_capacity.as_ref())?;
    write::check_metrics(request.return_item_collection_metrics.as_ref())?;
    let entries = checks::required(request.transact_items.take(), "transactItems")?.0;
    if !(1..=ACTIONS_MAX).contains(&entries.len()) {
        let side = if entries.is_empty() {
            "greater than or equal to 1"
        } else {
            "less than or equal to 100"
        };
        return Err(Error::validation(format!(
            "1 validation error detected: Value '[{}]' at 'transactItems' failed to satisfy \
             constraint: Member must have length {side}",
            entries.len()
        )));
    }
    let actions = entries.into_iter().map(|entry| read(entry.0, call));
    let actions: Vec<Action> = actions.collect::<Result<_, _>>()?;
    let token = request.client_request_token.as_deref();
    if token.is_some_and(|token| !(1..=TOKEN_CHARS_MAX).contains(&token.chars().count())) {
        return Err(Error::validation(
            "1 validation error detected: Value at 'clientRequestToken' failed to satisfy constraint: \
             Member must have length less than or equal to 36",
        ));
    }
    let changed = make(leases, call, &actions, token).await?;
    let consumed = actions.iter().zip(&changed);
    // A transaction costs twice what its changes cost (AWS).
    let consumed = consumed
        .filter_map(|(action, changed)| wanted.tell(&action.table, 2.0 * write::units(changed)));
    Ok(call.write(&Reply { consumed_capacity: consumed.collect() })?)
}

/// Makes the changes, unless that was done under this token before.
async fn make(
    leases: &Leases,
    call: &Call,
    actions: &[Action],
    token: Option<&str>,
) -> Result<Vec<Changed>, Error> {
    let request = token.map(|_| digest(call)).transpose()?;
    for _ in 0..ATTEMPTS_MAX {
        let mut note = None;
        if let (Some(token), Some(request)) = (token, &request) {
            let key = rows::token(call.scope(), token);
            let row = leases.control.get(&key).await?;
            let now = leases.clock.now();
            if let Some(row) = &row {
                let before: Token = row.json(&key)?;
                if now.since(before.made) <= TOKEN_LIFE {
                    return match before.request == *request {
                        true => Ok(actions.iter().map(|_| Changed::default()).collect()),
                        false => Err(Error::IdempotentParameterMismatch),
                    };
                }
            }
            let made = Token { request: request.clone(), made: now };
            note = Some(Write::put(key, row.as_ref(), &made));
        }
        match attempt(leases, call, actions, note).await? {
            Outcome::Made(changed) => return Ok(changed),
            Outcome::Refused(said) => {
                let reasons = said.into_iter().map(|said| match said {
                    Ok(()) => Ok(Reason::NONE),
                    Err(error) => Reason::of(error),
                });
                return Err(Error::TransactionCanceled(reasons.collect::<Result<_, _>>()?));
            }
            Outcome::Overtaken => {}
        }
    }
    Err(Error::Internal("a transaction was overtaken again and again".to_owned()))
}

async fn attempt(
    leases: &Leases,
    call: &Call,
    actions: &[Action],
    note: Option<Write>,
) -> Result<Outcome, Error> {
    let names: BTreeSet<&str> = actions.iter().map(|action| action.table.as_str()).collect();
    let (writing, tables) = leases.writable(call.scope(), &names).await?;
    let (mut changes, mut said, mut bytes) = (Vec::new(), Vec::new(), 0);
    for action in actions {
        let table = tables.iter().find(|table| table.name == action.table);
        let table = table.ok_or_else(Error::no_table)?;
        match decided(action.clone(), table) {
            Ok((key, decide)) => {
                said.push(Ok(()));
                if let Kind::Put(item) = &action.kind {
                    bytes += item_bytes(item);
                }
                changes.push(Change { table, key, decide });
            }
            Err(error) => said.push(Err(error)),
        }
    }
    if said.iter().any(Result::is_err) {
        return Ok(Outcome::Refused(said));
    }
    if bytes > BYTES_MAX {
        return Err(Error::validation(
            "Member must have length less than or equal to 4194304, Collection size of items is too \
             large",
        ));
    }
    let rows: BTreeSet<String> =
        changes.iter().map(|change| rows::item(change.table, &change.key)).collect();
    if rows.len() < changes.len() {
        return Err(Error::validation(
            "Transaction request cannot include multiple operations on one item",
        ));
    }
    leases.change_all(&writing, &changes, note).await
}

fn decided(action: Action, table: &Table) -> Result<(Item, Decide<'static>), Error> {
    let Action { key, kind, guard, .. } = action;
    match kind {
        Kind::Put(item) => put(table.clone(), item, guard),
        Kind::Delete => delete(table, key, guard),
        Kind::Update(update) => apply(table.clone(), key, update, guard, true),
        Kind::Check => {
            table.check_key(&key)?;
            let decide = move |before: Option<&Item>| {
                guard.check(before)?;
                Ok(Next::Same)
            };
            Ok((key, Box::new(decide)))
        }
    }
}

fn read(entry: Entry<'_>, call: &Call) -> Result<Action, Error> {
    let Entry { condition_check, put, delete, update } = entry;
    let mut found =
        [("Check", condition_check), ("Put", put), ("Delete", delete), ("Update", update)]
            .into_iter()
            .filter_map(|(kind, given)| Some((kind, given?.0)));
    let (Some((kind, mut given)), None) = (found.next(), found.next()) else {
        return Err(Error::validation(
            "TransactItems can only contain one of Check, Put, Update or Delete",
        ));
    };
    let table = checks::table_name(given.table_name.as_ref(), call.scope())?;
    let mut placeholders = Placeholders::read(
        given.expression_attribute_names.take(),
        given.expression_attribute_values.take(),
        given.condition_expression.is_some() || given.update_expression.is_some(),
        "ConditionExpression is null",
    )?;
    if given.update_expression.is_some() != (kind == "Update") {
        checks::required(
            given.update_expression.as_ref(),
            "transactItems.member.updateExpression",
        )?;
        return Err(Error::validation("UpdateExpression is a parameter of Update alone"));
    }
    let update = given.update_expression.as_ref();
    let update = update.map(|text| expression::update(text, &mut placeholders)).transpose()?;
    let condition = given.condition_expression.as_ref();
    let condition = condition
        .map(|text| expression::condition("ConditionExpression", text, &mut placeholders))
        .transpose()?;
    placeholders.finish()?;
    let at = "transactItems.member.conditionCheck.conditionExpression";
    if kind == "Check" {
        checks::required(condition.as_ref(), at)?;
    }
    let guard = Guard::new(condition, given.return_values_on_condition_check_failure.as_ref())?;
    let key = || -> Result<Item, Error> {
        into_item(checks::required(given.key, "transactItems.member.key")?)
    };
    let (key, kind) = match (kind, update) {
        ("Put", _) => {
            let item = checks::required(given.item, "transactItems.member.put.item")?;
            (Item::new(), Kind::Put(into_item(item)?))
        }
        ("Update", Some(update)) => (key()?, Kind::Update(update)),
        ("Delete", _) => (key()?, Kind::Delete),
        _ => (key()?, Kind::Check),
    };
    Ok(Action { table, key, kind, guard })
}

/// The request without its token.
fn digest(call: &Call) -> Result<String, Error> {
    let mut request: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&call.body).map_err(|e| Error::Internal(e.to_string()))?;
    request.remove("ClientRequestToken");
    let text = serde_json::Value::from(request).to_string();
    Ok(hex::encode(Sha256::digest(text.as_bytes())))
}
