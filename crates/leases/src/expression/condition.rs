//! Conditions, and whether an item fulfils them.

use std::cmp::Ordering;

use super::path::Path;
use crate::number::Number;
use crate::value::{Item, Value};

/// A comparison of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// As expressions write it.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// Whether it asks for an order, which only strings, numbers and binaries have.
    pub(crate) fn is_ordering(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }

    /// Whether it holds. What is not there equals nothing; different types have no order.
    pub(crate) fn holds(self, a: Option<&Value>, b: Option<&Value>) -> bool {
        let equal = a.is_some() && a == b;
        match self {
            Self::Equal => equal,
            Self::NotEqual => !equal,
            _ => a.zip(b).and_then(|(a, b)| order(a, b)).is_some_and(|order| match self {
                Self::Less => order == Ordering::Less,
                Self::LessOrEqual => order != Ordering::Greater,
                Self::Greater => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }),
        }
    }
}

/// The order of two values of one type that has one.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
        (Value::Binary(a), Value::Binary(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Path(Path),
    Value(Value),
    Size(Path),
}

impl Operand {
    /// Calls `with` with the operand's value for this item.
    fn with<T>(&self, item: &Item, with: impl FnOnce(Option<&Value>) -> T) -> T {
        match self {
            Self::Path(path) => with(path.get(item)),
            Self::Value(value) => with(Some(value)),
            Self::Size(path) => {
                let size = path.get(item).and_then(Value::extent);
                let size = size.map(|n| Value::Number(Number::from(n)));
                with(size.as_ref())
            }
        }
    }
}

/// A question about one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Exists(Path),
    NotExists(Path),
    Type(Path, String),
    BeginsWith(Operand, Operand),
    Contains(Operand, Operand),
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// All of them; none is true.
    All(Vec<Condition>),
    /// One of them; none is false.
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Comparison, Operand, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Function(Function),
}

impl Condition {
    /// Whether the item fulfils it. An item that is not there is one without attributes.
    pub(crate) fn holds(&self, item: &Item) -> bool {
        match self {
            Self::All(all) => all.iter().all(|c| c.holds(item)),
            Self::Any(any) => any.iter().any(|c| c.holds(item)),
            Self::Not(inner) => !inner.holds(item),
            Self::Compare(how, a, b) => a.with(item, |a| b.with(item, |b| how.holds(a, b))),
            Self::Between(value, low, high) => value.with(item, |value| {
                low.with(item, |low| Comparison::GreaterOrEqual.holds(value, low))
                    && high.with(item, |high| Comparison::LessOrEqual.holds(value, high))
            }),
            Self::In(value, list) => value.with(item, |value| {
                list.iter().any(|one| one.with(item, |one| Comparison::Equal.holds(value, one)))
            }),
            Self::Function(function) => function.holds(item),
        }
    }
}

impl Function {
    fn holds(&self, item: &Item) -> bool {
        match self {
            Self::Exists(path) => path.get(item).is_some(),
            Self::NotExists(path) => path.get(item).is_none(),
            Self::Type(path, kind) => path.get(item).is_some_and(|value| value.kind() == kind),
            Self::BeginsWith(value, start) => {
                value.with(item, |value| start.with(item, |start| begins_with(value, start)))
            }
            Self::Contains(value, part) => {
                value.with(item, |value| part.with(item, |part| contains(value, part)))
            }
        }
    }
}

/// Whether a string or binary begins with another.
pub(super) fn begins_with(value: Option<&Value>, start: Option<&Value>) -> bool {
    match (value, start) {
        (Some(Value::Text(value)), Some(Value::Text(start))) => value.starts_with(start),
        (Some(Value::Binary(value)), Some(Value::Binary(start))) => value.starts_with(start),
        _ => false,
    }
}

fn contains(value: Option<&Value>, part: Option<&Value>) -> bool {
    let (Some(value), Some(part)) = (value, part) else { return false };
    match (value, part) {
        (Value::Text(value), Value::Text(part)) => value.contains(part.as_str()),
        (Value::Binary(value), Value::Binary(part)) => {
            part.is_empty() || value.windows(part.len()).any(|window| window == part)
        }
        (Value::Texts(set), Value::Text(part)) => set.contains(part),
        (Value::Numbers(set), Value::Number(part)) => set.contains(part),
        (Value::Binaries(set), Value::Binary(part)) => set.contains(part),
        (Value::List(list), part) => list.contains(part),
        _ => false,
    }
}
