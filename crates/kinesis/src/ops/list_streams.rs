//! `ListStreams`: the streams of an account and region by name, page by page.

use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::Timestamp;
use hydrant_core::catalog::Stream;
use hydrant_core::names::{Scope, StreamName};
use hydrant_wire::Call;
use hydrant_wire::shape::{Epoch, Integer, Text};
use serde::{Deserialize, Serialize};

use super::StreamModeDetails;
use crate::Kinesis;
use crate::error::Error;
use crate::seal::{Fields, Kind, put_text};
use crate::validate::{Checks, NEXT_TOKEN, STREAM_NAME};

/// Streams in one reply by default (AWS).
const LIMIT_DEFAULT: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    limit: Option<Integer>,
    #[serde(borrow)]
    exclusive_start_stream_name: Option<Text<'a>>,
    #[serde(borrow)]
    next_token: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    stream_names: Vec<String>,
    has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    stream_summaries: Vec<Summary>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeDetails,
    stream_creation_timestamp: Epoch,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    checks.number("limit", request.limit, 1, 10_000);
    let start = request.exclusive_start_stream_name.as_ref();
    checks.text("exclusiveStartStreamName", start, &STREAM_NAME);
    checks.text("nextToken", request.next_token.as_ref(), &NEXT_TOKEN);
    checks.finish()?;
    kinesis.allow_call(call, None)?;
    let now = kinesis.clock.now();
    let after = match (start, &request.next_token) {
        (Some(_), Some(_)) => {
            return Err(Error::InvalidArgument(
                "NextToken and ExclusiveStartStreamName cannot be provided together.".to_owned(),
            ));
        }
        (Some(name), None) => name.parse().ok(),
        (None, Some(token)) => {
            let read = |fields: &mut Fields<'_>| fields.text()?.parse().ok();
            Some(kinesis.open_token(Kind::Streams, call, token, now, read)?)
        }
        (None, None) => None,
    };
    let limit = request.limit.map_or(LIMIT_DEFAULT, |n| n.0 as usize);
    let mut streams = next(kinesis, call.scope(), after, limit + 1, now);
    let more = streams.len() > limit;
    streams.truncate(limit);
    let next_token = streams.last().filter(|_| more).map(|last| {
        let put = |payload: &mut Vec<u8>| put_text(payload, last.name.as_str());
        kinesis.seal_token(Kind::Streams, call, now, put)
    });
    let summaries = streams.iter().filter_map(|stream| {
        Some(Summary {
            stream_name: stream.name.to_string(),
            stream_arn: stream.arn().to_string(),
            stream_status: stream.status(now)?.as_str(),
            stream_mode_details: stream.mode.into(),
            stream_creation_timestamp: Epoch(stream.created),
        })
    });
    Ok(call.write(&Reply {
        stream_names: streams.iter().map(|s| s.name.to_string()).collect(),
        has_more_streams: more,
        next_token,
        stream_summaries: summaries.collect(),
    })?)
}

/// The next `limit` streams that are not gone.
fn next(
    kinesis: &Kinesis,
    scope: &Scope,
    mut after: Option<StreamName>,
    limit: usize,
    now: Timestamp,
) -> Vec<Arc<Stream>> {
    let mut streams = Vec::new();
    while streams.len() < limit {
        let more = kinesis.catalog.list(scope, after.as_ref(), limit - streams.len());
        let Some(last) = more.last() else { break };
        after = Some(last.name.clone());
        streams.extend(more.into_iter().filter(|s| s.status(now).is_some()));
    }
    streams
}
