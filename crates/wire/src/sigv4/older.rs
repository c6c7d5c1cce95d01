//! URLs presigned with the signature version before: what boto3 makes for an endpoint of its user's
//! unless told otherwise.
//!
//! Follows "Signing and authenticating REST requests (AWS signature version 2)" in the S3 user
//! guide, its query string form only. The host is not signed, so such a URL is taken only where the
//! host cannot name a bucket.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use hydrant_core::Timestamp;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::canonical::{parameters, single};
use super::error::AuthError;

/// Parameters that say what is asked for, and are therefore signed.
const SIGNED_PARAMETERS: [&str; 35] = [
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "defaultObjectAcl",
    "delete",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// A well-formed claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) key_id: String,
    /// The last moment at which the URL is good.
    pub(super) ends: Timestamp,
    signature: [u8; 20],
    expires: String,
}

/// Reads the claim of a URL that was presigned so; `None` if it was not.
pub(super) fn read(parts: &Parts) -> Result<Option<Claim>, AuthError> {
    let query = parts.uri.query().unwrap_or("");
    let names = ["AWSAccessKeyId", "Signature", "Expires"];
    let mut values: [Option<String>; 3] = Default::default();
    let mut newer = parts.headers.contains_key("authorization");
    for (name, value) in parameters(query) {
        newer |= name == "X-Amz-Algorithm";
        let Some(n) = names.iter().position(|known| *known == name) else { continue };
        if values[n].replace(value).is_some() {
            return Err(incomplete(&format!("Query-string authentication takes one {name}.")));
        }
    }
    let [key_id, signature, expires] = values;
    let (Some(key_id), Some(signature)) = (key_id, signature) else { return Ok(None) };
    if newer {
        return Err(AuthError::Both);
    }
    let expires = expires.unwrap_or_default();
    let digits = !expires.is_empty() && expires.bytes().all(|b| b.is_ascii_digit());
    let seconds = expires.parse::<u64>().ok().filter(|_| digits).ok_or_else(|| {
        incomplete(
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId \
             parameters",
        )
    })?;
    let signature = BASE64_STANDARD.decode(signature).ok().and_then(|s| s.try_into().ok());
    let signature = signature.ok_or(AuthError::Mismatch)?;
    if key_id.is_empty() || key_id.len() > 128 {
        return Err(AuthError::UnknownKey);
    }
    check_host(parts)?;
    let ends = Timestamp::ZERO.plus(Duration::from_secs(seconds));
    Ok(Some(Claim { key_id, ends, signature, expires }))
}

fn incomplete(text: &str) -> AuthError {
    AuthError::IncompleteQuery(text.to_owned())
}

/// Refuses a host that may name a bucket: the bucket would not be signed.
fn check_host(parts: &Parts) -> Result<(), AuthError> {
    let header = single(&parts.headers, "host").map_err(|()| AuthError::Mismatch)?;
    let named = [header, parts.uri.authority().map(http::uri::Authority::as_str)];
    for authority in named.into_iter().flatten() {
        let authority: http::uri::Authority = authority.parse().map_err(|_| AuthError::Mismatch)?;
        let host = authority.host();
        let address = host.parse::<std::net::Ipv4Addr>().is_ok() || host.starts_with('[');
        if !address && host.trim_end_matches('.').contains('.') {
            return Err(AuthError::Headers(
                "A URL presigned with signature version 2 is taken only under an address or a name \
                 without dots. Presign it with version 4 (boto3: signature_version='s3v4')."
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

/// Whether the signature is the one that `secret` makes, in constant time.
pub(super) fn is_signed_with(parts: &Parts, claim: &Claim, secret: &str) -> bool {
    let Some(text) = string_to_sign(parts, claim) else { return false };
    let mut block = [0; 64];
    if secret.len() > block.len() {
        block[..20].copy_from_slice(&Sha1::digest(secret.as_bytes()));
    } else {
        block[..secret.len()].copy_from_slice(secret.as_bytes());
    }
    let mut mac = <Hmac<Sha1> as KeyInit>::new(&block.into());
    mac.update(text.as_bytes());
    let computed: [u8; 20] = mac.finalize().into_bytes().into();
    computed.ct_eq(&claim.signature).into()
}

/// `None` if a header that would be signed is not text, or is there twice where it may not be.
fn string_to_sign(parts: &Parts, claim: &Claim) -> Option<String> {
    let query: Vec<_> = parameters(parts.uri.query().unwrap_or("")).collect();
    // A client that cannot set a header puts it into the query.
    let asked = |wanted: &str| {
        let header = single(&parts.headers, wanted).ok()?;
        let parameter = || query.iter().find(|(name, _)| name == wanted).map(|(_, v)| v.as_str());
        Some(header.or_else(parameter).unwrap_or("").trim().to_owned())
    };
    let mut text = format!(
        "{}\n{}\n{}\n{}\n",
        parts.method,
        asked("content-md5")?,
        asked("content-type")?,
        claim.expires
    );
    let mut amz: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &parts.headers {
        if name.as_str().starts_with("x-amz-") {
            amz.entry(name.as_str()).or_default().push(value.to_str().ok()?.trim());
        }
    }
    for (name, value) in query.iter().filter(|(name, _)| name.starts_with("x-amz-")) {
        amz.entry(name).or_insert_with(|| vec![value.trim()]);
    }
    for (name, values) in amz {
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    text.push_str(parts.uri.path());
    let mut signed: Vec<_> = parts
        .uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter_map(|pair| {
            let name = pair.split('=').next()?;
            SIGNED_PARAMETERS.contains(&name).then(|| (name, parameters(pair).next()))
        })
        .collect();
    signed.sort_by_key(|(name, _)| *name);
    for (n, (name, parameter)) in signed.iter().enumerate() {
        text.push(if n == 0 { '?' } else { '&' });
        text.push_str(name);
        if let Some((_, value)) = parameter.as_ref().filter(|(_, value)| !value.is_empty()) {
            text.push('=');
            text.push_str(value);
        }
    }
    Some(text)
}
