//! What an operation answers when it does not do what it was asked: AWS's exceptions.

use hydrant_core::control::ControlError;
use hydrant_core::log::{KeyError, LogError};
use hydrant_wire::ApiError;

/// What the model says of a `DryRunOperationException`.
const DRY_RUN: &str = "The request was rejected because the DryRun parameter was specified.";

/// An exception of Kinesis Data Streams, by AWS's name, with the text AWS gives it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller may not do this to that resource.
    #[error("{0}")]
    AccessDenied(String),
    /// The request asked whether it would succeed. It would; nothing was done.
    #[error("{DRY_RUN}")]
    DryRunOperation,
    /// The shard iterator is older than five minutes.
    #[error("{0}")]
    ExpiredIterator(String),
    /// The pagination token is older than five minutes.
    #[error("{0}")]
    ExpiredNextToken(String),
    /// A parameter is not what it may be, given the stream.
    #[error("{0}")]
    InvalidArgument(String),
    /// A key of an encrypted stream cannot be used.
    #[error("{0}")]
    Key(KeyError),
    /// There would be more of something than there may be.
    #[error("{0}")]
    LimitExceeded(String),
    /// No room for the record now. Clients repeat the call after a pause.
    #[error("{0}")]
    ProvisionedThroughputExceeded(String),
    /// The resource exists, or is in a state that does not allow this.
    #[error("{0}")]
    ResourceInUse(String),
    /// There is no such resource.
    #[error("{0}")]
    ResourceNotFound(String),
    /// A member breaks a constraint of the model.
    #[error("{0}")]
    Validation(String),
    /// AWS has this operation or this member, hydrant has not.
    #[error("{0}")]
    UnsupportedOperation(String),
    /// Nobody has this operation.
    #[error("unknown operation")]
    UnknownOperation,
    /// The request could not be read.
    #[error(transparent)]
    Unreadable(ApiError),
    /// Something of ours failed. The text is for the log. Clients repeat the call.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// AWS's name for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AccessDenied(_) => "AccessDeniedException",
            Self::DryRunOperation => "DryRunOperationException",
            Self::ExpiredIterator(_) => "ExpiredIteratorException",
            Self::ExpiredNextToken(_) => "ExpiredNextTokenException",
            Self::InvalidArgument(_) => "InvalidArgumentException",
            Self::Key(KeyError::NotFound(_)) => "KMSNotFoundException",
            Self::Key(KeyError::Disabled(_)) => "KMSDisabledException",
            Self::Key(KeyError::InvalidState(_)) => "KMSInvalidStateException",
            Self::Key(KeyError::Denied(_)) => "KMSAccessDeniedException",
            Self::LimitExceeded(_) => "LimitExceededException",
            Self::ProvisionedThroughputExceeded(_) => "ProvisionedThroughputExceededException",
            Self::ResourceInUse(_) => "ResourceInUseException",
            Self::ResourceNotFound(_) => "ResourceNotFoundException",
            Self::Validation(_) => "ValidationException",
            Self::UnsupportedOperation(_) => "UnsupportedOperationException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Unreadable(e) => e.code,
            Self::Internal(_) => "InternalFailure",
        }
    }

    /// The HTTP status it travels with.
    pub fn status(&self) -> u16 {
        match self {
            Self::Unreadable(e) => e.status,
            Self::Internal(_) => 500,
            _ => 400,
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = match &error {
            Error::UnknownOperation => String::new(),
            Error::Unreadable(e) => e.message.clone(),
            other => other.to_string(),
        };
        Self { status: error.status(), code: error.code(), message }
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Self::Unreadable(error)
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Key(error) => Self::Key(error),
            other => Self::Internal(other.to_string()),
        }
    }
}
