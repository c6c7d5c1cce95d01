//! CBOR as AWS's JSON services speak it (`application/x-amz-cbor-1.1`): the same requests and replies
//! as in JSON, with blobs as bytes and moments as whole milliseconds.
//!
//! Follows RFC 8949 and what the Java SDK sends: maps of unknown length, and tag 1 on moments, whose
//! number is of milliseconds where the RFC has seconds. Other tags say nothing here and are read over.

mod writer;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use cbor4ii::core::dec::{self, Decode, Read, Reference};
use cbor4ii::core::{major, marker, types};
use hydrant_core::limits::JSON_DEPTH_MAX;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use std::borrow::Cow;

pub use self::writer::Writer;
use crate::api::ApiError;
use crate::shape::{Structure, told_text};

/// Reads a request. Bytes that are no CBOR map, or a member of another type than the model's, are
/// `SerializationException`, with AWS's text where AWS gives one. What is read is borrowed from
/// `body` unless it was sent in pieces. Nothing is allocated for a length that is only claimed.
pub fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    let mut input = Input { rest: body, depth_left: JSON_DEPTH_MAX };
    let read = Structure::<T>::deserialize(&mut input);
    let text = match read {
        Ok(request) if input.rest.is_empty() => return Ok(request.0),
        Ok(_) => String::new(),
        Err(Unreadable(text)) => told_text(&text).to_owned(),
    };
    Err(ApiError::new("SerializationException", text))
}

/// Writes a reply, with the members of a type in its order. Fails if the type's own `Serialize` does.
pub fn to_bytes<T: Serialize>(reply: &T) -> Result<Bytes, ApiError> {
    let written = cbor4ii::serde::to_vec(Vec::with_capacity(REPLY_ROOM_BYTES), reply);
    written.map(Bytes::from).map_err(|e| ApiError::internal(e.to_string()))
}

/// Room for most replies.
const REPLY_ROOM_BYTES: usize = 256;

/// Why bytes were not read. Empty where the parser has nothing to tell a caller.
#[derive(Debug)]
struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl Error for Unreadable {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

impl From<dec::Error<Infallible>> for Unreadable {
    fn from(_: dec::Error<Infallible>) -> Self {
        Self(String::new())
    }
}

/// What is left of a request.
struct Input<'de> {
    rest: &'de [u8],
    depth_left: usize,
}

impl<'de> Read<'de> for Input<'de> {
    type Error = Infallible;

    fn fill<'short>(&'short mut self, want: usize) -> Result<Reference<'de, 'short>, Infallible> {
        Ok(Reference::Long(&self.rest[..want.min(self.rest.len())]))
    }

    fn advance(&mut self, n: usize) {
        self.rest = self.rest.get(n..).unwrap_or_default();
    }

    fn step_in(&mut self) -> bool {
        let left = self.depth_left.checked_sub(1);
        self.depth_left = left.unwrap_or(0);
        left.is_some()
    }

    fn step_out(&mut self) {
        self.depth_left += 1;
    }
}

impl Input<'_> {
    /// The first byte of the next value, which is read next. Its tags are read.
    fn peek(&mut self) -> Result<u8, Unreadable> {
        loop {
            let byte = *self.rest.first().ok_or_else(|| Unreadable(String::new()))?;
            if dec::if_major(byte) != major::TAG {
                return Ok(byte);
            }
            types::Tag::<types::Nothing>::decode(self)?;
        }
    }

    /// Reads a byte that was peeked at.
    fn skip(&mut self) {
        self.advance(1);
    }

    fn deeper(&mut self) -> Result<(), Unreadable> {
        if self.step_in() { Ok(()) } else { Err(Unreadable(String::new())) }
    }
}

impl<'de> Deserializer<'de> for &mut Input<'de> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let byte = self.peek()?;
        match dec::if_major(byte) {
            major::UNSIGNED => visitor.visit_u64(u64::decode(self)?),
            major::NEGATIVE => {
                let types::Negative(n) = types::Negative::<u64>::decode(self)?;
                visitor.visit_i64(i64::try_from(n).map_or(i64::MIN, |n| -1 - n))
            }
            major::BYTES => match types::Bytes::<Cow<'de, [u8]>>::decode(self)?.0 {
                Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
                Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
            },
            major::STRING => match Cow::<'de, str>::decode(self)? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            major::ARRAY => {
                self.deeper()?;
                let left = types::Array::len(self)?;
                let value = visitor.visit_seq(Entries { input: self, left })?;
                self.step_out();
                Ok(value)
            }
            major::MAP => {
                self.deeper()?;
                let left = types::Map::len(self)?;
                let value = visitor.visit_map(Entries { input: self, left })?;
                self.step_out();
                Ok(value)
            }
            _ => self.read_simple(byte, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.peek()? {
            marker::NULL | marker::UNDEFINED => {
                self.skip();
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        dec::IgnoredAny::decode(self)?;
        visitor.visit_unit()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        // A derived reader would take a number for the place of a member.
        match dec::if_major(self.peek()?) {
            major::STRING => self.deserialize_any(visitor),
            _ => Err(Unreadable(String::new())),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum
    }
}

impl<'de> Input<'de> {
    fn read_simple<V: Visitor<'de>>(
        &mut self,
        byte: u8,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        match byte {
            marker::F32 => visitor.visit_f64(f32::decode(self)?.into()),
            marker::F64 => visitor.visit_f64(f64::decode(self)?),
            marker::FALSE | marker::TRUE => {
                self.skip();
                visitor.visit_bool(byte == marker::TRUE)
            }
            marker::NULL | marker::UNDEFINED => {
                self.skip();
                visitor.visit_unit()
            }
            // No SDK writes halves, and the others have no meaning.
            _ => Err(Unreadable(String::new())),
        }
    }
}

/// The entries of a list or a map: so many, or up to a break.
struct Entries<'a, 'de> {
    input: &'a mut Input<'de>,
    left: Option<usize>,
}

impl Entries<'_, '_> {
    fn has_more(&mut self) -> Result<bool, Unreadable> {
        match &mut self.left {
            None => Ok(!dec::is_break(self.input)?),
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
        }
    }
}

impl<'de> SeqAccess<'de> for Entries<'_, 'de> {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unreadable> {
        if self.has_more()? { seed.deserialize(&mut *self.input).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Unreadable;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unreadable> {
        if self.has_more()? { seed.deserialize(&mut *self.input).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Unreadable> {
        seed.deserialize(&mut *self.input)
    }
}
