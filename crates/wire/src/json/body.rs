//! The bodies of requests: read to their end, unpacked, and bounded in bytes, time and number.

use std::io::Read as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::Body;
use http_body_util::BodyExt;
use hydrant_core::limits::{
    JSON_BODY_BYTES_MAX, JSON_BYTES_IN_FLIGHT_MAX, JSON_UNPACKED_BYTES_IN_FLIGHT_MAX,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::ApiError;

/// Why there is no body.
#[derive(Debug)]
pub(super) enum BodyError {
    TooLarge,
    TooSlow,
    Broken(String),
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let (status, code, message) = match error {
            BodyError::TooLarge => (
                413,
                "RequestEntityTooLargeException",
                format!("The request body is larger than {JSON_BODY_BYTES_MAX} bytes."),
            ),
            BodyError::TooSlow => {
                let text = "The request body took too long to arrive.".to_owned();
                (408, "RequestTimeoutException", text)
            }
            BodyError::Broken(text) => {
                tracing::debug!(error = text, "the request body broke off");
                (400, "SerializationException", String::new())
            }
        };
        Self { status, code, message }
    }
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
}

impl Packing {
    /// What `Content-Encoding` says. Another packing than gzip is `SerializationException`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut named = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(name), more) = (named.next(), named.next()) else { return Ok(Self::None) };
        match name.as_bytes().to_ascii_lowercase().as_slice() {
            b"gzip" if more.is_none() => Ok(Self::Gzip),
            b"identity" if more.is_none() => Ok(Self::None),
            _ => Err(ApiError::new(
                "SerializationException",
                "A request body may be packed with gzip and nothing else: send it with \
                 Content-Encoding: gzip, or without the header.",
            )),
        }
    }
}

/// Room for the bodies of requests under way, over all connections. Those as they were sent and those
/// that were unpacked have each their own, so that one who waits for the second, holding some of the
/// first, waits for nobody who waits for the first.
pub(super) struct Room {
    sent: Arc<Semaphore>,
    unpacked: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            sent: Arc::new(Semaphore::new(JSON_BYTES_IN_FLIGHT_MAX)),
            unpacked: Arc::new(Semaphore::new(JSON_UNPACKED_BYTES_IN_FLIGHT_MAX)),
        }
    }

    /// Waits until there is room for a body of the declared length, or of the greatest if it does
    /// not say.
    pub(super) async fn for_sent(&self, headers: &HeaderMap) -> Option<OwnedSemaphorePermit> {
        let bytes = declared_bytes(headers).unwrap_or(u64::MAX).min(JSON_BODY_BYTES_MAX as u64);
        let sent = Arc::clone(&self.sent);
        sent.acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX)).await.ok()
    }

    /// Unpacks a body once there is room for what it says it holds; more than that it may not hold,
    /// and no more than [`JSON_BODY_BYTES_MAX`].
    pub(super) async fn unpack(
        &self,
        packed: &[u8],
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), BodyError> {
        // The last four bytes are the length (RFC 1952). Nobody has to believe them.
        let claim = packed.last_chunk::<4>().map_or(0, |end| u32::from_le_bytes(*end));
        if claim as usize > JSON_BODY_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        let room = Arc::clone(&self.unpacked).acquire_many_owned(claim).await.ok();
        let mut out = Vec::new();
        let mut unpacking = GzDecoder::new(packed).take(u64::from(claim) + 1);
        unpacking.read_to_end(&mut out).map_err(|e| BodyError::Broken(e.to_string()))?;
        if out.len() != claim as usize || !unpacking.into_inner().into_inner().is_empty() {
            return Err(BodyError::Broken("more or less than the gzip trailer says".to_owned()));
        }
        Ok((out.into(), room))
    }
}

fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body to its end. With `keep` unset, its bytes are dropped as they come.
pub(super) async fn read<B>(
    body: &mut B,
    headers: &HeaderMap,
    keep: bool,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if declared_bytes(headers).is_some_and(|n| n > JSON_BODY_BYTES_MAX as u64) {
        return Err(BodyError::TooLarge);
    }
    let (mut whole, mut rest, mut bytes) = (Bytes::new(), BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyError::Broken(e.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len();
        if bytes > JSON_BODY_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        if !keep {
            continue;
        }
        if whole.is_empty() && rest.is_empty() {
            // Most bodies come in one piece, which then needs no copy.
            whole = data;
        } else {
            if rest.is_empty() {
                rest = BytesMut::with_capacity((whole.len() + data.len()) * 2);
                rest.extend_from_slice(&std::mem::take(&mut whole));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { whole } else { rest.freeze() })
}
