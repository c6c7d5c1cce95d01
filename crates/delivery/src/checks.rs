//! AWS's checks of a request's members, in AWS's words.

use serde::de::DeserializeOwned;

use crate::error::Error;

/// Reads a request. An empty body is an empty object, as with AWS.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|e| Error::Serialization(e.to_string()))
}

/// Collects every constraint a request breaks, since AWS reports them all at once.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    broken: Vec<String>,
}

/// Longest piece of a value that an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 200;

impl Checks {
    /// `value` breaks a constraint.
    pub(crate) fn fail(&mut self, at: &str, value: Option<&str>, constraint: &str) {
        let shown = match value {
            Some(text) => {
                let text: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                format!("Value '{text}' at")
            }
            None => "Value at".to_owned(),
        };
        self.broken.push(format!("{shown} '{at}' failed to satisfy constraint: {constraint}"));
    }

    /// The member must be there. Returns it, or `T`'s default to go on checking with.
    pub(crate) fn required<T: Default>(&mut self, at: &str, value: Option<T>) -> T {
        value.unwrap_or_else(|| {
            let null = "Value null at";
            self.broken.push(format!(
                "{null} '{at}' failed to satisfy constraint: Member must not be null"
            ));
            T::default()
        })
    }

    /// The text must have `min..=max` characters.
    pub(crate) fn length(&mut self, at: &str, text: &str, min: usize, max: usize) {
        let chars = text.chars().count();
        if chars > max {
            let rule = format!("Member must have length less than or equal to {max}");
            self.fail(at, Some(text), &rule);
        }
        if chars < min {
            let rule = format!("Member must have length greater than or equal to {min}");
            self.fail(at, Some(text), &rule);
        }
    }

    /// The text must match `pattern`; `matches` says whether it does.
    pub(crate) fn pattern(&mut self, at: &str, text: &str, matches: bool, pattern: &str) {
        if !matches {
            let rule = format!("Member must satisfy regular expression pattern: {pattern}");
            self.fail(at, Some(text), &rule);
        }
    }

    /// The text must be one of `values`.
    pub(crate) fn one_of(&mut self, at: &str, text: &str, values: &[&str]) {
        if !values.contains(&text) {
            let rule = format!("Member must satisfy enum value set: [{}]", values.join(", "));
            self.fail(at, Some(text), &rule);
        }
    }

    /// The number must be in `min..=max`. Returns it, or `min` to go on checking with.
    pub(crate) fn number(&mut self, at: &str, value: i64, min: u32, max: u32) -> u32 {
        if value > i64::from(max) {
            let rule = format!("Member must have value less than or equal to {max}");
            self.fail(at, Some(&value.to_string()), &rule);
        }
        if value < i64::from(min) {
            let rule = format!("Member must have value greater than or equal to {min}");
            self.fail(at, Some(&value.to_string()), &rule);
        }
        u32::try_from(value).unwrap_or(min).clamp(min, max)
    }

    /// The list must have `min..=max` members.
    pub(crate) fn count(&mut self, at: &str, len: usize, min: usize, max: usize) {
        if len > max {
            let rule = format!("Member must have length less than or equal to {max}");
            self.fail(at, None, &rule);
        }
        if len < min {
            let rule = format!("Member must have length greater than or equal to {min}");
            self.fail(at, None, &rule);
        }
    }

    /// The name of a delivery stream.
    pub(crate) fn name(&mut self, at: &str, name: Option<String>) -> String {
        let missing = name.is_none();
        let name = self.required(at, name);
        if !missing {
            self.length(at, &name, 1, 64);
            let valid = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            self.pattern(at, &name, valid, "[a-zA-Z0-9_.-]+");
        }
        name
    }

    /// The error, if any constraint is broken.
    pub(crate) fn done(self) -> Result<(), Error> {
        let found = match self.broken.len() {
            0 => return Ok(()),
            1 => "1 validation error".to_owned(),
            n => format!("{n} validation errors"),
        };
        Err(Error::Validation(format!("{found} detected: {}", self.broken.join("; "))))
    }
}

/// A request of nothing but a delivery stream's name, checked.
pub(crate) fn checked_name(
    name: Option<String>,
) -> Result<hydrant_core::names::DeliveryStreamName, Error> {
    let mut checks = Checks::default();
    let name = checks.name("deliveryStreamName", name);
    checks.done()?;
    name.parse().map_err(|e: hydrant_core::names::InvalidName| Error::Validation(e.to_string()))
}
