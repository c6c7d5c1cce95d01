//! `UpdateAccountSettings`: begins or ends the commitment to a minimum throughput.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Structure, Text};
use serde::Deserialize;

use super::describe_account_settings::Reply;
use crate::Kinesis;
use crate::account::CommitmentReply;
use crate::error::Error;
use crate::validate::Checks;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    minimum_throughput_billing_commitment: Option<Structure<Wanted<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted<'a> {
    #[serde(borrow)]
    status: Option<Text<'a>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let wanted = request.minimum_throughput_billing_commitment.as_ref();
    let mut checks = Checks::new();
    checks.required("minimumThroughputBillingCommitment", wanted);
    let status = wanted.and_then(|Structure(wanted)| wanted.status.as_ref());
    if wanted.is_some() {
        let place = "minimumThroughputBillingCommitment.status";
        checks.required(place, status);
        checks.one_of(place, status, &["ENABLED", "DISABLED"]);
    }
    checks.finish()?;
    kinesis.allow_call(call, None)?;
    let on = status.is_some_and(|text| &**text == "ENABLED");
    let commitment = kinesis.commit(call.scope(), on).await?;
    let now = kinesis.clock.now();
    let minimum_throughput_billing_commitment = CommitmentReply::of(commitment, now);
    Ok(call.write(&Reply { minimum_throughput_billing_commitment })?)
}
