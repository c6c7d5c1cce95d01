//! How long a stream keeps its records, as two operations change it.

use std::time::Duration;

use futures::FutureExt;
use hydrant_core::catalog::{Held, Shard, Stream, StreamState};
use hydrant_core::control::ControlError;
use hydrant_core::limits::{RETENTION_HOURS_MAX, RETENTION_HOURS_MIN};
use hydrant_core::log::LogError;
use hydrant_core::names::StreamName;
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Text};
use serde::Deserialize;

use crate::Kinesis;
use crate::change::{ATTEMPTS_MAX, crowded_out};
use crate::error::Error;
use crate::lifecycle::all;
use crate::streams::{Named, from_log};
use crate::validate::Checks;

/// Which way an operation may change it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `IncreaseStreamRetentionPeriod`.
    Up,
    /// `DecreaseStreamRetentionPeriod`.
    Down,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    retention_period_hours: Option<Integer>,
}

/// Runs either operation. The log is told of a longer period before the row says it, and of a shorter
/// one after: whatever stops it in between, no record goes that the row says is kept. The caller, who
/// had no reply, asks again, and then the log is told again.
pub(crate) async fn change(kinesis: &Kinesis, call: &Call, way: Way) -> Result<(), Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("retentionPeriodHours", request.retention_period_hours.as_ref());
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let hours = request.retention_period_hours.map_or(0, |n| n.0);
    let _alone = kinesis.retaining.lock().await;
    for _ in 0..ATTEMPTS_MAX {
        let held = kinesis.active(&id)?;
        let next = changed(kinesis, &held, way, hours, &id.name)?;
        let (same, keep) = (next.retention_hours == held.stream.retention_hours, next.retention());
        if same || way == Way::Up {
            tell_log(kinesis, &held.stream, keep).await?;
        }
        if same {
            return Ok(());
        }
        match kinesis.put(next, Some(held.version)).await {
            Ok(_) if way == Way::Down => return tell_log(kinesis, &held.stream, keep).await,
            Ok(_) => return Ok(()),
            Err(ControlError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(crowded_out(&id.name))
}

async fn tell_log(kinesis: &Kinesis, stream: &Stream, keep: Duration) -> Result<(), Error> {
    let tell = async |shard: &Shard| match kinesis.log.set_retention(shard.uid, keep).await {
        // Expired meanwhile.
        Err(LogError::NotFound) if !shard.is_open() => Ok(()),
        told => told,
    };
    let calls = stream.shards.iter().map(|s| tell(s).boxed());
    all(calls.collect()).await.map_err(|e| from_log(e, stream))
}

fn changed(
    kinesis: &Kinesis,
    held: &Held,
    way: Way,
    hours: i64,
    name: &StreamName,
) -> Result<Stream, Error> {
    let (min, max) = (RETENTION_HOURS_MIN, RETENTION_HOURS_MAX);
    let existing = held.stream.retention_hours;
    if hours < i64::from(min) {
        return Err(Error::InvalidArgument(format!(
            "Minimum allowed retention period is {min} hours. Requested retention period ({hours} \
             hours) is too short."
        )));
    }
    if hours > i64::from(max) {
        return Err(Error::InvalidArgument(format!(
            "Maximum allowed retention period is {max} hours. Requested retention period ({hours} \
             hours) is too long."
        )));
    }
    let wrong = match way {
        Way::Up if hours < i64::from(existing) => Some(("shorter", "Decrease")),
        Way::Down if hours > i64::from(existing) => Some(("longer", "Increase")),
        _ => None,
    };
    if let Some((comparison, other)) = wrong {
        return Err(Error::InvalidArgument(format!(
            "Requested retention period ({hours} hours) for stream {name} can not be {comparison} \
             than existing retention period ({existing} hours). Use {other}RetentionPeriod API."
        )));
    }
    let until = kinesis.clock.now().plus(kinesis.options.update_delay);
    Ok(Stream {
        // Between the two limits.
        retention_hours: hours as u32,
        state: StreamState::Updating(until),
        ..Stream::clone(&held.stream)
    })
}
