//! `StartStreamEncryption`: new records are encrypted at rest.

use bytes::Bytes;
use hydrant_wire::Call;

use crate::Kinesis;
use crate::encryption;
use crate::error::Error;

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    encryption::start(kinesis, call).await?;
    Ok(Bytes::new())
}
