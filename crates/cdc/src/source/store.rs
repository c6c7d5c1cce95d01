//! The rows of secrets, connections and sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use hydrant_core::Timestamp;
use hydrant_core::capture::{
    CapturedTable, Connection, Cut, Lsn, PgTable, Secret, SecretReport, SecretText, SlotChoice,
    SourceSettings,
};
use hydrant_core::control::{ControlError, ControlStore, Write, scan_all};
use hydrant_core::encryption::Seal;
use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::source::columns::keyed;

const SECRET: &str = "capture/secret/";
const CONNECTION: &str = "capture/connection/";
const SOURCE: &str = "capture/source/";
const PROGRESS: &str = "capture/progress/";
const TABLE: &str = "capture/table/";
const LEAVING: &str = "capture/leaving/";
const EPOCH: &str = "capture/epoch/";
/// Rows written or removed in one commit, well below what a commit may have.
const ROWS_PER_COMMIT: usize = 1_000;

/// What a source is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceRow {
    /// Sixteen hexadecimal digits that no other source has or had.
    pub(crate) uid: String,
    pub(crate) created: Timestamp,
    pub(crate) settings: SourceSettings,
    #[serde(default)]
    pub(crate) paused: bool,
    /// How many new epochs somebody asked for.
    #[serde(default)]
    pub(crate) resnapshots: u64,
}

impl SourceRow {
    /// Its slot: the one that was chosen, or one named after it and its uid.
    pub(crate) fn slot(&self) -> SlotChoice {
        let own = || {
            let kept = |c: char| match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9' | '_') => c,
                _ => '_',
            };
            let name: String = self.settings.name.chars().take(36).map(kept).collect();
            SlotChoice { name: format!("hydrant_{name}_{}", self.uid), adopt: false }
        };
        self.settings.slot.clone().unwrap_or_else(own)
    }

    /// Columns that a user chose to make the partition key of.
    pub(crate) fn partition_by(&self, table: &PgTable) -> Vec<&str> {
        let listed = self.settings.tables.iter().flatten().find(|listed| listed.table == *table);
        listed.map(|l| l.partition_by.iter().map(String::as_str).collect()).unwrap_or_default()
    }
}

/// How far the slot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SlotStage {
    /// Nothing was made.
    #[default]
    None,
    /// It may be there: if it is, it is this source's.
    Intended,
    /// It is there.
    Made,
}

/// How far a source is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// System identifier of the server.
    #[serde(default)]
    pub(crate) system: String,
    #[serde(default)]
    pub(crate) timeline: u32,
    pub(crate) slot: String,
    pub(crate) stage: SlotStage,
    pub(crate) consistent: Lsn,
    /// `resnapshots` of the row that this epoch answers.
    pub(crate) resnapshots: u64,
    /// When epochs began by themselves because the slot was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) losses: Vec<Timestamp>,
    /// Why this epoch cannot go on, if nothing but a new one helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) broken: Option<String>,
    pub(crate) cut: Cut,
    /// Where to look for own records in shards that have no mark: what is below is older.
    #[serde(default)]
    pub(crate) floors: BTreeMap<ShardUid, RecordIndex>,
}

/// Names of the columns of a table's primary key, in its order.
pub(crate) fn key_columns(table: &CapturedTable) -> Vec<&str> {
    keyed(&table.columns).into_iter().map(|column| column.name.as_str()).collect()
}

/// How far a table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableRow {
    pub(crate) captured: CapturedTable,
    /// Changes that were committed before this are in its snapshot.
    pub(crate) from: Lsn,
    /// By which rows of the server's catalog it was published when it was read. None is ever used
    /// again: without one of them left, there may have been a time when nothing published it.
    #[serde(default)]
    pub(crate) memberships: Vec<u32>,
}

impl TableRow {
    /// Whether the table may have been out of the publications since it was read.
    pub(crate) fn was_away(&self, now: &[u32]) -> bool {
        let left = self.memberships.iter().any(|member| now.contains(member));
        !self.memberships.is_empty() && !now.is_empty() && !left
    }

    /// Whether `key` is another one than the table had. Of columns that it did not have yet the stream
    /// tells itself.
    pub(crate) fn has_other_key(&self, key: &[&str]) -> bool {
        let known = |name: &&str| self.captured.columns.iter().any(|column| column.name == *name);
        key.iter().all(known) && key_columns(&self.captured) != key
    }
}

/// A secret as it is stored: its password is sealed under its row's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretRow {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    pub(crate) sealed_password: String,
    pub(crate) created: Timestamp,
    #[serde(default)]
    pub(crate) comment: String,
}

impl SecretRow {
    fn key(name: &str) -> String {
        format!("{SECRET}{name}")
    }

    fn report(self) -> SecretReport {
        let Self { name, user, created, comment, .. } = self;
        SecretReport { name, user, created, comment }
    }
}

/// A source that was dropped, and whose slot may still be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaving {
    pub(crate) name: String,
    pub(crate) slot: Option<String>,
    pub(crate) connection: Option<Connection>,
    /// The secret's row as it was then.
    pub(crate) secret: Option<SecretRow>,
}

/// Last epoch that a source of a name had, so that one of the same name goes on from there.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LastEpoch {
    pub(crate) epoch: u64,
}

pub(crate) fn table_key(uid: &str, oid: u32) -> String {
    format!("{TABLE}{uid}/{oid:010}")
}

pub(crate) fn progress_key(uid: &str) -> String {
    format!("{PROGRESS}{uid}")
}

/// The rows, typed. One process writes them, and each row has one writer.
#[derive(Clone)]
pub(crate) struct Store {
    control: Arc<dyn ControlStore>,
    seal: Arc<dyn Seal>,
}

/// The reading and writing of rows that have a name.
macro_rules! named {
    ($prefix:ident: $row:ty, $get:ident, $put:ident, $all:ident) => {
        pub(crate) async fn $get(&self, name: &str) -> Result<Option<$row>, ControlError> {
            self.get(&format!("{}{name}", $prefix)).await
        }

        pub(crate) async fn $put(&self, name: &str, row: &$row) -> Result<(), ControlError> {
            self.put(&format!("{}{name}", $prefix), row).await
        }

        pub(crate) async fn $all(&self) -> Result<Vec<$row>, ControlError> {
            self.all($prefix).await
        }
    };
}

impl Store {
    pub(crate) fn new(control: Arc<dyn ControlStore>, seal: Arc<dyn Seal>) -> Self {
        Self { control, seal }
    }

    named!(CONNECTION: Connection, connection, put_connection, connections);
    named!(SOURCE: SourceRow, source, put_source, sources);

    /// A secret as it is stored, whether its password can be decrypted or not.
    pub(crate) async fn secret_row(&self, name: &str) -> Result<Option<SecretRow>, ControlError> {
        self.get(&SecretRow::key(name)).await
    }

    /// Every secret, without its password.
    pub(crate) async fn secrets(&self) -> Result<Vec<SecretReport>, ControlError> {
        let rows: Vec<SecretRow> = self.all(SECRET).await?;
        Ok(rows.into_iter().map(SecretRow::report).collect())
    }

    pub(crate) async fn put_secret(&self, secret: &Secret) -> Result<(), ControlError> {
        let row = self.sealed(secret)?;
        self.put(&SecretRow::key(&row.name), &row).await
    }

    /// The secret of a row. An error if its password cannot be decrypted says so.
    pub(crate) fn unseal(&self, row: SecretRow) -> Result<Secret, ControlError> {
        let opened = self.seal.open(&SecretRow::key(&row.name), &row.sealed_password);
        let password = opened.map_err(|e| {
            let name = &row.name;
            ControlError::Unavailable(format!(
                "the password of secret '{name}': {e}. Start hydrant with the key that it was stored \
                 with, or CREATE OR REPLACE SECRET {name} …"
            ))
        })?;
        let SecretRow { name, user, created, comment, .. } = row;
        Ok(Secret { name, user, password: SecretText::new(password), created, comment })
    }

    fn sealed(&self, secret: &Secret) -> Result<SecretRow, ControlError> {
        let sealed = self.seal.seal(&SecretRow::key(&secret.name), secret.password.reveal());
        let sealed_password = sealed.map_err(|e| ControlError::Unavailable(e.to_string()))?;
        let Secret { name, user, created, comment, .. } = secret.clone();
        Ok(SecretRow { name, user, sealed_password, created, comment })
    }

    /// Seals what another key sealed with the one that is taken now. What cannot be opened stays.
    pub(crate) async fn seal_again(&self) -> Result<(), ControlError> {
        let mut writes = Vec::new();
        for (key, entry) in scan_all(self.control.as_ref(), SECRET).await? {
            if let Some(row) = self.sealed_again(entry.json(&key)?)? {
                writes.push(Write::update(key, entry.version, &row));
            }
        }
        for (key, entry) in scan_all(self.control.as_ref(), LEAVING).await? {
            let mut row: Leaving = entry.json(&key)?;
            let Some(secret) = row.secret.take() else { continue };
            if let Some(secret) = self.sealed_again(secret)? {
                row.secret = Some(secret);
                writes.push(Write::update(key, entry.version, &row));
            }
        }
        for writes in writes.chunks(ROWS_PER_COMMIT) {
            self.control.commit(writes.to_vec()).await?;
        }
        Ok(())
    }

    fn sealed_again(&self, row: SecretRow) -> Result<Option<SecretRow>, ControlError> {
        if self.seal.is_current(&row.sealed_password) {
            return Ok(None);
        }
        match self.unseal(row) {
            Ok(secret) => self.sealed(&secret).map(Some),
            Err(error) => {
                tracing::error!(%error, "a secret cannot be used");
                Ok(None)
            }
        }
    }

    /// `false` if there is none.
    pub(crate) async fn delete_secret(&self, name: &str) -> Result<bool, ControlError> {
        self.delete(&SecretRow::key(name)).await
    }

    /// `false` if there is none.
    pub(crate) async fn delete_connection(&self, name: &str) -> Result<bool, ControlError> {
        self.delete(&format!("{CONNECTION}{name}")).await
    }

    /// `false` if there is none.
    pub(crate) async fn delete_leaving(&self, uid: &str) -> Result<bool, ControlError> {
        self.delete(&format!("{LEAVING}{uid}")).await
    }

    /// The last epoch of a source of this name that was dropped.
    pub(crate) async fn last_epoch(&self, name: &str) -> Result<Option<LastEpoch>, ControlError> {
        self.get(&format!("{EPOCH}{name}")).await
    }

    async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ControlError> {
        self.control.get(key).await?.map(|entry| entry.json(key)).transpose()
    }

    async fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, ControlError> {
        let rows = scan_all(self.control.as_ref(), prefix).await?;
        rows.iter().map(|(key, entry)| entry.json(key)).collect()
    }

    async fn put<T: Serialize + Sync>(&self, key: &str, row: &T) -> Result<(), ControlError> {
        let seen = self.control.get(key).await?;
        self.control.commit(vec![Write::put(key, seen.as_ref(), row)]).await.map(drop)
    }

    async fn delete(&self, key: &str) -> Result<bool, ControlError> {
        let Some(seen) = self.control.get(key).await? else { return Ok(false) };
        self.control.commit(vec![Write::delete(key, seen.version)]).await?;
        Ok(true)
    }

    pub(crate) async fn progress(&self, uid: &str) -> Result<Progress, ControlError> {
        Ok(self.get(&progress_key(uid)).await?.unwrap_or_default())
    }

    pub(crate) async fn tables(&self, uid: &str) -> Result<Vec<TableRow>, ControlError> {
        self.all(&format!("{TABLE}{uid}/")).await
    }

    /// Stores progress and tables in one commit, and removes those tables that `gone` names. More
    /// tables than a commit has room for go first: the progress that needs them comes last.
    pub(crate) async fn advance(
        &self,
        uid: &str,
        progress: &Progress,
        tables: &[&TableRow],
        gone: &[u32],
    ) -> Result<(), ControlError> {
        let mut writes = Vec::new();
        for table in tables {
            let key = table_key(uid, table.captured.oid);
            let seen = self.control.get(&key).await?;
            writes.push(Write::put(key, seen.as_ref(), *table));
        }
        for oid in gone {
            let key = table_key(uid, *oid);
            if let Some(seen) = self.control.get(&key).await? {
                writes.push(Write::delete(key, seen.version));
            }
        }
        while writes.len() > ROWS_PER_COMMIT {
            let rest = writes.split_off(ROWS_PER_COMMIT);
            self.control.commit(std::mem::replace(&mut writes, rest)).await?;
        }
        let key = progress_key(uid);
        let seen = self.control.get(&key).await?;
        writes.push(Write::put(key, seen.as_ref(), progress));
        self.control.commit(writes).await.map(drop)
    }

    /// Forgets a source but for what has to be done on its server: all in one commit.
    pub(crate) async fn leave(
        &self,
        row: &SourceRow,
        leaving: &Leaving,
    ) -> Result<(), ControlError> {
        let epoch = LastEpoch { epoch: self.progress(&row.uid).await?.cut.epoch };
        let name = &row.settings.name;
        let mut writes = Vec::new();
        let epoch_key = format!("{EPOCH}{name}");
        let seen = self.control.get(&epoch_key).await?;
        writes.push(Write::put(epoch_key, seen.as_ref(), &epoch));
        for key in [format!("{SOURCE}{name}"), progress_key(&row.uid)] {
            if let Some(seen) = self.control.get(&key).await? {
                writes.push(Write::delete(key, seen.version));
            }
        }
        let key = format!("{LEAVING}{}", row.uid);
        let seen = self.control.get(&key).await?;
        writes.push(Write::put(key, seen.as_ref(), leaving));
        self.control.commit(writes).await.map(drop)
    }

    /// Removes the rows of a source's tables.
    pub(crate) async fn delete_tables(&self, uid: &str) -> Result<(), ControlError> {
        let prefix = format!("{TABLE}{uid}/");
        loop {
            let page = self.control.scan(&prefix, None, ROWS_PER_COMMIT).await?;
            if page.is_empty() {
                return Ok(());
            }
            let delete = |(key, entry): (String, _)| {
                let entry: hydrant_core::control::Entry = entry;
                Write::delete(key, entry.version)
            };
            self.control.commit(page.into_iter().map(delete).collect()).await?;
        }
    }

    /// Uids of the sources that were dropped, with what is left of them.
    pub(crate) async fn leaving_by_uid(&self) -> Result<Vec<(String, Leaving)>, ControlError> {
        let rows = scan_all(self.control.as_ref(), LEAVING).await?;
        let uid = |key: &str| key.strip_prefix(LEAVING).unwrap_or_default().to_owned();
        rows.iter().map(|(key, entry)| Ok((uid(key), entry.json(key)?))).collect()
    }
}
