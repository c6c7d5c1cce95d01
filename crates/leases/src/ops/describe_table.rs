//! `DescribeTable`.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::{Deserialize, Serialize};

use super::description::TableDescription;
use crate::Leases;
use crate::checks;
use crate::error::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    table: TableDescription,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let found = leases.table(call.scope(), &name).await?;
    let (mut table, _) = found.ok_or_else(|| super::no_table(&name))?;
    let (count, now) = (leases.count(&table).await?, leases.clock.now());
    table.forget_indexes(now);
    let table = TableDescription::of(&table, count, now);
    Ok(call.write(&Reply { table })?)
}
