//! How the text of a PostgreSQL value becomes JSON.
//!
//! | type | JSON |
//! |---|---|
//! | `boolean` | `true`, `false` |
//! | `smallint`, `integer`, `bigint`, `oid` | a number, digit for digit |
//! | `real`, `double precision` | a number as PostgreSQL writes it; `NaN` and the infinities strings |
//! | `timestamp with time zone` | RFC 3339 in UTC; `infinity`, years before 1 or of five digits as PostgreSQL writes them |
//! | `bytea` | base64 |
//! | one-dimensional arrays of built-in types | an array; with other lower bounds than 1, or more dimensions, PostgreSQL's text |
//! | all others: `numeric`, `money`, `json`, `jsonb`, `uuid`, dates and times, intervals, ranges, enums, network types, domains, … | a string, PostgreSQL's text unchanged |
//!
//! The texts are those of a session with `DateStyle` ISO, `TimeZone` UTC, `extra_float_digits` of at
//! least 1, `bytea_output` hex and `client_encoding` UTF8. Numbers are never read as floating point,
//! so no digit is lost. `json` stays a string, as Debezium and DMS write it: it may hold numbers and
//! repeated names that a reader of the record could not keep.

mod array;
mod escape;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(crate) use escape::string;

/// A text that its type cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// It is not UTF-8: the session's `client_encoding` is not UTF8.
    #[error("not UTF-8")]
    NotUtf8,
    /// It is not `what`.
    #[error("not {0}")]
    Not(&'static str),
}

/// How values of a type become JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// `true` or `false`.
    Bool,
    /// A number without a fraction.
    Integer,
    /// A number, or a string where there is none.
    Float,
    /// RFC 3339.
    Timestamptz,
    /// Base64.
    Bytea,
    /// An array of strings.
    Texts,
    /// An array of `true` and `false`.
    Bools,
    /// An array of numbers without a fraction.
    Integers,
    /// An array of numbers.
    Floats,
    /// An array of RFC 3339.
    Timestamptzs,
    /// An array of base64.
    Byteas,
}

impl Kind {
    /// That of the type with this OID (`pg_type.dat`); a string if it is not a built-in.
    pub fn of(type_oid: u32) -> Self {
        match type_oid {
            16 => Self::Bool,
            20 | 21 | 23 | 26 => Self::Integer,
            700 | 701 => Self::Float,
            1184 => Self::Timestamptz,
            17 => Self::Bytea,
            1000 => Self::Bools,
            1016 | 1005 | 1007 | 1028 => Self::Integers,
            1021 | 1022 => Self::Floats,
            1185 => Self::Timestamptzs,
            1001 => Self::Byteas,
            // Not 1020, box[]: its elements are apart by semicolons.
            143
            | 199
            | 271
            | 629
            | 651
            | 719
            | 775
            | 791
            | 1002
            | 1003
            | 1006
            | 1008..=1015
            | 1017..=1019
            | 1027
            | 1034
            | 1040
            | 1041
            | 1115
            | 1182
            | 1183
            | 1187
            | 1231
            | 1263
            | 1270
            | 1561
            | 1563
            | 2201
            | 2207..=2211
            | 2949
            | 2951
            | 3221
            | 3643
            | 3644
            | 3645
            | 3735
            | 3770
            | 3807
            | 3905
            | 3907
            | 3909
            | 3911
            | 3913
            | 3927
            | 4073
            | 4090
            | 4097
            | 4192
            | 5039
            | 6150
            | 6151
            | 6152
            | 6153
            | 6155
            | 6157 => Self::Texts,
            _ => Self::Text,
        }
    }

    /// That of an array's elements.
    fn element(self) -> Option<Self> {
        Some(match self {
            Self::Texts => Self::Text,
            Self::Bools => Self::Bool,
            Self::Integers => Self::Integer,
            Self::Floats => Self::Float,
            Self::Timestamptzs => Self::Timestamptz,
            Self::Byteas => Self::Bytea,
            _ => return None,
        })
    }

    /// Appends the JSON of a value. What is in `out` after an error has no meaning.
    pub fn write(self, text: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
        match self {
            Self::Text => string(text, out),
            Self::Integer => integer(text, out),
            Self::Bool => boolean(text, out),
            Self::Float => float(text, out),
            Self::Timestamptz => timestamptz(text, out),
            Self::Bytea => bytea(text, out),
            _ => array::write(self.element().unwrap_or(Self::Text), text, out),
        }
    }
}

fn boolean(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    match text {
        b"t" => out.extend_from_slice(b"true"),
        b"f" => out.extend_from_slice(b"false"),
        _ => return Err(BadValue::Not("a boolean")),
    }
    Ok(())
}

fn integer(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    /// Those of the smallest bigint.
    const DIGITS_MAX: usize = 19;
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let written = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.len() < DIGITS_MAX && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !written {
        return Err(BadValue::Not("an integer"));
    }
    out.extend_from_slice(text);
    Ok(())
}

fn float(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        return string(text, out);
    }
    if !is_number(text) {
        return Err(BadValue::Not("a floating-point number"));
    }
    out.extend_from_slice(text);
    Ok(())
}

/// Whether JSON takes the text for a number.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(behind) = rest.strip_prefix(b".") {
        let fraction = digits(behind);
        if fraction == 0 {
            return false;
        }
        rest = &behind[fraction..];
    }
    if let [b'e' | b'E', behind @ ..] = rest {
        let behind = behind.strip_prefix(b"+").or(behind.strip_prefix(b"-")).unwrap_or(behind);
        return !behind.is_empty() && digits(behind) == behind.len();
    }
    rest.is_empty()
}

fn timestamptz(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    const NOT: BadValue = BadValue::Not("a timestamp with time zone in UTC");
    if matches!(text, b"infinity" | b"-infinity") || text.ends_with(b" BC") {
        return string(text, out);
    }
    let moment = text.strip_suffix(b"+00").ok_or(NOT)?;
    let space = memchr::memchr(b' ', moment).ok_or(NOT)?;
    let (date, time) = (&moment[..space], &moment[space + 1..]);
    let shaped = |text: &[u8], shape: &[u8]| {
        text.len() == shape.len()
            && text.iter().zip(shape).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                form => byte == form,
            })
    };
    let (clock, fraction) = time.split_at_checked(8).ok_or(NOT)?;
    let fraction_fits = match fraction {
        [] => true,
        [b'.', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !shaped(clock, b"00:00:00") || !fraction_fits {
        return Err(NOT);
    }
    if !shaped(date, b"0000-00-00") {
        // RFC 3339 has years of four digits.
        return string(text, out);
    }
    out.push(b'"');
    out.extend_from_slice(date);
    out.push(b'T');
    out.extend_from_slice(time);
    out.extend_from_slice(b"Z\"");
    Ok(())
}

fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    const NOT: BadValue = BadValue::Not("bytea in hexadecimal form");
    let digits = text.strip_prefix(b"\\x").ok_or(NOT)?;
    if digits.len() % 2 != 0 {
        return Err(NOT);
    }
    let mut bytes = [0; CHUNK_BYTES];
    out.push(b'"');
    for digits in digits.chunks(2 * CHUNK_BYTES) {
        let bytes = &mut bytes[..digits.len() / 2];
        hex::decode_to_slice(digits, bytes).map_err(|_| NOT)?;
        base64(bytes, out);
    }
    out.push(b'"');
    Ok(())
}

/// Bytes that become base64 at a time: three bytes are four characters, so none ends within one.
const CHUNK_BYTES: usize = 768;

/// Appends base64, with padding.
pub(crate) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    // The room is exact, so there is no error.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

#[cfg(test)]
mod tests;
