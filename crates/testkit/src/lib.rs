//! What tests are built from: the ports in memory, a clock that is moved by hand, faults, and the
//! conformance suites that every implementation of a port runs.
//!
//! A suite is an async function that takes a way to make the implementation and panics, saying what
//! was promised, when a promise of the port's documentation is broken.

#![allow(clippy::unwrap_used, reason = "a failed expectation in a suite is a failed test")]

mod clock;
mod control_conformance;
mod destination_conformance;
mod faults;
mod log_conformance;
mod log_model;
mod memory_control;
mod memory_log;
mod open_seal;
mod recording_capture;
mod warehouse_conformance;

pub use clock::ManualClock;
pub use control_conformance::control_conformance;
pub use destination_conformance::{Target, destination_conformance};
pub use faults::{Appending, FaultyControl, FaultyLog};
pub use log_conformance::log_conformance;
pub use log_model::log_model;
pub use memory_control::MemoryControl;
pub use memory_log::MemoryLog;
pub use open_seal::OpenSeal;
pub use recording_capture::RecordingCapture;
pub use warehouse_conformance::{Depot, warehouse_conformance};

/// Fails the test if `future` has not resolved after half a minute, so that a lost wake-up is a
/// failure and not a hang. The caller's duty: a runtime whose clock is not paused, unless everything
/// the future waits for is in the runtime too.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(std::time::Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: still waiting after 30 s"),
    }
}
