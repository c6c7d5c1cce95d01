//! Calls from a page in a browser, answered as AWS's services answer them: any origin may call, because
//! what counts is the signature. Where none is verified, [`crate::origin`] has refused foreign pages
//! before a request comes here.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::ReplyBody;

/// How long a browser keeps the answer (AWS: two days).
const MAX_AGE_SECONDS: &str = "172800";
/// What a page may read of a reply beside its body (AWS's list).
const EXPOSED: &str =
    "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date";

/// The answer to a browser that asks whether a page may call: it may, as it wants to.
pub(super) fn preflight(parts: &Parts) -> Option<Response<ReplyBody>> {
    if parts.method != Method::OPTIONS || !parts.headers.contains_key(ORIGIN) {
        return None;
    }
    let mut reply = Response::new(Full::new(Bytes::new()).boxed_unsync());
    *reply.status_mut() = StatusCode::OK;
    for (asked, answered) in [
        (ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
        (ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
    ] {
        if let Some(value) = parts.headers.get(asked) {
            reply.headers_mut().insert(answered, value.clone());
        }
    }
    let max_age = HeaderValue::from_static(MAX_AGE_SECONDS);
    reply.headers_mut().insert(ACCESS_CONTROL_MAX_AGE, max_age);
    Some(reply)
}

/// Lets the page that made a call read the reply.
pub(super) fn expose(parts: &Parts, reply: &mut Response<ReplyBody>) {
    if !parts.headers.contains_key(ORIGIN) {
        return;
    }
    let any = HeaderValue::from_static("*");
    reply.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, any);
    if parts.method != Method::OPTIONS {
        let exposed = HeaderValue::from_static(EXPOSED);
        reply.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}
