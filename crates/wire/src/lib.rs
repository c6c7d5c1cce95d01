//! The AWS edge: who is calling, in which protocol, and how errors look. No service's meaning.

pub mod api;

pub use api::{ApiError, JsonService, Principal};
