//! Document paths: an attribute, or a place inside one.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;
use crate::value::{Item, Value};

/// One step into a map or a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Name(String),
    Index(usize),
}

/// An attribute by its name, and the steps into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    pub(crate) attribute: String,
    pub(crate) steps: Vec<Step>,
}

/// There is nothing at a path's end that an update could change.
const NOWHERE: &str = "The document path provided in the update expression is invalid for update";

impl Path {
    /// A whole attribute.
    pub(crate) fn attribute(name: impl Into<String>) -> Self {
        Self { attribute: name.into(), steps: Vec::new() }
    }

    /// The value there.
    pub(crate) fn get<'i>(&self, item: &'i Item) -> Option<&'i Value> {
        self.steps.iter().try_fold(item.get(&self.attribute)?, |value, step| match (value, step) {
            (Value::Map(map), Step::Name(name)) => map.get(name),
            (Value::List(list), Step::Index(n)) => list.get(*n),
            _ => None,
        })
    }

    /// Puts a value there. The map or list it goes into has to exist; an index past the end of a list
    /// appends to it.
    pub(crate) fn set(&self, item: &mut Item, value: Value) -> Result<(), Error> {
        let Some((last, parent)) = self.parent(item)? else {
            item.insert(self.attribute.clone(), value);
            return Ok(());
        };
        match (parent, last) {
            (Some(Value::Map(map)), Step::Name(name)) => {
                map.insert(name.clone(), value);
            }
            (Some(Value::List(list)), Step::Index(n)) => match list.get_mut(*n) {
                Some(place) => *place = value,
                None => list.push(value),
            },
            _ => return Err(Error::validation(NOWHERE)),
        }
        Ok(())
    }

    /// Takes away what is there; nothing there is no error, no map or list to look in is.
    pub(crate) fn remove(&self, item: &mut Item) -> Result<(), Error> {
        let Some((last, parent)) = self.parent(item)? else {
            item.remove(&self.attribute);
            return Ok(());
        };
        match (parent, last) {
            (Some(Value::Map(map)), Step::Name(name)) => {
                map.remove(name);
            }
            (Some(Value::List(list)), Step::Index(n)) => {
                if *n < list.len() {
                    list.remove(*n);
                }
            }
            _ => return Err(Error::validation(NOWHERE)),
        }
        Ok(())
    }

    /// The last step, and what it is a step into; `None` for a whole attribute.
    #[allow(clippy::type_complexity, reason = "a pair of borrows, used in the two places above")]
    fn parent<'p, 'i>(
        &'p self,
        item: &'i mut Item,
    ) -> Result<Option<(&'p Step, Option<&'i mut Value>)>, Error> {
        let Some((last, before)) = self.steps.split_last() else { return Ok(None) };
        let start = item.get_mut(&self.attribute);
        let parent = before.iter().fold(start, |value, step| match (value?, step) {
            (Value::Map(map), Step::Name(name)) => map.get_mut(name),
            (Value::List(list), Step::Index(n)) => list.get_mut(*n),
            _ => None,
        });
        Ok(Some((last, parent)))
    }

    /// Whether one of the two is the other, or inside it.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.attribute == other.attribute
            && self.steps.iter().zip(&other.steps).all(|(a, b)| a == b)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.attribute)?;
        for step in &self.steps {
            match step {
                Step::Name(name) => write!(f, ", {name}")?,
                Step::Index(n) => write!(f, ", [{n}]")?,
            }
        }
        f.write_str("]")
    }
}

/// The parts of an item that are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Projection(pub(crate) Vec<Path>);

/// A part of a value on its way to being one: the entries of a list keep their order, not their place.
enum Part {
    Whole(Value),
    Map(BTreeMap<String, Part>),
    List(BTreeMap<usize, Part>),
}

impl Part {
    fn finish(self) -> Value {
        match self {
            Self::Whole(value) => value,
            Self::Map(map) => Value::Map(map.into_iter().map(|(k, v)| (k, v.finish())).collect()),
            Self::List(list) => Value::List(list.into_values().map(Self::finish).collect()),
        }
    }
}

impl Projection {
    /// The parts of this item.
    pub(crate) fn of(&self, item: &Item) -> Item {
        let mut parts: BTreeMap<String, Part> = BTreeMap::new();
        for path in &self.0 {
            let Some(found) = path.get(item) else { continue };
            let Some((last, before)) = path.steps.split_last() else {
                parts.insert(path.attribute.clone(), Part::Whole(found.clone()));
                continue;
            };
            let empty = |step: &Step| match step {
                Step::Name(_) => Part::Map(BTreeMap::new()),
                Step::Index(_) => Part::List(BTreeMap::new()),
            };
            let first = before.first().unwrap_or(last);
            let mut here = parts.entry(path.attribute.clone()).or_insert_with(|| empty(first));
            for (n, step) in path.steps.iter().enumerate() {
                let fill = || match path.steps.get(n + 1) {
                    Some(next) => empty(next),
                    None => Part::Whole(found.clone()),
                };
                here = match (here, step) {
                    (Part::Map(map), Step::Name(name)) => {
                        map.entry(name.clone()).or_insert_with(fill)
                    }
                    (Part::List(list), Step::Index(at)) => list.entry(*at).or_insert_with(fill),
                    // A part that is there whole already has this one in it.
                    (here, _) => here,
                };
            }
        }
        parts.into_iter().map(|(name, part)| (name, part.finish())).collect()
    }
}
