//! `StopStreamEncryption`: new records are not encrypted at rest any more.

use bytes::Bytes;
use hydrant_wire::Call;

use crate::Kinesis;
use crate::encryption;
use crate::error::Error;

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    encryption::stop(kinesis, call).await?;
    Ok(Bytes::new())
}
