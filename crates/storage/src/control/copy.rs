//! A copy of the control store, made beside the process that writes it, and read like the store.

use std::path::Path;

use async_trait::async_trait;
use hydrant_core::control::{ControlError, ControlStore, Entry, Write};
use hydrant_core::limits::SCAN_ROWS_MAX;
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{DATABASE, sql};

/// The version of the last commit to the control store of a data directory, which another process
/// may be writing. Reads the disk.
pub fn control_version(data_dir: &Path) -> Result<u64, ControlError> {
    let connection = beside(data_dir)?;
    let version = "select value from meta where name = 'version'";
    connection.query_row(version, [], |row| row.get(0)).map_err(|e| sql::describe(&e))
}

/// Writes all rows of a data directory's control store, as they were after one commit, into a new
/// database at `to`, and returns it. Commits go on meanwhile, in this process and in others; nothing
/// in the directory is changed. Fails if there is a file at `to`. The copy is not synced.
///
/// Reads and writes the disk for as long as the store is large.
pub fn copy_control(data_dir: &Path, to: &Path) -> Result<ControlCopy, ControlError> {
    let connection = beside(data_dir)?;
    let name = to.to_str().ok_or_else(|| {
        ControlError::Unavailable(format!("{} is not a name in UTF-8", to.display()))
    })?;
    connection.execute("vacuum into ?1", [name]).map_err(|e| sql::describe(&e))?;
    ControlCopy::open(to)
}

/// A connection that reads the database of a directory and never writes what it finds in the
/// write-ahead log into it: whether a sync of that works is the owner's to know.
fn beside(data_dir: &Path) -> Result<Connection, ControlError> {
    let path = data_dir.join(DATABASE);
    // Reading a write-ahead log takes a file beside it that may have to be made.
    let connection =
        sql::open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|e| sql::describe(&e))?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(|e| sql::describe(&e))?;
    Ok(connection)
}

/// The rows of a control store at one moment. Refuses commits.
pub struct ControlCopy {
    connection: Mutex<Connection>,
}

impl ControlCopy {
    /// Opens what [`copy_control`] wrote.
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let connection = sql::open_reader(path)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// The version of the last commit in it.
    pub fn version(&self) -> Result<u64, ControlError> {
        let version = "select value from meta where name = 'version'";
        let read = self.connection.lock().query_row(version, [], |row| row.get(0));
        read.map_err(|e| sql::describe(&e))
    }
}

#[async_trait]
impl ControlStore for ControlCopy {
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError> {
        sql::get(&self.connection.lock(), key)
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError> {
        sql::scan(&self.connection.lock(), prefix, after, limit.min(SCAN_ROWS_MAX))
    }

    async fn commit(&self, _: Vec<Write>) -> Result<u64, ControlError> {
        Err(ControlError::Unavailable("a copy takes no commits".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Control, DataDir};

    #[tokio::test]
    async fn a_copy_is_of_one_moment() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path().join("data")).unwrap();
        let control = Control::open(&dir).unwrap();
        for n in 0..50 {
            control.commit(vec![Write::insert(format!("a/{n:02}"), &n)]).await.unwrap();
        }
        let to = temp.path().join("copy.db");
        let copy = copy_control(dir.path(), &to).unwrap();
        let before = control_version(dir.path()).unwrap();
        let row = control.get("a/07").await.unwrap().unwrap();
        control.commit(vec![Write::delete("a/07", row.version)]).await.unwrap();
        assert_eq!((copy.version().unwrap(), before), (50, 50));
        assert_eq!(control_version(dir.path()).unwrap(), 51);
        assert_eq!(copy.scan("a/", None, 1_000).await.unwrap().len(), 50);
        assert_eq!(copy.get("a/07").await.unwrap(), Some(row));
        copy_control(dir.path(), &to).err().expect("there is a file already");
        copy.commit(vec![Write::insert("b", &1)]).await.unwrap_err();
        control.close().await;

        // It is a control store again.
        let other = DataDir::open(temp.path().join("other")).unwrap();
        std::fs::rename(&to, other.path().join("hydrant.db")).unwrap();
        let control = Control::open(&other).unwrap();
        assert_eq!(control.commit(vec![Write::insert("b", &1)]).await.unwrap(), 51);
        control.close().await;
    }
}
