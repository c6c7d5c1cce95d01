//! `ListTables`: names in order, a page at a time.

use bytes::Bytes;
use hydrant_core::control::scan_all;
use hydrant_wire::Call;
use hydrant_wire::shape::{Integer, Text};
use serde::{Deserialize, Serialize};

use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::rows;

/// Most names of one page (AWS).
const NAMES_MAX: i64 = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    exclusive_start_table_name: Option<Text<'a>>,
    limit: Option<Integer>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    last_evaluated_table_name: Option<String>,
    table_names: Vec<String>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let limit = checks::number(request.limit, "limit", 1, NAMES_MAX)?.unwrap_or(NAMES_MAX as u64);
    let prefix = rows::tables(call.scope());
    let start = request.exclusive_start_table_name.as_deref().unwrap_or_default();
    let all = scan_all(leases.control.as_ref(), &prefix).await?;
    let names = all.iter().filter_map(|(key, _)| key.strip_prefix(&prefix));
    let mut names: Vec<String> = names.filter(|name| *name > start).map(str::to_owned).collect();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = names.len() > limit;
    names.truncate(limit);
    let last_evaluated_table_name = names.last().filter(|_| more).cloned();
    Ok(call.write(&Reply { last_evaluated_table_name, table_names: names })?)
}
