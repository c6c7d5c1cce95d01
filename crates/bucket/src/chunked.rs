//! `aws-chunked` bodies: framing, chunk signatures and trailers, without I/O.
//!
//! Follows "Transferring payload in multiple chunks" (signed, with trailers, and unsigned with
//! trailers) in the S3 API reference's pages on Signature Version 4. Data is passed on as it comes,
//! whatever size the client gives its chunks; a bad signature is known at the chunk's end, so what
//! was read must not become visible before the decoder has said it is complete.

use bytes::{Buf, Bytes};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::body::BodyError;

/// Longest line before a chunk: 16 digits, a signature, and room for extensions.
const CHUNK_LINE_BYTES_MAX: usize = 1_024;
/// Most bytes of trailers.
const TRAILER_BYTES_MAX: usize = 16 << 10;
/// Most trailers.
const TRAILERS_MAX: usize = 32;
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

type HmacSha256 = Hmac<Sha256>;

/// Checks the signatures of chunks, each of which covers the one before.
pub(crate) struct ChunkSigner {
    key: [u8; 32],
    /// `<time>\n<scope>`, as in every string to sign.
    time_and_scope: String,
    previous: String,
}

impl ChunkSigner {
    /// For a request whose `Authorization` has this credential scope (`day/region/service`) and
    /// `seed` signature. `None` if the scope is not one.
    pub(crate) fn new(secret: &str, amz_date: &str, scope: &str, seed: &str) -> Option<Self> {
        let mut key = mac(format!("AWS4{secret}").as_bytes(), scope.split('/').next()?.as_bytes());
        let mut steps = scope.split('/').skip(1);
        for _ in 0..2 {
            key = mac(&key, steps.next()?.as_bytes());
        }
        let key = mac(&key, b"aws4_request");
        let time_and_scope = format!("{amz_date}\n{scope}/aws4_request");
        Some(Self { key, time_and_scope, previous: seed.to_owned() })
    }

    fn check(&mut self, kind: &str, tail: &str, given: &str) -> Result<(), BodyError> {
        let text = format!("{kind}\n{}\n{}\n{tail}", self.time_and_scope, self.previous);
        let is = hex::encode(mac(&self.key, text.as_bytes()));
        if !bool::from(is.as_bytes().ct_eq(given.as_bytes())) {
            return Err(BodyError::Signature);
        }
        self.previous = is;
        Ok(())
    }

    fn check_chunk(&mut self, digest: &[u8], given: &str) -> Result<(), BodyError> {
        let empty = hex::encode(Sha256::digest(b""));
        let tail = format!("{empty}\n{}", hex::encode(digest));
        self.check("AWS4-HMAC-SHA256-PAYLOAD", &tail, given)
    }

    fn check_trailers(&mut self, canonical: &str, given: &str) -> Result<(), BodyError> {
        let tail = hex::encode(Sha256::digest(canonical.as_bytes()));
        self.check("AWS4-HMAC-SHA256-TRAILER", &tail, given)
    }
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = HmacSha256::new_from_slice(key) else {
        // HMAC takes keys of any length.
        return [0; 32];
    };
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// What a body of this kind must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    /// Each chunk has a signature.
    pub(crate) signed: bool,
    /// Trailers follow the last chunk.
    pub(crate) trailers: bool,
}

enum State {
    Line,
    Data { left: u64, hasher: Option<Sha256>, signature: Option<String> },
    DataEnd { hasher: Option<Sha256>, signature: Option<String> },
    Trailers,
    Done,
}

/// Takes the frames of a body apart.
pub(crate) struct Decoder {
    framing: Framing,
    signer: Option<ChunkSigner>,
    state: State,
    /// A line, or the trailers, so far.
    partial: Vec<u8>,
    trailers: Vec<(String, String)>,
}

impl Decoder {
    /// `signer` checks signatures; without one they are only required to be there.
    pub(crate) fn new(framing: Framing, signer: Option<ChunkSigner>) -> Self {
        let state = State::Line;
        Self { framing, signer, state, partial: Vec::new(), trailers: Vec::new() }
    }

    /// The next data in `input`, or `None` when all of it is consumed.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, BodyError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Line => {
                    if let Some(line) = self.line(input, CHUNK_LINE_BYTES_MAX)? {
                        self.begin_chunk(&line)?;
                    }
                }
                State::Data { left, hasher, signature } => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(n);
                    *left -= n as u64;
                    if let Some(hasher) = hasher {
                        hasher.update(&data);
                    }
                    if *left == 0 {
                        let (hasher, signature) = (hasher.take(), signature.take());
                        self.state = State::DataEnd { hasher, signature };
                    }
                    return Ok(Some(data));
                }
                State::DataEnd { .. } => {
                    if let Some(line) = self.line(input, 2)? {
                        if !line.is_empty() {
                            return Err(BodyError::Framing("a chunk is longer than its size"));
                        }
                        self.end_chunk()?;
                        self.state = State::Line;
                    }
                }
                State::Trailers => {
                    if self.partial.len() + input.len() > TRAILER_BYTES_MAX {
                        return Err(BodyError::Framing("the trailers are too large"));
                    }
                    self.partial.extend_from_slice(input);
                    input.advance(input.len());
                }
                State::Done => return Err(BodyError::Framing("data after the last chunk")),
            }
        }
        Ok(None)
    }

    /// The body has ended: returns its trailers, names in lower case.
    pub(crate) fn finish(&mut self) -> Result<Vec<(String, String)>, BodyError> {
        match self.state {
            State::Trailers => self.read_trailers()?,
            State::Done => {}
            State::Line | State::Data { .. } | State::DataEnd { .. } => {
                return Err(BodyError::Incomplete);
            }
        }
        self.state = State::Done;
        Ok(std::mem::take(&mut self.trailers))
    }

    /// A line without its CRLF, once all of it is there.
    fn line(&mut self, input: &mut Bytes, max: usize) -> Result<Option<String>, BodyError> {
        let end = input.iter().position(|b| *b == b'\n');
        let taken = input.split_to(end.map_or(input.len(), |at| at + 1));
        if self.partial.len() + taken.len() > max {
            return Err(BodyError::Framing("a chunk has no proper size line"));
        }
        self.partial.extend_from_slice(&taken);
        if end.is_none() {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.partial);
        let line = line.strip_suffix(b"\r\n").ok_or(BodyError::Framing("a bare line feed"))?;
        let line = std::str::from_utf8(line);
        line.map(|l| Some(l.to_owned())).map_err(|_| BodyError::Framing("a line is not text"))
    }

    fn begin_chunk(&mut self, line: &str) -> Result<(), BodyError> {
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let plain = !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = u64::from_str_radix(size, 16).ok().filter(|_| plain);
        let size = size.ok_or(BodyError::Framing("a chunk's size is not a hexadecimal number"))?;
        let signature = extension.strip_prefix("chunk-signature=").map(str::to_owned);
        if signature.is_some() != self.framing.signed {
            return Err(BodyError::Framing(match self.framing.signed {
                true => "a chunk has no signature",
                false => "a chunk has a signature in a body declared unsigned",
            }));
        }
        let hasher = (self.signer.is_some() && self.framing.signed).then(Sha256::new);
        if size > 0 {
            self.state = State::Data { left: size, hasher, signature };
            return Ok(());
        }
        self.state = State::DataEnd { hasher, signature };
        self.end_chunk()?;
        self.state = State::Trailers;
        Ok(())
    }

    /// Checks the signature of the chunk that has just ended.
    fn end_chunk(&mut self) -> Result<(), BodyError> {
        let State::DataEnd { hasher, signature } = &mut self.state else { return Ok(()) };
        if let (Some(signer), Some(hasher), Some(given)) =
            (&mut self.signer, hasher.take(), signature.take())
        {
            signer.check_chunk(&hasher.finalize(), &given)?;
        }
        Ok(())
    }

    fn read_trailers(&mut self) -> Result<(), BodyError> {
        let bytes = std::mem::take(&mut self.partial);
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| BodyError::Trailer("the trailers are not text"))?;
        let mut given = None;
        for line in text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)) {
            if line.is_empty() {
                continue;
            }
            let (name, value) =
                line.split_once(':').ok_or(BodyError::Trailer("a trailer has no colon"))?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
            match name.as_str() {
                TRAILER_SIGNATURE => given = Some(value),
                _ if self.trailers.len() == TRAILERS_MAX => {
                    return Err(BodyError::Trailer("too many trailers"));
                }
                _ => self.trailers.push((name, value)),
            }
        }
        if !self.framing.trailers && !self.trailers.is_empty() {
            return Err(BodyError::Trailer("trailers in a body declared without"));
        }
        if self.framing.signed && self.framing.trailers {
            let given = given.ok_or(BodyError::Trailer("the trailers have no signature"))?;
            if let Some(signer) = &mut self.signer {
                let mut sorted: Vec<_> = self.trailers.iter().collect();
                sorted.sort();
                let canonical: String =
                    sorted.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
                signer.check_trailers(&canonical, &given)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
