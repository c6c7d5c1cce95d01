//! The AWS edge: who is calling, in which protocol, and how errors look. No service's meaning.

pub mod api;
mod body;
pub mod cbor;
pub mod event_stream;
pub mod json;
pub mod origin;
pub mod rpc;
pub mod shape;
pub mod sigv4;

pub use api::{ApiError, Call, Format, JsonService, Pieces, Principal, Reply};
