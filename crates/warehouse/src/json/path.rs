//! Paths into VARIANT: `a.b[0]['c d']`.

use super::raw::{Kind, element, field, kind};
use crate::error::{SqlResult, syntax};

/// Most steps of one path.
const STEPS_MAX: usize = 256;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Reads `a.b[0]["c d"]`, as GET_PATH takes it.
pub(crate) fn parse(text: &str) -> SqlResult<Vec<Step>> {
    let bad = || syntax(format!("invalid extraction path '{text}'"));
    let mut steps = Vec::new();
    let mut rest = text.strip_prefix(':').unwrap_or(text);
    while !rest.is_empty() {
        if steps.len() >= STEPS_MAX {
            return Err(bad());
        }
        if let Some(inner) = rest.strip_prefix('[') {
            let (step, after) = bracket(inner).ok_or_else(bad)?;
            steps.push(step);
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('"') {
            let end = inner.find('"').ok_or_else(bad)?;
            steps.push(Step::Key(inner[..end].to_owned()));
            rest = &inner[end + 1..];
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end == 0 {
                return Err(bad());
            }
            steps.push(Step::Key(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() {
                return Err(bad());
            }
            rest = after;
        }
    }
    Ok(steps)
}

fn bracket(inner: &str) -> Option<(Step, &str)> {
    let quote = inner.chars().next().filter(|c| *c == '"' || *c == '\'');
    match quote {
        Some(quote) => {
            let end = inner[1..].find(quote)? + 1;
            let after = inner[end + 1..].strip_prefix(']')?;
            Some((Step::Key(inner[1..end].to_owned()), after))
        }
        None => {
            let end = inner.find(']')?;
            Some((Step::Index(inner[..end].trim().parse().ok()?), &inner[end + 1..]))
        }
    }
}

/// Follows a path. A step that is not there, or does not fit the value, is no value.
pub(crate) fn get<'a>(json: &'a str, steps: &[Step]) -> Option<&'a str> {
    let mut value = json;
    for step in steps {
        value = match (step, kind(value)?) {
            (Step::Key(key), Kind::Object) => field(value, key)?,
            (Step::Index(at), Kind::Array) => element(value, *at)?,
            _ => return None,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_followed() {
        let steps = parse(r#"a.b[1]["c d"]['e'].f"#).unwrap();
        assert_eq!(steps.len(), 6);
        let doc = r#"{"a":{"b":[0,{"c d":{"e":{"f":7}}}]}}"#;
        assert_eq!(get(doc, &steps), Some("7"));
        assert_eq!(get(doc, &parse("a.x").unwrap()), None);
        assert_eq!(get(doc, &parse("a[0]").unwrap()), None);
        for bad in ["a..b", "a[", "a[x]", "a.", "[\"a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
