//! The text of arrays (PostgreSQL: "Array Input and Output Syntax").

use std::borrow::Cow;

use super::{BadValue, Kind, string};

const NOT: BadValue = BadValue::Not("an array");

/// Appends a one-dimensional array whose first index is 1 as a JSON array, any other as its text.
pub(super) fn write(element: Kind, text: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    if text.first() == Some(&b'[') {
        // Lower bounds stand in front: `[2:3]={a,b}`.
        return string(text, out);
    }
    let mut rest = text.strip_prefix(b"{").ok_or(NOT)?;
    if rest == b"}" {
        out.extend_from_slice(b"[]");
        return Ok(());
    }
    if rest.first() == Some(&b'{') {
        return string(text, out);
    }
    out.push(b'[');
    loop {
        rest = one(element, rest, out)?;
        match rest.split_first() {
            Some((b',', behind)) => rest = behind,
            Some((b'}', [])) => break,
            _ => return Err(NOT),
        }
        out.push(b',');
    }
    out.push(b']');
    Ok(())
}

/// Appends the element that `rest` begins with; what is behind it.
fn one<'a>(kind: Kind, rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], BadValue> {
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let (text, behind) = unquoted(quoted)?;
        kind.write(&text, out)?;
        return Ok(behind);
    }
    let end = memchr::memchr2(b',', b'}', rest).ok_or(NOT)?;
    let (text, behind) = rest.split_at(end);
    // What has one of these is always quoted, and what is empty too.
    if text.is_empty() || memchr::memchr3(b'"', b'\\', b'{', text).is_some() {
        return Err(NOT);
    }
    if text.eq_ignore_ascii_case(b"null") {
        out.extend_from_slice(b"null");
    } else {
        kind.write(text, out)?;
    }
    Ok(behind)
}

/// The text of a quoted element, whose opening quote was before `rest`, and what is behind it.
fn unquoted(rest: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), BadValue> {
    let first = memchr::memchr2(b'"', b'\\', rest).ok_or(NOT)?;
    if rest[first] == b'"' {
        return Ok((Cow::Borrowed(&rest[..first]), &rest[first + 1..]));
    }
    let mut text = Vec::new();
    let mut rest = rest;
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest).ok_or(NOT)?;
        text.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            return Ok((Cow::Owned(text), &rest[at + 1..]));
        }
        text.push(*rest.get(at + 1).ok_or(NOT)?);
        rest = &rest[at + 2..];
    }
}
