//! Expressions: conditions, updates and projections as texts with placeholders.
//!
//! Follows "Using expressions in DynamoDB" in the developer guide. A text is read once, with its
//! placeholders filled in, into a tree that is then applied to an item; both are bounded.

mod condition;
mod key;
mod lex;
mod parse;
mod path;
mod placeholders;
mod reserved;
mod update;

pub(crate) use self::condition::{Comparison, Condition, Function, Operand};
pub(crate) use self::key::KeyCondition;
pub(crate) use self::parse::{condition, projection, update};
pub(crate) use self::path::{Path, Projection};
pub(crate) use self::placeholders::Placeholders;
pub(crate) use self::update::{Action, SetValue, TOO_LARGE, Update};

#[cfg(test)]
mod tests;
