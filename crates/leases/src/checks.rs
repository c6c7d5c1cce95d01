//! Constraints of the model, and the names that requests give tables.

use std::collections::BTreeMap;

use hydrant_core::arn::Arn;
use hydrant_core::limits::TAGS_MAX;
use hydrant_core::names::Scope;
use hydrant_wire::shape::{Flag, Integer, List, Structure, Text};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Error;

/// Longest part of a value that an error repeats.
const SHOWN_CHARS_MAX: usize = 200;

fn violated(value: Option<&str>, at: &str, constraint: &str) -> Error {
    let shown = match value {
        None => "null".to_owned(),
        Some(text) => {
            let text: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            format!("'{text}'")
        }
    };
    Error::validation(format!(
        "1 validation error detected: Value {shown} at '{at}' failed to satisfy constraint: {constraint}"
    ))
}

/// A member that has to be there.
pub(crate) fn required<T>(value: Option<T>, at: &str) -> Result<T, Error> {
    value.ok_or_else(|| violated(None, at, "Member must not be null"))
}

/// The words of an enumeration; absent is the first of them.
pub(crate) fn one_of<'w>(
    value: Option<&Text<'_>>,
    at: &str,
    words: &[&'w str],
) -> Result<&'w str, Error> {
    let Some(text) = value else { return Ok(words.first().copied().unwrap_or_default()) };
    words.iter().copied().find(|word| *word == &**text).ok_or_else(|| {
        let constraint = format!("Member must satisfy enum value set: [{}]", words.join(", "));
        violated(Some(text), at, &constraint)
    })
}

/// A number in a range.
pub(crate) fn number(
    value: Option<Integer>,
    at: &str,
    min: i64,
    max: i64,
) -> Result<Option<u64>, Error> {
    let Some(Integer(n)) = value else { return Ok(None) };
    let wrong = |side: &str, bound: i64| {
        let constraint = format!("Member must have value {side} than or equal to {bound}");
        violated(Some(&n.to_string()), at, &constraint)
    };
    if n < min {
        return Err(wrong("greater", min));
    }
    if n > max {
        return Err(wrong("less", max));
    }
    Ok(u64::try_from(n).ok())
}

/// Whether the text may be the name of a table or an index.
fn check_name(name: &str, at: &str, member: &str) -> Result<(), Error> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        let constraint = "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+";
        return Err(violated(Some(name), at, constraint));
    }
    if !(3..=255).contains(&name.len()) {
        return Err(Error::validation(format!(
            "{member} must be at least 3 characters long and at most 255 characters long"
        )));
    }
    Ok(())
}

/// The table that a request names, by its name or its ARN in the caller's account and region.
pub(crate) fn table_name(value: Option<&Text<'_>>, scope: &Scope) -> Result<String, Error> {
    let text = required(value, "tableName")?;
    if !text.starts_with("arn:") {
        check_name(text, "tableName", "TableName")?;
        return Ok(text.0.clone().into_owned());
    }
    let arn: Arn = text.parse().map_err(|_| Error::validation("Invalid table ARN"))?;
    table_of(&arn, scope)
}

/// The table that an ARN names.
fn table_of(arn: &Arn, scope: &Scope) -> Result<String, Error> {
    if arn.service != "dynamodb" || arn.scope != *scope {
        return Err(Error::no_table());
    }
    let name = arn.name_of("table").ok_or_else(|| Error::validation("Invalid table ARN"))?;
    check_name(name, "tableName", "TableName")?;
    Ok(name.to_owned())
}

/// The table that a `ResourceArn` names.
pub(crate) fn resource(value: Option<&Text<'_>>, scope: &Scope) -> Result<String, Error> {
    let text = required(value, "resourceArn")?;
    let arn: Arn = text.parse().map_err(|_| {
        Error::validation(format!(
            "Invalid TableArn: Invalid ResourceArn provided as input {}",
            &**text
        ))
    })?;
    table_of(&arn, scope)
}

/// The name of an index.
pub(crate) fn index_name(value: Option<&Text<'_>>, at: &str) -> Result<String, Error> {
    let text = required(value, at)?;
    check_name(text, at, "IndexName")?;
    Ok(text.0.clone().into_owned())
}

/// Refuses what would have no effect here.
pub(crate) fn refuse(members: &[(&str, &Option<IgnoredAny>)]) -> Result<(), Error> {
    match members.iter().find(|(_, value)| value.is_some()) {
        Some((name, _)) => Err(Error::unsupported(name)),
        None => Ok(()),
    }
}

/// `Tag` of the API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

/// Tags as they came.
pub(crate) type Tags<'a> = List<Structure<Tag<'a>>>;

/// Puts tags to those that are there.
pub(crate) fn add_tags(
    to: &mut BTreeMap<String, String>,
    tags: Option<&Tags<'_>>,
) -> Result<(), Error> {
    for tag in tags.map(|tags| tags.0.as_slice()).unwrap_or_default() {
        let key = required(tag.0.key.as_ref(), "tags.member.key")?;
        let value = required(tag.0.value.as_ref(), "tags.member.value")?;
        if !(1..=128).contains(&key.chars().count()) || value.chars().count() > 256 {
            let text = "a tag's key has 1 to 128 characters, its value at most 256";
            return Err(Error::invalid(text));
        }
        to.insert(key.0.clone().into_owned(), value.0.clone().into_owned());
    }
    if to.len() > TAGS_MAX {
        return Err(Error::validation(format!(
            "One or more parameter values were invalid: Too many tags: at most {TAGS_MAX}"
        )));
    }
    Ok(())
}

/// A flag; absent is false.
pub(crate) fn flag(value: Option<Flag>) -> bool {
    value.is_some_and(|flag| flag.0)
}
