//! STS: who is calling.
//!
//! Follows "GetCallerIdentity" in the AWS STS API reference.

use async_trait::async_trait;
use hydrant_wire::{ApiError, Call, JsonService, Reply};
use serde::Serialize;

/// The one operation of STS that needs no role: Terraform and test suites ask it first. It speaks the
/// query protocol; give it to the RPC front.
#[derive(Debug, Default)]
pub struct Identity;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CallerIdentity {
    arn: String,
    user_id: String,
    account: String,
}

/// What STS has (as of November 2026) besides.
const UNSUPPORTED: [&str; 10] = [
    "AssumeRole",
    "AssumeRoleWithSAML",
    "AssumeRoleWithWebIdentity",
    "AssumeRoot",
    "DecodeAuthorizationMessage",
    "GetAccessKeyInfo",
    "GetDelegatedAccessToken",
    "GetFederationToken",
    "GetSessionToken",
    "GetWebIdentityToken",
];

#[async_trait]
impl JsonService for Identity {
    fn target(&self) -> &'static str {
        "AWSSecurityTokenServiceV20110615"
    }

    async fn call(&self, call: Call) -> Result<Reply, ApiError> {
        match call.operation.as_str() {
            "GetCallerIdentity" => {
                // A key of hydrant's acts for its account as a whole, as a root user's does.
                let account = call.scope().account.to_string();
                let arn = format!("arn:aws:iam::{account}:root");
                let reply = CallerIdentity { arn, user_id: account.clone(), account };
                Ok(call.write(&reply)?.into())
            }
            other if UNSUPPORTED.contains(&other) => Err(ApiError::new(
                "UnsupportedOperation",
                format!("hydrant does not support {other}: sign with an access key of its own."),
            )),
            other => Err(ApiError::new(
                "UnknownOperationException",
                format!("Could not find operation {other} for version 2011-06-15"),
            )),
        }
    }
}
