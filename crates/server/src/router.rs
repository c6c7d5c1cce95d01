//! What a request on the one HTTP port means: a JSON service's call, a Snowflake driver's, or S3's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hydrant_bucket::Bucket;
use hydrant_leases::{Identity, Measures};
use hydrant_warehouse::driver::{DriverEndpoint, REQUEST_BYTES_MAX};
use hydrant_wire::ApiError;
use hydrant_wire::json::{self, JsonFront};
use hydrant_wire::origin::{self, AllowedHosts};
use hydrant_wire::rpc::{RpcFront, RpcService};
use hydrant_wire::sigv4::{BodyHash, ServiceKind, Verifier};
use hyper::body::Incoming;
use tokio::runtime::Handle;

/// How long such a body may take to arrive.
const DRIVER_BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A reply's body, whole or streamed from a file.
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Everything that answers on the HTTP port.
pub(crate) struct Router {
    /// Kinesis, Firehose, lease tables and measurements.
    pub(crate) json: JsonFront,
    /// Measurements and identity, in the protocols that have no target.
    pub(crate) rpc: RpcFront,
    /// Snowflake's drivers.
    pub(crate) driver: DriverEndpoint,
    /// Where the drivers' statements run.
    pub(crate) sql: Handle,
    /// S3.
    pub(crate) bucket: Arc<Bucket>,
    /// Whose signatures are good.
    pub(crate) verifier: Arc<Verifier>,
    /// Whether anyone may log in to SQL.
    pub(crate) sql_is_open: bool,
    /// Hosts that may be named where neither signature nor password is verified.
    pub(crate) hosts: AllowedHosts,
}

impl Router {
    /// Answers one request. Never fails: what goes wrong is in the reply.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        // A bucket may be called `session`; what is signed for AWS is never a driver's.
        let is_for_json = json::is_for_json(&parts);
        let is_driver =
            !is_for_json && DriverEndpoint::owns(parts.uri.path()) && !is_signed_for_aws(&parts);
        if (!self.verifier.verifies() || is_driver && self.sql_is_open)
            && let Err(refusal) = origin::check(&parts, &self.hosts)
        {
            return plain(StatusCode::FORBIDDEN, &refusal);
        }
        if is_for_json {
            let reply = self.json.answer(Request::from_parts(parts, body)).await;
            return reply.map(|body| body.map_err(|never| match never {}).boxed_unsync());
        }
        if self.rpc.owns(&parts) {
            let reply = self.rpc.answer(Request::from_parts(parts, body)).await;
            return reply.map(|body| body.map_err(|never| match never {}).boxed_unsync());
        }
        if is_driver {
            return self.driver(parts, body).await;
        }
        match self.verifier.authenticate(&parts, BodyHash::Streaming, ServiceKind::S3) {
            Ok(caller) => {
                let request = Request::from_parts(parts, body);
                self.bucket.handle(&caller.principal, request).await
            }
            Err(refusal) => self.bucket.refuse(&refusal),
        }
    }

    async fn driver(&self, parts: Parts, body: Incoming) -> Response<Body> {
        let read = Limited::new(body, REQUEST_BYTES_MAX).collect();
        let body = match tokio::time::timeout(DRIVER_BODY_TIMEOUT, read).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                let text = format!("the body could not be read: {error}");
                return plain(StatusCode::PAYLOAD_TOO_LARGE, &ApiError::new("RequestBody", text));
            }
            Err(_) => {
                let error = ApiError::new("RequestTimeout", "the body took too long to arrive");
                return plain(StatusCode::REQUEST_TIMEOUT, &error);
            }
        };
        let driver = self.driver.clone();
        let request = Request::from_parts(parts, body);
        match self.sql.spawn(async move { driver.handle(request).await }).await {
            Ok(reply) => reply.map(whole),
            Err(error) => {
                tracing::error!(%error, "a driver's request failed");
                let text = "the request could not be finished";
                plain(StatusCode::INTERNAL_SERVER_ERROR, &ApiError::internal(text))
            }
        }
    }
}

/// The services that are spoken to in the protocols that have no target.
pub(crate) fn untargeted(measures: Arc<Measures>) -> Vec<RpcService> {
    let cloudwatch = RpcService {
        signed_as: "monitoring",
        version: "2010-08-01",
        namespace: "http://monitoring.amazonaws.com/doc/2010-08-01/",
        service: measures,
    };
    let sts = RpcService {
        signed_as: "sts",
        version: "2011-06-15",
        namespace: "https://sts.amazonaws.com/doc/2011-06-15/",
        service: Arc::new(Identity),
    };
    vec![cloudwatch, sts]
}

fn is_signed_for_aws(parts: &Parts) -> bool {
    let header = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let query = parts.uri.query().unwrap_or_default();
    header.is_some_and(|h| h.starts_with(b"AWS"))
        || query.contains("X-Amz-Signature=")
        || query.contains("Signature=") && query.contains("AWSAccessKeyId=")
}

fn whole(body: impl Into<Bytes>) -> Body {
    boxed(Full::new(body.into()))
}

fn boxed(body: Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

fn plain(status: StatusCode, error: &ApiError) -> Response<Body> {
    let mut response = Response::new(whole(format!("{}: {}\n", error.code, error.message)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
