//! `DeleteTable`: marks the table; its items and its row go when the mark's moment has come.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::Deserialize;

use super::description::{Described, TableDescription};
use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::table::State;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let now = leases.clock.now();
    // Whoever writes an item has seen the table before this, or sees the mark.
    let alone = leases.writing.write().await;
    let deleted = super::change_table(leases, call.scope(), &name, |table| {
        let doing = match table.state.status(now) {
            "CREATING" => "created",
            "DELETING" => "deleted",
            "UPDATING" => "updated",
            _ => {
                if table.deletion_protection {
                    return Err(Error::validation(
                        "Resource cannot be deleted as it is currently protected against deletion. \
                         Disable deletion protection first.",
                    ));
                }
                table.state = State::Deleting(now.plus(leases.options.delete_delay));
                return Ok(());
            }
        };
        Err(Error::ResourceInUse(format!(
            "Attempt to change a resource which is still in use: Table is being {doing}: {name}"
        )))
    });
    let table = deleted.await?;
    drop(alone);
    leases.wake.notify_one();
    let count = leases.counts.lock().get(&table.id).copied().unwrap_or_default();
    let table_description = TableDescription::of(&table, count, now);
    Ok(call.write(&Described { table_description })?)
}
