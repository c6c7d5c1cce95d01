//! Strings of JSON.

use super::BadValue;

const WORD: usize = size_of::<u64>();

/// Appends a text as a JSON string.
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    std::str::from_utf8(text).map_err(|_| BadValue::NotUtf8)?;
    out.reserve(text.len() + 2);
    out.push(b'"');
    escaped(text, out);
    out.push(b'"');
    Ok(())
}

/// Appends what stands between the quotes of a JSON string.
pub(super) fn escaped(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let plain = plain(text);
        out.extend_from_slice(&text[..plain]);
        let Some((byte, rest)) = text[plain..].split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digits = [HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
        text = rest;
    }
}

/// How many bytes from the start can stand in a JSON string as they are. Looks at eight at a time.
fn plain(text: &[u8]) -> usize {
    let (words, tail) = text.as_chunks::<WORD>();
    for (at, word) in words.iter().enumerate() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return at * WORD + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    text.len() - tail.len() + tail.iter().position(special).unwrap_or(tail.len())
}

/// The high bit of each byte that is a control character, a quote or a backslash. A byte above the
/// lowest that is marked may be marked wrongly, by a borrow; the lowest is right.
fn special(word: u64) -> u64 {
    const LOW: u64 = u64::MAX / 255;
    const HIGH: u64 = LOW << 7;
    let below = |word: u64, bound: u8| word.wrapping_sub(LOW * u64::from(bound)) & !word;
    let equal = |byte: u8| below(word ^ (LOW * u64::from(byte)), 1);
    (below(word, 0x20) | equal(b'"') | equal(b'\\')) & HIGH
}
