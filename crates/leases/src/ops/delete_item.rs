//! `DeleteItem`.

use bytes::Bytes;
use hydrant_wire::Call;

use super::whole_item::{self, Delete};
use super::write::Guard;
use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::store::{Decide, Next};
use crate::table::Table;
use crate::value::{Item, into_item};

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Delete<'_> = call.read()?;
    let key = |_, key| into_item(checks::required(key, "key")?);
    whole_item::write(leases, call, request, key, |table, key, guard| delete(&table, key, guard))
        .await
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
