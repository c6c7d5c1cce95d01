//! What an operation answers when it does not do what it was asked: DynamoDB's exceptions.

use bytes::Bytes;
use hydrant_core::control::ControlError;
use hydrant_wire::{ApiError, Reply};
use serde::Serialize;

use crate::value::Item;

/// An exception of DynamoDB, with the text AWS gives it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A condition did not hold; the item as it is, if the caller wanted it.
    #[error("The conditional request failed")]
    ConditionalCheckFailed(Option<CheckedItem>),
    /// The same token was used for another request.
    #[error(
        "The request uses the same client token as a previous, but non-identical request. Do not reuse \
         a client token with different requests, unless the requests are identical"
    )]
    IdempotentParameterMismatch,
    /// There would be more of something than there may be.
    #[error("{0}")]
    LimitExceeded(String),
    /// The table exists, or is in a state that does not allow this.
    #[error("{0}")]
    ResourceInUse(String),
    /// There is no such table.
    #[error("{0}")]
    ResourceNotFound(String),
    /// There is no such table, for an operation on its backups.
    #[error("{0}")]
    TableNotFound(String),
    /// A transaction was not made; why, for each of its actions.
    #[error("{}", cancelled(.0))]
    TransactionCanceled(Vec<Reason>),
    /// A member is not what it may be.
    #[error("{0}")]
    Validation(String),
    /// AWS has this operation, hydrant has not.
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

/// An item that goes with a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CheckedItem(pub(crate) Item);

/// Why one action of a transaction stood in its way, if it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reason {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<CheckedItem>,
}

impl Reason {
    /// Of an action that did not stand in the way.
    pub(crate) const NONE: Self = Self { code: "None", message: None, item: None };

    /// Of an action that this error stands for; other errors end the whole request.
    pub(crate) fn of(error: Error) -> Result<Self, Error> {
        let message = Some(error.to_string());
        match error {
            Error::ConditionalCheckFailed(item) => {
                Ok(Self { code: "ConditionalCheckFailed", message, item })
            }
            Error::Validation(_) => Ok(Self { code: "ValidationError", message, item: None }),
            other => Err(other),
        }
    }
}

fn cancelled(reasons: &[Reason]) -> String {
    let codes: Vec<_> = reasons.iter().map(|reason| reason.code).collect();
    format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    )
}

impl Error {
    /// A `ValidationException` of this text.
    pub(crate) fn validation(text: impl Into<String>) -> Self {
        Self::Validation(text.into())
    }

    /// A `ValidationException` about a parameter's value.
    pub(crate) fn invalid(text: &str) -> Self {
        Self::Validation(format!("One or more parameter values were invalid: {text}"))
    }

    /// A member that DynamoDB has and hydrant has not.
    pub(crate) fn unsupported(what: &str) -> Self {
        Self::Validation(format!("hydrant does not support {what}: leave it out of the request."))
    }

    /// No table of this name, for an operation on items.
    pub(crate) fn no_table() -> Self {
        Self::ResourceNotFound("Requested resource not found".to_owned())
    }

    /// AWS's name for it, with its namespace.
    fn kind(&self) -> String {
        let (space, name) = match self {
            Self::ConditionalCheckFailed(_) => (DYNAMODB, "ConditionalCheckFailedException"),
            Self::IdempotentParameterMismatch => (DYNAMODB, "IdempotentParameterMismatchException"),
            Self::LimitExceeded(_) => (DYNAMODB, "LimitExceededException"),
            Self::ResourceInUse(_) => (DYNAMODB, "ResourceInUseException"),
            Self::ResourceNotFound(_) => (DYNAMODB, "ResourceNotFoundException"),
            Self::TableNotFound(_) => (DYNAMODB, "TableNotFoundException"),
            Self::TransactionCanceled(_) => (DYNAMODB, "TransactionCanceledException"),
            Self::Validation(_) => ("com.amazon.coral.validate", "ValidationException"),
            Self::UnsupportedOperation(_) => (DYNAMODB, "UnsupportedOperationException"),
            Self::UnknownOperation => ("com.amazon.coral.service", "UnknownOperationException"),
            Self::Unreadable(e) => ("com.amazon.coral.service", e.code),
            Self::Internal(_) => (DYNAMODB, "InternalServerError"),
        };
        format!("{space}#{name}")
    }

    /// The HTTP status it travels with.
    fn status(&self) -> u16 {
        match self {
            Self::Unreadable(e) => e.status,
            Self::Internal(_) => 500,
            _ => 400,
        }
    }

    /// The refusal as DynamoDB writes it. The text of an error of ours stays in the log.
    pub(crate) fn into_reply(self) -> Reply {
        let (kind, status) = (self.kind(), self.status());
        let mut body = serde_json::Map::new();
        body.insert("__type".to_owned(), kind.into());
        let text = match &self {
            Self::UnknownOperation => String::new(),
            Self::Unreadable(e) => e.message.clone(),
            Self::Internal(error) => {
                tracing::error!(error, "failed");
                "Internal server error".to_owned()
            }
            other => other.to_string(),
        };
        // Some of DynamoDB's texts stand under a name with a capital; readers take either.
        let name = match &self {
            Self::Unreadable(_) | Self::TransactionCanceled(_) => "Message",
            _ => "message",
        };
        if !text.is_empty() {
            body.insert(name.to_owned(), text.into());
        }
        let more = match &self {
            Self::ConditionalCheckFailed(Some(item)) => Some(("Item", serde_json::to_value(item))),
            Self::TransactionCanceled(reasons) => {
                Some(("CancellationReasons", serde_json::to_value(reasons)))
            }
            _ => None,
        };
        if let Some((name, Ok(value))) = more {
            body.insert(name.to_owned(), value);
        }
        Reply::Refused { status, body: Bytes::from(serde_json::Value::from(body).to_string()) }
    }
}

const DYNAMODB: &str = "com.amazonaws.dynamodb.v20120810";

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
