//! What `/metrics` shows of a delivery stream.

use std::time::Duration;

use hydrant_core::destination::Delivered;
use metrics::{Gauge, counter, gauge, histogram};

use crate::stream::DeliveryStream;

fn labels(stream: &DeliveryStream) -> [(&'static str, String); 2] {
    [("region", stream.scope.region.to_string()), ("delivery_stream", stream.name.to_string())]
}

/// A batch is at the destination, `age` after the arrival of its oldest record.
pub(crate) fn delivered(
    stream: &DeliveryStream,
    records: usize,
    delivered: &Delivered,
    age: Duration,
) {
    let labels = labels(stream);
    counter!("hydrant_delivery_records_total", &labels).increment(records as u64);
    counter!("hydrant_delivery_bytes_total", &labels).increment(delivered.bytes);
    counter!("hydrant_delivery_objects_total", &labels).increment(delivered.written.len() as u64);
    counter!("hydrant_delivery_rejected_records_total", &labels)
        .increment(delivered.rejected.len() as u64);
    histogram!("hydrant_delivery_freshness_seconds", &labels).record(age.as_secs_f64());
}

/// A delivery failed, `age` after the arrival of the batch's oldest record, and will be repeated.
pub(crate) fn failed(stream: &DeliveryStream, misconfigured: bool, age: Duration) {
    let labels = labels(stream);
    counter!("hydrant_delivery_failures_total", &labels).increment(1);
    gauge!("hydrant_delivery_misconfigured", &labels).set(f64::from(u8::from(misconfigured)));
    gauge!("hydrant_delivery_stuck_seconds", &labels).set(age.as_secs_f64());
}

/// Nothing stands in the way of the delivery stream any more.
pub(crate) fn recovered(stream: &DeliveryStream) {
    let labels = labels(stream);
    gauge!("hydrant_delivery_misconfigured", &labels).set(0.0);
    gauge!("hydrant_delivery_stuck_seconds", &labels).set(0.0);
}

/// Bytes of data in the buffer. Looked up once, since it is set after every read.
pub(crate) fn buffer_bytes(stream: &DeliveryStream) -> Gauge {
    gauge!("hydrant_delivery_buffer_bytes", &labels(stream))
}

/// Records of a batch that could not be read again: they are lost to the destination.
pub(crate) fn lost(stream: &DeliveryStream, records: u64) {
    counter!("hydrant_delivery_lost_records_total", &labels(stream)).increment(records);
}

/// A place in a shard behind which records may have been lost, nobody knows how many.
pub(crate) fn gap(stream: &DeliveryStream) {
    counter!("hydrant_delivery_gaps_total", &labels(stream)).increment(1);
}
