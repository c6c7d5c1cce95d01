//! What a service and its edge agree on: an authenticated caller, an operation, an AWS error.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};
use hydrant_core::names::Scope;
use serde::{Deserialize, Serialize};

use crate::{cbor, json, shape};

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

    /// The error as a reply's body, or as the payload of an exception in an event stream: its name and
    /// its text. The text of an error of ours is for the log and not in it.
    pub fn body(&self, format: Format) -> Bytes {
        // The parser in front of AWS's services writes the name with a capital.
        let name = if self.code == "SerializationException" { "Message" } else { "message" };
        let told = !self.message.is_empty() && self.code != "InternalFailure";
        let members = [("__type", self.code), (name, self.message.as_str())];
        let members = &members[..if told { 2 } else { 1 }];
        match format {
            Format::Json => {
                let members = members.iter().map(|(n, v)| ((*n).to_owned(), (*v).into()));
                serde_json::Value::Object(members.collect()).to_string().into()
            }
            Format::Cbor => {
                let mut out = cbor::Writer::with_capacity(64 + self.message.len());
                out.map(members.len());
                for (name, value) in members {
                    out.text(name).text(value);
                }
                out.into_bytes()
            }
        }
    }
}

/// How a request's body and its reply are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// AWS JSON 1.0 and 1.1.
    Json,
    /// `application/x-amz-cbor-1.1`, as the Java SDK speaks it to Kinesis.
    Cbor,
}

impl Format {
    /// The media type of a payload in this format, within an event stream too.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }
}

/// One call of an operation, authenticated.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who calls.
    pub principal: Principal,
    /// The operation's name.
    pub operation: String,
    /// How `body` is written and the reply has to be.
    pub format: Format,
    /// The request: at most [`hydrant_core::limits::JSON_BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
}

impl Call {
    /// A JSON call for the tests of a service, where there is no signature to verify.
    /// The caller's duty: tests only (`cargo xtask tidy` looks).
    pub fn for_tests(scope: Scope, operation: &str, body: impl Into<Bytes>) -> Self {
        Self {
            principal: Principal::for_tests(scope),
            operation: operation.to_owned(),
            format: Format::Json,
            body: body.into(),
        }
    }

    /// The account and region the call is for.
    pub fn scope(&self) -> &Scope {
        self.principal.scope()
    }

    /// Reads the request. A body that cannot be read, or a member of another type than the model's,
    /// is `SerializationException`, with AWS's text where AWS gives one.
    pub fn read<'de, T: Deserialize<'de>>(&'de self) -> Result<T, ApiError> {
        match self.format {
            Format::Json => shape::parse(&self.body),
            Format::Cbor => cbor::parse(&self.body),
        }
    }

    /// Refuses a body of JSON in which a value is nested deeper than
    /// [`hydrant_core::limits::JSON_DEPTH_MAX`]. The edge has done so, unless the service
    /// [`checks_depth`](JsonService::checks_depth) itself.
    pub fn check_depth(&self) -> Result<(), ApiError> {
        if self.format == Format::Json && !json::is_shallow(&self.body) {
            return Err(ApiError::new("SerializationException", ""));
        }
        Ok(())
    }

    /// Writes a reply in the request's format. Members are written in the order of the type's; what
    /// is absent has to be left out (`skip_serializing_if`), as AWS does.
    pub fn write<T: Serialize>(&self, reply: &T) -> Result<Bytes, ApiError> {
        match self.format {
            Format::Json => {
                let written = serde_json::to_vec(reply);
                written.map(Bytes::from).map_err(|e| ApiError::internal(e.to_string()))
            }
            Format::Cbor => cbor::to_bytes(reply),
        }
    }
}

/// What an operation answers.
pub enum Reply {
    /// All of it, in the request's format; an empty one is an empty body, as AWS sends it.
    Whole(Bytes),
    /// A refusal that says more than a name and a text: the service has written all of it, in the
    /// request's format.
    Refused {
        /// HTTP status: 400 for the caller's errors, 500 and 503 for ours.
        status: u16,
        /// The whole body.
        body: Bytes,
    },
    /// As [`Self::Whole`], of a length that is known, but made piece by piece, as its client takes it.
    Pieces(Pieces),
    /// Frames of an event stream, each sent as soon as it is there. Dropped when the client goes.
    Stream(BoxStream<'static, Bytes>),
}

impl Reply {
    /// The whole reply, if it is no refusal and no stream.
    pub fn whole(self) -> Option<Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Pieces(pieces) => Some(pieces.join()),
            Self::Refused { .. } | Self::Stream(_) => None,
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => f.debug_tuple("Whole").field(bytes).finish(),
            Self::Refused { status, body } => {
                f.debug_struct("Refused").field("status", status).field("body", body).finish()
            }
            Self::Pieces(pieces) => f.debug_tuple("Pieces").field(pieces).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A long reply that is made while it is sent, so that no more of it is in memory than its client is
/// about to take.
pub struct Pieces {
    left: u64,
    pieces: Box<dyn Iterator<Item = Bytes> + Send>,
}

impl Pieces {
    /// A reply of `bytes` bytes. The caller's duty: that is what the pieces, none of which is empty, have
    /// together; a connection whose reply has another length than was said is closed. What the pieces
    /// hold is let go once the last of them was taken, or the client is gone.
    pub fn new(bytes: u64, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self { left: bytes, pieces: Box::new(pieces) }
    }

    fn join(self) -> Bytes {
        let mut whole = Vec::with_capacity(usize::try_from(self.left).unwrap_or(0));
        self.for_each(|piece| whole.extend_from_slice(&piece));
        whole.into()
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.next()?;
        self.left = self.left.saturating_sub(piece.len() as u64);
        Some(piece)
    }
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl From<Bytes> for Reply {
    fn from(whole: Bytes) -> Self {
        Self::Whole(whole)
    }
}

/// A service whose operations are named by `X-Amz-Target`: the edge routes to it by the prefix.
#[async_trait]
pub trait JsonService: Send + Sync + 'static {
    /// What stands before the dot in `X-Amz-Target`, such as `Kinesis_20131202`.
    fn target(&self) -> &'static str;

    /// Whether it takes requests in this format. JSON, unless the service says more.
    fn speaks(&self, format: Format) -> bool {
        format == Format::Json
    }

    /// Whether its replies carry the CRC-32 of their body in `x-amz-crc32`, as DynamoDB's do: older
    /// SDKs compare it.
    fn has_checksums(&self) -> bool {
        false
    }

    /// Whether an operation makes sure by itself that its body is not nested too deep, by
    /// [`Call::check_depth`] or by taking none that is: a look at every byte less. No, unless the
    /// service says more.
    fn checks_depth(&self, _operation: &str) -> bool {
        false
    }

    /// Runs one operation. An unknown one is `UnknownOperationException`.
    async fn call(&self, call: Call) -> Result<Reply, ApiError>;
}
