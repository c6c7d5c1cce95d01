//! Change data capture: a PostgreSQL publication becomes a stream.
//!
//! The pure half reads what the server sends (`pgoutput` and COPY text) and writes records (an
//! envelope, a partition key); it does no I/O and knows no clock. The other half runs a source: it
//! connects, takes the snapshot, follows the slot and appends.

pub mod copy;
pub mod envelope;
pub mod key;
pub mod pgoutput;
pub mod relation;
pub mod row;
mod source;
#[cfg(test)]
mod tests;
pub mod value;

pub use source::{Options, Ports, Sources};
