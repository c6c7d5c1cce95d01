//! How a stage or a destination names a bucket.

/// A bucket that a stage or a destination names, and how to reach it. Opened by a function that
/// `server` injects, because only `server` knows which buckets are hydrant's own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BucketRef {
    /// Name of the bucket.
    pub bucket: String,
    /// Region, if the configuration names one.
    pub region: Option<String>,
    /// Endpoint URL of an S3-compatible service, if the configuration names one.
    pub endpoint: Option<String>,
    /// Access key id and secret, if the configuration has them.
    pub credentials: Option<(String, String)>,
}

impl std::fmt::Debug for BucketRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketRef")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
