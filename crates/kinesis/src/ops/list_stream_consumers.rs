//! `ListStreamConsumers`: the consumers of a stream by name, page by page.

use bytes::Bytes;
use hydrant_core::catalog::StreamStatus;
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Seconds, Text};
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::consumers::ConsumerReply;
use crate::error::Error;
use crate::seal::{Kind, put_text};
use crate::streams::{Named, check_created, not_active};
use crate::validate::{Checks, NEXT_TOKEN, STREAM_ARN, STREAM_ID};

/// Most consumers in one reply, and the default (AWS).
const CONSUMERS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    next_token: Option<Text<'a>>,
    max_results: Option<Integer>,
    stream_creation_timestamp: Option<Seconds>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    consumers: Vec<ConsumerReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    checks.required("streamARN", request.stream_arn.as_ref());
    checks.text("streamARN", request.stream_arn.as_ref(), &STREAM_ARN);
    checks.text("streamId", request.stream_id.as_ref(), &STREAM_ID);
    checks.text("nextToken", request.next_token.as_ref(), &NEXT_TOKEN);
    checks.number("maxResults", request.max_results, 1, 10_000);
    checks.finish()?;
    if request.next_token.is_some() && request.stream_creation_timestamp.is_some() {
        return Err(Error::InvalidArgument(
            "NextToken and StreamCreationTimestamp cannot be provided together.".to_owned(),
        ));
    }
    let id = kinesis.named(call, &Named::by(&None, &request.stream_arn, &request.stream_id))?;
    let found = kinesis.find(&id)?;
    let stream = &found.held.stream;
    check_created(stream, request.stream_creation_timestamp)?;
    if found.status == StreamStatus::Creating {
        return Err(not_active(&found.held, found.status));
    }
    let now = kinesis.clock.now();
    let token = request.next_token.as_deref();
    let open = |token| {
        kinesis.open_token(Kind::Consumers, call, token, now, |fields| {
            let of = fields.text()? == stream.id;
            of.then_some(fields.text()?.to_owned())
        })
    };
    // The name that the page before ended with.
    let after = token.map(open).transpose()?;
    let limit = request.max_results.map_or(CONSUMERS_MAX, |n| (n.0 as usize).min(CONSUMERS_MAX));
    let mut rest =
        stream.consumers(now).filter(|(c, _)| after.as_ref().is_none_or(|after| c.name > *after));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let next_token = page.last().filter(|_| rest.next().is_some()).map(|(last, _)| {
        kinesis.seal_token(Kind::Consumers, call, now, |payload| {
            put_text(payload, &stream.id);
            put_text(payload, &last.name);
        })
    });
    let consumers = page.into_iter().map(|(c, status)| ConsumerReply::of(stream, c, status));
    Ok(call.write(&Reply { consumers: consumers.collect(), next_token })?)
}
