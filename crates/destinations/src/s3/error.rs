//! What a failure of the object store means for the batch.

use hydrant_core::destination::DeliveryError;
use object_store::Error;

/// Settings that cannot be a destination; the words are for the caller of the API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// A prefix breaks a rule or asks for an expression there is not.
    #[error("{member} {reason}")]
    Prefix {
        /// `Prefix` or `ErrorOutputPrefix`.
        member: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The object's keys would not be valid.
    #[error("Objects cannot be named: {0}")]
    Key(String),
    /// No such time zone.
    #[error("CustomTimeZone {0} is not a time zone of the IANA database.")]
    TimeZone(String),
    /// The bucket cannot be opened as configured.
    #[error("{0}")]
    Bucket(String),
}

/// Errors that only a change of configuration ends, against those that time may end.
///
/// A missing bucket counts as misconfigured although somebody may create it: the worker goes on
/// trying either way, only more slowly.
pub(super) fn what_to_do(bucket: &str, error: Error) -> DeliveryError {
    let text = format!("bucket {bucket}: {error}");
    let configuration = match &error {
        Error::NotFound { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => true,
        // Services differ in the status they send with these codes.
        Error::Generic { .. } => ["NoSuchBucket", "AccessDenied", "InvalidAccessKeyId"]
            .iter()
            .any(|code| text.contains(code)),
        _ => false,
    };
    if configuration { DeliveryError::Misconfigured(text) } else { DeliveryError::Retry(text) }
}
