//! Streams that nobody uses, as many and as fast as the server makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tokio::time::Instant;

use crate::client::{BenchError, Place};
use crate::measure::{Report, Tally, Watch};
use crate::put::all;
use crate::settings::Streams;

pub(crate) async fn run(place: &Place, streams: &Streams) -> Result<Report, BenchError> {
    let next = Arc::new(AtomicU64::new(0));
    let watch = Watch::start(place.pid);
    let making = (0..streams.connections).map(|_| {
        let (place, streams, next) = (place.clone(), streams.clone(), next.clone());
        async move { make(&place, &streams, &next).await }
    });
    let tally = all(making).await?;
    Ok(watch.report("streams", &tally))
}

/// Makes those that no other connection has begun.
async fn make(place: &Place, streams: &Streams, next: &AtomicU64) -> Result<Tally, BenchError> {
    let mut connection = place.connect().await?;
    let mut tally = Tally::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= streams.count {
            return Ok(tally);
        }
        let name = format!("{}{number}", streams.prefix);
        let began = Instant::now();
        connection.call("CreateStream", &json!({"StreamName": name, "ShardCount": 1})).await?;
        tally.time(began.elapsed());
        tally.requests += 1;
    }
}
