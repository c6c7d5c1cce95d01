//! Finds the members of JSON objects without copying their values.

use std::borrow::Cow;

use crate::limits::JSON_DEPTH_MAX;

/// The members of the object that `text` is, in order: their names and the texts of their values.
/// `None` unless all of `text` is one JSON object.
pub(super) fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let mut members = Vec::new();
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.space();
    scan.object(0, &mut |name, value| members.push((name, value)))?;
    scan.space();
    (scan.at == scan.bytes.len()).then_some(members)
}

/// The elements of the array that `text` is.
pub(super) fn elements(text: &str) -> Option<Vec<&str>> {
    let mut elements = Vec::new();
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    scan.space();
    scan.array(0, &mut |value| elements.push(value))?;
    scan.space();
    (scan.at == scan.bytes.len()).then_some(elements)
}

/// The string that `raw`, the text of a JSON value, is.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn next(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The text from `start` to here. All bounds are behind ASCII, so it is one.
    fn from(&self, start: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes.get(start..self.at)?).ok()
    }

    /// Any value; its text.
    fn value(&mut self, depth: usize) -> Option<&'a str> {
        if depth > JSON_DEPTH_MAX {
            return None;
        }
        let start = self.at;
        match self.next()? {
            b'"' => self.string()?,
            b'{' => self.object(depth, &mut |_, _| {})?,
            b'[' => self.array(depth, &mut |_| {})?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        self.from(start)
    }

    fn object(
        &mut self,
        depth: usize,
        member: &mut dyn FnMut(Cow<'a, str>, &'a str),
    ) -> Option<()> {
        self.take(b'{')?;
        self.space();
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            self.space();
            let start = self.at;
            self.string()?;
            let name = string(self.from(start)?)?;
            self.space();
            self.take(b':')?;
            self.space();
            let value = self.value(depth + 1)?;
            member(name, value);
            self.space();
            if self.take(b',').is_none() {
                return self.take(b'}');
            }
        }
    }

    fn array(&mut self, depth: usize, element: &mut dyn FnMut(&'a str)) -> Option<()> {
        self.take(b'[')?;
        self.space();
        if self.take(b']').is_some() {
            return Some(());
        }
        loop {
            self.space();
            element(self.value(depth + 1)?);
            self.space();
            if self.take(b',').is_none() {
                return self.take(b']');
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.next()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.next()? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        b'u' => {
                            let digits = self.bytes.get(self.at + 1..self.at + 5)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                            self.at += 5;
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.next(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.next(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.next(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, value::Map};

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i16>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((".*", inner), 0..5)
                    .prop_map(|list| Value::Object(list.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_those_a_parser_finds(
            list in proptest::collection::vec((".*", any_json()), 0..6), pretty: bool,
        ) {
            let object: Map<String, Value> = list.into_iter().collect();
            let text = if pretty {
                serde_json::to_string_pretty(&object).unwrap()
            } else {
                serde_json::to_string(&object).unwrap()
            };
            let found = members(&text).unwrap().into_iter().map(|(name, value)| {
                (name.into_owned(), serde_json::from_str(value).unwrap())
            });
            prop_assert_eq!(found.collect::<Map<_, _>>(), object);
        }

        #[test]
        fn what_is_taken_is_json(text in r#"[\[\]{}:,"\\a0-9eE.+\- ]{0,24}"#) {
            let object = format!("{{\"a\":{text}}}");
            if members(&object).is_some() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&object).is_ok(), "{object}");
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(members(&deep), None);
    }
}
