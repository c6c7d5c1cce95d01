//! `DisableEnhancedMonitoring`: fewer metrics of a stream are also kept by shard.

use bytes::Bytes;
use hydrant_wire::Call;

use crate::Kinesis;
use crate::error::Error;
use crate::monitoring;

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    Ok(call.write(&monitoring::change(kinesis, call, false).await?)?)
}
