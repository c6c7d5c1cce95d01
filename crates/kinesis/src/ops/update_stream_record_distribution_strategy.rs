//! `UpdateStreamRecordDistributionStrategy`: whether records go by their partition keys, at once.

use bytes::Bytes;
use hydrant_core::catalog::{Stream, StreamSettings};
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::Deserialize;

use crate::Kinesis;
use crate::distribution::{self, NAMES};
use crate::error::Error;
use crate::streams::Named;
use crate::validate::Checks;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    record_distribution_strategy: Option<Text<'a>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&None, &request.stream_arn, &request.stream_id);
    let strategy = request.record_distribution_strategy.as_ref();
    let mut checks = Checks::new();
    if !named.is_given() {
        checks.required("streamARN", named.arn);
    }
    checks.stream_if_given(&named);
    checks.required("recordDistributionStrategy", strategy);
    checks.one_of("recordDistributionStrategy", strategy, &NAMES);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let decide = || {
        let held = kinesis.active(&id)?;
        let stream = &held.stream;
        let name = strategy.map_or("", |text| &**text);
        let distribution = distribution::checked(name, stream.mode)?;
        if stream.settings.distribution == distribution {
            return Ok(None);
        }
        let settings = StreamSettings { distribution, ..stream.settings.clone() };
        Ok(Some((Stream { settings, ..Stream::clone(stream) }, held.version)))
    };
    kinesis.change(decide).await?;
    Ok(Bytes::new())
}
