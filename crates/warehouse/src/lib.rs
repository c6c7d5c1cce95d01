//! Snowflake's SQL over files in buckets: catalog, stages, pipes, COPY, tables, and two endpoints.

mod answer;
mod capture;
mod catalog;
mod cells;
pub mod driver;
mod engine;
mod error;
mod functions;
mod history;
mod json;
mod load;
pub mod pgwire;
mod pipe;
mod query;
pub mod session;
mod show;
mod sql;
mod stage;
#[cfg(test)]
mod stand_in;
mod state;
mod statement;
mod table;

pub use engine::{Engine, EngineOptions, EngineSessions, OpenError, QUERY_MEMORY_BYTES};
pub use stage::OpenBucket;
pub use state::{Follow, StateOptions};
pub use table::named_files;
