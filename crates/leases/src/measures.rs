//! CloudWatch's `PutMetricData`: what KCL and KPL report of themselves, for `/metrics`.
//!
//! Follows "PutMetricData" in the CloudWatch API reference. What is reported is kept in memory, the
//! least recent of it forgotten when there is too much; it is a view of the clients, not of anything
//! that hydrant holds.

mod request;
mod series;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_wire::{ApiError, Call, Format, JsonService, Reply};
use parking_lot::Mutex;

use self::series::All;
pub(crate) use self::series::label;

/// What clients report of themselves. Give it to the JSON front and the RPC front, and show
/// [`Measures::exposition`] on `/metrics`.
#[derive(Debug, Default)]
pub struct Measures {
    all: Mutex<All>,
}

impl Measures {
    /// Nothing reported yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that was reported, as Prometheus reads it: at most a fixed number of series.
    pub fn exposition(&self) -> String {
        self.all.lock().exposition()
    }
}

#[async_trait]
impl JsonService for Measures {
    fn target(&self) -> &'static str {
        "GraniteServiceVersion20100801"
    }

    fn speaks(&self, _: Format) -> bool {
        true
    }

    async fn call(&self, call: Call) -> Result<Reply, ApiError> {
        if call.operation != "PutMetricData" {
            let text = format!(
                "hydrant takes measurements (PutMetricData) and shows them on /metrics; it does not \
                 support {}.",
                call.operation
            );
            return Err(ApiError::new("UnknownOperationException", text));
        }
        let data = request::read(&call)?;
        self.all.lock().add(call.scope(), data);
        Ok(match call.format {
            Format::Json => Bytes::from_static(b"{}").into(),
            Format::Cbor => Bytes::from_static(&[0xa0]).into(),
        })
    }
}

#[cfg(test)]
mod tests;
