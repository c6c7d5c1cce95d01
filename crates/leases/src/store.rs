//! Changing items: read, decide, commit what was decided on, or decide again.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use hydrant_core::control::{ControlError, Expected, Write};
use hydrant_core::names::Scope;
use tokio::sync::{MutexGuard, RwLockReadGuard};

use crate::Leases;
use crate::error::Error;
use crate::rows::{self, Pages};
use crate::table::Table;
use crate::value::{Item, item_bytes};

/// Times that a change is decided on again because another process was faster.
const ATTEMPTS_MAX: usize = 32;
/// Locks that the items share.
pub(crate) const ITEM_LOCKS: usize = 64;

/// What becomes of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It stays as it is.
    Same,
    /// It is this from now on.
    Put(Item),
    /// It goes.
    Delete,
}

/// Decides what becomes of an item, seeing it as it is, if it is. Called again when another was
/// faster, so it may not do anything.
pub(crate) type Decide<'a> = Box<dyn Fn(Option<&Item>) -> Result<Next, Error> + Send + Sync + 'a>;

/// One item that is to be changed.
pub(crate) struct Change<'a> {
    pub(crate) table: &'a Table,
    pub(crate) key: Item,
    pub(crate) decide: Decide<'a>,
}

/// An item before and after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) before: Option<Item>,
    pub(crate) after: Option<Item>,
}

/// What came of several changes that are made together.
pub(crate) enum Outcome {
    /// All were made.
    Made(Vec<Changed>),
    /// None was; what each of them said.
    Refused(Vec<Result<(), Error>>),
    /// None was, because the row that was to go with them is not as it was seen.
    Overtaken,
}

/// How many items a table has, and how large they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

/// No table is marked for deletion, and none is counted, while one of these is held.
pub(crate) struct Writing<'a>(#[allow(dead_code, reason = "held")] RwLockReadGuard<'a, ()>);

impl Leases {
    /// A table whose items may be read.
    pub(crate) async fn usable(&self, scope: &Scope, name: &str) -> Result<Table, Error> {
        let found = self.table(scope, name).await?.map(|(table, _)| table);
        found.filter(|table| table.is_usable(self.clock.now())).ok_or_else(Error::no_table)
    }

    /// A table's row and version, whatever its state.
    pub(crate) async fn table(
        &self,
        scope: &Scope,
        name: &str,
    ) -> Result<Option<(Table, u64)>, Error> {
        let key = rows::table(scope, name);
        let Some(row) = self.control.get(&key).await? else { return Ok(None) };
        Ok(Some((row.json(&key)?, row.version)))
    }

    /// Tables whose items may be written as long as the guard is held.
    pub(crate) async fn writable(
        &self,
        scope: &Scope,
        names: &BTreeSet<&str>,
    ) -> Result<(Writing<'_>, Vec<Table>), Error> {
        loop {
            let guard = self.writing.read().await;
            let mut tables = Vec::new();
            for name in names {
                tables.push(self.usable(scope, name).await?);
            }
            let uncounted = {
                let counts = self.counts.lock();
                tables.iter().find(|table| !counts.contains_key(&table.id)).cloned()
            };
            match uncounted {
                None => return Ok((Writing(guard), tables)),
                Some(table) => {
                    drop(guard);
                    self.count(&table).await?;
                }
            }
        }
    }

    /// What is known of a table's size; counts its items the first time.
    pub(crate) async fn count(&self, table: &Table) -> Result<Count, Error> {
        let known = self.counts.lock().get(&table.id).copied();
        if let Some(count) = known {
            return Ok(count);
        }
        let _alone = self.writing.write().await;
        let mut count = Count::default();
        let mut pages = Pages::new(self.control.as_ref(), rows::items(table), None);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                break;
            }
            for (key, row) in &page {
                count.items += 1;
                count.bytes += item_bytes(&rows::read(key, row)?);
            }
        }
        self.counts.lock().insert(table.id.clone(), count);
        Ok(count)
    }

    /// Makes one change.
    pub(crate) async fn change(
        &self,
        writing: &Writing<'_>,
        change: Change<'_>,
    ) -> Result<Changed, Error> {
        match self.change_all(writing, &[change], None).await? {
            Outcome::Made(mut made) => Ok(made.pop().unwrap_or_default()),
            Outcome::Refused(said) => {
                said.into_iter().collect::<Result<(), _>>()?;
                Err(Error::Internal("a change was refused without a reason".to_owned()))
            }
            Outcome::Overtaken => Err(Error::Internal("overtaken by nobody".to_owned())),
        }
    }

    /// Makes all of the changes or none, and `more` with them. The caller's duty: each item once.
    pub(crate) async fn change_all(
        &self,
        _writing: &Writing<'_>,
        changes: &[Change<'_>],
        more: Option<Write>,
    ) -> Result<Outcome, Error> {
        let keys: Vec<_> = changes.iter().map(|c| rows::item(c.table, &c.key)).collect();
        let _items = self.lock_items(&keys).await;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(more) = &more {
                let row = self.control.get(&more.key).await?;
                let seen = row.map_or(Expected::Absent, |row| Expected::Version(row.version));
                if seen != more.expected {
                    return Ok(Outcome::Overtaken);
                }
            }
            let (mut writes, mut made, mut said) = (Vec::new(), Vec::new(), Vec::new());
            for (change, key) in changes.iter().zip(&keys) {
                let row = self.control.get(key).await?;
                let before = row.as_ref().map(|row| rows::read(key, row)).transpose()?;
                let next = match (change.decide)(before.as_ref()) {
                    Ok(next) => next,
                    Err(error) => {
                        said.push(Err(error));
                        continue;
                    }
                };
                said.push(Ok(()));
                let (after, write) = match (next, &row) {
                    (Next::Put(item), row) if before.as_ref() != Some(&item) => {
                        let write = Write::put(key, row.as_ref(), &item);
                        (Some(item), Some(write))
                    }
                    (Next::Delete, Some(row)) => (None, Some(Write::delete(key, row.version))),
                    // One that stays has to be what was seen when the others change.
                    (_, Some(row)) if changes.len() > 1 => {
                        let same =
                            before.as_ref().map(|item| Write::update(key, row.version, item));
                        (before.clone(), same)
                    }
                    (_, None) if changes.len() > 1 => (None, Some(Write::check_absent(key))),
                    _ => (before.clone(), None),
                };
                writes.extend(write);
                made.push(Changed { before, after });
            }
            if said.iter().any(Result::is_err) {
                return Ok(Outcome::Refused(said));
            }
            self.check_room(changes, &made)?;
            writes.extend(more.clone());
            if writes.is_empty() {
                return Ok(Outcome::Made(made));
            }
            match self.control.commit(writes).await {
                Ok(_) => {
                    self.recount(changes, &made);
                    return Ok(Outcome::Made(made));
                }
                Err(ControlError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Internal(format!("others were faster {ATTEMPTS_MAX} times in a row")))
    }

    /// Waits until nobody else in this process changes these items.
    async fn lock_items(&self, keys: &[String]) -> Vec<MutexGuard<'_, ()>> {
        let place = |key: &String| {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            (hasher.finish() % ITEM_LOCKS as u64) as usize
        };
        // In one order, so that two never wait for each other.
        let places: BTreeSet<usize> = keys.iter().map(place).collect();
        let mut guards = Vec::new();
        for place in places {
            if let Some(lock) = self.items.get(place) {
                guards.push(lock.lock().await);
            }
        }
        guards
    }

    fn check_room(&self, changes: &[Change<'_>], made: &[Changed]) -> Result<(), Error> {
        let max = self.options.items_max;
        let counts = self.counts.lock();
        for (change, changed) in changes.iter().zip(made) {
            let items = counts.get(&change.table.id).map_or(0, |count| count.items);
            if changed.before.is_none() && changed.after.is_some() && items >= max {
                return Err(Error::LimitExceeded(format!(
                    "hydrant keeps at most {max} items in a table; {} has as many.",
                    change.table.name
                )));
            }
        }
        Ok(())
    }

    fn recount(&self, changes: &[Change<'_>], made: &[Changed]) {
        let mut counts = self.counts.lock();
        for (change, Changed { before, after }) in changes.iter().zip(made) {
            let Some(count) = counts.get_mut(&change.table.id) else { continue };
            let of =
                |item: &Option<Item>| item.as_ref().map_or((0, 0), |item| (1, item_bytes(item)));
            let ((items_before, bytes_before), (items, bytes)) = (of(before), of(after));
            count.items = (count.items + items).saturating_sub(items_before);
            count.bytes = (count.bytes + bytes).saturating_sub(bytes_before);
        }
    }
}
