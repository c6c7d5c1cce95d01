//! What goes on beside requests: tables that are deleted, items that expire, tokens that are forgotten.
//!
//! A deletion marks the table's row, removes its items and then the row; a crash before the last step
//! leaves a row that is still marked, and the next start goes on with it.

use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::control::{ControlError, Write, scan_all};
use serde::{Deserialize, Serialize};

use crate::Leases;
use crate::error::Error;
use crate::rows::{self, Pages};
use crate::store::{Change, Next};
use crate::table::{State, Table};
use crate::value::{Item, Value};

/// How long a transaction's token is known (AWS: ten minutes).
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// How often expired items and tokens are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Rows removed in one commit.
const DELETES_MAX: usize = 1_000;
/// How long ago an item may have expired to be removed (AWS: five years), so that a number that is
/// no moment removes nothing.
const EXPIRED_SECONDS_MAX: u64 = 5 * 365 * 86_400;

/// A transaction that was made, kept under its token.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// SHA-256 of the request without its token.
    pub(crate) request: String,
    pub(crate) made: Timestamp,
}

impl Leases {
    /// Finishes deletions and sweeps, for ever. The caller's duty: spawn it once; dropping it loses
    /// nothing, the next one goes on.
    pub async fn run(&self) {
        let mut next_sweep = self.clock.now();
        loop {
            let pause = match self.settle(&mut next_sweep).await {
                Ok(next) => next.since(self.clock.now()).max(Duration::from_millis(1)),
                Err(error) => {
                    tracing::warn!(%error, "lease tables: will try again");
                    RETRY
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does what is due, and tells when something will be due again. [`Leases::run`] calls it; a test
    /// with a clock of its own does so itself.
    pub(crate) async fn settle(&self, next_sweep: &mut Timestamp) -> Result<Timestamp, Error> {
        let now = self.clock.now();
        let sweeps = *next_sweep <= now;
        let mut next: Option<Timestamp> = None;
        for (key, row) in scan_all(self.control.as_ref(), rows::TABLES).await? {
            let mut table: Table = row.json(&key)?;
            let stays = !matches!(table.state, State::Deleting(_));
            if stays && !table.indexes.iter().all(|index| index.exists(now)) {
                table.forget_indexes(now);
                match self.control.commit(vec![Write::update(&key, row.version, &table)]).await {
                    Ok(_) => {}
                    // It was changed just now: the next look at it will do.
                    Err(ControlError::Conflict { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            for index in &table.indexes {
                if let State::Deleting(until) = index.state {
                    next = Some(next.map_or(until, |next| next.min(until)));
                }
            }
            match table.state {
                State::Deleting(until) if until <= now => {
                    self.finish_deletion(&table, &key, row.version).await?;
                }
                State::Deleting(until) => {
                    next = Some(next.map_or(until, |next| next.min(until)));
                }
                _ if sweeps => self.expire(&table, now).await?,
                _ => {}
            }
        }
        if sweeps {
            self.forget_tokens(now).await?;
            *next_sweep = now.plus(SWEEP_EVERY);
        }
        Ok(next.map_or(*next_sweep, |next| next.min(*next_sweep)))
    }

    async fn finish_deletion(&self, table: &Table, key: &str, version: u64) -> Result<(), Error> {
        loop {
            let page = Pages::new(self.control.as_ref(), rows::items(table), None).next().await?;
            if page.is_empty() {
                break;
            }
            for some in page.chunks(DELETES_MAX) {
                let deletes = some.iter().map(|(key, row)| Write::delete(key, row.version));
                self.control.commit(deletes.collect()).await?;
            }
        }
        match self.control.commit(vec![Write::delete(key, version)]).await {
            Ok(_) | Err(ControlError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.counts.lock().remove(&table.id);
        Ok(())
    }

    async fn expire(&self, table: &Table, now: Timestamp) -> Result<(), Error> {
        let Some(attribute) = &table.expiry else { return Ok(()) };
        let mut pages = Pages::new(self.control.as_ref(), rows::items(table), None);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                return Ok(());
            }
            for (key, row) in &page {
                let item = rows::read(key, row)?;
                if has_expired(&item, attribute, now) {
                    self.remove_expired(table, attribute, &item, now).await?;
                }
            }
        }
    }

    async fn remove_expired(
        &self,
        table: &Table,
        attribute: &str,
        item: &Item,
        now: Timestamp,
    ) -> Result<(), Error> {
        let names = [table.name.as_str()].into();
        let (writing, tables) = match self.writable(&table.scope, &names).await {
            Err(Error::ResourceNotFound(_)) => return Ok(()),
            found => found?,
        };
        let Some(same) = tables.first().filter(|found| found.id == table.id) else {
            return Ok(());
        };
        let decide = Box::new(move |seen: Option<&Item>| {
            Ok(match seen {
                Some(item) if has_expired(item, attribute, now) => Next::Delete,
                _ => Next::Same,
            })
        });
        let change = Change { table: same, key: table.key_of(item), decide };
        self.change(&writing, change).await.map(|_| ())
    }

    async fn forget_tokens(&self, now: Timestamp) -> Result<(), Error> {
        let mut pages = Pages::new(self.control.as_ref(), rows::TOKENS.to_owned(), None);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                return Ok(());
            }
            let mut deletes = Vec::new();
            for (key, row) in &page {
                let token: Token = row.json(key)?;
                if now.since(token.made) > TOKEN_LIFE {
                    deletes.push(Write::delete(key, row.version));
                }
            }
            for some in deletes.chunks(DELETES_MAX) {
                self.control.commit(some.to_vec()).await?;
            }
        }
    }
}

/// Whether the moment in the attribute is over.
fn has_expired(item: &Item, attribute: &str, now: Timestamp) -> bool {
    let Some(Value::Number(seconds)) = item.get(attribute) else { return false };
    let now = now.as_secs();
    seconds.whole().is_some_and(|at| at < now && now - at <= EXPIRED_SECONDS_MAX)
}
