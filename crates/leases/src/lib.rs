//! What the Kinesis Client Library and its relatives ask of other services: a lease table (the
//! operations of DynamoDB that they use), a place for their measurements (CloudWatch's
//! `PutMetricData`), and who they are (STS's `GetCallerIdentity`).
//!
//! Follows the "Amazon DynamoDB API reference". It is a table for leases, not a database: what it has
//! is read from the control store at each request and is bounded in number; what it has not is refused
//! by name. Every conditional change is one commit that names the version it saw.

mod capacity;
mod checks;
mod error;
mod expression;
mod identity;
mod keep;
mod lag;
mod legacy;
mod measures;
mod number;
mod ops;
mod page;
mod rows;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::control::ControlStore;
use hydrant_core::{Clock, Random};
use hydrant_wire::{ApiError, Call, JsonService, Reply};
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock};

pub use crate::error::Error;
pub use crate::identity::Identity;
pub use crate::measures::Measures;

/// What an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a new table or index shows CREATING.
    pub create_delay: Duration,
    /// How long a table shows UPDATING after a change.
    pub update_delay: Duration,
    /// How long a table or index shows DELETING before it is gone.
    pub delete_delay: Duration,
    /// Most tables of one account and region.
    pub tables_max: usize,
    /// Most items of one table.
    pub items_max: usize,
}

impl Default for Options {
    /// Delays that a test hardly notices but a waiter does, 256 tables and 100,000 items.
    fn default() -> Self {
        Self {
            create_delay: Duration::from_millis(20),
            update_delay: Duration::from_millis(20),
            delete_delay: Duration::from_millis(20),
            tables_max: 256,
            items_max: 100_000,
        }
    }
}

/// The lease tables. Give it to the JSON front, and spawn [`Leases::run`].
pub struct Leases {
    control: Arc<dyn ControlStore>,
    clock: Arc<dyn Clock>,
    random: Arc<Random>,
    options: Options,
    /// Held shared by every change of items, alone by what must see no such change, and no new table,
    /// under way.
    writing: RwLock<()>,
    /// Shared by the items, by their row's hash: in one process nobody loses a race.
    items: Vec<tokio::sync::Mutex<()>>,
    /// Of each table whose items have been counted, by its id.
    counts: Mutex<HashMap<String, store::Count>>,
    wake: Notify,
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Leases {
    /// The tables that are in the control store.
    pub fn new(
        control: Arc<dyn ControlStore>,
        clock: Arc<dyn Clock>,
        random: Arc<Random>,
        options: Options,
    ) -> Self {
        let items = (0..store::ITEM_LOCKS).map(|_| tokio::sync::Mutex::default()).collect();
        Self {
            control,
            clock,
            random,
            options,
            writing: RwLock::default(),
            items,
            counts: Mutex::default(),
            wake: Notify::new(),
        }
    }
}

#[async_trait]
impl JsonService for Leases {
    fn target(&self) -> &'static str {
        "DynamoDB_20120810"
    }

    fn has_checksums(&self) -> bool {
        true
    }

    async fn call(&self, call: Call) -> Result<Reply, ApiError> {
        Ok(ops::run(self, &call).await.unwrap_or_else(Error::into_reply))
    }
}
