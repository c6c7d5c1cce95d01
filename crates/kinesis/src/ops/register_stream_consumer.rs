//! `RegisterStreamConsumer`: a consumer that is CREATING for a moment, then may subscribe.

use bytes::Bytes;
use hydrant_core::Timestamp;
use hydrant_core::catalog::{Consumer, ConsumerState, ConsumerStatus, Stream, StreamStatus};
use hydrant_core::control::ControlError;
use hydrant_core::limits::TAGS_MAX;
use hydrant_wire::Call;
use hydrant_wire::shape::{Map, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::Kinesis;
use crate::change::{ATTEMPTS_MAX, crowded_out};
use crate::consumers::ConsumerReply;
use crate::error::Error;
use crate::streams::{Found, Named, not_active};
use crate::tags;
use crate::validate::{CONSUMER_NAME, Checks, STREAM_ARN, STREAM_ID};

/// Most consumers of one stream that may be CREATING at once (AWS).
const CREATING_MAX: usize = 5;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    consumer_name: Option<Text<'a>>,
    #[serde(borrow)]
    tags: Option<Map<'a, Option<Text<'a>>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    consumer: ConsumerReply,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let mut checks = Checks::new();
    tags::check_map(&mut checks, request.tags.as_ref());
    checks.required("streamARN", request.stream_arn.as_ref());
    checks.text("streamARN", request.stream_arn.as_ref(), &STREAM_ARN);
    checks.text("streamId", request.stream_id.as_ref(), &STREAM_ID);
    checks.required("consumerName", request.consumer_name.as_ref());
    checks.text("consumerName", request.consumer_name.as_ref(), &CONSUMER_NAME);
    checks.finish()?;
    let named = Named::by(&None, &request.stream_arn, &request.stream_id);
    let id = kinesis.named(call, &named)?;
    let name = request.consumer_name.as_deref().unwrap_or_default();
    let tags = tags::kept(request.tags)?;
    check_tags(&tags, name)?;
    for _ in 0..ATTEMPTS_MAX {
        let found = kinesis.find(&id)?;
        let max = kinesis.consumers_max(&found.held.stream).await?;
        let (next, consumer) = registered(kinesis, &found, name, &tags, max)?;
        match kinesis.put(next, Some(found.held.version)).await {
            Ok(held) => {
                let consumer = ConsumerReply::of(&held.stream, &consumer, ConsumerStatus::Creating);
                return Ok(call.write(&Reply { consumer })?);
            }
            Err(ControlError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(crowded_out(&id.name))
}

fn check_tags(tags: &BTreeMap<String, String>, name: &str) -> Result<(), Error> {
    if tags.len() <= TAGS_MAX {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "Failed to add tags to consumer {name} because a given consumer cannot have more than \
         {TAGS_MAX} tags associated with it."
    )))
}

/// The stream with one consumer more, of at most `max`, and that consumer.
fn registered(
    kinesis: &Kinesis,
    found: &Found,
    name: &str,
    tags: &BTreeMap<String, String>,
    max: usize,
) -> Result<(Stream, Consumer), Error> {
    if matches!(found.status, StreamStatus::Creating | StreamStatus::Deleting) {
        return Err(not_active(&found.held, found.status));
    }
    let stream = &found.held.stream;
    let now = kinesis.clock.now();
    let (of, account) = (&stream.name, &stream.scope.account);
    if stream.consumer(name, now).is_some() {
        return Err(Error::ResourceInUse(format!(
            "Consumer {name} under stream {of} already exists for account {account}."
        )));
    }
    let count = stream.consumers(now).count();
    if count >= max {
        return Err(Error::LimitExceeded(format!(
            "Stream {of} under account {account} has {count} consumers registered, which is the \
             limit of {max} consumers per stream. Deregister a consumer first."
        )));
    }
    let creating =
        stream.consumers(now).filter(|(_, status)| *status == ConsumerStatus::Creating).count();
    if creating >= CREATING_MAX {
        return Err(Error::LimitExceeded(format!(
            "Stream {of} under account {account} has {creating} consumers in CREATING status. At \
             most {CREATING_MAX} consumers can be created simultaneously."
        )));
    }
    let consumer = Consumer {
        name: name.to_owned(),
        created: moment_for(stream, name, now),
        state: ConsumerState::Creating(now.plus(kinesis.options.consumer_create_delay)),
        tags: tags.clone(),
        policy: None,
    };
    let mut next = Stream::clone(stream);
    next.consumers.retain(|c| c.status(now).is_some() || c.created.as_secs() >= now.as_secs());
    match next.consumers.binary_search_by(|c| c.name.as_str().cmp(name)) {
        Ok(place) => next.consumers[place] = consumer.clone(),
        Err(place) => next.consumers.insert(place, consumer.clone()),
    }
    Ok((next, consumer))
}

/// A moment in a second that no earlier consumer of the name has in its ARN.
fn moment_for(stream: &Stream, name: &str, now: Timestamp) -> Timestamp {
    let earlier = stream.consumers.iter().find(|c| c.name == name);
    earlier.map_or(now, |c| {
        let next = Timestamp::from_millis((c.created.as_secs() + 1) * 1_000);
        now.max(next)
    })
}
