//! What tables hold: Parquet files, and the rows that say which of them count.
//!
//! | row | content |
//! |---|---|
//! | `warehouse/head/U` | [`Head`] of the table with uid U: swapped by every commit to it |
//! | `warehouse/file/U/N` | [`FileRow`], the N-th file |
//! | `warehouse/work/U` | a current-state table's next head ([`crate::state`]) |
//! | `warehouse/load/U/E/<url>␁<etag>` | a file of a stage that was loaded ([`crate::history`]) |
//!
//! A commit inserts its own file rows and swaps the head, so it costs the same however many files
//! there are. A file no row names is an orphan; the sweeper removes it at the next start.

pub(crate) mod commit;
mod named;
mod writer;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use hydrant_core::control::{ControlStore, Write};
use hydrant_core::limits::SCAN_ROWS_MAX;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{SqlResult, control, internal, no_such};
use crate::state::{BucketFile, Folded, State, work_key};

pub use named::named_files;
pub(crate) use writer::{NewFile, ParquetFile, sync_dir, sync_file};

/// The state of a table, small whatever the table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Number of the next file.
    pub(crate) next: u64,
    /// Files below this number no longer count (TRUNCATE).
    pub(crate) first: u64,
    /// Which memory of loaded files counts; TRUNCATE begins a new one.
    pub(crate) epoch: u64,
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// What a current-state table has, whose files are named here and not in rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<Box<State>>,
}

/// A file of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRow {
    /// Name in the table's directory.
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// The files of a table at one version of its head.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) version: u64,
    pub(crate) head: Head,
    pub(crate) files: Arc<Vec<FileRow>>,
}

pub(crate) fn head_key(uid: &str) -> String {
    format!("warehouse/head/{uid}")
}

pub(crate) fn file_prefix(uid: &str) -> String {
    format!("warehouse/file/{uid}/")
}

pub(crate) fn file_key(uid: &str, number: u64) -> String {
    format!("{}{number:020}", file_prefix(uid))
}

/// The write that gives a new table its head.
pub(crate) fn new_head(uid: &str) -> Write {
    Write::insert(head_key(uid), &Head::default())
}

/// Reads what tables hold. Every commit goes through [`commit`].
pub(crate) struct Tables {
    pub(crate) control: Arc<dyn ControlStore>,
    /// `<dir>/<uid>/<file>`.
    pub(crate) dir: PathBuf,
    held: Mutex<HashMap<String, Snapshot>>,
}

impl Tables {
    pub(crate) fn new(control: Arc<dyn ControlStore>, dir: PathBuf) -> Self {
        Self { control, dir, held: Mutex::new(HashMap::new()) }
    }

    /// The table's files, all of one version. Reads only what is new since the last call.
    pub(crate) async fn snapshot(&self, uid: &str) -> SqlResult<Snapshot> {
        loop {
            let (head, version) = self.head(uid).await?;
            let held = self.held.lock().get(uid).cloned();
            if let Some(held) = held.as_ref().filter(|h| h.version == version) {
                return Ok(held.clone());
            }
            if let Some(state) = &head.state {
                let file =
                    |f: &BucketFile| FileRow { name: f.name.clone(), rows: f.rows, bytes: f.bytes };
                let files = state.published.iter().flat_map(Folded::files).map(file).collect();
                let snapshot = Snapshot { version, head, files: Arc::new(files) };
                self.held.lock().insert(uid.to_owned(), snapshot.clone());
                return Ok(snapshot);
            }
            // Files are only ever added above, or all removed below `first`.
            let (mut files, from) = match held {
                Some(held) if held.head.first == head.first => {
                    (held.files.to_vec(), held.head.next)
                }
                _ => (Vec::new(), head.first),
            };
            self.read_files(uid, from, head.next, &mut files).await?;
            if self.head(uid).await?.1 != version {
                continue;
            }
            let snapshot = Snapshot { version, head, files: Arc::new(files) };
            self.held.lock().insert(uid.to_owned(), snapshot.clone());
            return Ok(snapshot);
        }
    }

    pub(crate) async fn head(&self, uid: &str) -> SqlResult<(Head, u64)> {
        let key = head_key(uid);
        let Some(entry) = self.control.get(&key).await.map_err(control)? else {
            self.held.lock().remove(uid);
            return Err(no_such("Table", "that was dropped meanwhile"));
        };
        Ok((entry.json(&key).map_err(control)?, entry.version))
    }

    async fn read_files(
        &self,
        uid: &str,
        from: u64,
        until: u64,
        files: &mut Vec<FileRow>,
    ) -> SqlResult<()> {
        let prefix = file_prefix(uid);
        let mut after = from.checked_sub(1).map(|n| file_key(uid, n));
        let end = file_key(uid, until);
        loop {
            let page = self
                .control
                .scan(&prefix, after.as_deref(), SCAN_ROWS_MAX)
                .await
                .map_err(control)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, entry) in &page {
                if *key >= end {
                    return Ok(());
                }
                files.push(entry.json(key).map_err(control)?);
            }
        }
    }

    /// Removes the rows of a dropped table at once, its files once no query reads them.
    pub(crate) async fn retire(&self, uid: &str) -> SqlResult<()> {
        self.held.lock().remove(uid);
        self.remove_later(vec![self.dir.join(uid)]);
        self.remove_rows(&file_prefix(uid), None).await?;
        self.remove_rows(&work_key(uid), None).await?;
        self.remove_rows(&format!("warehouse/load/{uid}/"), None).await
    }

    /// Removes files or directories after a while, so that queries that began before can end. A
    /// crash before that leaves them to the sweeper.
    pub(crate) fn remove_later(&self, paths: Vec<PathBuf>) {
        tokio::spawn(async move {
            tokio::time::sleep(REMOVAL_GRACE).await;
            for path in paths {
                remove(&path).await;
            }
        });
    }

    /// Removes what no row names: files of commits that did not happen, directories of dropped
    /// tables, rows of dropped tables. Only before anything else uses the directory.
    pub(crate) async fn sweep(&self, live: &BTreeSet<String>) -> SqlResult<()> {
        let mut dirs = match tokio::fs::read_dir(&self.dir).await {
            Ok(dirs) => dirs,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(internal(e)),
        };
        while let Some(dir) = dirs.next_entry().await.map_err(internal)? {
            let Some(uid) = dir.file_name().to_str().map(str::to_owned) else { continue };
            if !live.contains(&uid) {
                remove(&dir.path()).await;
                continue;
            }
            let mut named: BTreeSet<String> =
                self.snapshot(&uid).await?.files.iter().map(|f| f.name.clone()).collect();
            let key = work_key(&uid);
            if let Some(work) = self.control.get(&key).await.map_err(control)? {
                let work: Folded = work.json(&key).map_err(control)?;
                named.extend(work.files().map(|f| f.name.clone()));
            }
            let mut files = tokio::fs::read_dir(dir.path()).await.map_err(internal)?;
            while let Some(file) = files.next_entry().await.map_err(internal)? {
                let orphan = file.file_name().to_str().is_none_or(|n| !named.contains(n));
                if orphan {
                    tracing::info!(file = %file.path().display(), "removing an orphan file");
                    tokio::fs::remove_file(file.path()).await.map_err(internal)?;
                }
            }
        }
        for prefix in ["warehouse/head/", "warehouse/file/", "warehouse/load/", "warehouse/work/"] {
            sweep_rows(self.control.as_ref(), prefix, live).await?;
        }
        Ok(())
    }
}

async fn remove(path: &std::path::Path) {
    let removed = match tokio::fs::metadata(path).await {
        Ok(m) if m.is_dir() => tokio::fs::remove_dir_all(path).await,
        Ok(_) => tokio::fs::remove_file(path).await,
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), error = %e, "cannot remove what no table names");
        }
        _ => {}
    }
}

/// How long files stay that no table names any more.
const REMOVAL_GRACE: std::time::Duration = std::time::Duration::from_secs(60);
/// Most rows one commit of the sweeper deletes.
const SWEEP_ROWS: usize = 1_000;

/// Deletes the rows under `prefix` whose next part is not a live uid.
pub(crate) async fn sweep_rows(
    store: &dyn ControlStore,
    prefix: &str,
    live: &BTreeSet<String>,
) -> SqlResult<()> {
    let mut after: Option<String> = None;
    loop {
        let page = store.scan(prefix, after.as_deref(), SWEEP_ROWS).await.map_err(control)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let dead: Vec<Write> = page
            .iter()
            .filter(|(key, _)| {
                let uid = key[prefix.len()..].split('/').next().unwrap_or_default();
                !live.contains(uid)
            })
            .map(|(key, entry)| Write::delete(key.clone(), entry.version))
            .collect();
        if !dead.is_empty() {
            store.commit(dead).await.map_err(control)?;
        }
    }
}
