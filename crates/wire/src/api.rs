//! What a service and its edge agree on: an authenticated caller, an operation, an AWS error.

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::names::Scope;

/// Who is calling, and for which account and region.
///
/// Only a verifier of this crate can make one, so an operation that takes a `Principal` cannot be
/// reached without authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    scope: Scope,
    access_key: String,
}

impl Principal {
    pub(crate) fn verified(scope: Scope, access_key: String) -> Self {
        Self { scope, access_key }
    }

    /// A caller for the tests of a service, where there is no signature to verify.
    /// The caller's duty: tests only (`cargo xtask tidy` looks).
    pub fn for_tests(scope: Scope) -> Self {
        Self::verified(scope, "AKIDEXAMPLE".to_owned())
    }

    /// The account and region the call is for.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The access key id that signed the call.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }
}

/// An AWS error, as one of its JSON services words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// HTTP status: 400 for the caller's errors, 500 and 503 for ours.
    pub status: u16,
    /// The exception's name, such as `ResourceNotFoundException`.
    pub code: &'static str,
    /// The text, in AWS's wording.
    pub message: String,
}

impl ApiError {
    /// An error of the caller's: status 400.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into() }
    }

    /// An error of ours: status 500, `InternalFailure`. The text is for the log, not for the caller.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, code: "InternalFailure", message: message.into() }
    }
}

/// A service that speaks AWS JSON 1.1: the edge routes to it by the prefix of `X-Amz-Target`.
#[async_trait]
pub trait JsonService: Send + Sync + 'static {
    /// What stands before the dot in `X-Amz-Target`, such as `Kinesis_20131202`.
    fn target(&self) -> &'static str;

    /// Runs one operation on a JSON body (at most [`hydrant_core::limits::JSON_BODY_BYTES_MAX`])
    /// and returns the JSON reply; an empty reply is an empty body, as AWS sends it. An unknown
    /// `operation` is `UnknownOperationException`.
    async fn call(
        &self,
        principal: &Principal,
        operation: &str,
        body: Bytes,
    ) -> Result<Bytes, ApiError>;
}
