//! `ListShards`: the shards of a stream, filtered, page by page.

use bytes::Bytes;
use hydrant_core::Timestamp;
use hydrant_core::catalog::{ShardId, Stream, StreamStatus};
use hydrant_core::names::Scope;
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Seconds, Structure, Text};
use serde::{Deserialize, Serialize};

use super::describe_stream::exclusive_start;
use crate::Kinesis;
use crate::error::Error;
use crate::position::moment;
use crate::seal::{Fields, Kind, put_text};
use crate::shards::{Filter, ShardReply};
use crate::streams::{Named, StreamKey, check_created, not_active};
use crate::validate::{Checks, NEXT_TOKEN, SHARD_ID};

/// Most shards in one reply, and the default (AWS).
const SHARDS_MAX: usize = 1_000;
const FILTERS: [&str; 6] = [
    "AFTER_SHARD_ID",
    "AT_TRIM_HORIZON",
    "FROM_TRIM_HORIZON",
    "AT_LATEST",
    "AT_TIMESTAMP",
    "FROM_TIMESTAMP",
];

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
    next_token: Option<Text<'a>>,
    #[serde(borrow)]
    exclusive_start_shard_id: Option<Text<'a>>,
    max_results: Option<Integer>,
    stream_creation_timestamp: Option<Seconds>,
    #[serde(borrow)]
    shard_filter: Option<Structure<ShardFilter<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ShardFilter<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    #[serde(borrow)]
    shard_id: Option<Text<'a>>,
    timestamp: Option<Seconds>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    shards: Vec<ShardReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// What a page is a page of. Everything but the stream itself, so that a token is all it takes.
struct Listing {
    id: StreamKey,
    created_ms: Option<u64>,
    after: Option<ShardId>,
    filter: Filter,
}

pub(super) fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    check(&request)?;
    let now = kinesis.clock.now();
    let listing = match &request.next_token {
        Some(token) => {
            let listing = open(kinesis, call, token, now)?;
            kinesis.allow_call(call, Some(&listing.id))?;
            listing
        }
        None => first(kinesis, call, &request, now)?,
    };
    let found = kinesis.find(&listing.id)?;
    let stream = &found.held.stream;
    if listing.created_ms.is_some_and(|ms| ms != stream.created.as_millis()) {
        return Err(listing.id.not_found());
    }
    if found.status == StreamStatus::Creating {
        return Err(not_active(&found.held, found.status));
    }
    let limit = request.max_results.map_or(SHARDS_MAX, |n| (n.0 as usize).min(SHARDS_MAX));
    let mut rest = stream.shards.iter().filter(|s| {
        listing.after.is_none_or(|id| s.id > id) && listing.filter.shows(stream, s, now)
    });
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let next_token = page.last().filter(|_| rest.next().is_some()).map(|last| {
        let put = |payload: &mut Vec<u8>| put_token(payload, stream, last.id, listing.filter);
        kinesis.seal_token(Kind::Shards, call, now, put)
    });
    Ok(call
        .write(&Reply { shards: page.into_iter().map(ShardReply::from).collect(), next_token })?)
}

fn check(request: &Request<'_>) -> Result<(), Error> {
    let mut checks = Checks::new();
    checks.text("nextToken", request.next_token.as_ref(), &NEXT_TOKEN);
    checks.text("exclusiveStartShardId", request.exclusive_start_shard_id.as_ref(), &SHARD_ID);
    checks.number("maxResults", request.max_results, 1, 10_000);
    if let Some(Structure(filter)) = &request.shard_filter {
        checks.required("shardFilter.type", filter.r#type.as_ref());
        checks.one_of("shardFilter.type", filter.r#type.as_ref(), &FILTERS);
        checks.text("shardFilter.shardId", filter.shard_id.as_ref(), &SHARD_ID);
    }
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    if request.next_token.is_none() || named.is_given() {
        checks.stream(&named);
    }
    checks.finish()?;
    let with_token = [
        ("StreamName", named.name.is_some()),
        ("StreamARN", named.arn.is_some()),
        ("StreamId", named.id.is_some()),
        ("ExclusiveStartShardId", request.exclusive_start_shard_id.is_some()),
        ("StreamCreationTimestamp", request.stream_creation_timestamp.is_some()),
        ("ShardFilter", request.shard_filter.is_some()),
    ];
    match with_token.iter().find(|(_, given)| request.next_token.is_some() && *given) {
        Some((member, _)) => Err(Error::InvalidArgument(format!(
            "NextToken and {member} cannot be provided together."
        ))),
        None => Ok(()),
    }
}

/// The listing that a request without a token asks for.
fn first(
    kinesis: &Kinesis,
    call: &Call,
    request: &Request<'_>,
    now: Timestamp,
) -> Result<Listing, Error> {
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let id = kinesis.named(call, &named)?;
    let found = kinesis.find(&id)?;
    let stream = &found.held.stream;
    check_created(stream, request.stream_creation_timestamp)?;
    let filter = match &request.shard_filter {
        Some(Structure(filter)) => read_filter(filter, stream, now)?,
        None => Filter::All,
    };
    let after = request.exclusive_start_shard_id.as_ref();
    let after = after.map(|text| exclusive_start(text)).transpose()?;
    let created_ms = Some(stream.created.as_millis());
    Ok(Listing { id, created_ms, after, filter })
}

fn read_filter(filter: &ShardFilter<'_>, stream: &Stream, now: Timestamp) -> Result<Filter, Error> {
    let kind = filter.r#type.as_deref().unwrap_or_default();
    let needs = |member: &str| {
        Error::InvalidArgument(format!("ShardFilter of type {kind} needs a {member}."))
    };
    // Nothing is older than the stream, or kept longer than its retention.
    let horizon = stream.created.max(now.minus(stream.retention()));
    Ok(match kind {
        "AFTER_SHARD_ID" => {
            let text = filter.shard_id.as_ref().ok_or_else(|| needs("ShardId"))?;
            Filter::After(exclusive_start(text)?)
        }
        "AT_LATEST" => Filter::AtLatest,
        "AT_TRIM_HORIZON" => Filter::At(horizon),
        "FROM_TRIM_HORIZON" => Filter::From(horizon),
        _ => {
            let seconds = filter.timestamp.ok_or_else(|| needs("Timestamp"))?;
            let at = moment(seconds, now)?.max(horizon);
            if kind == "AT_TIMESTAMP" { Filter::At(at) } else { Filter::From(at) }
        }
    })
}

fn put_token(payload: &mut Vec<u8>, stream: &Stream, after: ShardId, filter: Filter) {
    let (kind, value) = match filter {
        Filter::All => (0, 0),
        Filter::After(id) => (1, u64::from(id.0)),
        Filter::AtLatest => (2, 0),
        Filter::At(at) => (3, at.as_millis()),
        Filter::From(at) => (4, at.as_millis()),
    };
    payload.extend(stream.created.as_millis().to_be_bytes());
    payload.extend(u64::to_be_bytes(value));
    payload.extend(after.0.to_be_bytes());
    payload.push(kind);
    put_text(payload, stream.scope.account.as_str());
    put_text(payload, stream.name.as_str());
}

fn open(kinesis: &Kinesis, call: &Call, token: &str, now: Timestamp) -> Result<Listing, Error> {
    let read = |fields: &mut Fields<'_>| {
        let created_ms = Some(fields.u64()?);
        let value = fields.u64()?;
        let after = Some(ShardId(fields.u32()?));
        let filter = match fields.u8()? {
            0 => Filter::All,
            1 => Filter::After(ShardId(u32::try_from(value).ok()?)),
            2 => Filter::AtLatest,
            3 => Filter::At(Timestamp::from_millis(value)),
            4 => Filter::From(Timestamp::from_millis(value)),
            _ => return None,
        };
        let account = fields.text()?.parse().ok()?;
        let scope = Scope { account, region: call.scope().region.clone() };
        let id = StreamKey { scope, name: fields.text()?.parse().ok()? };
        Some(Listing { id, created_ms, after, filter })
    };
    let listing = kinesis.open_token(Kind::Shards, call, token, now, read)?;
    kinesis.allow_stream(call, &listing.id, None)?;
    Ok(listing)
}
