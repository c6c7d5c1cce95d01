//! Why a caller was not let in, in the words of the JSON services and in those of S3.

use super::ServiceKind;
use super::claim::Form;
use crate::api::ApiError;

/// Why a request is not authentic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AuthError {
    /// There is no signature at all.
    Missing,
    /// Authorization header and query parameters at once.
    Both,
    /// A part of the header is missing or malformed; the text says which.
    IncompleteHeader(String),
    /// A query parameter is missing or malformed; the text says which.
    IncompleteQuery(String),
    /// The credential is malformed.
    Credential(Form, Fault),
    /// The credential is well formed, but not for this service or day.
    Scope(Form, Fault),
    /// Signed at a moment too far from ours; the text says both.
    Skew(String),
    /// A presigned URL of a moment to come; the text says which.
    Early(String),
    /// A presigned URL past its end.
    Expired(String),
    /// No such access key, or a session token nobody gave out.
    UnknownKey,
    /// A header that has to be signed is not, or a signed one is not there.
    Headers(String),
    /// The signature is not the one the secret makes.
    Mismatch,
    /// The body is not the one whose hash was signed.
    Body,
    /// The kind of payload may not be used here; the text says which.
    Payload(String),
}

/// What is wrong with a credential, in the words of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) json: String,
    /// What S3 says behind the name of the place.
    pub(super) s3: String,
}

const MISMATCH: &str = "The request signature we calculated does not match the signature you \
                        provided. Check your AWS Secret Access Key and signing method. Consult the \
                        service documentation for details.";

impl AuthError {
    /// The error as the service words it.
    pub(super) fn into_api(self, kind: ServiceKind) -> ApiError {
        match kind {
            ServiceKind::Json(_) => self.for_json(),
            ServiceKind::S3 => self.for_s3(),
        }
    }

    /// "Common error types" of the AWS JSON services.
    fn for_json(self) -> ApiError {
        let invalid = "InvalidSignatureException";
        let (code, text) = match self {
            Self::Missing => {
                ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned())
            }
            Self::Both => (
                invalid,
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP \
                 header."
                    .to_owned(),
            ),
            Self::IncompleteHeader(text) | Self::IncompleteQuery(text) => {
                ("IncompleteSignatureException", text)
            }
            Self::Credential(_, fault) => ("IncompleteSignatureException", fault.json),
            Self::Scope(_, fault) => (invalid, fault.json),
            Self::UnknownKey => (
                "UnrecognizedClientException",
                "The security token included in the request is invalid.".to_owned(),
            ),
            Self::Skew(text)
            | Self::Early(text)
            | Self::Expired(text)
            | Self::Headers(text)
            | Self::Payload(text) => (invalid, text),
            Self::Mismatch | Self::Body => (invalid, MISMATCH.to_owned()),
        };
        ApiError::new(code, text)
    }

    /// "Error responses" of the Amazon S3 API reference.
    fn for_s3(self) -> ApiError {
        let (status, code, text) = match self {
            Self::Missing => (403, "AccessDenied", "Access Denied".to_owned()),
            Self::Both => (
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, \
                 Signature query string parameter or the Authorization header should be specified"
                    .to_owned(),
            ),
            Self::IncompleteHeader(text) => (400, "AuthorizationHeaderMalformed", text),
            Self::Credential(Form::Header, fault) | Self::Scope(Form::Header, fault) => (
                400,
                "AuthorizationHeaderMalformed",
                format!("The authorization header is malformed; {}", fault.s3),
            ),
            Self::Credential(Form::Query(_), fault) | Self::Scope(Form::Query(_), fault) => (
                400,
                "AuthorizationQueryParametersError",
                format!("Error parsing the X-Amz-Credential parameter; {}", fault.s3),
            ),
            Self::IncompleteQuery(text) => (400, "AuthorizationQueryParametersError", text),
            Self::Skew(_) => (
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large."
                    .to_owned(),
            ),
            Self::Early(_) => (403, "AccessDenied", "Request is not yet valid".to_owned()),
            Self::Expired(_) => (403, "AccessDenied", "Request has expired".to_owned()),
            Self::UnknownKey => (
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.".to_owned(),
            ),
            Self::Headers(text) => (403, "AccessDenied", text),
            Self::Mismatch => (
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method."
                    .to_owned(),
            ),
            Self::Body => (
                400,
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed."
                    .to_owned(),
            ),
            Self::Payload(text) => (400, "InvalidRequest", text),
        };
        ApiError { status, code, message: text }
    }
}
