//! From text to a statement, and from Snowflake's expressions to the engine's.

pub(crate) mod ast;
pub(crate) mod build;
pub(crate) mod capture;
mod comparison;
mod copy;
pub(crate) mod front;
pub(crate) mod functions;
pub(crate) mod options;
pub(crate) mod rewrite;
pub(crate) mod scan;
mod source_table;
mod texts;
mod tokens;
pub(crate) mod types;
