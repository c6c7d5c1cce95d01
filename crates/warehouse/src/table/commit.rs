//! The one place where a table changes: files in, files out, with the memory of what was loaded.
//!
//! One commit to the control store swaps the table's head, inserts the rows of its new files and of
//! the files they came from, and deletes the queue entries that asked for them. Before it, a crash
//! leaves orphan files; after it, nothing repeats.

use hydrant_core::Timestamp;
use hydrant_core::control::{ControlError, Write};

use super::{FileRow, Head, NewFile, Tables, file_key, head_key};
use crate::error::{SqlResult, control};
use crate::history::{LoadRow, PipeLoad, load_key, load_prefix, pipe_load_key};

/// How often a commit that somebody else came before, or whose answer was lost, is tried.
const TRIES: usize = 50;
/// Most files of a stage in one commit: two rows each for a pipe, and a queue entry.
pub(crate) const FILES_PER_COMMIT_MAX: usize = 3_000;

/// What a pipe adds to a commit.
pub(crate) struct PipeRows {
    /// The pipe's uid.
    pub(crate) uid: String,
    /// Deletions of the queue entries, and the pipe's state.
    pub(crate) writes: Vec<Write>,
}

/// A change of a table.
pub(crate) struct Append<'a> {
    pub(crate) uid: &'a str,
    pub(crate) files: &'a [NewFile],
    pub(crate) loads: &'a [LoadRow],
    /// Whether files that are in the table already may come in again.
    pub(crate) force: bool,
    pub(crate) pipe: Option<PipeRows>,
}

/// How a commit went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    Done,
    /// Somebody else loaded one of the files meanwhile, or changed the queue. Nothing was changed:
    /// decide again what to load.
    Overtaken,
}

impl Tables {
    /// Makes new files, and the memory of the files they came from, visible at once.
    pub(crate) async fn append(&self, change: &Append<'_>) -> SqlResult<Committed> {
        for _ in 0..TRIES {
            let (head, version) = self.head(change.uid).await?;
            let Some(loads) = self.load_writes(change, head.epoch).await? else {
                return Ok(Committed::Overtaken);
            };
            let mut next = head.clone();
            let mut writes = Vec::new();
            for file in change.files {
                writes.push(Write::insert(
                    file_key(change.uid, next.next),
                    &FileRow { name: file.name.clone(), rows: file.rows, bytes: file.bytes },
                ));
                next.next += 1;
                next.files += 1;
                next.rows += file.rows;
                next.bytes += file.bytes;
            }
            writes.push(Write::update(head_key(change.uid), version, &next));
            writes.extend(loads);
            if let Some(pipe) = &change.pipe {
                writes.extend(pipe.writes.iter().cloned());
            }
            match self.control.commit(writes).await {
                Ok(_) => return Ok(Committed::Done),
                Err(ControlError::Conflict { key }) if self.is_ours(change, &head, &key) => {}
                Err(ControlError::Conflict { .. }) => return Ok(Committed::Overtaken),
                Err(ControlError::Unavailable(why)) => {
                    if self.took_effect(change, &head).await? {
                        return Ok(Committed::Done);
                    }
                    tracing::warn!(error = %why, "a commit to a table is tried again");
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                Err(e) => return Err(control(e)),
            }
        }
        Err(crate::error::internal("the table is changed by too many statements at once"))
    }

    /// Whether a conflict is about the table, so that reading it again settles it.
    fn is_ours(&self, change: &Append<'_>, head: &Head, key: &str) -> bool {
        key == head_key(change.uid)
            || key.starts_with(&super::file_prefix(change.uid))
            || key.starts_with(&load_prefix(change.uid, head.epoch))
    }

    /// Whether a commit whose answer was lost is in the store.
    async fn took_effect(&self, change: &Append<'_>, before: &Head) -> SqlResult<bool> {
        if let Some(file) = change.files.first() {
            let key = file_key(change.uid, before.next);
            let row = self.control.get(&key).await.map_err(control)?;
            let row: Option<FileRow> = row.map(|r| r.json(&key)).transpose().map_err(control)?;
            return Ok(row.is_some_and(|r| r.name == file.name));
        }
        let Some(load) = change.loads.first() else { return Ok(false) };
        let epoch = before.epoch;
        let key = load_key(change.uid, epoch, &load.url, &load.etag);
        let row = self.control.get(&key).await.map_err(control)?;
        let row: Option<LoadRow> = row.map(|r| r.json(&key)).transpose().map_err(control)?;
        Ok(row.is_some_and(|r| r == *load))
    }

    /// The rows of the loaded files; `None` if one of them has been loaded by somebody else.
    async fn load_writes(&self, change: &Append<'_>, epoch: u64) -> SqlResult<Option<Vec<Write>>> {
        let mut writes = Vec::new();
        for load in change.loads {
            let key = load_key(change.uid, epoch, &load.url, &load.etag);
            let seen = self.control.get(&key).await.map_err(control)?;
            let old: Option<LoadRow> =
                seen.as_ref().map(|e| e.json(&key)).transpose().map_err(control)?;
            let twice = old.as_ref().is_some_and(|o| o.status.is_in());
            if twice && load.status.is_in() && !change.force {
                return Ok(None);
            }
            // A file that is in the table stays so, whatever a later try said.
            if !twice || load.status.is_in() {
                writes.push(Write::put(key, seen.as_ref(), load));
            }
            if let Some(pipe) = &change.pipe {
                let key = pipe_load_key(&pipe.uid, &load.url);
                let seen = self.control.get(&key).await.map_err(control)?;
                writes.push(Write::put(key, seen.as_ref(), &PipeLoad { at: load.at }));
            }
        }
        Ok(Some(writes))
    }

    /// TRUNCATE: no file counts any more, and no load is remembered. The rows that no longer count
    /// are deleted afterwards; a crash before that leaves them without effect.
    pub(crate) async fn truncate(&self, uid: &str) -> SqlResult<u64> {
        for _ in 0..TRIES {
            let old = self.snapshot(uid).await?;
            let head = &old.head;
            let next = Head {
                next: head.next,
                first: head.next,
                epoch: head.epoch + 1,
                ..Head::default()
            };
            let write = Write::update(head_key(uid), old.version, &next);
            match self.control.commit(vec![write]).await {
                Ok(_) => {
                    self.remove_later(
                        old.files.iter().map(|f| self.dir.join(uid).join(&f.name)).collect(),
                    );
                    self.remove_rows(&load_prefix(uid, head.epoch), None).await?;
                    let end = file_key(uid, head.next);
                    self.remove_rows(&super::file_prefix(uid), Some(&end)).await?;
                    return Ok(head.rows);
                }
                Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(control(e)),
            }
        }
        Err(crate::error::internal("the table is changed by too many statements at once"))
    }

    /// Deletes rows that no longer count: those under `prefix`, up to `end`.
    pub(crate) async fn remove_rows(&self, prefix: &str, end: Option<&str>) -> SqlResult<()> {
        loop {
            let page = self.control.scan(prefix, None, 1_000).await.map_err(control)?;
            let dead: Vec<Write> = page
                .into_iter()
                .filter(|(key, _)| end.is_none_or(|end| key.as_str() < end))
                .map(|(key, entry)| Write::delete(key, entry.version))
                .collect();
            if dead.is_empty() {
                return Ok(());
            }
            self.control.commit(dead).await.map_err(control)?;
        }
    }

    /// Forgets loads older than `before`, a page at a time.
    pub(crate) async fn expire_loads(&self, uid: &str, before: Timestamp) -> SqlResult<()> {
        let prefix = load_prefix(uid, self.head(uid).await?.0.epoch);
        let mut after: Option<String> = None;
        loop {
            let page =
                self.control.scan(&prefix, after.as_deref(), 1_000).await.map_err(control)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut writes = Vec::new();
            for (key, entry) in page {
                let row: LoadRow = entry.json(&key).map_err(control)?;
                if row.at < before {
                    writes.push(Write::delete(key, entry.version));
                }
            }
            match self.control.commit(writes).await {
                Ok(_) | Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(control(e)),
            }
        }
    }
}
