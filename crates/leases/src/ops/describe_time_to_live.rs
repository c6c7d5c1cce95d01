//! `DescribeTimeToLive`.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::{Deserialize, Serialize};

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
    time_to_live_description: Description,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    #[serde(skip_serializing_if = "Option::is_none")]
    attribute_name: Option<String>,
    time_to_live_status: &'static str,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let found = leases.table(call.scope(), &name).await?;
    let (table, _) = found.ok_or_else(|| super::no_table(&name))?;
    let time_to_live_status = if table.expiry.is_some() { "ENABLED" } else { "DISABLED" };
    let description = Description { attribute_name: table.expiry, time_to_live_status };
    Ok(call.write(&Reply { time_to_live_description: description })?)
}
