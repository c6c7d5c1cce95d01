//! `UpdateMaxRecordSize`: how large a record may be from now on. Larger ones that are there stay.

use bytes::Bytes;
use hydrant_core::catalog::{Stream, StreamSettings, StreamState};
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Text};
use serde::Deserialize;

use crate::Kinesis;
use crate::error::Error;
use crate::streams::Named;
use crate::validate::Checks;

/// Sizes that a stream can be set to, in KiB (the model).
pub(super) const SIZES_KIB: (i64, i64) = (1_024, 10_240);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size: Option<Integer>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&None, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    if !named.is_given() {
        checks.required("streamARN", named.arn);
    }
    checks.stream_if_given(&named);
    checks.required("maxRecordSizeInKiB", request.max_record_size.as_ref());
    checks.number("maxRecordSizeInKiB", request.max_record_size, SIZES_KIB.0, SIZES_KIB.1);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    // In range: the checks above have passed.
    let max_record_kib = request.max_record_size.map_or(0, |n| n.0) as u32;
    let decide = || {
        let held = kinesis.active(&id)?;
        let stream = &held.stream;
        if stream.settings.max_record_kib == max_record_kib {
            return Ok(None);
        }
        let settings = StreamSettings { max_record_kib, ..stream.settings.clone() };
        let until = kinesis.clock.now().plus(kinesis.options.update_delay);
        let state = StreamState::Updating(until);
        Ok(Some((Stream { settings, state, ..Stream::clone(stream) }, held.version)))
    };
    kinesis.change(decide).await?;
    Ok(Bytes::new())
}
