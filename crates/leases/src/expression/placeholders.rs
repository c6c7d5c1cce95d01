//! What `#names` and `:values` of a request's expressions stand for.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_wire::shape::{Map, Text};

use crate::error::Error;
use crate::value::{RawItem, Value};

/// Longest placeholder (AWS: 255 bytes).
const PLACEHOLDER_BYTES_MAX: usize = 255;

/// `ExpressionAttributeNames` and `ExpressionAttributeValues` of one request. Every one has to be
/// used by one of its expressions.
#[derive(Debug, Default)]
pub(crate) struct Placeholders {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, Value>,
    used: BTreeSet<String>,
}

impl Placeholders {
    /// The placeholders of a request that has expressions, or none. `expressions` names those that it
    /// could have.
    pub(crate) fn read(
        names: Option<Map<'_, Text<'_>>>,
        values: Option<RawItem<'_>>,
        has_expressions: bool,
        expressions: &str,
    ) -> Result<Self, Error> {
        let mut read = Self::default();
        if let Some(names) = names {
            if !has_expressions {
                return Err(Error::validation(
                    "ExpressionAttributeNames can only be specified when using expressions",
                ));
            }
            if names.0.is_empty() {
                return Err(Error::validation("ExpressionAttributeNames must not be empty"));
            }
            for (key, name) in names.0 {
                check_key("ExpressionAttributeNames", &key, '#')?;
                read.names.insert(key.0.into_owned(), name.0.into_owned());
            }
        }
        if let Some(values) = values {
            if !has_expressions {
                return Err(Error::validation(format!(
                    "ExpressionAttributeValues can only be specified when using expressions: \
                     {expressions}"
                )));
            }
            if values.0.is_empty() {
                return Err(Error::validation("ExpressionAttributeValues must not be empty"));
            }
            for (key, value) in values.0 {
                check_key("ExpressionAttributeValues", &key, ':')?;
                let value = value.0.into_value().map_err(|error| match error {
                    Error::Validation(text) => Error::validation(format!(
                        "ExpressionAttributeValues contains invalid value: {text} for key {}",
                        &*key
                    )),
                    other => other,
                })?;
                read.values.insert(key.0.into_owned(), value);
            }
        }
        Ok(read)
    }

    /// The name that `#key` stands for.
    pub(super) fn name(&mut self, key: &str) -> Option<String> {
        let name = self.names.get(key)?.clone();
        self.used.insert(key.to_owned());
        Some(name)
    }

    /// The value that `:key` stands for.
    pub(super) fn value(&mut self, key: &str) -> Option<Value> {
        let value = self.values.get(key)?.clone();
        self.used.insert(key.to_owned());
        Some(value)
    }

    /// Refuses placeholders that no expression used. To be called after all have been read.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let unused = |what: &str, keys: Vec<&String>| -> Result<(), Error> {
            let keys: Vec<_> = keys.into_iter().filter(|key| !self.used.contains(*key)).collect();
            if keys.is_empty() {
                return Ok(());
            }
            let keys: Vec<_> = keys.into_iter().map(String::as_str).collect();
            Err(Error::validation(format!(
                "Value provided in {what} unused in expressions: keys: {{{}}}",
                keys.join(", ")
            )))
        };
        unused("ExpressionAttributeNames", self.names.keys().collect())?;
        unused("ExpressionAttributeValues", self.values.keys().collect())
    }
}

fn check_key(parameter: &str, key: &str, mark: char) -> Result<(), Error> {
    let rest = key.strip_prefix(mark).unwrap_or_default();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if rest.is_empty() || !rest.chars().all(word) || key.len() > PLACEHOLDER_BYTES_MAX {
        let key: String = key.chars().take(PLACEHOLDER_BYTES_MAX).collect();
        let text = format!("{parameter} contains invalid key: Syntax error; key: \"{key}\"");
        return Err(Error::validation(text));
    }
    Ok(())
}
