//! `GetItem`.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, List, Map, Text};
use serde::{Deserialize, Serialize};

use super::write;
use crate::Leases;
use crate::capacity::{Consumed, of_read};
use crate::checks;
use crate::error::Error;
use crate::expression::Placeholders;
use crate::page;
use crate::rows;
use crate::value::{Item, RawItem, into_item, item_bytes};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<RawItem<'a>>,
    #[serde(borrow)]
    attributes_to_get: Option<List<Text<'a>>>,
    consistent_read: Option<Flag>,
    #[serde(borrow)]
    projection_expression: Option<Text<'a>>,
    #[serde(borrow)]
    expression_attribute_names: Option<Map<'a, Text<'a>>>,
    #[serde(borrow)]
    return_consumed_capacity: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_capacity: Option<Consumed>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let key = into_item(checks::required(request.key, "key")?)?;
    let wanted = write::wanted(request.return_consumed_capacity.as_ref())?;
    let projects = request.projection_expression.is_some();
    write::check_mixed(
        &[("AttributesToGet", request.attributes_to_get.is_some())],
        &[("ProjectionExpression", projects)],
    )?;
    let names = request.expression_attribute_names;
    let mut placeholders = Placeholders::read(names, None, projects, "")?;
    let projection = page::projection(
        request.projection_expression.as_ref(),
        request.attributes_to_get.as_ref(),
        &mut placeholders,
    )?;
    placeholders.finish()?;

    let table = leases.usable(call.scope(), &name).await?;
    table.check_key(&key)?;
    let row = rows::item(&table, &key);
    let entry = leases.control.get(&row).await?;
    let item = entry.map(|entry| rows::read(&row, &entry)).transpose()?;
    let bytes = item.as_ref().map_or(0, item_bytes);
    let units = of_read(bytes, checks::flag(request.consistent_read));
    let item = match &projection {
        Some(projection) => item.map(|item| projection.of(&item)),
        None => item,
    };
    Ok(call.write(&Reply { item, consumed_capacity: wanted.tell(&name, units) })?)
}
