//! The shapes of AWS's JSON and CBOR: members that refuse a value of another type in AWS's words.
//!
//! Every member is an `Option` of one of these, so that absent and null are one thing, as they are
//! to AWS; whether it may be absent is for the operation to say.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hydrant_core::Timestamp;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer, de};

use crate::api::ApiError;

/// Reads a request. A text that is no JSON object, or a member of another type than the model's, is
/// `SerializationException`, with AWS's text where AWS gives one.
pub fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    match serde_json::from_slice::<Structure<T>>(body) {
        Ok(request) => Ok(request.0),
        Err(e) if e.is_data() => {
            // serde_json puts the place behind the text; AWS does not tell it.
            let place = format!(" at line {} column {}", e.line(), e.column());
            let text = e.to_string();
            let text = text.strip_suffix(&place).unwrap_or(&text);
            Err(ApiError::new("SerializationException", told_text(text)))
        }
        Err(_) => Err(ApiError::new("SerializationException", "")),
    }
}

/// What the texts of the visitors below begin with, to be told from the parser's own. Not a character
/// that a member's name or a parser's text has.
const OURS: char = '\u{1}';

/// What a caller is told of a parser's error. Of what the parser itself says (a member given twice,
/// say) AWS tells nothing.
pub(crate) fn told_text(text: &str) -> &str {
    text.strip_prefix(OURS).unwrap_or_default()
}

/// An error with a text for the caller.
fn told<E: Error>(text: impl fmt::Display) -> E {
    E::custom(format_args!("{OURS}{text}"))
}

const LIST: &str = "Start of list found where not expected";
const STRUCTURE: &str = "Start of structure or map found where not expected.";

/// What the visitors below have in common: the refusals.
macro_rules! refuse {
    (bool, $wanted:literal) => {
        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Err(told(concat!("class java.lang.Boolean can not be converted to ", $wanted)))
        }
    };
    (number, $wanted:literal) => {
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Err(told(concat!("class java.math.BigDecimal can not be converted to ", $wanted)))
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            self.visit_i64(0)
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            self.visit_i64(0)
        }
    };
    (text, $wanted:literal) => {
        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(told(concat!("class java.lang.String can not be converted to ", $wanted)))
        }
    };
    (list) => {
        fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(told(LIST))
        }
    };
    (map) => {
        fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(told(STRUCTURE))
        }
    };
    (scalars, $text:literal) => {
        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Err(told($text))
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Err(told($text))
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            Err(told($text))
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Err(told($text))
        }
        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(told($text))
        }
    };
}

macro_rules! expecting {
    ($what:literal) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($what)
        }
    };
}

/// Reads a string, or refuses in the words of the type that is wanted.
struct Characters(&'static str);

impl Characters {
    fn refuse<T, E: Error>(&self, class: &str) -> Result<T, E> {
        Err(told(format_args!("class {class} can not be converted to {}", self.0)))
    }
}

impl<'de> Visitor<'de> for Characters {
    type Value = Cow<'de, str>;
    expecting!("a string");
    refuse!(list);
    refuse!(map);
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        self.refuse("java.lang.Boolean")
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        self.refuse("java.math.BigDecimal")
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        self.refuse("java.math.BigDecimal")
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        self.refuse("java.math.BigDecimal")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text))
    }
}

/// A string, borrowed from the request where it has no escapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Characters("an String")).map(Text)
    }
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blob<'a> {
    /// Of JSON: base64, checked and decoded by [`Blob::decoded`].
    Base64(Cow<'a, [u8]>),
    /// Of CBOR: the bytes.
    Raw(Cow<'a, [u8]>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Cow<'de, [u8]>;
            expecting!("bytes");
            refuse!(bool, "a Blob");
            refuse!(number, "a Blob");
            refuse!(text, "a Blob");
            refuse!(list);
            refuse!(map);
            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(bytes))
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Cow::Owned(bytes.to_owned()))
            }
            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
                Ok(Cow::Owned(bytes))
            }
        }
        if d.is_human_readable() {
            let text = d.deserialize_any(Characters("a Blob"))?;
            Ok(Blob::Base64(match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }))
        } else {
            d.deserialize_any(V).map(Blob::Raw)
        }
    }
}

/// Longest part of a blob that an error repeats.
const BLOB_QUOTE_BYTES_MAX: usize = 256;

impl Blob<'_> {
    /// Bytes after decoding, if it can be decoded at all.
    pub fn decoded_len(&self) -> usize {
        let text = match self {
            Self::Base64(text) => text,
            Self::Raw(bytes) => return bytes.len(),
        };
        let padding = match text.last_chunk() {
            Some(b"==") => 2,
            Some([_, b'=']) => 1,
            _ => 0,
        };
        (text.len() / 4 * 3).saturating_sub(padding)
    }

    /// The bytes: those of CBOR as they are, those of JSON decoded into `room`, whose content is lost.
    /// Standard alphabet, padded, canonical; anything else is `SerializationException`.
    pub fn decoded<'s>(&'s self, room: &'s mut Vec<u8>) -> Result<&'s [u8], ApiError> {
        if let Self::Raw(bytes) = self {
            return Ok(bytes);
        }
        room.clear();
        self.append_to(room)?;
        Ok(room)
    }

    /// Appends what [`Blob::decoded`] gives: [`Blob::decoded_len`] bytes, in place if there is room for
    /// them. After an error `out` is as before.
    pub fn append_to(&self, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let text = match self {
            Self::Base64(text) => text,
            Self::Raw(bytes) => {
                out.extend_from_slice(bytes);
                return Ok(());
            }
        };
        // As strict as the other: padded, canonical, nothing else.
        if base64_simd::STANDARD.decode_append(text, out).is_ok() {
            return Ok(());
        }
        // Only one of the two says what is wrong.
        let at = out.len();
        STANDARD.decode_vec(text, out).map_err(|e| {
            out.truncate(at);
            let text = String::from_utf8_lossy(text);
            ApiError::new("SerializationException", refusal(&text, e))
        })
    }
}

/// What AWS says of a text that is not base64.
fn refusal(whole: &str, error: base64::DecodeError) -> String {
    let shown = whole.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = shown.take_while(|end| *end <= BLOB_QUOTE_BYTES_MAX).last().unwrap_or(0);
    let (text, more) = (&whole[..end], if end < whole.len() { "…" } else { "" });
    let why = match error {
        _ if !whole.len().is_multiple_of(4) => format!(
            "Base64 encoded length is expected a multiple of 4 bytes but found: {}",
            whole.len()
        ),
        base64::DecodeError::InvalidByte(at, _) => {
            let wrong = whole.get(at..).and_then(|rest| rest.chars().next()).unwrap_or('?');
            format!("Invalid Base64 character: '{wrong}'")
        }
        // The spelling is AWS's.
        _ => "Invalid last non-pad Base64 character dectected".to_owned(),
    };
    format!("'{text}{more}' can not be converted to a Blob: {why}")
}

/// A whole number; a fraction is cut off, towards zero, as AWS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Integer(pub i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = i64;
            expecting!("an integer");
            refuse!(bool, "an Integer");
            refuse!(text, "an Integer");
            refuse!(list);
            refuse!(map);
            fn visit_i64<E: Error>(self, n: i64) -> Result<i64, E> {
                Ok(n)
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<i64, E> {
                Ok(i64::try_from(n).unwrap_or(i64::MAX))
            }
            fn visit_f64<E: Error>(self, n: f64) -> Result<i64, E> {
                Ok(n as i64)
            }
        }
        d.deserialize_any(V).map(Integer)
    }
}

/// A moment of a request, in seconds since the Unix epoch with a fraction. In JSON it is such a
/// number; in CBOR it is of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Seconds(pub f64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = f64;
            expecting!("a timestamp");
            refuse!(bool, "a Date");
            refuse!(text, "a Date");
            refuse!(list);
            refuse!(map);
            fn visit_i64<E: Error>(self, n: i64) -> Result<f64, E> {
                Ok(n as f64)
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<f64, E> {
                Ok(n as f64)
            }
            fn visit_f64<E: Error>(self, n: f64) -> Result<f64, E> {
                Ok(n)
            }
        }
        let per_second = if d.is_human_readable() { 1.0 } else { 1e3 };
        d.deserialize_any(V).map(|n| Seconds(n / per_second))
    }
}

/// A moment in a reply: seconds with milliseconds in JSON, whole milliseconds in CBOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub Timestamp);

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_f64(self.0.as_secs_f64())
        } else {
            s.serialize_u64(self.0.as_millis())
        }
    }
}

/// A boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = bool;
            expecting!("a boolean");
            refuse!(number, "an Boolean");
            refuse!(list);
            refuse!(map);
            fn visit_bool<E: Error>(self, b: bool) -> Result<bool, E> {
                Ok(b)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
                let text = text.to_ascii_uppercase();
                Err(told(format_args!("'{text}' can not be converted to an Boolean")))
            }
        }
        d.deserialize_any(V).map(Flag)
    }
}

/// Most entries of a list or a map: as many as any list of the models may have.
const ENTRIES_MAX: usize = 10_000;

fn check_entries<E: Error>(entries: usize) -> Result<(), E> {
    if entries < ENTRIES_MAX {
        return Ok(());
    }
    Err(told(format_args!("Lists and maps of more than {ENTRIES_MAX} entries are not read")))
}

/// A list, of at most 10,000 entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = Vec<T>;
            expecting!("a list");
            refuse!(scalars, "Expected list or null");
            refuse!(map);
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut out = Vec::new();
                while let Some(value) = seq.next_element()? {
                    check_entries(out.len())?;
                    out.push(value);
                }
                Ok(out)
            }
        }
        d.deserialize_any(V(std::marker::PhantomData)).map(List)
    }
}

/// A map from strings, in the request's order, of at most 10,000 entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map<'a, T>(pub Vec<(Text<'a>, T)>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Map<'a, T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = Vec<(Text<'de>, T)>;
            expecting!("a map");
            refuse!(scalars, "Expected map or null");
            refuse!(list);
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    check_entries(out.len())?;
                    out.push(pair);
                }
                Ok(out)
            }
        }
        d.deserialize_any(V(std::marker::PhantomData)).map(Map)
    }
}

/// A structure: a `T` that is read from nothing but an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Structure<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = T;
            expecting!("a structure");
            refuse!(scalars, "Expected null");
            refuse!(list);
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map))
            }
        }
        d.deserialize_any(V(std::marker::PhantomData)).map(Structure)
    }
}
