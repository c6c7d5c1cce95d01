//! The protocols that name their operation elsewhere than in `X-Amz-Target`: AWS's query protocol (a
//! form, answered in XML) and Smithy's RPC v2 in CBOR (a path).
//!
//! Follows "AWS query protocol" and "Smithy RPC v2 CBOR protocol" of the Smithy documentation. Both
//! become calls of the same services that JSON reaches: a form becomes the JSON of its members.

mod form;
#[cfg(test)]
mod tests;
mod xml;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hydrant_core::Random;

use crate::api::{ApiError, Call, Format, JsonService, Reply};
use crate::body::{Bodies, Packing, Sent};
use crate::json::ReplyBody;
use crate::sigv4::{ServiceKind, Verifier, claimed_service};

/// Largest body, also after it was unpacked (CloudWatch: 1 MB).
const BODY_BYTES_MAX: usize = 1 << 20;
/// Most bytes of bodies held at once, over all connections, and as many once they are unpacked; further
/// ones wait before they are read.
const BYTES_IN_FLIGHT_MAX: usize = 64 << 20;
const SMITHY_PROTOCOL: HeaderName = HeaderName::from_static("smithy-protocol");
const RPC_V2_CBOR: &str = "rpc-v2-cbor";

/// A service that is spoken to in these protocols.
#[derive(Clone)]
pub struct RpcService {
    /// The name that its credentials are scoped to: `monitoring`.
    pub signed_as: &'static str,
    /// The version of its API in the query protocol: `2010-08-01`.
    pub version: &'static str,
    /// The namespace of its XML.
    pub namespace: &'static str,
    /// What runs its operations. Its target is its name in the paths of RPC v2.
    pub service: Arc<dyn JsonService>,
}

/// The front of these protocols. One per process; the router gives it what [`RpcFront::owns`].
pub struct RpcFront {
    services: Vec<RpcService>,
    verifier: Arc<Verifier>,
    random: Arc<Random>,
    bodies: Bodies,
}

impl std::fmt::Debug for RpcFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.services.iter().map(|s| s.signed_as).collect();
        f.debug_struct("RpcFront").field("services", &names).finish_non_exhaustive()
    }
}

/// What a request turned out to be.
struct Read {
    operation: String,
    format: Format,
    body: Bytes,
}

impl RpcFront {
    /// A front for these services.
    pub fn new(services: Vec<RpcService>, verifier: Arc<Verifier>, random: Arc<Random>) -> Self {
        let bodies = Bodies::new(BODY_BYTES_MAX, BYTES_IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MAX);
        Self { services, verifier, random, bodies }
    }

    /// Whether a request is for one of the services: it says so in its path, or it has no target and is
    /// signed for one of them.
    pub fn owns(&self, parts: &Parts) -> bool {
        is_rpc_v2(parts)
            || !parts.headers.contains_key("x-amz-target") && self.signed(parts).is_some()
    }

    fn signed(&self, parts: &Parts) -> Option<&RpcService> {
        let name = claimed_service(parts)?;
        self.services.iter().find(|service| service.signed_as == name)
    }

    /// Answers one request. Never fails: what goes wrong is in the reply, in AWS's form. Reads the body
    /// to its end, at most 1 MiB, for at most a minute.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let (parts, mut body) = request.into_parts();
        let id = uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid().to_string();
        let (service, called) = match self.route(&parts) {
            Ok(service) => (Some(service), self.call(service, &parts, body).await),
            Err(error) => {
                let _ = self.bodies.skip(&mut body, &parts.headers).await;
                (None, Err(error))
            }
        };
        let mut response = if is_rpc_v2(&parts) {
            in_cbor(called)
        } else {
            let namespace = service.map_or("", |service| service.namespace);
            in_xml(called, namespace, &id, wants_json(&parts))
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amzn-requestid", id);
        }
        response
    }

    fn route(&self, parts: &Parts) -> Result<&RpcService, ApiError> {
        let unknown = || ApiError::new("UnknownOperationException", "");
        if is_rpc_v2(parts) {
            let (name, _) = rpc_operation(parts).ok_or_else(unknown)?;
            let found = self.services.iter().find(|s| s.service.target() == name);
            return found.filter(|s| s.service.speaks(Format::Cbor)).ok_or_else(unknown);
        }
        self.signed(parts).ok_or_else(unknown)
    }

    async fn call<B>(
        &self,
        to: &RpcService,
        parts: &Parts,
        mut body: B,
    ) -> Result<(String, Reply), ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let kind = ServiceKind::Json(to.signed_as);
        if let Err(refusal) = self.verifier.screen(parts, kind) {
            let _ = self.bodies.skip(&mut body, &parts.headers).await;
            return Err(refusal);
        }
        let hashed = self.verifier.verifies();
        let sent = self.bodies.read(&mut body, &parts.headers, hashed).await?;
        let caller = self.verifier.authenticate(parts, sent.hash(), kind)?;
        let packing = Packing::of(&parts.headers)?;
        let Sent { bytes, room, .. } = self.bodies.unpack(sent, packing).await?;
        let Read { operation, format, body } = read(to, parts, bytes)?;
        let call = Call { principal: caller.principal, operation: operation.clone(), format, body };
        let service = Arc::clone(&to.service);
        // On a task of its own, because a client that hangs up drops this future.
        let called = tokio::spawn(async move {
            let _room = room;
            service.call(call).await
        });
        let reply = called.await.map_err(|e| ApiError::internal(e.to_string()))??;
        Ok((operation, reply))
    }
}

fn is_rpc_v2(parts: &Parts) -> bool {
    parts.headers.get(SMITHY_PROTOCOL).is_some_and(|name| name == RPC_V2_CBOR)
}

/// Service and operation in `/service/NAME/operation/NAME`.
fn rpc_operation(parts: &Parts) -> Option<(&str, &str)> {
    let (_, rest) = parts.uri.path().split_once("/service/")?;
    rest.split_once("/operation/").filter(|(_, operation)| !operation.contains('/'))
}

/// Reads what an authenticated request asks for.
fn read(to: &RpcService, parts: &Parts, body: Bytes) -> Result<Read, ApiError> {
    if is_rpc_v2(parts) {
        let operation = rpc_operation(parts).map_or("", |(_, operation)| operation).to_owned();
        // An operation without members may be called without a body.
        let body = if body.is_empty() { Bytes::from_static(&[0xa0]) } else { body };
        return Ok(Read { operation, format: Format::Cbor, body });
    }
    let text = match parts.method {
        Method::GET => parts.uri.query().unwrap_or_default().as_bytes(),
        _ => &body[..],
    };
    let form = form::read(text)?;
    let operation = form.action.ok_or_else(|| ApiError::new("MissingAction", "Missing Action"))?;
    if form.version.is_some_and(|version| version != to.version) {
        return Err(ApiError::new(
            "UnknownOperationException",
            format!("Could not find operation {operation} for this version; it is {}", to.version),
        ));
    }
    Ok(Read { operation, format: Format::Json, body: form.json.to_string().into() })
}

fn wants_json(parts: &Parts) -> bool {
    parts.headers.get(ACCEPT).is_some_and(|accept| accept == "application/json")
}

fn in_cbor(called: Result<(String, Reply), ApiError>) -> Response<ReplyBody> {
    let (status, body, query_error) = match called {
        Ok((_, reply)) => match reply {
            Reply::Whole(body) if body.is_empty() => (200, Bytes::from_static(&[0xa0]), None),
            Reply::Refused { status, body } => (status, body, None),
            Reply::Stream(_) => (500, Bytes::from_static(&[0xa0]), None),
            reply => (200, reply.whole().unwrap_or_default(), None),
        },
        Err(error) => {
            log(&error);
            let (code, fault) = xml::code(&error);
            (error.status, error.body(Format::Cbor), Some(format!("{code};{fault}")))
        }
    };
    let mut response = typed(status, "application/cbor", body);
    response.headers_mut().insert(SMITHY_PROTOCOL, HeaderValue::from_static(RPC_V2_CBOR));
    if let Some(Ok(value)) = query_error.map(HeaderValue::try_from) {
        response.headers_mut().insert("x-amzn-query-error", value);
    }
    response
}

fn in_xml(
    called: Result<(String, Reply), ApiError>,
    namespace: &str,
    id: &str,
    json: bool,
) -> Response<ReplyBody> {
    let result = called.and_then(|(operation, reply)| {
        let body =
            reply.whole().ok_or_else(|| ApiError::internal("a reply that no XML can hold"))?;
        let value = match body.is_empty() {
            true => serde_json::Value::Null,
            false => {
                serde_json::from_slice(&body).map_err(|e| ApiError::internal(e.to_string()))?
            }
        };
        Ok((operation, value))
    });
    let media_type = if json { "application/json" } else { "text/xml" };
    match result {
        Ok((operation, value)) if json => {
            let text = xml::result_as_json(&operation, value, id).to_string();
            typed(200, media_type, text.into())
        }
        Ok((operation, value)) => {
            typed(200, media_type, xml::result(&operation, &value, namespace, id).into())
        }
        Err(error) => {
            log(&error);
            let text = if json {
                xml::error_as_json(&error, id).to_string()
            } else {
                xml::error(&error, namespace, id)
            };
            typed(xml::status(&error), media_type, text.into())
        }
    }
}

fn log(error: &ApiError) {
    if error.status >= 500 {
        tracing::error!(code = error.code, error = error.message, "failed");
    }
}

fn typed(status: u16, media_type: &'static str, body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
