//! `ListTagsOfResource`: all of them at once, since there are at most 50.

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
    resource_arn: Option<Text<'a>>,
    #[serde(borrow)]
    next_token: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    tags: Vec<Tag>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    if request.next_token.is_some() {
        return Err(Error::validation("The NextToken is not one that was given out"));
    }
    let name = checks::resource(request.resource_arn.as_ref(), call.scope())?;
    let found = leases.table(call.scope(), &name).await?;
    let (table, _) = found.ok_or_else(|| super::no_table(&name))?;
    let tags = table.tags.into_iter().map(|(key, value)| Tag { key, value });
    Ok(call.write(&Reply { tags: tags.collect() })?)
}
