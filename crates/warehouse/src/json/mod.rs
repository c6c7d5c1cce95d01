//! JSON as text: documents out of a stream of bytes, values out of a document without parsing it all.

pub(crate) mod frame;
pub(crate) mod path;
pub(crate) mod raw;
pub(crate) mod write;

use crate::error::bad_json;
use crate::session::SqlError;

/// Largest VARIANT (Snowflake's limit until 2025, and still what most tables are made for).
pub(crate) const VARIANT_BYTES_MAX: usize = 16 << 20;

/// Checks that a text is one JSON value, and says in Snowflake's words why not.
pub(crate) fn check(text: &str) -> Result<(), SqlError> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(e) => Err(bad_json(describe(text, &e))),
    }
}

/// Place of a serde error as a byte of the text.
fn position(text: &str, e: &serde_json::Error) -> usize {
    let line_start = match e.line() {
        0 | 1 => 0,
        n => text.match_indices('\n').nth(n - 2).map_or(0, |(i, _)| i + 1),
    };
    (line_start + e.column()).min(text.len())
}

fn describe(text: &str, e: &serde_json::Error) -> String {
    let at = position(text, e);
    if e.is_eof() {
        let kind = match text.trim_start().as_bytes().first() {
            Some(b'[') => "array value",
            Some(b'"') => "string value",
            _ => "object value",
        };
        return format!("incomplete {kind}, pos {at}");
    }
    // The word that begins at the error, if one does: Snowflake names it.
    let from = text[..floor(text, at)]
        .rfind(|c: char| !c.is_alphanumeric())
        .map_or(0, |i| i + text[i..].chars().next().map_or(1, char::len_utf8));
    let word: String = text[from..].chars().take_while(|c| c.is_alphanumeric()).take(40).collect();
    let reason = e.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    if word.chars().next().is_some_and(char::is_alphabetic)
        && !matches!(word.as_str(), "true" | "false" | "null")
    {
        return format!("unknown keyword \"{word}\", pos {at}");
    }
    format!("{reason}, pos {at}")
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
