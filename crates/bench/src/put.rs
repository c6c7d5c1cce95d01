//! Puts as fast as the server takes them.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use serde::Deserialize;
use tokio::time::Instant;

use crate::client::{BenchError, Place};
use crate::load::Load;
use crate::measure::{Report, Tally, Watch, sum};
use crate::settings::{Put, Target};

/// What PutRecords says of all its records.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    failed_record_count: u64,
}

/// When a connection has put enough.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Moment(Instant),
    /// So many records, in whole batches.
    Records(u64),
}

pub(crate) async fn run(place: &Place, put: &Put) -> Result<Report, BenchError> {
    let target = &put.target;
    let loads: Vec<(Load, Vec<Bytes>)> = (0..target.connections)
        .map(|number| {
            let load = Load::new(target, number);
            let bodies = load.bodies();
            (load, bodies)
        })
        .collect();
    let watch = Watch::start(place.pid);
    let until = Until::Moment(Instant::now() + Duration::from_secs(target.seconds));
    let tallies = loads.into_iter().map(|(load, bodies)| async move {
        let (place, target) = (place.clone(), target.clone());
        let work = async move { puts(&place, &target, load.operation(), &bodies, until).await };
        joined(tokio::spawn(work)).await
    });
    let tally = sum(try_join_all(tallies).await?);
    Ok(watch.report("put", &tally))
}

/// Puts bodies in turn, one request after another.
pub(crate) async fn puts(
    place: &Place,
    target: &Target,
    operation: &str,
    bodies: &[Bytes],
    until: Until,
) -> Result<Tally, BenchError> {
    let mut connection = place.connect().await?;
    let mut tally = Tally::new();
    for body in bodies.iter().cycle() {
        match until {
            Until::Moment(end) if Instant::now() >= end => break,
            Until::Records(enough) if tally.records >= enough => break,
            _ => {}
        }
        let began = Instant::now();
        let refused = match connection.send(operation, body.clone()).await {
            Ok(answer) => refused(operation, &answer)?,
            Err(error) if error.is("ProvisionedThroughputExceeded") => u64::from(target.batch),
            Err(error) => return Err(error),
        };
        tally.time(began.elapsed());
        let taken = u64::from(target.batch) - refused;
        tally.requests += 1;
        tally.records += taken;
        tally.bytes += taken * target.record_bytes as u64;
        tally.refused += refused;
    }
    Ok(tally)
}

/// How many records of an answered put the server did not take.
pub(crate) fn refused(operation: &str, answer: &[u8]) -> Result<u64, BenchError> {
    if operation == "PutRecord" {
        return Ok(0);
    }
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| BenchError::Answer(format!("{operation}: {error}")))?;
    Ok(answer.failed_record_count)
}

/// What a task of ours gave.
pub(crate) async fn joined<T>(
    task: tokio::task::JoinHandle<Result<T, BenchError>>,
) -> Result<T, BenchError> {
    task.await.unwrap_or_else(|error| Err(BenchError::Answer(error.to_string())))
}
