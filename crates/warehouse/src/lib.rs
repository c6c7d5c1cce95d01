//! Snowflake's SQL over files in buckets: catalog, stages, pipes, COPY, tables, and two endpoints.

pub mod session;
