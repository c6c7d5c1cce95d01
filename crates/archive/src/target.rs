//! Where an archive is: a bucket of an S3-compatible service, or a directory.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::ArchiveError;

/// How long a request is repeated before whoever asked is told.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// How an S3-compatible service is reached. What is not given is taken from AWS's usual variables
/// (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, …).
#[derive(Clone, Default)]
pub struct StoreSettings {
    /// URL of the service.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Access key id and secret access key.
    pub key: Option<(String, String)>,
    /// How long a request is repeated before whoever asked is told; a minute without.
    pub retry_for: Option<Duration>,
}

impl StoreSettings {
    /// URL of the service, if it is not AWS.
    pub fn service(&self) -> Option<String> {
        let usual = || std::env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty());
        self.endpoint.clone().or_else(usual)
    }
}

/// An archive's place.
#[derive(Clone)]
pub struct Target {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The directory, whose names and bytes have to be synced.
    pub(crate) local: Option<PathBuf>,
}

impl Target {
    /// Opens `s3://BUCKET/PREFIX`, `file:///DIR`, or a directory by its path, which is made (mode
    /// 0700) if `make` says so. Does not connect. The error says what to do, and no secret.
    pub fn open(url: &str, settings: &StoreSettings, make: bool) -> Result<Self, ArchiveError> {
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(ArchiveError::Refused(format!("{url}: want s3://BUCKET/PREFIX")));
            }
            let store = bucket_store(bucket, settings)?;
            return Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), local: None });
        }
        let dir = match url.strip_prefix("file://") {
            Some(dir) => dir,
            None if url.contains("://") => {
                let want = format!("{url}: want s3://BUCKET/PREFIX, file:///DIR or a directory");
                return Err(ArchiveError::Refused(want));
            }
            None => url,
        };
        if make {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(ArchiveError::disk("make", dir))?;
        }
        let dir = fs::canonicalize(dir).map_err(ArchiveError::disk("open", dir))?;
        let store = LocalFileSystem::new_with_prefix(&dir)?;
        Ok(Self { store: Arc::new(store), local: Some(dir) })
    }

    /// A place in memory or any other store.
    pub fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, local: None }
    }

    /// The directory, where it is one.
    pub fn dir(&self) -> Option<&Path> {
        self.local.as_deref()
    }

    /// Makes durable what was put. A bucket's service has done so before it answered.
    pub(crate) async fn sync(&self) -> Result<(), ArchiveError> {
        let Some(dir) = self.local.clone() else { return Ok(()) };
        let sync = move || {
            let failed = |e: std::io::Error| ArchiveError::disk("sync", &dir)(e);
            let file = fs::File::open(&dir).map_err(failed)?;
            rustix::fs::syncfs(&file).map_err(|e| ArchiveError::disk("sync", &dir)(e.into()))
        };
        crate::blocking(sync).await
    }
}

fn bucket_store(
    bucket: &str,
    settings: &StoreSettings,
) -> Result<impl ObjectStore + use<>, ArchiveError> {
    let endpoint = settings.service();
    let plain = endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
    let retry_timeout = settings.retry_for.unwrap_or(RETRY_TIMEOUT);
    let retry = RetryConfig { retry_timeout, ..RetryConfig::default() };
    let mut store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(ClientOptions::new().with_allow_http(plain))
        .with_retry(retry);
    if let Some(endpoint) = endpoint {
        store = store.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        store = store.with_region(region);
    }
    if let Some((id, secret)) = &settings.key {
        store = store.with_access_key_id(id).with_secret_access_key(secret);
    }
    Ok(store.build()?)
}
