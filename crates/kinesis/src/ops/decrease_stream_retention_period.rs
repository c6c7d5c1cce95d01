//! `DecreaseStreamRetentionPeriod`: records older than the new period are gone.

use bytes::Bytes;
use hydrant_wire::Principal;

use crate::Kinesis;
use crate::error::Error;
use crate::retention::{Way, change};

pub(super) async fn run(kinesis: &Kinesis, who: &Principal, body: &[u8]) -> Result<Bytes, Error> {
    change(kinesis, who, Way::Down, body).await?;
    Ok(Bytes::new())
}
