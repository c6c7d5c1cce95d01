//! Reads values out of valid JSON text, skipping what is not asked for.
//!
//! The text was checked when it was stored. On a text that is not JSON nothing here panics; the
//! answer is `None` or a part of the text.

use std::borrow::Cow;

/// What a JSON value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Text,
    Number,
    True,
    False,
    Null,
}

pub(crate) fn kind(json: &str) -> Option<Kind> {
    Some(match json.trim_ascii_start().as_bytes().first()? {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::Text,
        b't' => Kind::True,
        b'f' => Kind::False,
        b'n' => Kind::Null,
        b'-' | b'0'..=b'9' => Kind::Number,
        _ => return None,
    })
}

fn blank(b: &[u8], mut i: usize) -> usize {
    while matches!(b.get(i), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        i += 1;
    }
    i
}

/// End of the string that begins at `i`.
fn string_end(b: &[u8], i: usize) -> Option<usize> {
    let mut at = i + 1;
    loop {
        match b.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// End of the value that begins at `i`. No recursion, however deep the value is.
fn value_end(b: &[u8], i: usize) -> Option<usize> {
    match b.get(i)? {
        b'"' => string_end(b, i),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0_usize, i);
            loop {
                match b.get(at)? {
                    b'"' => {
                        at = string_end(b, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let mut at = i;
            while b.get(at).is_some_and(|c| !matches!(c, b',' | b'}' | b']') && *c > b' ') {
                at += 1;
            }
            (at > i).then_some(at)
        }
    }
}

/// The text of a JSON string, with its quotes.
pub(crate) fn unquote(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Keys and values of an object; nothing for anything else.
pub(crate) struct Members<'a> {
    json: &'a str,
    at: usize,
}

pub(crate) fn members(json: &str) -> Members<'_> {
    let json = json.trim_ascii();
    let at = if json.starts_with('{') { 1 } else { json.len() };
    Members { json, at }
}

impl<'a> Members<'a> {
    /// The key with its quotes, and the value.
    fn next_raw(&mut self) -> Option<(&'a str, &'a str)> {
        let b = self.json.as_bytes();
        let key_at = blank(b, self.at);
        if b.get(key_at) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(b, key_at)?;
        let colon = blank(b, key_end);
        if b.get(colon) != Some(&b':') {
            return None;
        }
        let from = blank(b, colon + 1);
        let to = value_end(b, from)?;
        let mut next = blank(b, to);
        if b.get(next) == Some(&b',') {
            next += 1;
        }
        self.at = next;
        Some((self.json.get(key_at..key_end)?, self.json.get(from..to)?))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.next_raw()?;
        Some((unquote(key)?, value))
    }
}

/// Elements of an array; nothing for anything else.
pub(crate) struct Elements<'a> {
    json: &'a str,
    at: usize,
}

pub(crate) fn elements(json: &str) -> Elements<'_> {
    let json = json.trim_ascii();
    let at = if json.starts_with('[') { 1 } else { json.len() };
    Elements { json, at }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let b = self.json.as_bytes();
        let from = blank(b, self.at);
        if matches!(b.get(from), None | Some(b']')) {
            return None;
        }
        let to = value_end(b, from)?;
        let mut next = blank(b, to);
        if b.get(next) == Some(&b',') {
            next += 1;
        }
        self.at = next;
        self.json.get(from..to)
    }
}

/// The value under a key; of duplicates the last, as Snowflake has it.
pub(crate) fn field<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let mut members = members(json);
    let mut found = None;
    while let Some((name, value)) = members.next_raw() {
        let inner = name.get(1..name.len().saturating_sub(1)).unwrap_or_default();
        let same = if inner.contains('\\') {
            unquote(name).is_some_and(|n| n == key)
        } else {
            inner == key
        };
        if same {
            found = Some(value);
        }
    }
    found
}

/// The value under a key, whatever the key's case.
pub(crate) fn field_any_case<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    members(json).filter(|(k, _)| k.to_uppercase() == key.to_uppercase()).last().map(|(_, v)| v)
}

/// The element at a place, counted from 0.
pub(crate) fn element(json: &str, at: usize) -> Option<&str> {
    elements(json).nth(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_found_without_parsing_the_rest() {
        let doc = r#"{"a\"b":1, "x" : {"y":[10, {"z":"q\"}"} , null]}, "x2":true, "a\"b":2}"#;
        assert_eq!(field(doc, "a\"b"), Some("2"));
        let x = field(doc, "x").unwrap();
        let y = field(x, "y").unwrap();
        assert_eq!(element(y, 0), Some("10"));
        assert_eq!(element(y, 1).and_then(|e| field(e, "z")), Some(r#""q\"}""#));
        assert_eq!(element(y, 3), None);
        assert_eq!(field_any_case(doc, "X2"), Some("true"));
        assert_eq!(elements("[]").count(), 0);
        assert_eq!(members("{}").count(), 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[\[\]{}",:\\a0 é]{0,40}"#) {
            let _ = (field(&text, "a"), element(&text, 1), members(&text).count(), kind(&text));
            let _ = (elements(&text).count(), unquote(&text));
        }
    }
}
