//! Which object store a bucket's name means: one of hydrant's own, or one elsewhere.

use std::sync::Arc;

use hydrant_core::bucket::BucketRef;
use object_store::aws::AmazonS3Builder;
use object_store::{ClientOptions, ObjectStore};

use crate::config::{NamedSecret, Secret, Settings};

/// Opens the buckets that stages and destinations name.
///
/// A stage that names an endpoint is there; a bucket of `--s3-bucket` is at `--s3-endpoint`; any other
/// is hydrant's own, reached through the same S3 endpoint that everybody uses.
#[derive(Clone)]
pub(crate) struct Stores {
    /// URL of this process's S3 endpoint.
    pub(crate) own_endpoint: String,
    /// What signs the requests of a destination, which brings no key of its own.
    pub(crate) own_key: NamedSecret,
    /// Whether every signature is taken.
    pub(crate) open: bool,
    /// Which buckets are not hydrant's own, and where they are.
    pub(crate) elsewhere: Option<Elsewhere>,
}

/// The S3-compatible service of `--s3-endpoint`.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    endpoint: String,
    region: String,
    key: NamedSecret,
    buckets: Vec<String>,
}

impl Elsewhere {
    /// The service the settings name, if they do.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        Some(Self {
            endpoint: settings.s3_endpoint.clone()?,
            region: settings.s3_region.clone(),
            key: settings.s3_access_key.clone()?,
            buckets: settings.s3_buckets.clone(),
        })
    }

    fn has(&self, bucket: &str) -> bool {
        self.buckets.iter().any(|b| b == bucket || b == "*")
    }
}

impl Stores {
    /// A delivery stream's bucket.
    pub(crate) fn destination(&self, bucket: &BucketRef) -> Result<Arc<dyn ObjectStore>, String> {
        match self.service_of(bucket) {
            Some(service) => self.build(bucket, Some(service), &service.key),
            None => self.build(bucket, None, &self.own_key),
        }
    }

    /// A stage's bucket, opened with the stage's own key.
    pub(crate) fn stage(&self, bucket: &BucketRef) -> Result<Arc<dyn ObjectStore>, String> {
        let service = self.service_of(bucket);
        let key = match (&bucket.credentials, service) {
            (Some((name, secret)), _) => {
                NamedSecret { name: name.clone(), secret: Secret(secret.clone()) }
            }
            (None, Some(service)) if bucket.endpoint.is_none() => service.key.clone(),
            (None, None) if self.open && bucket.endpoint.is_none() => self.own_key.clone(),
            (None, _) => return Err("the stage has no CREDENTIALS to read its bucket with".into()),
        };
        self.build(bucket, service, &key)
    }

    fn service_of(&self, bucket: &BucketRef) -> Option<&Elsewhere> {
        self.elsewhere.as_ref().filter(|s| s.has(&bucket.bucket))
    }

    fn build(
        &self,
        bucket: &BucketRef,
        service: Option<&Elsewhere>,
        key: &NamedSecret,
    ) -> Result<Arc<dyn ObjectStore>, String> {
        let region = bucket.region.as_deref().or(service.map(|s| s.region.as_str()));
        let mut store = AmazonS3Builder::new()
            .with_bucket_name(&bucket.bucket)
            .with_region(region.unwrap_or("us-east-1"))
            .with_access_key_id(&key.name)
            .with_secret_access_key(&key.secret.0);
        let endpoint = match (&bucket.endpoint, service) {
            (Some(endpoint), _) => Some(endpoint.as_str()),
            (None, Some(service)) => Some(service.endpoint.as_str()).filter(|e| *e != "aws"),
            (None, None) => Some(self.own_endpoint.as_str()),
        };
        if let Some(endpoint) = endpoint {
            let url = if endpoint.contains("://") {
                endpoint.to_owned()
            } else {
                format!("https://{endpoint}")
            };
            let plain = url.starts_with("http://");
            store = store
                .with_endpoint(url)
                .with_client_options(ClientOptions::new().with_allow_http(plain));
        }
        store.build().map(|s| Arc::new(s) as Arc<dyn ObjectStore>).map_err(|e| e.to_string())
    }
}
