//! A page of items: what Query and Scan have in common.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_wire::shape::{Flag, Integer, List, Map, Text};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::capacity::{self, Consumed, Wanted};
use crate::checks;
use crate::error::Error;
use crate::expression::{self, Condition, Path, Placeholders, Projection};
use crate::table::{Index, Projected, Table};
use crate::value::{Item, RawItem, Value, into_item, item_bytes};

/// Most bytes of items that one page looks at (AWS: 1 MB).
pub(crate) const PAGE_BYTES_MAX: usize = 1 << 20;

/// The members that both requests have.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Request<'a> {
    #[serde(borrow)]
    pub(crate) table_name: Option<Text<'a>>,
    #[serde(borrow)]
    index_name: Option<Text<'a>>,
    #[serde(borrow)]
    select: Option<Text<'a>>,
    #[serde(borrow)]
    attributes_to_get: Option<List<Text<'a>>>,
    limit: Option<Integer>,
    consistent_read: Option<Flag>,
    #[serde(borrow)]
    exclusive_start_key: Option<RawItem<'a>>,
    #[serde(borrow)]
    return_consumed_capacity: Option<Text<'a>>,
    #[serde(borrow)]
    projection_expression: Option<Text<'a>>,
    #[serde(borrow)]
    filter_expression: Option<Text<'a>>,
    #[serde(borrow)]
    key_condition_expression: Option<Text<'a>>,
    #[serde(borrow)]
    expression_attribute_names: Option<Map<'a, Text<'a>>>,
    #[serde(borrow)]
    expression_attribute_values: Option<RawItem<'a>>,
    pub(crate) scan_index_forward: Option<Flag>,
    pub(crate) segment: Option<Integer>,
    pub(crate) total_segments: Option<Integer>,
    key_conditions: Option<IgnoredAny>,
    query_filter: Option<IgnoredAny>,
    scan_filter: Option<IgnoredAny>,
    conditional_operator: Option<IgnoredAny>,
}

/// What is asked for, apart from the table.
pub(crate) struct Asked {
    pub(crate) index_name: Option<String>,
    pub(crate) key_condition: Option<Condition>,
    pub(crate) start: Option<Item>,
    pub(crate) limit: usize,
    consistent: bool,
    wanted: Wanted,
    filter: Option<Condition>,
    projection: Option<Projection>,
    select: &'static str,
}

/// Takes the members out of a request and checks what needs no table.
pub(crate) fn read(request: Request<'_>) -> Result<Asked, Error> {
    checks::refuse(&[
        ("KeyConditions (use KeyConditionExpression)", &request.key_conditions),
        ("QueryFilter (use FilterExpression)", &request.query_filter),
        ("ScanFilter (use FilterExpression)", &request.scan_filter),
        ("ConditionalOperator", &request.conditional_operator),
    ])?;
    let index_name = match &request.index_name {
        None => None,
        name => Some(checks::index_name(name.as_ref(), "indexName")?),
    };
    let limit = checks::number(request.limit, "limit", 1, i64::MAX)?;
    let has_expressions = request.filter_expression.is_some()
        || request.projection_expression.is_some()
        || request.key_condition_expression.is_some();
    if has_expressions && request.attributes_to_get.is_some() {
        return Err(Error::validation(
            "Can not use both expression and non-expression parameters in the same request: \
             Non-expression parameters: {AttributesToGet}",
        ));
    }
    let mut placeholders = Placeholders::read(
        request.expression_attribute_names,
        request.expression_attribute_values,
        has_expressions,
        "FilterExpression is null",
    )?;
    let mut condition = |parameter, text: Option<&Text<'_>>| {
        text.map(|text| expression::condition(parameter, text, &mut placeholders)).transpose()
    };
    let key_condition =
        condition("KeyConditionExpression", request.key_condition_expression.as_ref())?;
    let filter = condition("FilterExpression", request.filter_expression.as_ref())?;
    let projection = projection(
        request.projection_expression.as_ref(),
        request.attributes_to_get.as_ref(),
        &mut placeholders,
    )?;
    placeholders.finish()?;
    let select = match &request.select {
        None if projection.is_some() => "SPECIFIC_ATTRIBUTES",
        None if index_name.is_some() => "ALL_PROJECTED_ATTRIBUTES",
        select => checks::one_of(select.as_ref(), "select", &SELECTS)?,
    };
    check_select(select, projection.is_some(), index_name.is_some())?;
    Ok(Asked {
        index_name,
        key_condition,
        start: request.exclusive_start_key.map(into_item).transpose()?,
        limit: limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        consistent: checks::flag(request.consistent_read),
        wanted: Wanted::read(request.return_consumed_capacity.as_ref())?,
        filter,
        projection,
        select,
    })
}

const SELECTS: [&str; 4] =
    ["ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT"];

fn check_select(select: &str, projects: bool, has_index: bool) -> Result<(), Error> {
    if projects && select != "SPECIFIC_ATTRIBUTES" {
        return Err(Error::validation(format!(
            "Cannot specify the ProjectionExpression when choosing to get {select}"
        )));
    }
    if !projects && select == "SPECIFIC_ATTRIBUTES" {
        return Err(Error::validation(
            "Must specify the ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES",
        ));
    }
    if select == "ALL_PROJECTED_ATTRIBUTES" && !has_index {
        return Err(Error::invalid(
            "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName",
        ));
    }
    Ok(())
}

/// `ProjectionExpression`, or the older list of attributes.
pub(crate) fn projection(
    text: Option<&Text<'_>>,
    attributes: Option<&List<Text<'_>>>,
    placeholders: &mut Placeholders,
) -> Result<Option<Projection>, Error> {
    match (text, attributes) {
        (Some(text), _) => expression::projection(text, placeholders).map(Some),
        (None, Some(list)) => {
            let names: BTreeSet<&str> = list.0.iter().map(|name| &**name).collect();
            if names.len() < list.0.len() {
                return Err(Error::invalid("Duplicate value in attribute name"));
            }
            Ok(Some(Projection(names.into_iter().map(Path::attribute).collect())))
        }
        (None, None) => Ok(None),
    }
}

/// Where an item stands in an order: the sort key's value, then what tells it from others.
pub(crate) type Place = Vec<Value>;

impl Asked {
    /// The index, checked against what is asked of it.
    pub(crate) fn index<'t>(
        &self,
        table: &'t Table,
        now: hydrant_core::Timestamp,
    ) -> Result<Option<&'t Index>, Error> {
        let Some(name) = &self.index_name else { return Ok(None) };
        let index = table.index(name, now)?;
        if self.consistent {
            return Err(Error::validation(
                "Consistent reads are not supported on global secondary indexes",
            ));
        }
        if self.select == "ALL_ATTRIBUTES" && index.projected != Projected::All {
            return Err(Error::invalid(&format!(
                "Select type ALL_ATTRIBUTES is not supported for global secondary index {name} because \
                 its projection type is not ALL"
            )));
        }
        Ok(Some(index))
    }

    /// The start key, checked: the key of an item, and of its place in the index.
    pub(crate) fn start(
        &self,
        table: &Table,
        index: Option<&Index>,
    ) -> Result<Option<&Item>, Error> {
        let Some(start) = &self.start else { return Ok(None) };
        let wrong = || Error::validation("The provided starting key is invalid");
        let mut names: BTreeSet<&String> = table.keys.names().collect();
        names.extend(index.into_iter().flat_map(|index| index.keys.names()));
        if names != start.keys().collect() {
            return Err(wrong());
        }
        table.check_key(&table.key_of(start)).map_err(|_| wrong())?;
        table.check_index_keys(start).map_err(|_| wrong())?;
        Ok(Some(start))
    }

    /// The reply for these items, the last of which is where the next page begins if there is one.
    pub(crate) fn reply(
        &self,
        table: &Table,
        index: Option<&Index>,
        items: Vec<Item>,
        more: bool,
    ) -> Reply {
        let scanned = items.len();
        let bytes: usize = items.iter().map(item_bytes).sum();
        let last = items.last().filter(|_| more).map(|item| {
            let mut key = table.key_of(item);
            let names = index.into_iter().flat_map(|index| index.keys.names());
            let found = names.filter_map(|name| item.get_key_value(name));
            key.extend(found.map(|(name, value)| (name.clone(), value.clone())));
            key
        });
        let fitting = items.into_iter().map(|item| shown(item, table, index));
        let fitting = fitting.filter(|item| self.filter.as_ref().is_none_or(|f| f.holds(item)));
        let mut items: Vec<Item> = fitting.collect();
        let count = items.len();
        if let Some(projection) = &self.projection {
            items = items.iter().map(|item| projection.of(item)).collect();
        }
        let units = capacity::of_read(bytes, self.consistent);
        Reply {
            items: (self.select != "COUNT").then_some(items),
            count,
            scanned_count: scanned,
            last_evaluated_key: last,
            consumed_capacity: self.wanted.tell(&table.name, units),
        }
    }
}

/// What the index holds of an item.
fn shown(mut item: Item, table: &Table, index: Option<&Index>) -> Item {
    let Some(index) = index else { return item };
    let more = match &index.projected {
        Projected::All => return item,
        Projected::KeysOnly => &[][..],
        Projected::Include(names) => names.as_slice(),
    };
    item.retain(|name, _| table.keys.has(name) || index.keys.has(name) || more.contains(name));
    item
}

/// Whether the index holds the item: it has all of the index's keys.
pub(crate) fn is_in(index: Option<&Index>, item: &Item) -> bool {
    index.is_none_or(|index| index.keys.names().all(|name| item.contains_key(name)))
}

/// What both operations answer.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<Item>>,
    count: usize,
    scanned_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_evaluated_key: Option<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Consumed>,
}

/// The first items of an order, found while they come in any other, in bounded memory.
pub(crate) struct First {
    forward: bool,
    start: Option<Place>,
    limit: usize,
    found: BTreeMap<Place, Item>,
    bytes: usize,
    dropped: bool,
}

impl First {
    /// The first `limit` behind `start`, in growing or falling order, of at most about a page's bytes.
    pub(crate) fn new(forward: bool, start: Option<Place>, limit: usize) -> Self {
        Self { forward, start, limit, found: BTreeMap::new(), bytes: 0, dropped: false }
    }

    /// Looks at one more item.
    pub(crate) fn offer(&mut self, place: Place, item: Item) {
        let behind = self
            .start
            .as_ref()
            .is_none_or(|start| if self.forward { place > *start } else { place < *start });
        if !behind {
            return;
        }
        self.bytes += item_bytes(&item);
        self.found.insert(place, item);
        loop {
            let last = if self.forward {
                self.found.last_key_value()
            } else {
                self.found.first_key_value()
            };
            let Some(bytes) = last.map(|(_, item)| item_bytes(item)) else { return };
            let too_many = self.found.len() > self.limit;
            if !too_many && self.bytes - bytes < PAGE_BYTES_MAX {
                return;
            }
            if self.forward {
                self.found.pop_last()
            } else {
                self.found.pop_first()
            };
            self.bytes -= bytes;
            self.dropped = true;
        }
    }

    /// The items in order, and whether there may be more behind them.
    pub(crate) fn finish(self) -> (Vec<Item>, bool) {
        let more = self.dropped || self.found.len() >= self.limit;
        let mut items: Vec<Item> = self.found.into_values().collect();
        if !self.forward {
            items.reverse();
        }
        (items, more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(forward: bool, start: Option<&str>, limit: usize) -> (Vec<String>, bool) {
        let place = |text: &str| vec![Value::Text(text.to_owned())];
        let mut first = First::new(forward, start.map(place), limit);
        for key in ["c", "a", "e", "b", "d"] {
            let item = Item::from([("k".to_owned(), Value::Text(key.to_owned()))]);
            first.offer(place(key), item);
        }
        let (items, more) = first.finish();
        let texts = items.iter().filter_map(|item| item.get("k")?.text().map(str::to_owned));
        (texts.collect(), more)
    }

    #[test]
    fn pages_follow_each_other_in_either_direction() {
        assert_eq!(first(true, None, 2), (vec!["a".to_owned(), "b".to_owned()], true));
        assert_eq!(first(true, Some("b"), 9).0, ["c", "d", "e"]);
        assert_eq!(first(false, None, 2).0, ["e", "d"]);
        assert_eq!(first(false, Some("b"), 9), (vec!["a".to_owned()], false));
    }

    #[test]
    fn a_page_ends_with_its_bytes() {
        let mut first = First::new(true, None, usize::MAX);
        for n in 0..10usize {
            let item = Item::from([("k".to_owned(), Value::Text("x".repeat(300 << 10)))]);
            first.offer(vec![Value::Number(n.into())], item);
        }
        let (items, more) = first.finish();
        assert_eq!((items.len(), more), (4, true));
    }
}
