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
mod subscription;

pub use client::BenchError;
pub use measure::{Delay, Report, Side};
pub use settings::{FanOut, Get, Measurement, Put, Target};

/// Runs one measurement and deletes its stream, also when it fails.
///
/// # Errors
/// The first answer that was not expected, as the server gave it; or a setting that cannot be.
pub async fn run(measurement: &Measurement) -> Result<Report, BenchError> {
    let target = measurement.target();
    let place = target.place()?;
    let stream = client::Stream::create(&place, target).await?;
    let outcome = match measurement {
        Measurement::Put(put) => put::run(&place, put).await,
        Measurement::Get(get) => get::run(&place, get).await,
        Measurement::FanOut(fan_out) => fan_out::run(&place, fan_out).await,
    };
    let deleted = stream.delete().await;
    let report = outcome?;
    deleted.map(|()| report)
}
