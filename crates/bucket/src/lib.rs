//! An S3-compatible endpoint over a directory.
//!
//! The protocol is the `s3s` crate's; behind it, bytes are in immutable files ([`files`]) and names
//! are rows of the control store ([`index`]). An object becomes visible in one commit, together with
//! its notification for the pipes; before that commit its file is synced, after it nothing can take
//! it back. Memory: two transfers of 1 MiB for each request under way, whatever the object's size;
//! the requests that send a body wait for one of 256 places, and lose it if they send too slowly.

mod body;
mod checksum;
mod chunked;
mod edge;
mod error;
mod files;
mod front;
mod host;
mod index;
mod named;
mod ops;
mod sequencer;
mod store;
mod sweep;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hydrant_core::control::{ControlError, ControlStore};
use hydrant_core::names::AccountId;
use hydrant_core::notify::Doorbell;
use hydrant_core::{Clock, Random};
use hydrant_wire::{ApiError, Principal};
use s3s::S3Error;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::Owner;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use crate::edge::Secrets;
pub use crate::files::OnSyncError;
pub use crate::named::named_files;
pub use crate::sweep::Swept;

use crate::body::{Cause, CheckedBody};
use crate::files::Files;
use crate::front::Front;
use crate::host::Domains;
use crate::index::bucket_key;
use crate::store::Store;

/// The body of a reply.
pub type ReplyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Largest XML body of a request: a `CompleteMultipartUpload` of 10,000 parts with checksums, or a
/// `DeleteObjects` of 1,000 long keys.
const XML_BODY_BYTES_MAX: usize = 8 << 20;
/// Most bodies received at a time, over all connections: what bounds memory and open files.
const RECEIVING_MAX: usize = 256;
/// How long a request waits for its place among them before it is told to slow down.
const PLACE_WAIT: Duration = Duration::from_secs(10);
/// Canonical user id of the one owner, which S3 shows in listings.
const OWNER_ID: &str = "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a";

/// How a [`Bucket`] is set up.
#[derive(Clone)]
pub struct BucketOptions {
    /// Directory of the data files, made with mode 0700 if it is not there. The caller's duty: one
    /// process a directory.
    pub dir: PathBuf,
    /// The account that owns every bucket.
    pub account: AccountId,
    /// Domains whose subdomains are buckets: with `localhost`, `lake.localhost:4566` is the bucket
    /// `lake`. Without port.
    pub domains: Vec<String>,
    /// Where the secret of an access key is found, to verify the signatures of chunks. `None` if
    /// signatures are not verified.
    pub secrets: Option<Secrets>,
    /// What to do when a sync fails; [`BucketOptions::new`] stops the process.
    pub on_sync_error: OnSyncError,
}

impl BucketOptions {
    /// Data in `dir`, buckets below `localhost`, no signatures verified, and a failed sync stops the
    /// process.
    pub fn new(dir: impl Into<PathBuf>, account: AccountId) -> Self {
        Self {
            dir: dir.into(),
            account,
            domains: vec!["localhost".to_owned()],
            secrets: None,
            on_sync_error: Arc::new(|path, error| {
                let path = path.display();
                tracing::error!(%path, %error, "a sync failed, what was written may be lost: stopping");
                std::process::abort();
            }),
        }
    }
}

/// The directory of a [`Bucket`] cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", dir.display())]
pub struct OpenError {
    /// The directory.
    pub dir: PathBuf,
    /// Why.
    #[source]
    pub error: io::Error,
}

/// A sweep stopped early. What it had removed is removed; the rest waits for the next one.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The index could not be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The directory could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The S3 service. One per data directory.
pub struct Bucket {
    store: Arc<Store>,
    service: S3Service,
    domains: Domains,
    secrets: Option<Secrets>,
    /// Places for requests that send a body.
    places: Semaphore,
}

impl Bucket {
    /// Opens the directory, making it if need be. Blocks for some milliseconds.
    pub fn open(
        options: BucketOptions,
        control: Arc<dyn ControlStore>,
        clock: Arc<dyn Clock>,
        random: Arc<Random>,
        doorbell: Doorbell,
    ) -> Result<Arc<Self>, OpenError> {
        let dir = options.dir;
        let files = Files::open(dir.join("data"), std::fs::File::sync_all, options.on_sync_error)
            .map_err(|error| OpenError { dir, error })?;
        let store = Store::new(files, control, clock, random, options.account, doorbell);
        let store = Arc::new(store);
        let domains = Domains::new(options.domains);
        let mut builder = S3ServiceBuilder::new(Front(Arc::clone(&store)));
        builder.set_host(domains.clone());
        let mut config = S3Config::default();
        config.xml_max_body_size = XML_BODY_BYTES_MAX;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let service = builder.build();
        let places = Semaphore::new(RECEIVING_MAX);
        Ok(Arc::new(Self { store, service, domains, secrets: options.secrets, places }))
    }

    /// Answers one request. Never fails: what goes wrong is an S3 error reply with a request id.
    ///
    /// The caller's duty: the request's signature is verified, which `principal` proves, and its
    /// headers are as they came (`Authorization` and a presigned URL's parameters included, which
    /// the signatures of chunks begin with).
    pub async fn handle<B>(&self, principal: &Principal, request: Request<B>) -> Response<ReplyBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Cause>,
    {
        let id = self.request_id();
        let body = |body: B| UnsyncBoxBody::new(body.map_err(Into::into));
        let reply = self.answer(principal, request.map(body)).await;
        finish(reply, &id)
    }

    async fn answer(
        &self,
        principal: &Principal,
        request: Request<UnsyncBoxBody<Bytes, Cause>>,
    ) -> Result<Response<s3s::Body>, S3Error> {
        let (mut parts, body) = request.into_parts();
        let account = &self.store.account;
        let prepared = edge::prepare(&mut parts, principal, account, self.secrets.as_ref())?;
        let _place = match parts.method {
            Method::PUT | Method::POST => Some(self.place().await?),
            _ => None,
        };
        let (body, outcome) = CheckedBody::new(body, prepared.decoder, prepared.declared);
        parts.extensions.insert(outcome.clone());
        parts.extensions.insert(principal.clone());
        let request = Request::from_parts(parts, s3s::Body::http_body_unsync(body));
        let reply = self.service.call(request).await;
        // Whatever the operation made of a body that is not as declared, this is the reason.
        if let Some(cause) = outcome.error() {
            return Err(error::from_body(&cause));
        }
        let mut reply = reply.map_err(|cause| error::internal(format!("{cause:?}")))?;
        // The protocol crate says so for GET alone.
        if reply.status() == StatusCode::OK && reply.headers().contains_key(CONTENT_RANGE) {
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(reply)
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>, S3Error> {
        let place = tokio::time::timeout(PLACE_WAIT, self.places.acquire()).await;
        place.ok().and_then(Result::ok).ok_or_else(error::slow_down)
    }

    /// The reply to a request that was refused before it got here (an authentication error), in S3's
    /// form.
    pub fn refuse(&self, cause: &ApiError) -> Response<ReplyBody> {
        let status = StatusCode::from_u16(cause.status).unwrap_or(StatusCode::FORBIDDEN);
        finish(Err(error::unlisted(cause.code, status, cause.message.clone())), &self.request_id())
    }

    /// Whether hydrant has a bucket of this name: `s3://name` is then here and not on AWS.
    pub async fn exists(&self, name: &str) -> Result<bool, ControlError> {
        Ok(self.store.control.get(&bucket_key(name)).await?.is_some())
    }

    /// Whether a `Host` names a bucket (`lake.localhost:4566`), so that the request is S3's whatever
    /// its path.
    pub fn owns_host(&self, host: &str) -> bool {
        self.domains.bucket_of(host).is_some()
    }

    /// Removes files and rows that a crash left behind, and counts the objects. Safe while requests
    /// are served; the caller's duty: once after opening, and seldom after that.
    pub async fn sweep(&self) -> Result<Swept, SweepError> {
        self.store.sweep().await
    }

    fn request_id(&self) -> String {
        hex::encode_upper(self.store.random.bytes::<8>())
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

/// Puts the request id into an error's body, where S3 has it; the protocol crate leaves it out.
fn name_request(reply: Response<s3s::Body>, id: &str) -> Response<s3s::Body> {
    const END: &[u8] = b"</Error>";
    let failed = reply.status().is_client_error() || reply.status().is_server_error();
    let Some(bytes) = reply.body().bytes().filter(|bytes| failed && bytes.ends_with(END)) else {
        return reply;
    };
    let mut body = bytes[..bytes.len() - END.len()].to_vec();
    if !body.windows(11).any(|w| w == b"<RequestId>") {
        body.extend_from_slice(format!("<RequestId>{id}</RequestId>").as_bytes());
    }
    body.extend_from_slice(END);
    reply.map(|_| s3s::Body::from(body))
}

/// Writes control characters as references, as S3 does: a carriage return is a line feed to whoever
/// reads it plain, and the protocol crate leaves it plain.
fn escape_controls(reply: Response<s3s::Body>) -> Response<s3s::Body> {
    let is_control = |b: &u8| *b < 0x20 && !matches!(*b, b'\t' | b'\n');
    let kind = reply.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_xml = kind == Some(b"application/xml");
    let Some(bytes) = reply.body().bytes().filter(|b| is_xml && b.iter().any(is_control)) else {
        return reply;
    };
    let mut body = Vec::with_capacity(bytes.len() + 64);
    for b in &bytes {
        match is_control(b) {
            true => body.extend_from_slice(format!("&#{b};").as_bytes()),
            false => body.push(*b),
        }
    }
    reply.map(|_| s3s::Body::from(body))
}

/// Gives every reply its request id, in the error's body too.
fn finish(reply: Result<Response<s3s::Body>, S3Error>, id: &str) -> Response<ReplyBody> {
    let reply = reply.or_else(|mut cause| {
        cause.set_request_id(id);
        cause.to_http_response()
    });
    let mut reply = match reply {
        Ok(reply) => escape_controls(name_request(reply, id))
            .map(|body| UnsyncBoxBody::new(BodyExt::map_err(body, Into::into))),
        Err(cause) => {
            tracing::error!(error = %cause, "an error reply could not be written");
            let empty = Full::new(Bytes::new()).map_err(|never| match never {});
            let mut reply = Response::new(UnsyncBoxBody::new(empty));
            *reply.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            reply
        }
    };
    if let Ok(id) = HeaderValue::from_str(id) {
        reply.headers_mut().insert("x-amz-request-id", id);
    }
    reply
}

/// The one owner of everything.
pub(crate) fn owner() -> Owner {
    Owner { display_name: Some("hydrant".to_owned()), id: Some(OWNER_ID.to_owned()) }
}
