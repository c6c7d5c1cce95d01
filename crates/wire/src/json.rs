//! AWS JSON 1.0 and 1.1, and the same in CBOR, over HTTP: from a request to the service that its target names, and back.
//!
//! Follows "AWS JSON 1.1 protocol" of the Smithy documentation and what the services answer where it
//! is silent. Knows neither the version of HTTP nor the socket.

mod cors;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hydrant_core::Random;
use hydrant_core::limits::{
    JSON_BODY_BYTES_MAX, JSON_BYTES_IN_FLIGHT_MAX, JSON_DEPTH_MAX,
    JSON_UNPACKED_BYTES_IN_FLIGHT_MAX,
};

use crate::api::{ApiError, Call, Format, JsonService, Reply};
use crate::body::{Bodies, Packing, Sent};
use crate::sigv4::{ServiceKind, Verifier};

/// The header that names an operation.
const TARGET: &str = "x-amz-target";
const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";
const CBOR: &str = "application/x-amz-cbor-1.1";

/// The body of a reply: whole, or frames of an event stream as they come.
pub type ReplyBody = UnsyncBoxBody<Bytes, Infallible>;

/// The front of the JSON services. One per process; the listener gives it whatever is not S3's or
/// another protocol's.
pub struct JsonFront {
    services: Vec<(ServiceKind, Arc<dyn JsonService>)>,
    verifier: Arc<Verifier>,
    random: Arc<Random>,
    bodies: Bodies,
}

impl std::fmt::Debug for JsonFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let targets: Vec<_> = self.services.iter().map(|(_, s)| s.target()).collect();
        f.debug_struct("JsonFront").field("targets", &targets).finish_non_exhaustive()
    }
}

impl JsonFront {
    /// A front for these services. Credentials for each have to be scoped to its signing
    /// name: `kinesis` for `Kinesis_20131202`.
    pub fn new(
        services: Vec<Arc<dyn JsonService>>,
        verifier: Arc<Verifier>,
        random: Arc<Random>,
    ) -> Self {
        let services = services.into_iter().map(|s| (kind_of(s.target()), s)).collect();
        let (sent, unpacked) = (JSON_BYTES_IN_FLIGHT_MAX, JSON_UNPACKED_BYTES_IN_FLIGHT_MAX);
        let bodies = Bodies::new(JSON_BODY_BYTES_MAX, sent, unpacked);
        Self { services, verifier, random, bodies }
    }

    /// Answers one request. Never fails: what goes wrong is in the reply, in AWS's form, and every
    /// reply carries its `x-amzn-RequestId`. Reads the body to its end, at most
    /// [`JSON_BODY_BYTES_MAX`], for at most a minute.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        let mut reply = match cors::preflight(&parts) {
            Some(reply) => reply,
            None => match self.reply(&parts, body).await {
                Ok(reply) | Err(reply) => reply,
            },
        };
        cors::expose(&parts, &mut reply);
        let id = self.random.bytes::<64>();
        let (request_id, id_2) = id.split_at(16);
        let mut version_4 = [0; 16];
        version_4.copy_from_slice(request_id);
        let request_id = uuid::Builder::from_random_bytes(version_4).into_uuid().to_string();
        tracing::debug!(
            request_id,
            target = target_of(&parts.headers),
            status = reply.status().as_u16(),
            "answered"
        );
        for (name, value) in
            [("x-amzn-requestid", request_id), ("x-amz-id-2", STANDARD.encode(id_2))]
        {
            if let Ok(value) = HeaderValue::from_str(&value) {
                reply.headers_mut().insert(name, value);
            }
        }
        reply
    }

    async fn reply<B>(
        &self,
        parts: &Parts,
        mut body: B,
    ) -> Result<Response<ReplyBody>, Response<ReplyBody>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let routed = self.route(parts).and_then(|to| match self.verifier.screen(parts, to.kind) {
            Ok(_) => Ok(to),
            Err(refusal) => Err(Refusal::Error(refusal)),
        });
        let Route { kind, service, operation, format, packing } = match routed {
            Ok(to) => to,
            Err(refusal) => {
                let skipped = self.bodies.skip(&mut body, &parts.headers).await;
                skipped.map_err(|e| error_response(&e.into(), parts))?;
                return Err(refusal.into_response(parts));
            }
        };
        let hashed = self.verifier.verifies();
        let sent = self.bodies.read(&mut body, &parts.headers, hashed).await;
        let sent = sent.map_err(|e| error_response(&e.into(), parts))?;

        let called = async {
            let caller = self.verifier.authenticate(parts, sent.hash(), kind)?;
            // What is signed is the body as it was sent.
            let Sent { bytes: body, room, .. } = self.bodies.unpack(sent, packing).await?;
            if body.is_empty() {
                return Err(ApiError::new("SerializationException", ""));
            }
            let called = Arc::clone(service);
            let (principal, operation) = (caller.principal, operation.to_owned());
            let call = Call { principal, operation, format, body };
            if !called.checks_depth(&call.operation) {
                call.check_depth()?;
            }
            // On a task of its own, because a client that hangs up drops this future: what an
            // operation has begun it finishes, so that a row and the copy of it do not part.
            let call = tokio::spawn(async move {
                let _room = room;
                called.call(call).await
            });
            call.await.unwrap_or_else(|e| Err(ApiError::internal(e.to_string())))
        };
        let reply = called.await.map_err(|e| error_response(&e, parts))?;
        Ok(match reply {
            Reply::Whole(body) => answered(StatusCode::OK, body, service, parts),
            // A checksum stands in front of what it is of.
            Reply::Pieces(_) if service.has_checksums() => {
                answered(StatusCode::OK, reply.whole().unwrap_or_default(), service, parts)
            }
            Reply::Pieces(pieces) => {
                let mut response = Response::new(pieces.boxed_unsync());
                let media_type = HeaderValue::from_static(reply_type(&parts.headers));
                response.headers_mut().insert(CONTENT_TYPE, media_type);
                response
            }
            Reply::Refused { status, body } => {
                let status = StatusCode::from_u16(status);
                answered(status.unwrap_or(StatusCode::BAD_REQUEST), body, service, parts)
            }
            Reply::Stream(frames) => {
                let frames = frames.map(|bytes| Ok(Frame::data(bytes)));
                let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
                let media_type = HeaderValue::from_static(EVENT_STREAM);
                response.headers_mut().insert(CONTENT_TYPE, media_type);
                response
            }
        })
    }

    /// The service and the operation that a request names.
    fn route<'a>(&'a self, parts: &'a Parts) -> Result<Route<'a>, Refusal> {
        let target = target_of(&parts.headers).split_once('.');
        if parts.method != Method::POST {
            return Err(Refusal::NotAnOperation);
        }
        let format = match media_type(&parts.headers) {
            "application/x-amz-json-1.1" | "application/x-amz-json-1.0" => Format::Json,
            CBOR => Format::Cbor,
            _ if target.is_none() => return Err(Refusal::NotAnOperation),
            _ => return Err(Refusal::MediaType),
        };
        let packing = Packing::of(&parts.headers).map_err(Refusal::Error)?;
        let unknown = || Refusal::Error(ApiError::new("UnknownOperationException", ""));
        let (prefix, operation) = target.ok_or_else(unknown)?;
        let found = self.services.iter().find(|(_, s)| s.target() == prefix);
        let (kind, service) = found.ok_or_else(unknown)?;
        if !service.speaks(format) {
            return Err(Refusal::Error(ApiError::new(
                "SerializationException",
                "This service is not spoken to in CBOR: set the system property \
                 aws.cborEnabled=false, or the environment variable CBOR_ENABLED=false",
            )));
        }
        Ok(Route { kind: *kind, service, operation, format, packing })
    }
}

/// Whether a request is for this front: it names an operation, or is a browser's question whether a page
/// may send one that does.
pub fn is_for_json(parts: &Parts) -> bool {
    parts.headers.contains_key(TARGET)
        || parts.method == Method::OPTIONS
            && parts.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().any(|names| {
                let names = names.to_str().unwrap_or_default().split(',');
                names.into_iter().any(|name| name.trim().eq_ignore_ascii_case(TARGET))
            })
}

/// Where a request goes.
struct Route<'a> {
    kind: ServiceKind,
    service: &'a Arc<dyn JsonService>,
    operation: &'a str,
    format: Format,
    packing: Packing,
}

/// What is refused before an operation is known.
enum Refusal {
    Error(ApiError),
    NotAnOperation,
    MediaType,
}

impl Refusal {
    fn into_response(self, parts: &Parts) -> Response<ReplyBody> {
        match self {
            Self::Error(e) => error_response(&e, parts),
            Self::NotAnOperation => {
                let text = "<AccessDeniedException>\n  <Message>Unable to determine \
                            service/operation name to be authorized</Message>\n\
                            </AccessDeniedException>\n";
                typed(StatusCode::FORBIDDEN, "application/xml", text.into())
            }
            Self::MediaType => {
                let text = "<UnknownOperationException/>\n";
                typed(StatusCode::NOT_FOUND, "application/xml", text.into())
            }
        }
    }
}

fn kind_of(target: &'static str) -> ServiceKind {
    match target.split('_').next().unwrap_or(target) {
        "DynamoDB" => ServiceKind::Json("dynamodb"),
        "GraniteServiceVersion20100801" => ServiceKind::Json("monitoring"),
        "Kinesis" => ServiceKind::Json("kinesis"),
        "Firehose" => ServiceKind::Json("firehose"),
        other => ServiceKind::Json(other),
    }
}

fn target_of(headers: &HeaderMap) -> &str {
    headers.get(TARGET).and_then(|v| v.to_str().ok()).unwrap_or("")
}

fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim()
}

/// The media type of a reply: that of the request.
fn reply_type(headers: &HeaderMap) -> &'static str {
    match media_type(headers) {
        "application/x-amz-json-1.0" => "application/x-amz-json-1.0",
        CBOR => CBOR,
        _ => "application/x-amz-json-1.1",
    }
}

/// A service's own words, with their checksum where it gives one.
fn answered(
    status: StatusCode,
    body: Bytes,
    service: &Arc<dyn JsonService>,
    parts: &Parts,
) -> Response<ReplyBody> {
    let checksum = service.has_checksums().then(|| {
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        crc.sum()
    });
    let mut response = typed(status, reply_type(&parts.headers), body);
    if let Some(sum) = checksum {
        response.headers_mut().insert("x-amz-crc32", HeaderValue::from(sum));
    }
    response
}

fn typed(status: StatusCode, media_type: &'static str, body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An error in the envelope of AWS JSON, in the request's format. The text of an error of ours stays in
/// the log.
pub fn error_response(error: &ApiError, parts: &Parts) -> Response<ReplyBody> {
    if error.status >= 500 {
        tracing::error!(code = error.code, error = error.message, "failed");
    }
    let media_type = reply_type(&parts.headers);
    let format = if media_type == CBOR { Format::Cbor } else { Format::Json };
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    typed(status, media_type, error.body(format))
}

/// Whether no value is nested deeper than [`JSON_DEPTH_MAX`]. Strings are skipped by `memchr`, so
/// that base64 costs next to nothing. A text that is no JSON gets any answer.
pub(crate) fn is_shallow(text: &[u8]) -> bool {
    let (mut at, mut depth) = (0, 0usize);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => loop {
                let Some(end) = memchr::memchr2(b'"', b'\\', &text[at..]) else { return true };
                let escape = text[at + end] == b'\\';
                at = (at + end + if escape { 2 } else { 1 }).min(text.len());
                if !escape {
                    break;
                }
            },
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return false;
        }
    }
    true
}
