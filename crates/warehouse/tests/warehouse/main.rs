//! SQL in, rows out; files in, each once.

mod conformance;
mod load;
mod pipes;
mod sql;
mod world;
