//! `DescribeAccountSettings`: the commitment to a minimum throughput.

use bytes::Bytes;
use hydrant_wire::Call;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::Kinesis;
use crate::account::CommitmentReply;
use crate::error::Error;

/// What both operations on account settings answer.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Reply {
    pub(super) minimum_throughput_billing_commitment: CommitmentReply,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    call.read::<IgnoredAny>()?;
    kinesis.allow_call(call, None)?;
    let commitment = kinesis.commitment(call.scope()).await?;
    let now = kinesis.clock.now();
    let minimum_throughput_billing_commitment = CommitmentReply::of(commitment, now);
    Ok(call.write(&Reply { minimum_throughput_billing_commitment })?)
}
