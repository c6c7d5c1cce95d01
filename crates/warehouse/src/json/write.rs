//! Writes JSON the way Snowflake shows it: keys sorted; compact as text, indented in an answer.

use super::VARIANT_BYTES_MAX;
use super::raw::{Kind, elements, kind, members};

/// Deepest value that is written; what lies deeper stays as it was stored.
const DEPTH_MAX: usize = 512;

/// A text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    // A string always serializes.
    serde_json::to_string(text).unwrap_or_default()
}

/// Compact, keys sorted: what a cast to VARCHAR gives.
pub(crate) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len().min(VARIANT_BYTES_MAX));
    write(json.trim_ascii(), None, 0, &mut out);
    out
}

/// Indented by two blanks, keys sorted: what an answer shows.
pub(crate) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    write(json.trim_ascii(), Some(2), 0, &mut out);
    out
}

fn line(indent: Option<usize>, depth: usize, out: &mut String) {
    if let Some(width) = indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', width * depth));
    }
}

fn write(json: &str, indent: Option<usize>, depth: usize, out: &mut String) {
    match kind(json) {
        Some(Kind::Object) if depth < DEPTH_MAX => {
            let mut fields: Vec<_> = members(json).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            // Of duplicates the last counts; the sort is stable.
            let mut last_wins: Vec<(std::borrow::Cow<'_, str>, &str)> = Vec::new();
            for field in fields {
                match last_wins.last_mut() {
                    Some(last) if last.0 == field.0 => *last = field,
                    _ => last_wins.push(field),
                }
            }
            out.push('{');
            let count = last_wins.len();
            for (i, (key, value)) in last_wins.into_iter().enumerate() {
                line(indent, depth + 1, out);
                out.push_str(&quote(&key));
                out.push_str(if indent.is_some() { ": " } else { ":" });
                write(value, indent, depth + 1, out);
                if i + 1 < count {
                    out.push(',');
                }
            }
            if count > 0 {
                line(indent, depth, out);
            }
            out.push('}');
        }
        Some(Kind::Array) if depth < DEPTH_MAX => {
            out.push('[');
            let mut first = true;
            for value in elements(json) {
                if !first {
                    out.push(',');
                }
                first = false;
                line(indent, depth + 1, out);
                write(value, indent, depth + 1, out);
            }
            if !first {
                line(indent, depth, out);
            }
            out.push(']');
        }
        Some(Kind::Text) if json.ends_with('"') => out.push_str(json),
        Some(_) => out.push_str(json),
        // Not JSON: a text that reached a VARIANT by way of the engine.
        None => out.push_str(&quote(json)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_the_last_duplicate_counts() {
        let json = r#" { "b" : [1, {"y":2,"x":"q"}], "a":{}, "b2":[], "a":null } "#;
        assert_eq!(compact(json), r#"{"a":null,"b":[1,{"x":"q","y":2}],"b2":[]}"#);
        assert_eq!(pretty(r#"{"b":[1],"a":{}}"#), "{\n  \"a\": {},\n  \"b\": [\n    1\n  ]\n}");
        assert_eq!(pretty("plain"), "\"plain\"");
    }
}
