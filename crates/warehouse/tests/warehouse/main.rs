//! SQL in, rows out; files in, each once.

#![allow(clippy::unwrap_used, reason = "a test")]

mod conformance;
mod load;
mod pipes;
mod sql;
mod world;
