//! Forms of the query protocol, as the JSON of the structure that their names spell out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use crate::api::ApiError;

/// Most parts of one name: `EntityMetricData.member.1.MetricData.member.1.Dimensions.member.1.Name`.
const PARTS_MAX: usize = 10;
/// Most parts of all names: what the greatest `PutMetricData` has that fits into a body.
const FORM_PARTS_MAX: usize = 200_000;

/// A form that was read.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) action: Option<String>,
    pub(super) version: Option<String>,
    /// Everything else. Every scalar is a text: the form does not say what it is.
    pub(super) json: Value,
}

/// A name's value, or what stands under it.
enum Node {
    Leaf(String),
    Names(BTreeMap<String, Node>),
}

/// Reads `name=value&…`. Parameters of a signature are not part of it.
pub(super) fn read(text: &[u8]) -> Result<Form, ApiError> {
    let mut form = Form { action: None, version: None, json: Value::Null };
    let mut root = BTreeMap::new();
    let mut parts = 0;
    for pair in text.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let name = decoded(&pair[..at])?;
        let value = decoded(pair.get(at + 1..).unwrap_or_default())?;
        match name.as_str() {
            "Action" => form.action = Some(value),
            "Version" => form.version = Some(value),
            name if name.starts_with("X-Amz-") => {}
            name => {
                parts += name.split('.').count();
                if parts > FORM_PARTS_MAX {
                    return Err(malformed("The parameters have too many parts."));
                }
                put(&mut root, name, value)?;
            }
        }
    }
    form.json = Node::Names(root).into_json();
    Ok(form)
}

fn malformed(text: &str) -> ApiError {
    ApiError::new("MalformedQueryString", text)
}

fn decoded(text: &[u8]) -> Result<String, ApiError> {
    let text: Cow<'_, [u8]> = if text.contains(&b'+') {
        text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect::<Vec<_>>().into()
    } else {
        text.into()
    };
    let text = percent_decode(&text).decode_utf8();
    text.map(Cow::into_owned).map_err(|_| malformed("The query string is not UTF-8."))
}

fn put(root: &mut BTreeMap<String, Node>, name: &str, value: String) -> Result<(), ApiError> {
    if name.split('.').count() > PARTS_MAX {
        return Err(malformed("A parameter's name has too many parts."));
    }
    let conflict = || malformed("A parameter is given twice, or as a value and as a structure.");
    let mut parts = name.split('.').peekable();
    let mut here = root;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return match here.insert(part.to_owned(), Node::Leaf(value)) {
                None => Ok(()),
                Some(_) => Err(conflict()),
            };
        }
        let next = here.entry(part.to_owned()).or_insert_with(|| Node::Names(BTreeMap::new()));
        here = match next {
            Node::Names(names) => names,
            Node::Leaf(_) => return Err(conflict()),
        };
    }
    Ok(())
}

impl Node {
    fn into_json(self) -> Value {
        let mut names = match self {
            Self::Leaf(text) => return Value::String(text),
            Self::Names(names) => names,
        };
        let is_list = names.len() == 1 && matches!(names.get("member"), Some(Self::Names(_)));
        if is_list && let Some(Self::Names(members)) = names.remove("member") {
            // In the order of the numbers, not of their texts.
            let numbered = members.into_iter();
            let mut list: Vec<(u32, Node)> =
                numbered.map(|(place, node)| (place.parse().unwrap_or(u32::MAX), node)).collect();
            list.sort_by_key(|(place, _)| *place);
            return Value::Array(list.into_iter().map(|(_, node)| node.into_json()).collect());
        }
        Value::Object(names.into_iter().map(|(k, v)| (k, v.into_json())).collect::<Map<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_in_each_name_and_in_all() {
        assert!(read(b"Action=A&a.member.1.b=1").is_ok());
        assert!(read(b"a.b.c.d.e.f.g.h.i.j.k=1").is_err());
        let pairs: Vec<String> = (0..30_000).map(|n| format!("{n}.b.c.d.e.f.g=")).collect();
        assert_eq!(read(pairs.join("&").as_bytes()).unwrap_err().code, "MalformedQueryString");
    }
}
