//! `GetShardIterator`: a place in a shard to read from.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, Seconds, Text};
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::error::Error;
use crate::iterator::ShardIterator;
use crate::position::{self, StartingPosition};
use crate::put::dry_run;
use crate::shards::{self, shard_id};
use crate::streams::Named;
use crate::validate::{Checks, SEQUENCE_NUMBER, SHARD_ID};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    shard_id: Option<Text<'a>>,
    #[serde(borrow)]
    shard_iterator_type: Option<Text<'a>>,
    #[serde(borrow)]
    starting_sequence_number: Option<Text<'a>>,
    timestamp: Option<Seconds>,
    dry_run: Option<Flag>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    shard_iterator: String,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("shardId", request.shard_id.as_ref());
    checks.text("shardId", request.shard_id.as_ref(), &SHARD_ID);
    checks.required("shardIteratorType", request.shard_iterator_type.as_ref());
    checks.one_of("shardIteratorType", request.shard_iterator_type.as_ref(), &position::TYPES);
    let number = request.starting_sequence_number.as_ref();
    checks.text("startingSequenceNumber", number, &SEQUENCE_NUMBER);
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    let (name, account) = (&id.name, &id.scope.account);
    let shard_text = request.shard_id.as_deref().unwrap_or_default();
    let held = kinesis.usable(&id).map_err(|e| match shard_id(shard_text) {
        // AWS looks at the shard's id before it looks for the stream, and then misses the shard.
        Err(_) => Error::ResourceNotFound(format!(
            "Could not find shard {shard_text} in stream {name} under account {account}."
        )),
        Ok(shard) if matches!(e, Error::ResourceNotFound(_)) => Error::ResourceNotFound(format!(
            "Shard {shard} in stream {name} under account {account} does not exist"
        )),
        Ok(_) => e,
    })?;
    let stream = &held.stream;
    let shard = shards::find(stream, shard_text)?;
    let position = StartingPosition {
        kind: request.shard_iterator_type.as_deref().unwrap_or_default(),
        number: number.map(|text| &**text),
        timestamp: request.timestamp,
    };
    let from = position.locate(kinesis, &call.operation, stream, shard).await?;
    dry_run(request.dry_run)?;
    kinesis.allow_iterator(stream, shard)?;
    let iterator = ShardIterator {
        stream: id,
        shard: shard.id,
        uid: shard.uid,
        from,
        issued: kinesis.clock.now(),
    };
    Ok(call.write(&Reply { shard_iterator: iterator.seal(&kinesis.sealer, call.scope()) })?)
}
