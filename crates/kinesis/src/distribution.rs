//! `RecordDistributionStrategy`: by partition key, or evenly over the shards of an on-demand stream.

use hydrant_core::catalog::{Distribution, StreamMode};

use crate::error::Error;

/// As AWS names them.
pub(crate) const NAMES: [&str; 2] = ["AUTO", "USER_PARTITION_KEY"];

/// AWS's name for it.
pub(crate) fn name_of(distribution: Distribution) -> &'static str {
    match distribution {
        Distribution::Auto => NAMES[0],
        Distribution::UserPartitionKey => NAMES[1],
    }
}

/// What a name that has passed the model's constraints means for a stream of this mode.
pub(crate) fn checked(name: &str, mode: StreamMode) -> Result<Distribution, Error> {
    match (name, mode) {
        ("AUTO", StreamMode::OnDemand) => Ok(Distribution::Auto),
        ("AUTO", StreamMode::Provisioned) => Err(Error::InvalidArgument(
            "RecordDistributionStrategy AUTO is only supported for streams in ON_DEMAND mode."
                .to_owned(),
        )),
        _ => Ok(Distribution::UserPartitionKey),
    }
}
