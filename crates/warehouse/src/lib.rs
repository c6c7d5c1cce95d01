//! Snowflake's SQL over files in buckets: catalog, stages, pipes, COPY, tables, and two endpoints.

mod cells;
pub mod driver;
pub mod pgwire;
pub mod session;
#[cfg(test)]
mod stand_in;
