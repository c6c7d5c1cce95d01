//! What lease tables say of the applications that keep them: who has which shard, and how old the
//! record of its checkpoint is.

use std::fmt::Write as _;

use hydrant_core::sequence::{RecordIndex, SequenceNumber};

use crate::Leases;
use crate::error::Error;
use crate::measures::label;
use crate::rows::{self, Pages};
use crate::table::{KeyKind, State, Table};
use crate::value::{Item, Value};

/// Most leases that are shown; an application with more is shown in part.
const LEASES_SHOWN_MAX: usize = 20_000;
/// The partition key of KCL's lease tables, in versions 1, 2 and 3.
const LEASE_KEY: &str = "leaseKey";

impl Leases {
    /// The leases of every KCL application, as Prometheus reads them. Reads the tables, so it is to be
    /// called when somebody asks; fails if the control store does.
    pub async fn exposition(&self) -> Result<String, Error> {
        let now = self.clock.now();
        let mut lines = Vec::new();
        let mut tables = Pages::new(self.control.as_ref(), rows::TABLES.to_owned(), None);
        loop {
            let page = tables.next().await?;
            if page.is_empty() {
                break;
            }
            for (key, row) in &page {
                let table: Table = row.json(key)?;
                if is_of_kcl(&table) && !matches!(table.state, State::Deleting(_)) {
                    self.leases_of(&table, now, &mut lines).await?;
                }
            }
        }
        let mut out = String::new();
        if !lines.is_empty() {
            out.push_str(
                "# HELP hydrant_kcl_checkpoint_age_milliseconds Time since the record of a lease's \
                 checkpoint arrived.\n# TYPE hydrant_kcl_checkpoint_age_milliseconds gauge\n",
            );
        }
        for (labels, age) in lines {
            let _ = writeln!(out, "hydrant_kcl_checkpoint_age_milliseconds{{{labels}}} {age}");
        }
        Ok(out)
    }

    async fn leases_of(
        &self,
        table: &Table,
        now: hydrant_core::Timestamp,
        lines: &mut Vec<(String, u128)>,
    ) -> Result<(), Error> {
        let mut pages = Pages::new(self.control.as_ref(), rows::items(table), None);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                return Ok(());
            }
            for (key, row) in &page {
                if lines.len() >= LEASES_SHOWN_MAX {
                    return Ok(());
                }
                let item = rows::read(key, row)?;
                if let Some(index) = checkpoint(&item) {
                    lines.push((labels(table, &item), now.since(index.time()).as_millis()));
                }
            }
        }
    }
}

fn is_of_kcl(table: &Table) -> bool {
    table.keys.hash == LEASE_KEY
        && table.keys.range.is_none()
        && table.attributes.get(LEASE_KEY) == Some(&KeyKind::S)
}

/// Where the lease stands; nothing before its first record and after its shard's last.
fn checkpoint(item: &Item) -> Option<RecordIndex> {
    let number: SequenceNumber = item.get("checkpoint")?.text()?.parse().ok()?;
    let is_record = number.index != RecordIndex::MIN && number.index != RecordIndex::MAX;
    is_record.then_some(number.index)
}

fn labels(table: &Table, item: &Item) -> String {
    let text = |name: &str| item.get(name).and_then(Value::text).unwrap_or_default();
    let key = text(LEASE_KEY);
    // An application with several streams names them before the shard: ACCOUNT:STREAM:TIME:SHARD.
    let (stream, shard) = key.rsplit_once(':').unwrap_or(("", key));
    let (account, region) = (table.scope.account.to_string(), table.scope.region.to_string());
    let mut labels = vec![
        label("account", &account),
        label("region", &region),
        label("application", &table.name),
        label("shard", shard),
        label("owner", text("leaseOwner")),
    ];
    if !stream.is_empty() {
        labels.push(label("stream", stream));
    }
    labels.join(",")
}
