//! Operations on a table in memory.
