//! Load for a server of Kinesis's API, and what it took: `hydrant bench`.
//!
//! Each measurement makes a stream of its own, loads it over the network as an SDK would (JSON,
//! Signature Version 4, HTTP/1.1; HTTP/2 for fan-out), and deletes it.

mod client;
mod fan_out;
mod get;
mod load;
mod measure;
mod process;
mod put;
mod settings;
mod streams;
mod subscription;

pub use client::BenchError;
pub use measure::{Delay, Report, Side};
pub use settings::{FanOut, Get, Measurement, Put, Server, Streams, Target};

/// Runs one measurement and deletes its stream, also when it fails; what `streams` makes stays.
///
/// # Errors
/// The first answer that was not expected, as the server gave it; or a setting that cannot be.
pub async fn run(measurement: &Measurement) -> Result<Report, BenchError> {
    match measurement {
        Measurement::Put(put) => {
            with_stream(&put.target, async |place| put::run(place, put).await).await
        }
        Measurement::Get(get) => {
            with_stream(&get.target, async |place| get::run(place, get).await).await
        }
        Measurement::FanOut(fan_out) => {
            let target = fan_out.target();
            with_stream(&target, async |place| fan_out::run(place, fan_out).await).await
        }
        Measurement::Streams(streams) => streams::run(&streams.server.place()?, streams).await,
    }
}

async fn with_stream(
    target: &Target,
    measure: impl AsyncFnOnce(&client::Place) -> Result<Report, BenchError>,
) -> Result<Report, BenchError> {
    let place = target.place()?;
    let stream = client::Stream::create(&place, target).await?;
    let outcome = measure(&place).await;
    let deleted = stream.delete().await;
    let report = outcome?;
    deleted.map(|()| report)
}
