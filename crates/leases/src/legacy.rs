//! The parameters that expressions came after: `Expected` and `AttributeUpdates`, which KCL uses.
//!
//! Follows "Legacy conditional parameters" in the DynamoDB developer guide. They become the same
//! conditions and updates as expressions do.

use hydrant_wire::shape::{Flag, List, Map, Structure, Text};
use serde::Deserialize;

use crate::checks;
use crate::error::Error;
use crate::expression::{Action, Comparison, Condition, Function, Operand, Path, SetValue, Update};
use crate::value::{RawValue, Value};

/// `ExpectedAttributeValue` of the API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Expectation<'a> {
    #[serde(borrow)]
    value: Option<Structure<RawValue<'a>>>,
    exists: Option<Flag>,
    #[serde(borrow)]
    comparison_operator: Option<Text<'a>>,
    #[serde(borrow)]
    attribute_value_list: Option<List<Structure<RawValue<'a>>>>,
}

/// `Expected`.
pub(crate) type Expected<'a> = Map<'a, Structure<Expectation<'a>>>;

/// `AttributeValueUpdate` of the API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ValueUpdate<'a> {
    #[serde(borrow)]
    value: Option<Structure<RawValue<'a>>>,
    #[serde(borrow)]
    action: Option<Text<'a>>,
}

/// `AttributeUpdates`.
pub(crate) type Updates<'a> = Map<'a, Structure<ValueUpdate<'a>>>;

const OPERATORS: [&str; 13] = [
    "EQ",
    "NE",
    "IN",
    "LE",
    "LT",
    "GE",
    "GT",
    "BETWEEN",
    "NOT_NULL",
    "NULL",
    "CONTAINS",
    "NOT_CONTAINS",
    "BEGINS_WITH",
];

/// The condition that `Expected` and `ConditionalOperator` make.
pub(crate) fn condition(
    expected: Option<Expected<'_>>,
    operator: Option<&Text<'_>>,
) -> Result<Option<Condition>, Error> {
    let joined_by = checks::one_of(operator, "conditionalOperator", &["AND", "OR"])?;
    let Some(expected) = expected else {
        return match operator {
            None => Ok(None),
            Some(_) => Err(Error::validation(
                "ConditionalOperator cannot be used without Filter or Expected",
            )),
        };
    };
    let parts = expected.0.into_iter().map(|(name, one)| one_condition(&name, one.0));
    let parts: Vec<_> = parts.collect::<Result<_, _>>()?;
    Ok(match joined_by {
        _ if parts.is_empty() => None,
        "OR" => Some(Condition::Any(parts)),
        _ => Some(Condition::All(parts)),
    })
}

fn one_condition(name: &str, one: Expectation<'_>) -> Result<Condition, Error> {
    let path = Path::attribute(name);
    let wrong = |text: &str| Err(Error::invalid(&format!("{text} for Attribute: {name}")));
    if let Some(operator) = &one.comparison_operator {
        if one.exists.is_some() {
            return wrong("Exists and ComparisonOperator cannot be used together");
        }
        let operator = checks::one_of(Some(operator), "comparisonOperator", &OPERATORS)?;
        let values = match (one.attribute_value_list, one.value) {
            (Some(_), Some(_)) => {
                return wrong("Value and AttributeValueList cannot be used together");
            }
            (Some(list), None) => list.0,
            (None, value) => value.into_iter().collect(),
        };
        let values: Result<Vec<Value>, Error> =
            values.into_iter().map(|value| value.0.into_value()).collect();
        return compared(path, operator, values?);
    }
    if one.attribute_value_list.is_some() {
        return wrong("AttributeValueList can only be used with a ComparisonOperator");
    }
    match (one.exists.map(|flag| flag.0), one.value) {
        (Some(false), None) => Ok(Condition::Function(Function::NotExists(path))),
        (Some(false), Some(_)) => wrong("Value cannot be used when Exists is false"),
        (Some(true), None) => wrong("Value must be provided when Exists is true"),
        (None, None) => wrong("Value must be provided when Exists is null"),
        (_, Some(value)) => {
            let value = Operand::Value(value.0.into_value()?);
            Ok(Condition::Compare(Comparison::Equal, Operand::Path(path), value))
        }
    }
}

fn compared(path: Path, operator: &str, values: Vec<Value>) -> Result<Condition, Error> {
    let count = match operator {
        "NULL" | "NOT_NULL" => values.is_empty(),
        "BETWEEN" => values.len() == 2,
        "IN" => !values.is_empty(),
        _ => values.len() == 1,
    };
    if !count {
        return Err(Error::invalid(&format!(
            "Invalid number of argument(s) for the {operator} ComparisonOperator"
        )));
    }
    let at = Operand::Path(path.clone());
    let mut values = values.into_iter().map(Operand::Value);
    let mut next = || values.next().unwrap_or(Operand::Value(Value::Null));
    let compare = |how, value| Condition::Compare(how, at.clone(), value);
    Ok(match operator {
        "NULL" => Condition::Function(Function::NotExists(path)),
        "NOT_NULL" => Condition::Function(Function::Exists(path)),
        "EQ" => compare(Comparison::Equal, next()),
        "NE" => compare(Comparison::NotEqual, next()),
        "LE" => compare(Comparison::LessOrEqual, next()),
        "LT" => compare(Comparison::Less, next()),
        "GE" => compare(Comparison::GreaterOrEqual, next()),
        "GT" => compare(Comparison::Greater, next()),
        "BETWEEN" => Condition::Between(at, next(), next()),
        "BEGINS_WITH" => Condition::Function(Function::BeginsWith(at, next())),
        "CONTAINS" => Condition::Function(Function::Contains(at, next())),
        "NOT_CONTAINS" => {
            let contains = Condition::Function(Function::Contains(at, next()));
            Condition::All(vec![
                Condition::Function(Function::Exists(path)),
                Condition::Not(Box::new(contains)),
            ])
        }
        _ => Condition::In(at, values.collect()),
    })
}

/// The update that `AttributeUpdates` makes.
pub(crate) fn update(updates: Updates<'_>) -> Result<Update, Error> {
    let mut update = Update::default();
    for (name, one) in updates.0 {
        let action = checks::one_of(
            one.0.action.as_ref(),
            "attributeUpdates.member.action",
            &["PUT", "ADD", "DELETE"],
        )?;
        let value = one.0.value.map(|value| value.0.into_value()).transpose()?;
        let action = match (action, value) {
            ("PUT", Some(value)) => Action::Set(SetValue::Value(value)),
            ("DELETE", None) => Action::Remove,
            ("DELETE", Some(value)) if is_set(&value) => Action::Delete(value),
            ("ADD", Some(value)) if is_set(&value) || matches!(value, Value::Number(_)) => {
                Action::Add(value)
            }
            (_, None) => {
                return Err(Error::invalid(
                    "Only DELETE action is allowed when no attribute value is specified",
                ));
            }
            (action, Some(value)) => {
                return Err(Error::invalid(&format!(
                    "{action} action is not supported for the type {}",
                    value.kind()
                )));
            }
        };
        update.0.push((Path::attribute(name.0.into_owned()), action));
    }
    Ok(update)
}

fn is_set(value: &Value) -> bool {
    matches!(value, Value::Texts(_) | Value::Numbers(_) | Value::Binaries(_))
}
