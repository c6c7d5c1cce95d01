//! What a step of a current-state table stores: work, a new state of it, or why it stands still.

use std::collections::BTreeSet;
use std::time::Duration;

use hydrant_core::capture::Lsn;
use hydrant_core::control::{ControlError, Write};
use tokio::time::Instant;

use super::worker::{Ahead, Follower, Found, Passed, Step};
use super::{Errored, Folded, State, columns, work_key};
use crate::catalog::{Table, object_key};
use crate::error::{SqlResult, control};
use crate::table::{Head, head_key};

/// How long a place in the stream, past records of other tables, is only in memory.
const PLACE_LIFE: Duration = Duration::from_secs(10);

impl Follower {
    /// The table is like its source at `resume`.
    pub(super) fn at_cut(&self, resume: Lsn, rows: u64) {
        let mut all = self.engine.following.progress.lock();
        let progress = all.entry(self.uid.clone()).or_default();
        (progress.resume, progress.behind_since) = (resume, None);
        drop(all);
        let name = self.name.to_string();
        metrics::gauge!("hydrant_state_lag_seconds", "table" => name.clone()).set(0.0);
        metrics::gauge!("hydrant_state_rows", "table" => name).set(rows as f64);
    }

    /// Nothing of the table changed: where to read on need not be stored at once.
    pub(super) async fn keep_place(
        &mut self,
        mut found: Found,
        at: Folded,
        moved: bool,
    ) -> SqlResult<Passed> {
        self.at_cut(found.cut.resume, found.head.rows);
        let since = match &self.ahead {
            Some(ahead) if ahead.version == found.head_version => ahead.since,
            _ => Instant::now(),
        };
        let stored = found.state.published.as_ref().is_some_and(|p| p.shards == at.shards);
        if !stored && since.elapsed() >= PLACE_LIFE {
            self.ahead = None;
            let step = Step { at, reached: true };
            self.commit(&mut found, step).await?;
            return Ok(Passed::Moved);
        }
        self.ahead = (!stored).then_some(Ahead { version: found.head_version, at, since });
        Ok(if moved { Passed::Moved } else { Passed::Idle })
    }

    /// Commits a step: as work, or as what queries read. False if somebody was faster; then all is
    /// found anew.
    pub(super) async fn commit(&mut self, found: &mut Found, step: Step) -> SqlResult<bool> {
        let Step { mut at, reached } = step;
        let new: BTreeSet<String> = at.files().map(|f| f.name.clone()).collect();
        let old = |at: Option<&Folded>| -> BTreeSet<String> {
            at.map(|a| a.files().map(|f| f.name.clone()).collect()).unwrap_or_default()
        };
        let published = old(found.state.published.as_ref());
        let worked = old(found.work.as_ref().map(|(at, _)| at));
        at.resume = found.cut.resume;
        let writes = if reached { self.publish(found, &at) } else { self.put_work(found, &at) };
        let version = match self.engine.catalog.control.commit(writes).await {
            Ok(version) => version,
            Err(ControlError::Conflict { .. }) => {
                let orphans =
                    new.iter().filter(|f| !published.contains(*f) && !worked.contains(*f));
                self.remove(orphans).await;
                return Ok(false);
            }
            Err(e) => return Err(control(e)),
        };
        metrics::counter!("hydrant_state_merges_total", "table" => self.name.to_string())
            .increment(1);
        // No query reads what was only work.
        self.remove(worked.iter().filter(|f| !published.contains(*f) && !new.contains(*f))).await;
        if reached {
            self.ahead = None;
            self.at_cut(at.resume, at.rows());
            let dir = self.place().dir;
            let gone: Vec<_> =
                published.iter().filter(|f| !new.contains(*f)).map(|f| dir.join(f)).collect();
            if !gone.is_empty() {
                self.engine.tables.remove_later(gone);
            }
        } else {
            found.work = Some((at, version));
        }
        Ok(true)
    }

    fn put_work(&self, found: &Found, at: &Folded) -> Vec<Write> {
        let key = work_key(&self.uid);
        let write = match &found.work {
            Some((_, version)) => Write::update(key, *version, at),
            None => Write::insert(key, at),
        };
        vec![write]
    }

    fn publish(&self, found: &Found, at: &Folded) -> Vec<Write> {
        let (files, bytes) = at.files().fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.bytes));
        let state = State { published: Some(at.clone()), errored: None };
        let next = Head {
            files,
            bytes,
            rows: at.rows(),
            state: Some(Box::new(state)),
            ..found.head.clone()
        };
        let mut writes = vec![Write::update(head_key(&self.uid), found.head_version, &next)];
        if let Some((_, version)) = &found.work {
            writes.push(Write::delete(work_key(&self.uid), *version));
        }
        let columns = columns::define(&at.columns, &found.followed);
        if columns != found.table.row.columns {
            let row = Table { columns, ..found.table.row.clone() };
            writes.push(Write::update(object_key("table", &self.name), found.table.version, &row));
        }
        writes
    }

    /// Removes files that nothing names.
    async fn remove(&self, names: impl Iterator<Item = &String>) {
        let dir = self.place().dir;
        for name in names {
            // The sweeper gets it if this does not.
            let _ = tokio::fs::remove_file(dir.join(name)).await;
        }
    }

    /// Stands still until the source begins a new epoch. What queries read stays.
    pub(super) async fn fail(&mut self, found: Found, reason: String) -> SqlResult<Passed> {
        let Found { head, head_version, state, cut, .. } = found;
        self.stop(head, head_version, state, cut.epoch, reason).await
    }

    pub(super) async fn stop(
        &mut self,
        head: Head,
        version: u64,
        state: State,
        epoch: u64,
        reason: String,
    ) -> SqlResult<Passed> {
        if state.errored.as_ref().is_some_and(|e| e.epoch == epoch) {
            return Ok(Passed::Idle);
        }
        tracing::error!(table = %self.name, reason, "a current-state table stands still");
        let errored = Some(Errored { reason, epoch, at: self.engine.clock.now() });
        let state = Some(Box::new(State { errored, ..state }));
        let next = Head { state, ..head };
        let write = Write::update(head_key(&self.uid), version, &next);
        match self.engine.catalog.control.commit(vec![write]).await {
            Ok(_) | Err(ControlError::Conflict { .. }) => Ok(Passed::Moved),
            Err(e) => Err(control(e)),
        }
    }
}
