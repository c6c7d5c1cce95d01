//! From text to a statement, and from Snowflake's expressions to the engine's.

pub(crate) mod ast;
mod copy;
pub(crate) mod front;
pub(crate) mod options;
pub(crate) mod scan;
mod tokens;
pub(crate) mod types;
