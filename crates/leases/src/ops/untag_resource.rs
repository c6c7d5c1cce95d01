//! `UntagResource`.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{List, Text};
use serde::Deserialize;

use crate::Leases;
use crate::checks;
use crate::error::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    resource_arn: Option<Text<'a>>,
    #[serde(borrow)]
    tag_keys: Option<List<Text<'a>>>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let name = checks::resource(request.resource_arn.as_ref(), call.scope())?;
    let keys = checks::required(request.tag_keys.as_ref(), "tagKeys")?;
    super::change_table(leases, call.scope(), &name, |table| {
        for key in &keys.0 {
            table.tags.remove(&**key);
        }
        Ok(())
    })
    .await?;
    Ok(Bytes::new())
}
