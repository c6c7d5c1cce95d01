//! GetRecords from the oldest record to the newest.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::client::{BenchError, Connection, Place};
use crate::measure::{Report, Tally, Watch};
use crate::put::{Bodies, Until, all};
use crate::settings::{Get, Target};

/// Most records of an answer (Kinesis).
const LIMIT: u32 = 10_000;

/// What GetRecords answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    #[serde(borrow)]
    records: Vec<Record<'a>>,
    next_shard_iterator: Option<String>,
    millis_behind_latest: u64,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(rename = "Data", borrow)]
    data: &'a str,
}

pub(crate) async fn run(place: &Place, get: &Get) -> Result<Report, BenchError> {
    let target = &get.target;
    let each = Until::Records(get.records.div_ceil(u64::from(target.connections)));
    let place_of = || place.clone();
    all((0..target.connections).map(|n| Bodies::new(target, n).put(place_of(), each))).await?;
    let shards: Arc<[String]> = shards(place, &target.stream).await?.into();
    let watch = Watch::start(place.pid);
    let end = Instant::now() + Duration::from_secs(target.seconds);
    let reading = (0..target.connections).map(|number| {
        let (place, target, shards) = (place.clone(), target.clone(), shards.clone());
        async move { reads(&place, &target, &shards, number.into(), end).await }
    });
    let tally = all(reading).await?;
    Ok(watch.report("get", &tally))
}

/// The ids of a stream's shards.
pub(crate) async fn shards(place: &Place, stream: &str) -> Result<Vec<String>, BenchError> {
    let mut connection = place.connect().await?;
    let answer = connection.call("ListShards", &json!({"StreamName": stream})).await?;
    let ids = answer["Shards"].as_array().into_iter().flatten();
    Ok(ids.filter_map(|shard| shard["ShardId"].as_str().map(str::to_owned)).collect())
}

/// Reads one shard after another, from `first` on, until it is time.
async fn reads(
    place: &Place,
    target: &Target,
    shards: &[String],
    first: usize,
    end: Instant,
) -> Result<Tally, BenchError> {
    let mut connection = place.connect().await?;
    let mut tally = Tally::new();
    for shard in shards.iter().cycle().skip(first) {
        if !shard_through(&mut connection, target, shard, end, &mut tally).await? {
            break;
        }
    }
    Ok(tally)
}

/// Reads a shard to its newest record; `false` if the time was over before.
async fn shard_through(
    connection: &mut Connection,
    target: &Target,
    shard: &str,
    end: Instant,
    tally: &mut Tally,
) -> Result<bool, BenchError> {
    let body = json!({"StreamName": target.stream, "ShardId": shard,
        "ShardIteratorType": "TRIM_HORIZON"});
    let answer = connection.call("GetShardIterator", &body).await?;
    let mut next = answer["ShardIterator"].as_str().map(str::to_owned);
    while let Some(iterator) = next {
        if Instant::now() >= end {
            return Ok(false);
        }
        let body = json!({"ShardIterator": iterator, "Limit": LIMIT}).to_string();
        let began = Instant::now();
        let answer = connection.send("GetRecords", body.into()).await?;
        tally.time(began.elapsed());
        let answer: Answer<'_> = serde_json::from_slice(&answer)
            .map_err(|error| BenchError::Answer(format!("GetRecords: {error}")))?;
        tally.requests += 1;
        tally.records += answer.records.len() as u64;
        tally.bytes += answer.records.iter().map(|r| data_bytes(r.data)).sum::<u64>();
        next = answer.next_shard_iterator;
        if answer.millis_behind_latest == 0 {
            break;
        }
    }
    Ok(true)
}

/// Bytes that a base64 text stands for.
pub(crate) fn data_bytes(text: &str) -> u64 {
    let padding = text.bytes().rev().take_while(|letter| *letter == b'=').count();
    (text.len() / 4 * 3 - padding) as u64
}

#[cfg(test)]
mod tests {
    use super::data_bytes;

    #[test]
    fn the_bytes_behind_base64_are_counted() {
        assert_eq!(["", "QQ==", "QUI=", "QUJD"].map(data_bytes), [0, 1, 2, 3]);
    }
}
