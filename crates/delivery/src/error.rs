//! What an operation answers when it cannot do what it was asked: AWS's exceptions.

use hydrant_core::capture::CaptureError;
use hydrant_core::control::ControlError;
use hydrant_core::log::LogError;
use hydrant_core::names::{DeliveryStreamName, Scope};
use hydrant_wire::ApiError;

/// The exceptions of Firehose (botocore's model, 2015-08-04), and those every AWS service has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Validation(String),
    #[error("{0}")]
    Serialization(String),
    #[error("{0}")]
    InvalidArgument(String),
    #[error("Firehose {name} under account {} not found.", scope.account)]
    NotFound { scope: Scope, name: DeliveryStreamName },
    #[error("{0}")]
    InUse(String),
    #[error("{0}")]
    LimitExceeded(String),
    #[error("{0}")]
    ConcurrentModification(String),
    #[error("Operation {0} is not known.")]
    UnknownOperation(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn not_found(scope: &Scope, name: &DeliveryStreamName) -> Self {
        Self::NotFound { scope: scope.clone(), name: name.clone() }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Validation(_) => "ValidationException",
            Self::Serialization(_) => "SerializationException",
            Self::InvalidArgument(_) => "InvalidArgumentException",
            Self::NotFound { .. } => "ResourceNotFoundException",
            Self::InUse(_) => "ResourceInUseException",
            Self::LimitExceeded(_) => "LimitExceededException",
            Self::ConcurrentModification(_) => "ConcurrentModificationException",
            Self::UnknownOperation(_) => "UnknownOperationException",
            Self::Unavailable(_) => "ServiceUnavailableException",
            Self::Internal(_) => "InternalFailure",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Unavailable(_) => 503,
            Self::Internal(_) => 500,
            _ => 400,
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self { status: error.status(), code: error.code(), message: error.to_string() }
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Conflict { .. } => Self::ConcurrentModification(
                "The Firehose stream was changed by another request. Read it and try again.".into(),
            ),
            ControlError::TooLarge(_) => {
                Self::InvalidArgument("The configuration is too large to be kept.".into())
            }
            ControlError::Full | ControlError::Unavailable(_) => {
                Self::Unavailable(error.to_string())
            }
            ControlError::Corrupt(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<CaptureError> for Error {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::Unavailable(_) => Self::Unavailable(error.to_string()),
            CaptureError::Exists { .. } | CaptureError::InUse { .. } => {
                Self::InUse(error.to_string())
            }
            CaptureError::NotFound { .. } | CaptureError::Invalid(_) => {
                Self::InvalidArgument(error.to_string())
            }
        }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full | LogError::Unavailable(_) => Self::Unavailable(error.to_string()),
            LogError::Invalid(reason) => Self::InvalidArgument(reason.to_owned()),
            LogError::NotFound | LogError::Sealed | LogError::Corrupt(_) | LogError::Key(_) => {
                Self::Internal(error.to_string())
            }
        }
    }
}
