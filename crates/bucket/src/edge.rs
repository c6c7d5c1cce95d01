//! Between the listener and the protocol crate: what concerns the signature is used up here.
//!
//! Who calls was verified before routing. What is left of a signature is what it says of the body:
//! its hash, or its chunks; both are checked here while the body streams, in constant memory. The
//! request that goes on has a plain body and no trace of authentication.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RANGE, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use hydrant_core::names::AccountId;
use hydrant_wire::Principal;
use percent_encoding::percent_decode_str;
use s3s::dto::Range;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::body::{Declared, DeclaredChecksum};
use crate::checksum::Algorithm;
use crate::chunked::{ChunkSigner, Decoder, Framing};
use crate::error::{error, invalid_argument, invalid_request, not_implemented};

/// Finds the secret of an access key, or `None`.
pub type Secrets = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

const CONTENT_SHA256: &str = "x-amz-content-sha256";
const DECODED_LENGTH: &str = "x-amz-decoded-content-length";
const AMZ_DATE: &str = "x-amz-date";
const TRAILER: &str = "x-amz-trailer";

/// What is known of a body before it is read.
pub(crate) struct Prepared {
    pub(crate) decoder: Option<Decoder>,
    pub(crate) declared: Declared,
}

/// Reads what the request says of its body, refuses what is not there, and rewrites the request for
/// the protocol crate.
pub(crate) fn prepare(
    parts: &mut Parts,
    principal: &Principal,
    account: &AccountId,
    secrets: Option<&Secrets>,
) -> S3Result<Prepared> {
    unpresign(parts)?;
    refuse(parts, account)?;
    drop_unread_range(parts);
    let (framing, sha256) = read_content_sha256(&parts.headers)?;
    let mut declared = Declared { sha256, ..Declared::default() };
    let decoder = match framing {
        None => {
            declared.size_bytes = number(&parts.headers, CONTENT_LENGTH.as_str())?;
            None
        }
        Some(framing) => {
            let size = number(&parts.headers, DECODED_LENGTH)?;
            declared.size_bytes = Some(size.ok_or_else(crate::ops::missing_length)?);
            let signer = match secrets {
                Some(secrets) if framing.signed => {
                    Some(signer(&parts.headers, principal, secrets)?)
                }
                _ => None,
            };
            Some(Decoder::new(framing, signer))
        }
    };
    declared.md5 = read_md5(&parts.headers)?;
    // With `uploadId`, a POST's checksum is the object's, not the body's.
    if parts.method != Method::POST || !has_parameter(&parts.uri, "uploadId") {
        declared.checksum = read_checksum(&parts.headers, framing)?;
    }
    strip(parts, framing.is_some(), declared.size_bytes)?;
    Ok(Prepared { decoder, declared })
}

/// What a presigned URL has for its signature, of either version.
const SIGNATURE_PARAMETERS: [&str; 10] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signature",
    "x-amz-signedheaders",
    "x-amz-security-token",
    "awsaccesskeyid",
    "expires",
    "signature",
];

/// Takes the signature out of a presigned URL. Headers that the signer put into the query are
/// headers again, with version 4 only: it signs the whole query, so that nobody else put them there.
fn unpresign(parts: &mut Parts) -> S3Result<()> {
    let Some(query) = parts.uri.query() else { return Ok(()) };
    let all_signed = has_parameter(&parts.uri, "X-Amz-Signature");
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            name if SIGNATURE_PARAMETERS.contains(&name) => {}
            _ if all_signed && lower.starts_with("x-amz-") => {
                let decoded = percent_decode_str(value).decode_utf8();
                let value = decoded.ok().and_then(|v| HeaderValue::from_str(&v).ok());
                let name = HeaderName::from_bytes(lower.as_bytes()).ok();
                let (Some(name), Some(value)) = (name, value) else {
                    return Err(invalid_request("A query parameter is not a valid header."));
                };
                parts.headers.entry(name).or_insert(value);
            }
            _ => rest.push(pair),
        }
    }
    if rest.len() < query.split('&').count() {
        parts.uri = with_query(&parts.uri, &rest.join("&"))?;
    }
    Ok(())
}

fn with_query(uri: &Uri, query: &str) -> S3Result<Uri> {
    let mut uri_parts = uri.clone().into_parts();
    let path = uri.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let invalid = |_| error(S3ErrorCode::InvalidURI, "Couldn't parse the specified URI.");
    uri_parts.path_and_query = Some(target.parse().map_err(invalid)?);
    Uri::from_parts(uri_parts)
        .map_err(|_| error(S3ErrorCode::InvalidURI, "Couldn't parse the specified URI."))
}

fn has_parameter(uri: &Uri, wanted: &str) -> bool {
    let names = uri.query().unwrap_or_default().split('&');
    names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name)).any(|n| n == wanted)
}

/// S3 answers a `Range` that it cannot read, or that has several parts, as if there were none.
fn drop_unread_range(parts: &mut Parts) {
    // Without a number there is no suffix, whatever the protocol crate reads there.
    let is_read = |text: &str| text != "bytes=-" && Range::parse(text).is_ok();
    let value = parts.headers.get(RANGE).map(|value| value.to_str().unwrap_or_default());
    if value.is_some_and(|text| !is_read(text)) {
        parts.headers.remove(RANGE);
    }
}

/// What a client may ask for, and would wrongly believe to have got.
fn refuse(parts: &Parts, account: &AccountId) -> S3Result<()> {
    let form = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let form = form.is_some_and(|v| v.to_ascii_lowercase().starts_with("multipart/form-data"));
    if parts.method == Method::POST && form {
        return Err(not_implemented("upload by an HTML form (POST Object)"));
    }
    for (name, value) in &parts.headers {
        let value = value.to_str().unwrap_or_default();
        match name.as_str() {
            "x-amz-expected-bucket-owner" | "x-amz-source-expected-bucket-owner"
                if value != account.as_str() =>
            {
                return Err(error(S3ErrorCode::AccessDenied, "Access Denied"));
            }
            "x-amz-acl" if !matches!(value, "private" | "bucket-owner-full-control") => {
                return Err(no_acl());
            }
            "x-amz-storage-class" if value != "STANDARD" => {
                return Err(error(
                    S3ErrorCode::InvalidStorageClass,
                    "The storage class you specified is not valid",
                ));
            }
            "x-amz-tagging" | "x-amz-website-redirect-location" | "x-amz-write-offset-bytes" => {
                return Err(not_implemented(name.as_str()));
            }
            other if other.starts_with("x-amz-grant-") => return Err(no_acl()),
            other
                if other.starts_with("x-amz-server-side-encryption")
                    || other.starts_with("x-amz-copy-source-server-side-encryption")
                    || (other.starts_with("x-amz-object-lock-")) =>
            {
                return Err(not_implemented(other));
            }
            _ => {}
        }
    }
    Ok(())
}

fn no_acl() -> S3Error {
    error(S3ErrorCode::AccessControlListNotSupported, "The bucket does not allow ACLs")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> S3Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => Err(invalid_request(format!("Invalid header: {name}"))),
    }
}

fn number(headers: &HeaderMap, name: &str) -> S3Result<Option<u64>> {
    let Some(value) = text(headers, name)? else { return Ok(None) };
    let plain = value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if plain => Ok(Some(number)),
        _ => Err(invalid_argument(format!("Invalid header: {name}"))),
    }
}

fn read_content_sha256(headers: &HeaderMap) -> S3Result<(Option<Framing>, Option<[u8; 32]>)> {
    let framing = |signed, trailers| Ok((Some(Framing { signed, trailers }), None));
    match text(headers, CONTENT_SHA256)? {
        None | Some("UNSIGNED-PAYLOAD") => Ok((None, None)),
        Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => framing(false, true),
        Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD") => framing(true, false),
        Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") => framing(true, true),
        Some(name) if name.starts_with("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD") => {
            Err(not_implemented(name))
        }
        Some(value) => {
            let mut hash = [0; 32];
            match hex::decode_to_slice(value, &mut hash) {
                Ok(()) => Ok((None, Some(hash))),
                Err(_) => Err(invalid_argument(
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, \
                     STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, \
                     STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
                )),
            }
        }
    }
}

fn read_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(value) = text(headers, "content-md5")? else { return Ok(None) };
    let md5 = BASE64_STANDARD.decode(value).ok().and_then(|bytes| bytes.try_into().ok());
    md5.map(Some).ok_or_else(|| {
        error(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified was invalid.")
    })
}

fn read_checksum(
    headers: &HeaderMap,
    framing: Option<Framing>,
) -> S3Result<Option<DeclaredChecksum>> {
    let mut found = Vec::new();
    for algorithm in Algorithm::ALL {
        if let Some(value) = text(headers, algorithm.header())? {
            let decoded = algorithm.decode(value).ok_or_else(|| {
                invalid_request(format!("Value for {} header is invalid.", algorithm.header()))
            })?;
            found.push(DeclaredChecksum::Value(algorithm, decoded));
        }
    }
    let trailer = text(headers, TRAILER)?;
    match (trailer, framing.is_some_and(|framing| framing.trailers)) {
        (None, false) => {}
        (Some(_), false) => {
            return Err(invalid_request("x-amz-trailer needs a body with trailers."));
        }
        (None, true) => {
            return Err(invalid_request("x-amz-trailer header is missing."));
        }
        (Some(names), true) => {
            for name in names.split(',').map(|name| name.trim().to_ascii_lowercase()) {
                let algorithm = Algorithm::ALL.into_iter().find(|a| a.header() == name);
                let algorithm = algorithm.ok_or_else(|| {
                    invalid_request(
                        "The value specified in the x-amz-trailer header is not supported",
                    )
                })?;
                found.push(DeclaredChecksum::Trailer(algorithm));
            }
        }
    }
    if found.len() > 1 {
        return Err(invalid_request(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        ));
    }
    Ok(found.pop())
}

/// The chain of chunk signatures begins with the request's own, which was verified.
fn signer(headers: &HeaderMap, principal: &Principal, secrets: &Secrets) -> S3Result<ChunkSigner> {
    let refused = || error(S3ErrorCode::AccessDenied, "Access Denied");
    let authorization = text(headers, AUTHORIZATION.as_str())?.ok_or_else(refused)?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256").ok_or_else(refused)?;
    let field =
        |name: &str| fields.split(',').find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('='));
    let credential = field("Credential").ok_or_else(refused)?;
    let seed = field("Signature").ok_or_else(refused)?;
    let scope = credential.strip_suffix("/aws4_request").ok_or_else(refused)?;
    let scope = scope.strip_prefix(principal.access_key()).ok_or_else(refused)?;
    let scope = scope.strip_prefix('/').ok_or_else(refused)?;
    let date = text(headers, AMZ_DATE)?.ok_or_else(refused)?;
    let secret = secrets(principal.access_key()).ok_or_else(refused)?;
    ChunkSigner::new(&secret, date, scope, seed).ok_or_else(refused)
}

/// Leaves no trace of authentication and framing; the body's length is the one it will have.
fn strip(parts: &mut Parts, framed: bool, size_bytes: Option<u64>) -> S3Result<()> {
    let headers = &mut parts.headers;
    headers.remove(AUTHORIZATION);
    for name in [CONTENT_SHA256, DECODED_LENGTH, AMZ_DATE, TRAILER, "x-amz-security-token"] {
        headers.remove(name);
    }
    headers.remove(TRANSFER_ENCODING);
    if let Some(size_bytes) = size_bytes {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
    }
    if framed && let Some(encoding) = text(headers, CONTENT_ENCODING.as_str())? {
        let kept: Vec<&str> =
            encoding.split(',').map(str::trim).filter(|e| *e != "aws-chunked").collect();
        let kept = HeaderValue::from_str(&kept.join(",")).ok().filter(|kept| !kept.is_empty());
        match kept {
            Some(kept) => headers.insert(CONTENT_ENCODING, kept),
            None => headers.remove(CONTENT_ENCODING),
        };
    }
    Ok(())
}
