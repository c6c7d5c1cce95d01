//! The canonical request: the one spelling of a request that client and server both sign.
//!
//! Follows "Create a signed AWS API request" in the IAM user guide. S3 differs in the path: it is
//! encoded once and never normalised, because `a//b` and `a/../b` are keys of their own.

use std::fmt::Write as _;

use http::HeaderMap;
use http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::ServiceKind;
use super::error::AuthError;

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// The canonical request of `parts`, with the payload's hash (or what stands for it) as signed.
pub(super) fn request(
    parts: &Parts,
    signed_headers: &str,
    payload: &str,
    kind: ServiceKind,
) -> Result<String, AuthError> {
    let mut out = String::with_capacity(512);
    out.push_str(parts.method.as_str());
    out.push('\n');
    match kind {
        ServiceKind::S3 => once_encoded_path(parts.uri.path(), &mut out),
        ServiceKind::Json(_) => normalised_path(parts.uri.path(), &mut out),
    }
    out.push('\n');
    query(parts.uri.query().unwrap_or(""), &mut out);
    out.push('\n');
    for name in signed_headers.split(';') {
        out.push_str(name);
        out.push(':');
        header(parts, name, &mut out)?;
        out.push('\n');
    }
    out.push('\n');
    out.push_str(signed_headers);
    out.push('\n');
    out.push_str(payload);
    Ok(out)
}

fn once_encoded_path(path: &str, out: &mut String) {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    out.extend(percent_encoding::percent_encode(&decoded, PATH));
}

fn normalised_path(path: &str, out: &mut String) {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    for segment in &kept {
        out.push('/');
        out.extend(utf8_percent_encode(segment, UNRESERVED));
    }
    if kept.is_empty() || path.ends_with('/') {
        out.push('/');
    }
}

/// The parameters of a query string, decoded.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &str) -> String {
    // A form encodes a blank as `+`; the bytes need not be UTF-8 to be signed, but then no
    // parameter that this crate reads is in them.
    let plain = text.replace('+', " ");
    percent_decode_str(&plain).decode_utf8_lossy().into_owned()
}

fn query(query: &str, out: &mut String) {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (recoded(name), recoded(value))
        })
        .filter(|(name, _)| name != "X-Amz-Signature")
        .collect();
    pairs.sort_unstable();
    for (n, (name, value)) in pairs.iter().enumerate() {
        let _ = write!(out, "{}{name}={value}", if n == 0 { "" } else { "&" });
    }
}

fn recoded(text: &str) -> String {
    let plain = text.replace('+', " ");
    let bytes: Vec<u8> = percent_decode_str(&plain).collect();
    percent_encoding::percent_encode(&bytes, UNRESERVED).collect()
}

fn header(parts: &Parts, name: &str, out: &mut String) -> Result<(), AuthError> {
    let mut found = false;
    for value in parts.headers.get_all(name) {
        if found {
            out.push(',');
        }
        found = true;
        folded(value.as_bytes(), out)?;
    }
    // HTTP/2 carries the host as `:authority`, which hyper puts into the URI. Some SDKs sign it under
    // that name, others as `host`.
    if let (false, "host" | ":authority", Some(authority)) = (found, name, parts.uri.authority()) {
        out.push_str(authority.as_str());
        found = true;
    }
    if found {
        Ok(())
    } else {
        Err(AuthError::Headers(format!("The signed header '{name}' is not in the request.")))
    }
}

/// Trims, and folds runs of blanks into one.
fn folded(value: &[u8], out: &mut String) -> Result<(), AuthError> {
    let text = std::str::from_utf8(value).map_err(|_| AuthError::Mismatch)?;
    let mut words = text.split_ascii_whitespace();
    if let Some(first) = words.next() {
        out.push_str(first);
    }
    for word in words {
        out.push(' ');
        out.push_str(word);
    }
    Ok(())
}

/// The header's only value as text; a header that is there twice counts as malformed.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(());
    }
    first.map(|v| v.to_str().map_err(|_| ())).transpose()
}
