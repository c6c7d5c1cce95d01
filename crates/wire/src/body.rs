//! The bodies of requests: read to their end, unpacked, and bounded in bytes, time and number.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::Body;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::api::ApiError;
use crate::sigv4::BodyHash;

/// How long a body may take to arrive.
const BODY_SECONDS_MAX: u64 = 60;

/// What a gzip file begins with (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It is larger than this many bytes.
    TooLarge(usize),
    TooSlow,
    Broken(String),
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let (status, code, message) = match error {
            BodyError::TooLarge(max) => (
                413,
                "RequestEntityTooLargeException",
                format!("The request body is larger than {max} bytes."),
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
pub(crate) enum Packing {
    None,
    Gzip,
}

impl Packing {
    /// What `Content-Encoding` says. Another packing than gzip is `SerializationException`.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
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

/// A body, with the room it takes. The caller's duty: the room is kept as long as the bytes are.
pub(crate) struct Sent {
    pub(crate) bytes: Bytes,
    pub(crate) room: Option<OwnedSemaphorePermit>,
    /// Of the body as it was sent, if it was asked for.
    pub(crate) sha256: Option<[u8; 32]>,
}

impl Sent {
    /// What the caller's signature has to be of.
    pub(crate) fn hash(&self) -> BodyHash<'_> {
        self.sha256.map_or(BodyHash::Whole(&self.bytes), BodyHash::Sha256)
    }
}

impl BodyHash<'_> {
    /// The SHA-256 of the body, if it is known whole.
    pub(crate) fn sha256(self) -> Option<[u8; 32]> {
        match self {
            Self::Whole(bytes) => Some(Sha256::digest(bytes).into()),
            Self::Sha256(hash) => Some(hash),
            Self::Streaming => None,
        }
    }
}

/// Room for the bodies of requests under way, over all connections. Those as they were sent and those
/// that were unpacked have each their own, so that one who waits for the second, holding some of the
/// first, waits for nobody who waits for the first.
pub(crate) struct Bodies {
    bytes_max: usize,
    sent: Arc<Semaphore>,
    unpacked: Arc<Semaphore>,
}

impl Bodies {
    /// Room for bodies of up to `bytes_max` bytes each, of so many bytes together as they were sent,
    /// and so many once they are unpacked.
    pub(crate) fn new(bytes_max: usize, sent_bytes_max: usize, unpacked_bytes_max: usize) -> Self {
        Self {
            bytes_max,
            sent: Arc::new(Semaphore::new(sent_bytes_max)),
            unpacked: Arc::new(Semaphore::new(unpacked_bytes_max)),
        }
    }

    /// Reads a body to its end, once there is room for the declared length, or for the greatest if it
    /// does not say. All of that takes a minute at most. What has arrived is hashed while the rest is on
    /// its way, if `hashed` says so.
    pub(crate) async fn read<B>(
        &self,
        body: &mut B,
        headers: &HeaderMap,
        hashed: bool,
    ) -> Result<Sent, BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let read = async {
            let declared = declared_bytes(headers);
            let room = declared.unwrap_or(u64::MAX).min(self.bytes_max as u64);
            let mut whole = Joined::of(declared.map_or(0, |_| room as usize));
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.sent).acquire_many_owned(room).await.ok();
            let mut hash = hashed.then(Sha256::new);
            self.pieces(body, headers, |piece| {
                if let Some(hash) = &mut hash {
                    hash.update(&piece);
                }
                whole.push(piece);
            })
            .await?;
            Ok(Sent {
                bytes: whole.finish(),
                room,
                sha256: hash.map(|hash| hash.finalize().into()),
            })
        };
        timeout(Duration::from_secs(BODY_SECONDS_MAX), read)
            .await
            .unwrap_or(Err(BodyError::TooSlow))
    }

    /// Reads a stranger's body to its end, so that the reply gets through, and keeps nothing of it.
    pub(crate) async fn skip<B>(&self, body: &mut B, headers: &HeaderMap) -> Result<(), BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let read = self.pieces(body, headers, |_| {});
        timeout(Duration::from_secs(BODY_SECONDS_MAX), read)
            .await
            .unwrap_or(Err(BodyError::TooSlow))
    }

    async fn pieces<B>(
        &self,
        body: &mut B,
        headers: &HeaderMap,
        mut take: impl FnMut(Bytes),
    ) -> Result<(), BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let too_large = || BodyError::TooLarge(self.bytes_max);
        if declared_bytes(headers).is_some_and(|n| n > self.bytes_max as u64) {
            return Err(too_large());
        }
        let mut left = self.bytes_max;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| BodyError::Broken(e.to_string()))?;
            let Ok(piece) = frame.into_data() else { continue };
            left = left.checked_sub(piece.len()).ok_or_else(too_large)?;
            take(piece);
        }
        Ok(())
    }

    /// Unpacks a body once there is room for what it says it holds; more than that it may not hold,
    /// and no more than a body may.
    pub(crate) async fn unpack(&self, sent: Sent, packing: Packing) -> Result<Sent, BodyError> {
        if packing == Packing::None {
            return Ok(sent);
        }
        let packed = &sent.bytes[..];
        if !packed.starts_with(&GZIP_MAGIC) {
            return Err(BodyError::Broken("not gzip, as Content-Encoding says".to_owned()));
        }
        // The last four bytes are the length (RFC 1952). Nobody has to believe them.
        let claim = packed.last_chunk::<4>().map_or(0, |end| u32::from_le_bytes(*end));
        if claim as usize > self.bytes_max {
            return Err(BodyError::TooLarge(self.bytes_max));
        }
        let room = Arc::clone(&self.unpacked).acquire_many_owned(claim).await.ok();
        let mut out = Vec::new();
        let mut unpacking = GzDecoder::new(packed).take(u64::from(claim) + 1);
        unpacking.read_to_end(&mut out).map_err(|e| BodyError::Broken(e.to_string()))?;
        if out.len() != claim as usize || !unpacking.into_inner().into_inner().is_empty() {
            return Err(BodyError::Broken("more or less than the gzip trailer says".to_owned()));
        }
        Ok(Sent { bytes: out.into(), room, sha256: None })
    }
}

fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The pieces of a body in one. Most bodies come in one piece, which then needs no copy.
#[derive(Default)]
struct Joined {
    /// How long it will be, if that is known.
    bytes: usize,
    first: Bytes,
    all: BytesMut,
}

impl Joined {
    fn of(bytes: usize) -> Self {
        Self { bytes, ..Self::default() }
    }

    fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            let bytes = (self.first.len() + piece.len()) * 2;
            self.all = BytesMut::with_capacity(if self.bytes > 0 { self.bytes } else { bytes });
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    fn finish(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}
