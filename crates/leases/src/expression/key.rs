//! Key conditions: what a `KeyConditionExpression` may say, and which keys it means.

use super::condition::{Comparison, Condition, Function, Operand, begins_with};
use super::path::Path;
use crate::error::Error;
use crate::value::Value;

/// What is asked of a sort key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SortCondition {
    Compare(Comparison, Value),
    Between(Value, Value),
    BeginsWith(Value),
}

impl SortCondition {
    /// Whether a sort key fulfils it.
    pub(crate) fn holds(&self, key: &Value) -> bool {
        match self {
            Self::Compare(how, value) => how.holds(Some(key), Some(value)),
            Self::Between(low, high) => {
                Comparison::GreaterOrEqual.holds(Some(key), Some(low))
                    && Comparison::LessOrEqual.holds(Some(key), Some(high))
            }
            Self::BeginsWith(start) => begins_with(Some(key), Some(start)),
        }
    }

    /// The values it compares with.
    pub(crate) fn values(&self) -> Vec<&Value> {
        match self {
            Self::Compare(_, value) | Self::BeginsWith(value) => vec![value],
            Self::Between(low, high) => vec![low, high],
        }
    }
}

/// One partition, and which of its sort keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyCondition {
    pub(crate) hash: Value,
    pub(crate) range: Option<SortCondition>,
}

impl KeyCondition {
    /// Takes a condition for one on the keys of these names.
    pub(crate) fn of(condition: Condition, hash: &str, range: Option<&str>) -> Result<Self, Error> {
        let parts = match condition {
            Condition::All(parts) => parts,
            one => vec![one],
        };
        let (mut found, mut sort) = (None, None);
        for part in parts {
            let (name, part) = on_one_key(part)?;
            if name == hash {
                let SortCondition::Compare(Comparison::Equal, value) = part else {
                    return Err(unsupported());
                };
                once(&mut found, value)?;
            } else if Some(name.as_str()) == range {
                once(&mut sort, part)?;
            } else {
                let missed = if found.is_none() { hash } else { range.unwrap_or(hash) };
                return Err(missing(missed));
            }
        }
        Ok(Self { hash: found.ok_or_else(|| missing(hash))?, range: sort })
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::validation(
            "Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition \
             per key",
        )),
    }
}

fn missing(name: &str) -> Error {
    Error::validation(format!("Query condition missed key schema element: {name}"))
}

fn unsupported() -> Error {
    Error::validation("Query key condition not supported")
}

fn on_one_key(part: Condition) -> Result<(String, SortCondition), Error> {
    use Operand::{Path as At, Value as Is};
    let (path, condition) = match part {
        Condition::Compare(Comparison::NotEqual, ..) => return Err(unsupported()),
        Condition::Compare(how, At(path), Is(value)) => (path, SortCondition::Compare(how, value)),
        Condition::Between(At(path), Is(low), Is(high)) => {
            (path, SortCondition::Between(low, high))
        }
        Condition::Function(Function::BeginsWith(At(path), Is(start))) => {
            (path, SortCondition::BeginsWith(start))
        }
        Condition::Any(_) => return Err(refused("OR")),
        Condition::Not(_) => return Err(refused("NOT")),
        Condition::In(..) => return Err(refused("IN")),
        _ => return Err(unsupported()),
    };
    match path {
        Path { attribute, steps } if steps.is_empty() => Ok((attribute, condition)),
        _ => Err(Error::validation(
            "Invalid KeyConditionExpression: KeyConditionExpressions cannot have conditions on nested \
             attributes",
        )),
    }
}

fn refused(operator: &str) -> Error {
    Error::validation(format!(
        "Invalid KeyConditionExpression: Invalid operator used in KeyConditionExpression: {operator}"
    ))
}
