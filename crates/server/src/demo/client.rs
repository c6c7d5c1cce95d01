//! A client of the public APIs, over the network: the demo uses what its reader can use.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{ClientOptions, HttpClient, HttpConnector, ReqwestConnector};
use serde_json::Value;

use crate::config::NamedSecret;

const REGION: &str = "us-east-1";
const ERROR_TEXT_BYTES_MAX: usize = 1000;

/// A signed connection to the AWS endpoint.
pub(super) struct Client {
    endpoint: String,
    key: AwsCredential,
    http: HttpClient,
}

impl Client {
    /// A client of `endpoint` that signs with `key`.
    pub(super) fn new(endpoint: String, key: &NamedSecret) -> Result<Self> {
        let options = ClientOptions::new().with_allow_http(true);
        let key = AwsCredential {
            key_id: key.name.clone(),
            secret_key: key.secret.0.clone(),
            token: None,
        };
        Ok(Self { endpoint, key, http: ReqwestConnector::default().connect(&options)? })
    }

    /// Calls an operation of Kinesis or Firehose.
    pub(super) async fn call(&self, target: &str, body: &Value) -> Result<Value> {
        let service = if target.starts_with("Kinesis") { "kinesis" } else { "firehose" };
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/", self.endpoint))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(Bytes::from(body.to_string()).into())?;
        let reply = self.send(service, request).await.with_context(|| target.to_owned())?;
        if reply.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&reply)?) }
    }

    /// Calls an operation whose resource may not be there (any more), or be there already.
    pub(super) async fn call_unless(
        &self,
        code: &str,
        target: &str,
        body: &Value,
    ) -> Result<Option<Value>> {
        match self.call(target, body).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if format!("{error:#}").contains(code) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bucket; one that is there already is ours.
    pub(super) async fn create_bucket(&self, bucket: &str) -> Result<()> {
        let uri = format!("{}/{bucket}", self.endpoint);
        let request = Request::builder().method(Method::PUT).uri(uri).body(Bytes::new().into())?;
        match self.send("s3", request).await {
            Err(error) if !format!("{error:#}").contains("BucketAlreadyOwnedByYou") => Err(error),
            _ => Ok(()),
        }
    }

    /// The bucket, to list and read.
    pub(super) fn bucket(&self, bucket: &str) -> Result<impl object_store::ObjectStore> {
        Ok(AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region(REGION)
            .with_bucket_name(bucket)
            .with_access_key_id(&self.key.key_id)
            .with_secret_access_key(&self.key.secret_key)
            .build()?)
    }

    async fn send(
        &self,
        service: &str,
        mut request: object_store::client::HttpRequest,
    ) -> Result<Bytes> {
        AwsAuthorizer::new(&self.key, service, REGION).authorize(&mut request, None);
        let response = self.http.execute(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_TEXT_BYTES_MAX)]);
            bail!("{status}: {text}");
        }
        Ok(body)
    }
}
