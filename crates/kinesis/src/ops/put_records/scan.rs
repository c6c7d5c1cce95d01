//! Reads the requests that producers send as a rule, in one pass and without a copy.
//!
//! What is told here is told by the general reader too, and in the same way, if all the data is base64;
//! what is not ordinary (an escape, a null, a member that nobody knows or that is there twice) is its
//! alone, and so is every refusal. A fuzzer compares the two.

use std::borrow::Cow;

use hydrant_core::limits::PUT_RECORDS_MAX;
use hydrant_wire::shape::{Blob, List, Structure, Text};

use super::{Entry, Request};

/// The request, if it is an ordinary one. Data that is no base64 is not noticed: whoever decodes it
/// has to ask the general reader then.
pub(super) fn request(body: &[u8]) -> Option<Request<'_>> {
    let mut text = Cursor { text: body, at: 0 };
    let mut request = Request::default();
    text.object(|text, name| match name {
        b"Records" => once(&mut request.records, records(text)?),
        b"StreamName" => once(&mut request.stream_name, text.characters()?),
        b"StreamARN" => once(&mut request.stream_arn, text.characters()?),
        _ => None,
    })?;
    text.skip_blanks();
    (text.at == body.len()).then_some(request)
}

fn records<'a>(text: &mut Cursor<'a>) -> Option<List<Option<Structure<Entry<'a>>>>> {
    text.take(b'[')?;
    let mut records = Vec::with_capacity(PUT_RECORDS_MAX);
    loop {
        let mut entry = Entry::default();
        text.object(|text, name| match name {
            b"Data" => once(&mut entry.data, Blob::Base64(Cow::Borrowed(text.string()?))),
            b"PartitionKey" => once(&mut entry.partition_key, text.characters()?),
            b"ExplicitHashKey" => once(&mut entry.explicit_hash_key, text.characters()?),
            _ => None,
        })?;
        if records.len() == PUT_RECORDS_MAX {
            return None;
        }
        records.push(Some(Structure(entry)));
        match text.next()? {
            b',' => {}
            b']' => return Some(List(records)),
            _ => return None,
        }
    }
}

/// Sets a member that is not there yet.
fn once<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}

/// A place in a JSON text.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// The next character that is no blank.
    fn next(&mut self) -> Option<u8> {
        self.skip_blanks();
        let next = *self.text.get(self.at)?;
        self.at += 1;
        Some(next)
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    /// An object with at least one member; `member` reads the value that follows a name.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &[u8]) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        loop {
            let name = self.string()?;
            self.take(b':')?;
            member(self, name)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// What is between two quotes, without an escape. It may hold characters that no text of JSON may.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let rest = self.text.get(self.at..)?;
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        self.at += end + 1;
        (rest[end] == b'"').then(|| &rest[..end])
    }

    /// A text without an escape.
    fn characters(&mut self) -> Option<Text<'a>> {
        let bytes = self.string()?;
        let text = std::str::from_utf8(bytes).ok()?;
        let is_plain = bytes.iter().all(|byte| *byte >= b' ');
        is_plain.then_some(Text(Cow::Borrowed(text)))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hydrant_wire::shape::parse;
    use proptest::prelude::*;

    use super::*;

    /// Whether both readers agree: what is ordinary is the same for the other.
    fn agree(body: &[u8]) -> bool {
        let Some(ordinary) = request(body) else { return true };
        let entries = ordinary.entries();
        let mut blobs = entries.iter().filter_map(|entry| entry.data.as_ref());
        let all_base64 = blobs.all(|blob| blob.decoded(&mut Vec::new()).is_ok());
        drop(entries);
        !all_base64 || parse::<Request<'_>>(body) == Ok(ordinary)
    }

    #[test]
    fn what_is_not_ordinary_is_left_to_the_other() {
        let is_ordinary = |body: &str| request(body.as_bytes()).is_some();
        for body in [
            r#"{"Records":[{"Data":"YQ==","PartitionKey":"a"}],"StreamName":"s"}"#,
            r#"{"StreamARN":"x","Records":[{"PartitionKey":"ü","Data":""},{"Data":"?"}]}"#,
            " {\t\"StreamName\" : \"s\" ,\r\n\"Records\" : [ { \"Data\" : \"\" } ] } ",
            r#"{"Records":[{"Data":"","PartitionKey":"a","ExplicitHashKey":"0"}]}"#,
            r#"{"StreamName":"s"}"#,
        ] {
            assert!(is_ordinary(body) && agree(body.as_bytes()), "{body}");
        }
        for body in [
            "",
            "{}",
            "[]",
            r#"{"Records":[]}"#,
            r#"{"Records":[{}]}"#,
            r#"{"Records":[null]}"#,
            r#"{"Records":[{"Data":null}]}"#,
            r#"{"Records":[{"Data":"YQ\u003d="}]}"#,
            r#"{"Records":[{"Data":"","PartitionKey":"\""}]}"#,
            "{\"Records\":[{\"Data\":\"\",\"PartitionKey\":\"\u{1}\"}]}",
            r#"{"Records":[{"Data":"","Data":""}]}"#,
            r#"{"Records":[{"Data":"","More":""}]}"#,
            r#"{"StreamName":"s","StreamName":"s"}"#,
            r#"{"StreamName":"s","StreamId":"s"}"#,
            r#"{"StreamName":"s","DryRun":true}"#,
            r#"{"StreamName":"s"}}"#,
            r#"{"StreamName":"s",}"#,
            r#"{"Records":[{"Data":""},]}"#,
            r#"{"Records":[{"Data":""}"#,
            r#"{"Records":[{"Data":""#,
        ] {
            assert!(!is_ordinary(body), "{body}");
        }
        let many = |count| format!("{{\"Records\":[{}]}}", vec![r#"{"Data":""}"#; count].join(","));
        assert!(is_ordinary(&many(PUT_RECORDS_MAX)) && !is_ordinary(&many(PUT_RECORDS_MAX + 1)));
    }

    proptest! {
        #[test]
        fn both_readers_agree(
            records in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..60), "[a-zü\\\\\" ]{0,12}", any::<u8>()), 0..6),
            name in "[a-z]{1,8}",
            first in any::<bool>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, any::<u8>()), 0..4),
        ) {
            let records: Vec<_> = records.iter().map(|(data, key, form)| {
                let data = format!("\"Data\":\"{}\"", STANDARD.encode(data));
                let key = format!("\"PartitionKey\":{}", serde_json::to_string(key).unwrap());
                match form % 4 {
                    0 => format!("{{{key} , {data}}}"),
                    1 => format!("{{{data},\"ExplicitHashKey\":\"{form}\",{key}}}"),
                    _ => format!("{{{data},{key}}}"),
                }
            }).collect();
            let (records, name) =
                (format!("\"Records\":[{}]", records.join(",")), format!("\"StreamName\":\"{name}\""));
            let body = if first { format!("{{{name},{records}}}") } else { format!("{{{records},{name}}}") };
            let mut body = body.into_bytes();
            prop_assert!(agree(&body));
            for (at, change, byte) in changes {
                let at = at.index(body.len());
                match change {
                    0 => body[at] = byte,
                    1 => drop(body.remove(at)),
                    2 => body.truncate(at),
                    change => body.insert(at, b"{}[]\",:\\ "[change - 3]),
                }
                prop_assert!(agree(&body), "{}", String::from_utf8_lossy(&body));
                if body.is_empty() {
                    break;
                }
            }
        }
    }
}
