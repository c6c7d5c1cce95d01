//! The signature of a request, verified.

use std::sync::Arc;

use http::{Method, Request};
use hydrant_core::SystemClock;
use hydrant_wire::sigv4::{AccessKey, BodyHash, Credentials, ServiceKind, Verifier};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;

use crate::Work;

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "secret";

/// A request of Kinesis with a body of so many bytes.
pub(crate) fn verifies(body_bytes: usize) -> crate::Outcome<Work> {
    let body = vec![b'x'; body_bytes];
    let mut request = Request::new(HttpRequestBody::from(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "http://127.0.0.1:4566/".parse()?;
    request.headers_mut().insert("x-amz-target", "Kinesis_20131202.PutRecords".parse()?);
    let key = AwsCredential { key_id: ID.to_owned(), secret_key: SECRET.to_owned(), token: None };
    AwsAuthorizer::new(&key, "kinesis", "us-east-1").authorize(&mut request, None);
    let (parts, _) = request.map(drop).into_parts();
    let key = AccessKey { id: ID.to_owned(), secret: SECRET.to_owned(), account: None };
    let account = "000000000000".parse()?;
    let verifier = Verifier::new(Credentials::Keys(vec![key]), account, Arc::new(SystemClock));
    Ok(Box::new(move || {
        let kind = ServiceKind::Json("kinesis");
        verifier.authenticate(&parts, BodyHash::Whole(&body), kind)?;
        Ok(())
    }))
}
