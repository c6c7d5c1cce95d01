//! `UpdateTimeToLive`: names the attribute that says when an item expires, or none.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, Structure, Text};
use serde::{Deserialize, Serialize};

use crate::Leases;
use crate::checks;
use crate::error::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(borrow)]
    time_to_live_specification: Option<Structure<Specification<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Specification<'a> {
    enabled: Option<Flag>,
    #[serde(borrow)]
    attribute_name: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    time_to_live_specification: Shown,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    attribute_name: String,
    enabled: bool,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let table = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let at = "timeToLiveSpecification";
    let wanted = checks::required(request.time_to_live_specification, at)?.0;
    let at = "timeToLiveSpecification.attributeName";
    let attribute = checks::required(wanted.attribute_name, at)?;
    if !(1..=255).contains(&attribute.chars().count()) {
        return Err(Error::validation(format!(
            "1 validation error detected: Value at '{at}' failed to satisfy constraint: Member must \
             have length less than or equal to 255"
        )));
    }
    let enabled = checks::required(wanted.enabled, "timeToLiveSpecification.enabled")?.0;
    super::change_table(leases, call.scope(), &table, |table| match (&table.expiry, enabled) {
        (Some(_), true) => Err(Error::validation("TimeToLive is already enabled")),
        (None, false) => Err(Error::validation("TimeToLive is already disabled")),
        (Some(other), false) if *other != *attribute.0 => Err(Error::validation(format!(
            "TimeToLive is active on a different AttributeName: current AttributeName is {other}"
        ))),
        (_, true) => {
            table.expiry = Some(attribute.0.clone().into_owned());
            Ok(())
        }
        (_, false) => {
            table.expiry = None;
            Ok(())
        }
    })
    .await?;
    let attribute_name = attribute.0.into_owned();
    Ok(call.write(&Reply { time_to_live_specification: Shown { attribute_name, enabled } })?)
}
