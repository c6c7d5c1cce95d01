//! `IncreaseStreamRetentionPeriod`: records are kept longer from now on, those still there included.

use bytes::Bytes;
use hydrant_wire::Principal;

use crate::Kinesis;
use crate::error::Error;
use crate::retention::{Way, change};

pub(super) async fn run(kinesis: &Kinesis, who: &Principal, body: &[u8]) -> Result<Bytes, Error> {
    change(kinesis, who, Way::Up, body).await?;
    Ok(Bytes::new())
}
