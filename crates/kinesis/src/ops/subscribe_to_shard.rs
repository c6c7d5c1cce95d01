//! `SubscribeToShard`: a shard's records as an event stream, for five minutes.

use hydrant_core::catalog::ConsumerStatus;
use hydrant_wire::shape::{Flag, Seconds, Structure, Text};
use hydrant_wire::{Call, Reply};
use serde::Deserialize;

use crate::Kinesis;
use crate::consumers::FoundConsumer;
use crate::error::Error;
use crate::position::{self, StartingPosition};
use crate::put::dry_run;
use crate::shards;
use crate::streams::Named;
use crate::subscription::Wanted;
use crate::validate::{CONSUMER_ARN, Checks, SEQUENCE_NUMBER, SHARD_ID};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow, rename = "ConsumerARN")]
    consumer_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    shard_id: Option<Text<'a>>,
    #[serde(borrow)]
    starting_position: Option<Structure<Position<'a>>>,
    dry_run: Option<Flag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Position<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    #[serde(borrow)]
    sequence_number: Option<Text<'a>>,
    timestamp: Option<Seconds>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Reply, Error> {
    let request: Request<'_> = call.read()?;
    check(&request)?;
    let consumer =
        kinesis.consumer_key(call, request.consumer_arn.as_deref().unwrap_or_default())?;
    let named = Named::by(&None, &None, &request.stream_id);
    if named.is_given() && kinesis.named(call, &named)? != consumer.stream {
        return Err(Error::InvalidArgument(
            "The ConsumerARN is not of a consumer of the stream that StreamId names.".to_owned(),
        ));
    }
    let found = kinesis.consumer(&consumer)?;
    kinesis.usable(&consumer.stream)?;
    let FoundConsumer { held, consumer: registered, status } = found;
    if status != ConsumerStatus::Active {
        return Err(Error::ResourceInUse(format!("{} is not in ACTIVE status.", consumer.words())));
    }
    let stream = &held.stream;
    let shard = shards::find(stream, request.shard_id.as_deref().unwrap_or_default())?;
    let position = request.starting_position.as_ref().map(|p| &p.0);
    let position = StartingPosition {
        kind: position.and_then(|p| p.r#type.as_deref()).unwrap_or_default(),
        number: position.and_then(|p| p.sequence_number.as_deref()),
        timestamp: position.and_then(|p| p.timestamp),
    };
    let from = position.locate(kinesis, &call.operation, stream, shard).await?;
    dry_run(request.dry_run)?;
    let wanted = Wanted {
        format: call.format,
        consumer,
        registered: registered.created,
        shard: shard.clone(),
        from,
    };
    Ok(Reply::Stream(kinesis.fanout.subscribe(wanted)?))
}

fn check(request: &Request<'_>) -> Result<(), Error> {
    let mut checks = Checks::new();
    checks.required("consumerARN", request.consumer_arn.as_ref());
    checks.text("consumerARN", request.consumer_arn.as_ref(), &CONSUMER_ARN);
    checks.stream_if_given(&Named::by(&None, &None, &request.stream_id));
    checks.required("shardId", request.shard_id.as_ref());
    checks.text("shardId", request.shard_id.as_ref(), &SHARD_ID);
    checks.required("startingPosition", request.starting_position.as_ref());
    if let Some(Structure(position)) = &request.starting_position {
        checks.required("startingPosition.type", position.r#type.as_ref());
        checks.one_of("startingPosition.type", position.r#type.as_ref(), &position::TYPES);
        let number = position.sequence_number.as_ref();
        checks.text("startingPosition.sequenceNumber", number, &SEQUENCE_NUMBER);
    }
    checks.finish()
}
