//! What S3 calls the things that go wrong.

use std::io;

use http::{HeaderMap, HeaderValue, StatusCode};
use hydrant_core::control::ControlError;
use s3s::{S3Error, S3ErrorCode};

use crate::body::BodyError;
use crate::files::ReadError;

/// An error with S3's code and words.
pub(crate) fn error(code: S3ErrorCode, text: impl Into<String>) -> S3Error {
    S3Error::with_message(code, text.into())
}

/// An error whose code the protocol crate does not list.
pub(crate) fn unlisted(code: &'static str, status: StatusCode, text: impl Into<String>) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut error = error(code, text);
    error.set_status_code(status);
    error
}

pub(crate) fn no_such_bucket() -> S3Error {
    error(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist")
}

pub(crate) fn no_such_key() -> S3Error {
    error(S3ErrorCode::NoSuchKey, "The specified key does not exist.")
}

pub(crate) fn no_such_upload() -> S3Error {
    error(
        S3ErrorCode::NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have \
         been aborted or completed.",
    )
}

pub(crate) fn precondition_failed() -> S3Error {
    error(
        S3ErrorCode::PreconditionFailed,
        "At least one of the pre-conditions you specified did not hold",
    )
}

/// `304 Not Modified`, which has to carry the ETag.
pub(crate) fn not_modified(etag: &str) -> S3Error {
    let mut error = error(S3ErrorCode::NotModified, "Not Modified");
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        headers.insert(http::header::ETAG, value);
    }
    error.set_headers(headers);
    error
}

pub(crate) fn invalid_argument(text: impl Into<String>) -> S3Error {
    error(S3ErrorCode::InvalidArgument, text)
}

pub(crate) fn invalid_request(text: impl Into<String>) -> S3Error {
    error(S3ErrorCode::InvalidRequest, text)
}

/// What a request asks for and hydrant's bucket does not do.
pub(crate) fn not_implemented(what: &str) -> S3Error {
    error(
        S3ErrorCode::NotImplemented,
        format!(
            "A header or parameter you provided implies functionality that is not implemented: {what}."
        ),
    )
}

pub(crate) fn entity_too_large() -> S3Error {
    error(S3ErrorCode::EntityTooLarge, "Your proposed upload exceeds the maximum allowed size")
}

/// The text goes to the log; the caller is told only that it is ours.
pub(crate) fn internal(text: impl std::fmt::Display) -> S3Error {
    tracing::error!(error = %text, "a bucket operation failed");
    error(S3ErrorCode::InternalError, "We encountered an internal error. Please try again.")
}

pub(crate) fn slow_down() -> S3Error {
    error(S3ErrorCode::SlowDown, "Please reduce your request rate.")
}

fn disk_full() -> S3Error {
    tracing::error!("the disk is full: an object was refused");
    error(S3ErrorCode::ServiceUnavailable, "The disk is full. Please try again later.")
}

pub(crate) fn from_control(cause: ControlError) -> S3Error {
    match cause {
        ControlError::Conflict { .. } => slow_down(),
        ControlError::Full => disk_full(),
        ControlError::Unavailable(text) => {
            tracing::error!(error = text, "the control store is unavailable");
            error(S3ErrorCode::ServiceUnavailable, "Please reduce your request rate.")
        }
        cause @ (ControlError::TooLarge(_) | ControlError::Corrupt(_)) => internal(cause),
    }
}

pub(crate) fn from_io(cause: io::Error) -> S3Error {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full(),
        _ => internal(cause),
    }
}

pub(crate) fn from_read(cause: ReadError) -> S3Error {
    internal(cause)
}

pub(crate) fn from_body(cause: &BodyError) -> S3Error {
    let text = cause.to_string();
    match cause {
        BodyError::Incomplete => error(S3ErrorCode::IncompleteBody, text),
        BodyError::TooSlow => error(S3ErrorCode::RequestTimeout, text),
        BodyError::Sha256 => unlisted("XAmzContentSHA256Mismatch", StatusCode::BAD_REQUEST, text),
        BodyError::Md5 | BodyError::Checksum(_) => error(S3ErrorCode::BadDigest, text),
        BodyError::Signature => error(S3ErrorCode::SignatureDoesNotMatch, text),
        BodyError::Trailer(_) => unlisted("MalformedTrailerError", StatusCode::BAD_REQUEST, text),
        BodyError::Framing(_) => invalid_request(text),
    }
}
