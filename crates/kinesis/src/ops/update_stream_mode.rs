//! `UpdateStreamMode`: who decides on the number of shards; the shards stay as they are.

use std::time::Duration;

use bytes::Bytes;
use hydrant_core::catalog::{Stream, StreamMode, StreamState};
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Structure, Text};
use serde::Deserialize;

use super::update_stream_warm_throughput::{self as warm, check_amount};
use crate::Kinesis;
use crate::error::Error;
use crate::reshard::Wanted;
use crate::reshard::plan::Plan;
use crate::streams::{Named, check_active};
use crate::validate::Checks;

/// Switches of a stream in [`SWITCHES_WINDOW`], where AWS's rates hold (AWS).
const SWITCHES_MAX: usize = 2;
const SWITCHES_WINDOW: Duration = Duration::from_secs(24 * 3600);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    stream_mode_details: Option<Structure<ModeDetails<'a>>>,
    #[serde(rename = "WarmThroughputMiBps")]
    warm_throughput: Option<Integer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ModeDetails<'a> {
    #[serde(borrow)]
    stream_mode: Option<Text<'a>>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&None, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("streamModeDetails", request.stream_mode_details.as_ref());
    let mode = request.stream_mode_details.as_ref().and_then(|d| d.0.stream_mode.as_ref());
    if request.stream_mode_details.is_some() {
        checks.required("streamModeDetails.streamMode", mode);
        checks.one_of("streamModeDetails.streamMode", mode, &["PROVISIONED", "ON_DEMAND"]);
    }
    checks.required("streamARN", request.stream_arn.as_ref());
    checks.stream_if_given(&named);
    checks.number("warmThroughputMiBps", request.warm_throughput, 0, i64::from(i32::MAX));
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let mode = match mode.map(|mode| &**mode) {
        Some("ON_DEMAND") => StreamMode::OnDemand,
        _ => StreamMode::Provisioned,
    };
    let warm = request.warm_throughput.map(check_amount).transpose()?;
    kinesis.find(&id)?;
    if warm.is_some() {
        kinesis.check_committed(&id.scope).await?;
    }
    let decide = || {
        let found = kinesis.find(&id)?;
        let stream = &found.held.stream;
        if mode == StreamMode::Provisioned && warm.is_some() {
            return Err(warm::not_on_demand(stream));
        }
        // Asked for again: tools that describe a stream as it is to be do that (Terraform).
        if stream.mode == mode && warm.is_none_or(|w| stream.capacity.warm_mibps == Some(w)) {
            return Ok(None);
        }
        check_active(&found)?;
        let mut next = Stream::clone(stream);
        let now = kinesis.clock.now();
        if stream.mode != mode {
            kinesis.check_on_demand(&id.scope, mode)?;
            next.mode = mode;
            note_switch(kinesis, &mut next)?;
        }
        next.state = StreamState::Updating(now.plus(kinesis.options.update_delay));
        let plan = match warm {
            Some(mibps) => warm::apply(kinesis, &found.held, &mut next, mibps)?,
            None => Plan::of(stream),
        };
        if mode == StreamMode::Provisioned {
            next.capacity.warm_mibps = None;
        }
        Ok(Some(Wanted { next, seen: found.held.version, plan }))
    };
    kinesis.reshard(&id, decide).await?;
    Ok(Bytes::new())
}

fn note_switch(kinesis: &Kinesis, next: &mut Stream) -> Result<(), Error> {
    let now = kinesis.clock.now();
    let switches = &mut next.capacity.switches;
    switches.retain(|at| now.since(*at) < SWITCHES_WINDOW);
    if kinesis.limited() && switches.len() >= SWITCHES_MAX {
        return Err(Error::LimitExceeded(format!(
            "Rate exceeded for stream {} under account {}. The capacity mode can be switched at most \
             {SWITCHES_MAX} times per rolling 24-hour period per stream.",
            next.name, next.scope.account
        )));
    }
    switches.push(now);
    let surplus = switches.len().saturating_sub(SWITCHES_MAX);
    switches.drain(..surplus);
    Ok(())
}
