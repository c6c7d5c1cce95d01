//! Updates of an item.

use super::path::{Path, Step};
use crate::error::Error;
use crate::value::{ITEM_BYTES_MAX, Item, Value};

/// What an attribute is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetValue {
    Value(Value),
    Path(Path),
    IfNotExists(Path, Box<SetValue>),
    ListAppend(Box<SetValue>, Box<SetValue>),
    Plus(Box<SetValue>, Box<SetValue>),
    Minus(Box<SetValue>, Box<SetValue>),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Set(SetValue),
    Remove,
    /// Adds to a number, or the members of a set to a set.
    Add(Value),
    /// Takes the members of a set out of a set.
    Delete(Value),
}

/// What is changed, and how; each place at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Update(pub(crate) Vec<(Path, Action)>);

/// What DynamoDB says of an update that makes an item too large.
pub(crate) const TOO_LARGE: &str = "Item size to update has exceeded the maximum allowed size";
const TYPE: &str = "An operand in the update expression has an incorrect data type";

impl Update {
    /// Makes the changes, all of them as seen from the item before them.
    pub(crate) fn apply(&self, item: &mut Item) -> Result<(), Error> {
        let before = item.clone();
        let (mut writes, mut bytes) = (Vec::new(), 0);
        // All of it would stand in the item: what is too large together is not made to its end.
        let mut make = |path, value: Value| {
            bytes += value.size_bytes();
            writes.push((path, value));
            if bytes > ITEM_BYTES_MAX { Err(Error::validation(TOO_LARGE)) } else { Ok(()) }
        };
        let mut removals = Vec::new();
        for (path, action) in &self.0 {
            let old = path.get(&before);
            match action {
                Action::Set(value) => make(path, value.of(&before)?)?,
                Action::Remove => removals.push(path),
                Action::Add(more) => make(path, add(old, more)?)?,
                Action::Delete(less) => match old {
                    None => {}
                    Some(old) => match without(old, less)? {
                        Some(rest) => make(path, rest)?,
                        None => removals.push(path),
                    },
                },
            }
        }
        // Behind the end of a list, in the order of the indices.
        writes.sort_by_key(|(path, _)| *path);
        for (path, value) in writes {
            path.set(item, value)?;
        }
        // From the back, so that the places of a list stay what they were.
        removals.sort();
        for path in removals.into_iter().rev() {
            path.remove(item)?;
        }
        Ok(())
    }

    /// The places it changes.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path)
    }

    /// Refuses two changes of one place, or of a place inside another.
    pub(crate) fn check_overlaps(&self) -> Result<(), String> {
        let paths: Vec<_> = self.paths().collect();
        for (n, one) in paths.iter().enumerate() {
            for two in &paths[n + 1..] {
                if one.overlaps(two) {
                    return Err(format!(
                        "Two document paths overlap with each other; must remove or rewrite one of \
                         these paths; path one: {one}, path two: {two}"
                    ));
                }
                let conflict = one.attribute == two.attribute
                    && one.steps.iter().zip(&two.steps).find(|(a, b)| a != b).is_some_and(|pair| {
                        matches!(
                            pair,
                            (Step::Name(_), Step::Index(_)) | (Step::Index(_), Step::Name(_))
                        )
                    });
                if conflict {
                    return Err(format!(
                        "Two document paths conflict with each other; must remove or rewrite one of \
                         these paths; path one: {one}, path two: {two}"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl SetValue {
    fn of(&self, item: &Item) -> Result<Value, Error> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Path(path) => path.get(item).cloned().ok_or_else(|| {
                Error::validation(
                    "The provided expression refers to an attribute that does not exist in the item",
                )
            }),
            Self::IfNotExists(path, other) => match path.get(item) {
                Some(value) => Ok(value.clone()),
                None => other.of(item),
            },
            Self::ListAppend(a, b) => match (a.of(item)?, b.of(item)?) {
                (Value::List(mut a), Value::List(b)) => {
                    a.extend(b);
                    let list = Value::List(a);
                    if list.size_bytes() > ITEM_BYTES_MAX {
                        return Err(Error::validation(TOO_LARGE));
                    }
                    Ok(list)
                }
                _ => Err(Error::validation(TYPE)),
            },
            Self::Plus(a, b) | Self::Minus(a, b) => match (a.of(item)?, b.of(item)?) {
                (Value::Number(a), Value::Number(b)) => {
                    let sum = if matches!(self, Self::Plus(..)) { a.plus(b) } else { a.minus(b) };
                    sum.map(Value::Number).map_err(|e| Error::validation(e.to_string()))
                }
                _ => Err(Error::validation(TYPE)),
            },
        }
    }
}

fn add(old: Option<&Value>, more: &Value) -> Result<Value, Error> {
    Ok(match (old, more) {
        (None, more) => more.clone(),
        (Some(Value::Number(a)), Value::Number(b)) => {
            Value::Number(a.plus(*b).map_err(|e| Error::validation(e.to_string()))?)
        }
        (Some(Value::Texts(a)), Value::Texts(b)) => Value::Texts(a | b),
        (Some(Value::Numbers(a)), Value::Numbers(b)) => Value::Numbers(a | b),
        (Some(Value::Binaries(a)), Value::Binaries(b)) => Value::Binaries(a | b),
        _ => return Err(Error::validation(TYPE)),
    })
}

/// What is left of a set; `None` if nothing is.
fn without(old: &Value, less: &Value) -> Result<Option<Value>, Error> {
    let rest = match (old, less) {
        (Value::Texts(a), Value::Texts(b)) => Value::Texts(a - b),
        (Value::Numbers(a), Value::Numbers(b)) => Value::Numbers(a - b),
        (Value::Binaries(a), Value::Binaries(b)) => Value::Binaries(a - b),
        _ => return Err(Error::validation(TYPE)),
    };
    Ok(if rest.extent() == Some(0) { None } else { Some(rest) })
}
