//! What a driver's request carries: the query's parameters, the token, the JSON body.

use std::collections::HashMap;
use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{Uri, header, request};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::reply::Failure;

/// Largest request body after decompression.
const PLAIN_BYTES_MAX: usize = 64 << 20;
/// Largest ratio of a decompressed body to its compressed form, above [`FREE_BYTES`].
const RATIO_MAX: usize = 200;
/// A body that decompresses to no more than this may have any ratio.
const FREE_BYTES: usize = 1 << 20;

/// The parameters in a request's query.
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Self {
        let plain = |text: &str| {
            percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((plain(name), plain(value)))
        });
        Self(pairs.collect())
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The token of `Authorization: Snowflake Token="…"`.
pub(super) fn token(parts: &request::Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Snowflake Token=\"")?.strip_suffix('"')
}

/// The JSON body, which may be compressed with gzip. An empty one is `{}`.
pub(super) fn json<T: DeserializeOwned>(
    parts: &request::Parts,
    body: &Bytes,
) -> Result<T, Failure> {
    let gzip = match parts.headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes()) {
        None | Some(b"identity" | b"") => false,
        Some(b"gzip") => true,
        Some(_) => return Err(Failure::malformed("unsupported Content-Encoding: use gzip")),
    };
    let inflated;
    let plain: &[u8] = if gzip {
        inflated = inflate(body)?;
        &inflated
    } else {
        body
    };
    let plain = if plain.is_empty() { b"{}" } else { plain };
    serde_json::from_slice(plain).map_err(|e| Failure::malformed(&format!("malformed body: {e}")))
}

fn inflate(body: &[u8]) -> Result<Vec<u8>, Failure> {
    let most = PLAIN_BYTES_MAX.min(FREE_BYTES.max(body.len().saturating_mul(RATIO_MAX)));
    let mut plain = Vec::new();
    let mut from = MultiGzDecoder::new(body).take(most as u64 + 1);
    from.read_to_end(&mut plain).map_err(|_| Failure::malformed("malformed gzip body"))?;
    if plain.len() > most {
        return Err(Failure::malformed(&format!(
            "the body decompresses to more than {most} bytes"
        )));
    }
    Ok(plain)
}
