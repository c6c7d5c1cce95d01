//! Where tables and items are in the control store, and reading them.
//!
//! ```text
//! leases/tables/ACCOUNT/REGION/NAME       a table
//! leases/items/TABLE-ID/HASH[/HASH]       an item, under the SHA-256 of its partition and sort key
//! leases/tokens/ACCOUNT/REGION/HASH       a transaction that was made, under its token's SHA-256
//! ```

use hydrant_core::control::{ControlError, ControlStore, Entry};
use hydrant_core::names::Scope;
use sha2::{Digest, Sha256};

use crate::table::Table;
use crate::value::{Item, Value, read_item};

/// Every table of every account.
pub(crate) const TABLES: &str = "leases/tables/";
/// Every token of a transaction.
pub(crate) const TOKENS: &str = "leases/tokens/";

/// Fewest rows read at a time: as many of the largest items are some 25 MB.
const PAGE_ROWS_MIN: usize = 64;
/// Most rows read at a time.
const PAGE_ROWS_MAX: usize = 8_192;
/// About as many bytes as a page of rows may have.
const PAGE_BYTES: usize = 4 << 20;

/// The tables of one account and region.
pub(crate) fn tables(scope: &Scope) -> String {
    format!("{TABLES}{scope}/")
}

/// One table.
pub(crate) fn table(scope: &Scope, name: &str) -> String {
    format!("{TABLES}{scope}/{name}")
}

/// A transaction's token.
pub(crate) fn token(scope: &Scope, token: &str) -> String {
    format!("{TOKENS}{scope}/{}", hex::encode(Sha256::digest(token.as_bytes())))
}

/// Every item of a table.
pub(crate) fn items(table: &Table) -> String {
    format!("leases/items/{}/", table.id)
}

/// Every item of one partition.
pub(crate) fn partition(table: &Table, hash: &Value) -> String {
    format!("{}{}", items(table), digest(hash))
}

/// The item of this key. The caller's duty: a key that fits the table.
pub(crate) fn item(table: &Table, key: &Item) -> String {
    let value = |name: &String| key.get(name).map(digest).unwrap_or_default();
    let hash = value(&table.keys.hash);
    match &table.keys.range {
        None => format!("{}{hash}", items(table)),
        Some(range) => format!("{}{hash}/{}", items(table), value(range)),
    }
}

/// The place before all items whose partition's digest begins with `first` or a greater number.
pub(crate) fn segment_start(table: &Table, first: u32) -> String {
    format!("{}{first:08x}", items(table))
}

/// The number that the digest of an item's partition begins with.
pub(crate) fn segment_of(table: &Table, row: &str) -> Option<u32> {
    let digest = row.strip_prefix(&items(table))?;
    u32::from_str_radix(digest.get(..8)?, 16).ok()
}

fn digest(value: &Value) -> String {
    let hash = match value {
        Value::Binary(bytes) => Sha256::digest(bytes),
        Value::Number(n) => Sha256::digest(n.to_string().as_bytes()),
        Value::Text(text) => Sha256::digest(text.as_bytes()),
        _ => Sha256::digest([]),
    };
    hex::encode(hash)
}

/// The item in a row.
pub(crate) fn read(key: &str, entry: &Entry) -> Result<Item, ControlError> {
    read_item(&entry.value).map_err(|e| ControlError::Corrupt(format!("{key}: {e}")))
}

/// Reads rows under a prefix page by page, each as large as the sizes seen so far allow.
pub(crate) struct Pages<'a> {
    control: &'a dyn ControlStore,
    prefix: String,
    after: Option<String>,
    rows: usize,
    ended: bool,
}

impl<'a> Pages<'a> {
    /// The rows under `prefix` that are behind `after`.
    pub(crate) fn new(
        control: &'a dyn ControlStore,
        prefix: String,
        after: Option<String>,
    ) -> Self {
        Self { control, prefix, after, rows: PAGE_ROWS_MIN, ended: false }
    }

    /// The next rows; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Vec<(String, Entry)>, ControlError> {
        if self.ended {
            return Ok(Vec::new());
        }
        let page = self.control.scan(&self.prefix, self.after.as_deref(), self.rows).await?;
        // A page may be shorter than asked for without being the last.
        self.ended = page.is_empty();
        if let Some((last, _)) = page.last() {
            self.after = Some(last.clone());
            let bytes: usize = page.iter().map(|(key, row)| key.len() + row.value.len()).sum();
            let fitting = PAGE_BYTES / (bytes / page.len()).max(1);
            self.rows = fitting.clamp(PAGE_ROWS_MIN, PAGE_ROWS_MAX);
        }
        Ok(page)
    }
}
