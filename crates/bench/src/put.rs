//! Puts as fast as the server takes them.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use serde::Deserialize;
use tokio::time::Instant;

use crate::client::{BenchError, Connection, Place};
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
    let loads: Vec<_> = (0..target.connections).map(|number| Bodies::new(target, number)).collect();
    let watch = Watch::start(place.pid);
    let until = Until::Moment(Instant::now() + Duration::from_secs(target.seconds));
    let tally = all(loads.into_iter().map(|load| load.put(place.clone(), until))).await?;
    Ok(watch.report("put", &tally))
}

/// What one connection puts in turn.
pub(crate) struct Bodies {
    operation: &'static str,
    bodies: Vec<Bytes>,
    batch: u64,
    record_bytes: u64,
}

impl Bodies {
    /// Those of connection `number`.
    pub(crate) fn new(target: &Target, number: u16) -> Self {
        let load = Load::new(target, number);
        Self {
            operation: load.operation(),
            bodies: load.bodies(),
            batch: target.batch().into(),
            record_bytes: target.record_bytes as u64,
        }
    }

    /// Puts one after another.
    pub(crate) async fn put(self, place: Place, until: Until) -> Result<Tally, BenchError> {
        let mut connection = place.connect().await?;
        let mut tally = Tally::new();
        for body in self.bodies.iter().cycle() {
            match until {
                Until::Moment(end) if Instant::now() >= end => break,
                Until::Records(enough) if tally.records >= enough => break,
                _ => {}
            }
            let began = Instant::now();
            let refused = put(&mut connection, self.operation, body.clone(), self.batch).await?;
            tally.time(began.elapsed());
            tally.put(self.batch, refused);
            tally.bytes += (self.batch - refused) * self.record_bytes;
        }
        Ok(tally)
    }
}

/// Puts `batch` records; how many of them the server did not take, for its limits.
pub(crate) async fn put(
    connection: &mut Connection,
    operation: &str,
    body: Bytes,
    batch: u64,
) -> Result<u64, BenchError> {
    let answer = match connection.send(operation, body).await {
        Err(error) if error.is("ProvisionedThroughputExceeded") => return Ok(batch),
        answer => answer?,
    };
    if operation == "PutRecord" {
        return Ok(0);
    }
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|error| BenchError::Answer(format!("{operation}: {error}")))?;
    Ok(answer.failed_record_count)
}

/// Runs what every connection does, each in a task of its own, and adds up what they counted.
pub(crate) async fn all<W>(works: impl IntoIterator<Item = W>) -> Result<Tally, BenchError>
where
    W: Future<Output = Result<Tally, BenchError>> + Send + 'static,
{
    let tasks = works.into_iter().map(tokio::spawn).collect::<Vec<_>>();
    let tasks = tasks.into_iter().map(|task| async {
        task.await.unwrap_or_else(|error| Err(BenchError::Answer(error.to_string())))
    });
    Ok(sum(try_join_all(tasks).await?))
}
