//! `PutItem`.

use bytes::Bytes;
use hydrant_wire::Call;

use super::whole_item::{self, Put};
use super::write::Guard;
use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::store::{Decide, Next};
use crate::table::Table;
use crate::value::{Item, check_item, into_item};

/// What an item that is too large to be put is refused with.
pub(super) const TOO_LARGE: &str = "Item size has exceeded the maximum allowed size";

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Put<'_> = call.read()?;
    let item = |item, _| into_item(checks::required(item, "item")?);
    whole_item::write(leases, call, request, item, put).await
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
