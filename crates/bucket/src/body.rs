//! The body of a request: taken out of its framing, and checked against all that the request says
//! of it, before the last byte is handed on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::{Sleep, sleep};

use crate::checksum::{Algorithm, Digester, Digests};
use crate::chunked::Decoder;

/// How long a body may take to bring [`PACE_BYTES_MIN`] more, or its end.
pub(crate) const PACE: Duration = Duration::from_secs(30);
/// What has to arrive in each [`PACE`], so that nobody holds a file open with a byte now and then.
pub(crate) const PACE_BYTES_MIN: usize = 16 << 10;

/// Anything that ends a body early.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A body is not what the request says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("You did not provide the number of bytes specified by the Content-Length HTTP header.")]
    Incomplete,
    #[error(
        "Your socket connection to the server was not read from or written to within the timeout \
         period. Idle connections will be closed."
    )]
    TooSlow,
    #[error("The provided 'x-amz-content-sha256' header does not match what was computed.")]
    Sha256,
    #[error("The Content-MD5 you specified did not match what we received.")]
    Md5,
    #[error("The {} you specified did not match the calculated checksum.", .0.name())]
    Checksum(Algorithm),
    #[error(
        "The request signature we calculated does not match the signature you provided. Check \
         your key and signing method."
    )]
    Signature,
    #[error("The request contained trailing data that was not well-formed: {0}.")]
    Trailer(&'static str),
    #[error("The chunked body is not well-formed: {0}.")]
    Framing(&'static str),
}

/// What a request says of its body.
#[derive(Default)]
pub(crate) struct Declared {
    /// Bytes, after the framing is taken off.
    pub(crate) size_bytes: Option<u64>,
    pub(crate) sha256: Option<[u8; 32]>,
    pub(crate) md5: Option<[u8; 16]>,
    pub(crate) checksum: Option<DeclaredChecksum>,
}

/// A checksum that a request declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeclaredChecksum {
    /// In a header: the value, decoded.
    Value(Algorithm, Vec<u8>),
    /// To come in a trailer.
    Trailer(Algorithm),
}

impl DeclaredChecksum {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Value(algorithm, _) | Self::Trailer(algorithm) => *algorithm,
        }
    }
}

/// How a body ended, shared by its reader and the front.
#[derive(Clone, Default)]
pub(crate) struct Outcome(Arc<Mutex<Option<Result<Digests, BodyError>>>>);

impl Outcome {
    /// What the bytes came to, once all were read and found to be as declared.
    pub(crate) fn digests(&self) -> Option<Digests> {
        self.0.lock().as_ref().and_then(|r| r.as_ref().ok()).cloned()
    }

    /// Why the body was refused.
    pub(crate) fn error(&self) -> Option<BodyError> {
        self.0.lock().as_ref().and_then(|r| r.as_ref().err()).cloned()
    }
}

/// See the module. Never holds more than one frame of the connection.
pub(crate) struct CheckedBody {
    inner: UnsyncBoxBody<Bytes, Cause>,
    pending: Bytes,
    decoder: Option<Decoder>,
    declared: Declared,
    digester: Option<Digester>,
    sha256: Option<Sha256>,
    pace: Pace,
    outcome: Outcome,
}

/// Ends the wait for a client that is too slow. Time counts from the first wait on, so that what the
/// disk takes is not held against a client whose bytes are there already.
#[derive(Default)]
struct Pace {
    ends: Option<Pin<Box<Sleep>>>,
    received_bytes: usize,
}

impl Pace {
    fn received(&mut self, bytes: usize) {
        self.received_bytes = self.received_bytes.saturating_add(bytes);
        if self.received_bytes >= PACE_BYTES_MIN {
            *self = Self::default();
        }
    }

    /// Nothing is there yet: ready once that has lasted too long.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ends.get_or_insert_with(|| Box::pin(sleep(PACE))).as_mut().poll(cx)
    }
}

impl CheckedBody {
    pub(crate) fn new(
        inner: UnsyncBoxBody<Bytes, Cause>,
        decoder: Option<Decoder>,
        declared: Declared,
    ) -> (Self, Outcome) {
        let outcome = Outcome::default();
        let algorithm = declared.checksum.as_ref().map(DeclaredChecksum::algorithm);
        let body = Self {
            inner,
            pending: Bytes::new(),
            decoder,
            digester: Some(Digester::new(algorithm)),
            sha256: declared.sha256.map(|_| Sha256::new()),
            declared,
            pace: Pace::default(),
            outcome: outcome.clone(),
        };
        (body, outcome)
    }

    fn pass(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        if let Some(digester) = &mut self.digester {
            digester.update(&data);
            let size_bytes = digester.size_bytes();
            if self.declared.size_bytes.is_some_and(|declared| size_bytes > declared) {
                return Err(BodyError::Incomplete);
            }
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(&data);
        }
        Ok(data)
    }

    fn end(&mut self, digests: &Digests) -> Result<(), BodyError> {
        let trailers = match &mut self.decoder {
            Some(decoder) => decoder.finish()?,
            None => Vec::new(),
        };
        if self.declared.size_bytes.is_some_and(|declared| digests.size_bytes != declared) {
            return Err(BodyError::Incomplete);
        }
        if let (Some(declared), Some(sha256)) = (self.declared.sha256, self.sha256.take())
            && !bool::from(<[u8; 32]>::from(sha256.finalize()).ct_eq(&declared))
        {
            return Err(BodyError::Sha256);
        }
        if self.declared.md5.is_some_and(|md5| md5 != digests.md5) {
            return Err(BodyError::Md5);
        }
        let is = digests.checksum.as_ref();
        let is = is.and_then(|stored| stored.algorithm.decode(&stored.value));
        let declared = match self.declared.checksum.take() {
            None => return Ok(()),
            Some(DeclaredChecksum::Value(algorithm, value)) => (algorithm, Some(value)),
            Some(DeclaredChecksum::Trailer(algorithm)) => {
                let trailer = trailers.iter().find(|(name, _)| name == algorithm.header());
                let (_, value) = trailer
                    .ok_or(BodyError::Trailer("the trailer that x-amz-trailer names is missing"))?;
                (algorithm, algorithm.decode(value))
            }
        };
        match declared {
            (_, value) if value.is_some() && value == is => Ok(()),
            (algorithm, _) => Err(BodyError::Checksum(algorithm)),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(decoder) = &mut self.decoder
                && let Some(data) = decoder.next(&mut self.pending)?
            {
                return Poll::Ready(Some(self.pass(data)));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
                ready!(self.pace.poll_end(cx));
                return Poll::Ready(Some(Err(BodyError::TooSlow)));
            };
            match frame {
                Some(Ok(frame)) => {
                    // HTTP trailers are not S3's.
                    let Ok(data) = frame.into_data() else { continue };
                    self.pace.received(data.len());
                    match self.decoder {
                        Some(_) => self.pending = data,
                        None => return Poll::Ready(Some(self.pass(data))),
                    }
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                None => {
                    let Some(digester) = self.digester.take() else { return Poll::Ready(None) };
                    let digests = digester.finish();
                    self.end(&digests)?;
                    *self.outcome.0.lock() = Some(Ok(digests));
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl Body for CheckedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.digester.is_none() {
            return Poll::Ready(None);
        }
        let polled = ready!(self.poll_data(cx));
        if let Some(Err(error)) = &polled {
            // Nothing follows an error, whoever asks.
            self.digester = None;
            *self.outcome.0.lock() = Some(Err(error.clone()));
        }
        Poll::Ready(polled.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.digester.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // Not the declared size: a reader that stops after that many bytes would miss the checks.
        SizeHint::default()
    }
}
