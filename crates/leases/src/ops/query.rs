//! `Query`: one partition of a table or an index, in the order of its sort key.

use bytes::Bytes;
use hydrant_wire::Call;

use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::expression::KeyCondition;
use crate::page::{self, Asked, First, Place};
use crate::rows::{self, Pages};
use crate::table::{Index, KeySchema, Table};
use crate::value::{Item, Value};

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: page::Request<'_> = call.read()?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let forward = request.scan_index_forward.is_none_or(|flag| flag.0);
    let mut asked = page::read(request)?;
    let condition = asked.key_condition.take().ok_or_else(|| {
        Error::validation(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in the \
             request.",
        )
    })?;
    let table = leases.usable(call.scope(), &name).await?;
    let index = asked.index(&table, leases.clock.now())?;
    let keys = index.map_or(&table.keys, |index| &index.keys);
    let condition = KeyCondition::of(condition, &keys.hash, keys.range.as_deref())?;
    check_types(&table, keys, &condition)?;
    let start = asked.start(&table, index)?;
    if start.is_some_and(|start| start.get(&keys.hash) != Some(&condition.hash)) {
        return Err(Error::validation(
            "The provided starting key is outside query boundaries based on provided conditions",
        ));
    }
    let start = start.map(|item| place(&table, keys, item));
    let first = First::new(forward, start, asked.limit);
    let (items, more) = collect(leases, &table, index, &condition, first).await?;
    Ok(call.write(&reply(&asked, &table, index, items, more))?)
}

fn reply(
    asked: &Asked,
    table: &Table,
    index: Option<&Index>,
    items: Vec<Item>,
    more: bool,
) -> page::Reply {
    asked.reply(table, index, items, more)
}

/// Looks at every item of the partition; those of an index may be anywhere in the table.
async fn collect(
    leases: &Leases,
    table: &Table,
    index: Option<&Index>,
    condition: &KeyCondition,
    mut first: First,
) -> Result<(Vec<Item>, bool), Error> {
    let keys = index.map_or(&table.keys, |index| &index.keys);
    let prefix = match index {
        Some(_) => rows::items(table),
        None => rows::partition(table, &condition.hash),
    };
    let mut pages = Pages::new(leases.control.as_ref(), prefix, None);
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return Ok(first.finish());
        }
        for (key, row) in &page {
            let item = rows::read(key, row)?;
            if page::is_in(index, &item) && fits(&item, keys, condition) {
                first.offer(place(table, keys, &item), item);
            }
        }
    }
}

fn fits(item: &Item, keys: &KeySchema, condition: &KeyCondition) -> bool {
    let sorted = || match (&condition.range, &keys.range) {
        (Some(range), Some(name)) => item.get(name).is_some_and(|key| range.holds(key)),
        _ => true,
    };
    item.get(&keys.hash) == Some(&condition.hash) && sorted()
}

/// Where an item stands: by its sort key, then, in an index, by its key in the table.
fn place(table: &Table, keys: &KeySchema, item: &Item) -> Place {
    let names = keys.range.iter().chain(table.keys.names());
    names.filter_map(|name| item.get(name).cloned()).collect()
}

fn check_types(table: &Table, keys: &KeySchema, condition: &KeyCondition) -> Result<(), Error> {
    let check = |name: &String, values: Vec<&Value>| {
        let kind = table.attributes.get(name).map(|kind| kind.as_str());
        if values.iter().all(|value| Some(value.kind()) == kind) {
            return Ok(());
        }
        Err(Error::invalid("Condition parameter type does not match schema type"))
    };
    check(&keys.hash, vec![&condition.hash])?;
    if let (Some(name), Some(range)) = (&keys.range, &condition.range) {
        check(name, range.values())?;
    }
    Ok(())
}
