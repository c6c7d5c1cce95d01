//! `DecreaseStreamRetentionPeriod`: records older than the new period are gone.

use bytes::Bytes;
use hydrant_wire::Call;

use crate::Kinesis;
use crate::error::Error;
use crate::retention::{Way, change};

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    change(kinesis, call, Way::Down).await?;
    Ok(Bytes::new())
}
