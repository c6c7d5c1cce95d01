//! `TagResource`.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::Deserialize;

use crate::Leases;
use crate::checks::{self, Tags};
use crate::error::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    resource_arn: Option<Text<'a>>,
    #[serde(borrow)]
    tags: Option<Tags<'a>>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let name = checks::resource(request.resource_arn.as_ref(), call.scope())?;
    let tags = checks::required(request.tags.as_ref(), "tags")?;
    super::change_table(leases, call.scope(), &name, |table| {
        checks::add_tags(&mut table.tags, Some(tags))
    })
    .await?;
    Ok(Bytes::new())
}
