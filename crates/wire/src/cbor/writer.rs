//! Writes CBOR value by value, for replies that are written without a type of their own.

use std::convert::Infallible;
use std::fmt::{self, Write as _};

use bytes::Bytes;
use cbor4ii::core::enc::{Encode, Write};
use cbor4ii::core::{major, types};
use hydrant_core::sequence::{Decimal, SequenceNumber};
use serde::Serialize;

use crate::api::ApiError;

/// A buffer that values are written into. The caller's duty: as many entries behind the head of a list
/// or map as it says, and for a map, keys and values in turn.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

/// Where the text of a value that shows itself begins, behind its head.
const SHOWN_HEAD: [u8; 2] = [0x78, 0];

impl Writer {
    /// A buffer with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Goes on behind what is in a buffer.
    pub fn behind(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The head of a map of so many pairs.
    pub fn map(&mut self, pairs: usize) -> &mut Self {
        // A buffer takes all it is given; so it is below.
        let _ = types::Map::bounded(pairs, self);
        self
    }

    /// The head of a list of so many entries.
    pub fn list(&mut self, entries: usize) -> &mut Self {
        let _ = types::Array::bounded(entries, self);
        self
    }

    /// A text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.value(text)
    }

    /// A text, as the value shows itself; without a copy of it for less than 256 bytes.
    pub fn shown(&mut self, value: impl fmt::Display) -> &mut Self {
        let at = self.0.len();
        self.0.extend(SHOWN_HEAD);
        let start = self.0.len();
        let _ = write!(self, "{value}");
        match u8::try_from(self.0.len() - start) {
            Ok(len) => self.0[start - 1] = len,
            Err(_) => {
                let text = String::from_utf8_lossy(&self.0[start..]).into_owned();
                self.0.truncate(at);
                self.text(&text);
            }
        }
        self
    }

    /// A blob.
    pub fn blob(&mut self, bytes: &[u8]) -> &mut Self {
        self.value(types::Bytes(bytes))
    }

    /// The head of a blob whose `bytes` bytes the caller writes behind it.
    pub fn blob_head(&mut self, bytes: usize) -> &mut Self {
        let at = self.0.len();
        self.number(bytes as u64);
        // The head of a blob is that of a number, of another kind.
        self.0[at] |= major::BYTES << 5;
        self
    }

    /// A sequence number, as a text.
    pub fn sequence_number(&mut self, number: &Decimal) -> &mut Self {
        self.0.extend([0x78, SequenceNumber::DIGITS as u8]);
        number.write(&mut self.0);
        self
    }

    /// A whole number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.value(number)
    }

    /// A value with members, as [`super::to_bytes`] writes it. Fails if its own `Serialize` does.
    pub fn structure<T: Serialize>(&mut self, value: &T) -> Result<&mut Self, ApiError> {
        let mut out = cbor4ii::serde::Serializer::new(&mut *self);
        value.serialize(&mut out).map_err(|e| ApiError::internal(e.to_string()))?;
        Ok(self)
    }

    /// What was written.
    pub fn into_bytes(self) -> Bytes {
        self.0.into()
    }

    /// The buffer, with what was written.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }

    fn value(&mut self, value: impl Encode) -> &mut Self {
        let _ = value.encode(self);
        self
    }
}

impl Write for Writer {
    type Error = Infallible;

    fn push(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
