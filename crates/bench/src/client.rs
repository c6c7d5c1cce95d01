//! Signed requests over connections of our own: one request at a time on each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::settings::Target;

/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a stream or a consumer may take until it is ready, or gone.
const READY: Duration = Duration::from_secs(120);
/// Wait before it is looked at again.
const LOOK: Duration = Duration::from_millis(50);
/// How much of an error's text is told.
const ERROR_TEXT_BYTES_MAX: usize = 1_000;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A setting that cannot be, and what to do.
    #[error("{0}")]
    Setting(String),
    /// The server cannot be reached, or left.
    #[error("{0}")]
    Connection(String),
    /// The server refused a request.
    #[error("{operation}: {status}: {text}")]
    Refused {
        /// The operation.
        operation: String,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        text: String,
    },
    /// An answer is not what the API's model says.
    #[error("{0}")]
    Answer(String),
}

impl BenchError {
    /// Whether the server refused with this error's name.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Refused { text, .. } if text.contains(name))
    }
}

/// Where the server is, and with what its requests are signed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Place {
    uri: Uri,
    authority: String,
    key: Arc<AwsCredential>,
    region: Arc<str>,
    /// The server's process, if it is known.
    pub(crate) pid: Option<u32>,
}

impl Place {
    pub(crate) fn new(
        endpoint: &str,
        pid: Option<u32>,
        id: &str,
        secret: &str,
        region: &str,
    ) -> Result<Self, BenchError> {
        let wrong = |why: &str| BenchError::Setting(format!("endpoint {endpoint}: {why}"));
        let uri: Uri = endpoint.parse().map_err(|_| wrong("not a URL"))?;
        if uri.scheme_str() != Some("http") || !uri.path().trim_end_matches('/').is_empty() {
            return Err(wrong("only http://HOST:PORT can be measured"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        let authority = format!("{}:{port}", authority.host());
        let uri = format!("http://{authority}/").parse().map_err(|_| wrong("not a URL"))?;
        let key =
            AwsCredential { key_id: id.to_owned(), secret_key: secret.to_owned(), token: None };
        Ok(Self { uri, authority, key: Arc::new(key), region: region.into(), pid })
    }

    async fn tcp(&self) -> Result<TokioIo<TcpStream>, BenchError> {
        let cannot = |error| BenchError::Connection(format!("{}: {error}", self.authority));
        let socket = TcpStream::connect(&self.authority).await.map_err(cannot)?;
        socket.set_nodelay(true).map_err(cannot)?;
        Ok(TokioIo::new(socket))
    }

    /// A connection for one request after another.
    pub(crate) async fn connect(&self) -> Result<Connection, BenchError> {
        let (sender, connection) = http1::handshake(self.tcp().await?).await.map_err(lost)?;
        tokio::spawn(connection);
        Ok(Connection { place: self.clone(), sender })
    }

    /// A connection for subscriptions.
    pub(crate) async fn connect_http2(
        &self,
    ) -> Result<http2::SendRequest<Full<Bytes>>, BenchError> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.adaptive_window(true);
        let (sender, connection) = builder.handshake(self.tcp().await?).await.map_err(lost)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A signed request of an operation.
    pub(crate) fn signed(&self, operation: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(HttpRequestBody::from(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let json = HeaderValue::from_static("application/x-amz-json-1.1");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let target = HeaderValue::try_from(format!("Kinesis_20131202.{operation}"));
        if let Ok(target) = target {
            request.headers_mut().insert("x-amz-target", target);
        }
        AwsAuthorizer::new(&self.key, "kinesis", &self.region).authorize(&mut request, None);
        request.map(|_| Full::new(body))
    }
}

/// A connection with one request at a time.
pub(crate) struct Connection {
    place: Place,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Sends a body and reads the whole answer.
    pub(crate) async fn send(&mut self, operation: &str, body: Bytes) -> Result<Bytes, BenchError> {
        let mut request = self.place.signed(operation, body);
        *request.uri_mut() = Uri::from_static("/");
        let answer = async {
            self.sender.ready().await.map_err(lost)?;
            let response = self.sender.send_request(request).await.map_err(lost)?;
            let status = response.status();
            let text = response.into_body().collect().await.map_err(lost)?.to_bytes();
            if status.is_success() { Ok(text) } else { Err(refused(operation, status, &text)) }
        };
        let slow = |_| BenchError::Connection(format!("{operation}: no answer in {ANSWER:?}"));
        timeout(ANSWER, answer).await.map_err(slow)?
    }

    /// Calls an operation that is not measured.
    pub(crate) async fn call(
        &mut self,
        operation: &str,
        body: &Value,
    ) -> Result<Value, BenchError> {
        let answer = self.send(operation, body.to_string().into()).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        let not_json = |error| BenchError::Answer(format!("{operation}: {error}"));
        serde_json::from_slice(&answer).map_err(not_json)
    }
}

pub(crate) fn lost(error: hyper::Error) -> BenchError {
    BenchError::Connection(format!("the connection broke: {error}"))
}

pub(crate) fn refused(operation: &str, status: http::StatusCode, text: &[u8]) -> BenchError {
    let text = String::from_utf8_lossy(&text[..text.len().min(ERROR_TEXT_BYTES_MAX)]);
    BenchError::Refused {
        operation: operation.to_owned(),
        status: status.as_u16(),
        text: text.into_owned(),
    }
}

/// Reads the rest of a refusal.
pub(crate) async fn refusal(
    operation: &str,
    status: http::StatusCode,
    body: Incoming,
) -> BenchError {
    match body.collect().await {
        Ok(text) => refused(operation, status, &text.to_bytes()),
        Err(error) => lost(error),
    }
}

/// The stream of one measurement.
pub(crate) struct Stream {
    place: Place,
    name: String,
}

impl Stream {
    /// Makes it and waits until it is ACTIVE.
    pub(crate) async fn create(place: &Place, target: &Target) -> Result<Self, BenchError> {
        let mut connection = place.connect().await?;
        let name = target.stream.clone();
        let body = json!({"StreamName": name, "ShardCount": target.shards});
        match connection.call("CreateStream", &body).await {
            Err(error) if error.is("ResourceInUseException") => {
                return Err(BenchError::Setting(format!(
                    "stream {name} is there already: delete it, or name another with --stream"
                )));
            }
            outcome => outcome?,
        };
        let stream = Self { place: place.clone(), name };
        let body = json!({"StreamName": stream.name});
        let ready = async {
            loop {
                let answer = connection.call("DescribeStreamSummary", &body).await?;
                if answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE" {
                    return Ok(());
                }
                sleep(LOOK).await;
            }
        };
        timely("the stream is not ACTIVE", ready).await?;
        Ok(stream)
    }

    /// Deletes it, and its consumers with it, and waits until it is gone.
    pub(crate) async fn delete(self) -> Result<(), BenchError> {
        let mut connection = self.place.connect().await?;
        let body = json!({"StreamName": self.name, "EnforceConsumerDeletion": true});
        connection.call("DeleteStream", &body).await?;
        let body = json!({"StreamName": self.name});
        timely("the stream is not deleted", async {
            loop {
                match connection.call("DescribeStreamSummary", &body).await {
                    Err(error) if error.is("ResourceNotFoundException") => return Ok(()),
                    answer => answer?,
                };
                sleep(LOOK).await;
            }
        })
        .await
    }
}

/// Waits until the server is as far as a measurement needs it.
pub(crate) async fn timely<T>(
    what: &str,
    ready: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    let late = |_| BenchError::Answer(format!("{what} after {READY:?}"));
    timeout(READY, ready).await.map_err(late)?
}

/// Waits a little before the server is looked at again.
pub(crate) async fn pause() {
    sleep(LOOK).await;
}
