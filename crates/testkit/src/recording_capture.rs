//! Change data capture without a database: keeps what it is told, and shows it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use hydrant_core::Timestamp;
use hydrant_core::capture::{
    AlterSource, Capture, CaptureError, CapturedTable, Connection, Cut, IfExists, Lsn, Secret,
    SecretReport, SecretText, SourceReport, SourceSettings, SourceState,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Keeps secrets, connections and sources with the port's rules, and writes down each change it is
/// asked for, such as `create_source orders`. It reaches no server and makes no stream: a source is
/// in the state [`RecordingCapture::show`] puts it in, at first `validating`.
///
/// What outlives a process that dies is the whole of it.
pub struct RecordingCapture {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    secrets: BTreeMap<String, Secret>,
    connections: BTreeMap<String, Connection>,
    sources: BTreeMap<String, SourceReport>,
    cuts: BTreeMap<String, Cut>,
    calls: Vec<String>,
    lose_calls: u32,
    lose_answers: u32,
    refuse: Option<CaptureError>,
}

impl Default for RecordingCapture {
    fn default() -> Self {
        Self { inner: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl RecordingCapture {
    /// The password of a secret that is there.
    pub fn password(&self, secret: &str) -> Option<SecretText> {
        Some(self.inner.lock().secrets.get(secret)?.password.clone())
    }

    /// The changes asked for so far, in order, with those that failed.
    pub fn calls(&self) -> Vec<String> {
        self.inner.lock().calls.clone()
    }

    /// The next `count` changes fail with [`CaptureError::Unavailable`] and change nothing.
    pub fn lose_calls(&self, count: u32) {
        self.inner.lock().lose_calls = count;
    }

    /// The next `count` changes are made, and answered with [`CaptureError::Unavailable`].
    pub fn lose_answers(&self, count: u32) {
        self.inner.lock().lose_answers = count;
    }

    /// The next source is refused with this error.
    pub fn refuse_source(&self, error: CaptureError) {
        self.inner.lock().refuse = Some(error);
    }

    /// Has a source show this. Panics if there is none.
    pub fn show(&self, source: &str, state: SourceState, reason: &str, tables: Vec<CapturedTable>) {
        let mut inner = self.inner.lock();
        let report = inner.sources.get_mut(source).unwrap();
        (report.state, report.tables) = (state, tables);
        report.reason = reason.to_owned();
        drop(inner);
        self.changed();
    }

    /// Has a source tell this cut.
    pub fn cut_to(&self, source: &str, cut: Cut) {
        self.inner.lock().cuts.insert(source.to_owned(), cut);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Writes the call down, and makes the change unless it is to be lost.
    fn change<T>(
        &self,
        call: String,
        make: impl FnOnce(&mut Inner) -> Result<T, CaptureError>,
    ) -> Result<T, CaptureError> {
        let lost = || CaptureError::Unavailable("a fault".to_owned());
        let mut inner = self.inner.lock();
        inner.calls.push(call);
        if inner.lose_calls > 0 {
            inner.lose_calls -= 1;
            return Err(lost());
        }
        let made = make(&mut inner)?;
        if inner.lose_answers > 0 {
            inner.lose_answers -= 1;
            return Err(lost());
        }
        drop(inner);
        self.changed();
        Ok(made)
    }
}

/// Whether a `CREATE` writes.
fn writes(
    kind: &'static str,
    name: &str,
    exists: bool,
    there: IfExists,
) -> Result<bool, CaptureError> {
    match (exists, there) {
        (true, IfExists::Fail) => Err(CaptureError::Exists { kind, name: name.to_owned() }),
        (true, IfExists::Keep) => Ok(false),
        _ => Ok(true),
    }
}

fn not_found(kind: &'static str, name: &str) -> CaptureError {
    CaptureError::NotFound { kind, name: name.to_owned() }
}

fn report(settings: SourceSettings) -> SourceReport {
    SourceReport {
        slot: settings.slot.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
        settings,
        created: Timestamp::from_millis(0),
        state: SourceState::Validating,
        reason: String::new(),
        since: Timestamp::from_millis(0),
        epoch: 1,
        confirmed: Lsn(0),
        received: Lsn(0),
        server: Lsn(0),
        lag_bytes: 0,
        lag_seconds: 0.0,
        retained_wal_bytes: None,
        wal_status: None,
        safe_wal_bytes: None,
        tables: Vec::new(),
        records: 0,
        reconnects: 0,
    }
}

/// Changes a report as the statement says; the tables that are shown stay as they are.
fn alter(report: &mut SourceReport, change: AlterSource) -> Result<(), CaptureError> {
    let SourceSettings { tables: listed, left_out, .. } = &mut report.settings;
    match change {
        AlterSource::AddTable(table) => match listed {
            Some(tables) => tables.push(table),
            None => left_out.retain(|t| *t != table.table),
        },
        AlterSource::DropTable(table) => match listed {
            Some(tables) if tables.iter().all(|t| t.table != table) => {
                return Err(not_found("Table", &table.to_string()));
            }
            Some(tables) => tables.retain(|t| t.table != table),
            None if left_out.contains(&table) => {}
            None => left_out.push(table),
        },
        AlterSource::Resnapshot => report.epoch += 1,
        AlterSource::Pause => report.state = SourceState::Paused,
        AlterSource::Resume => report.state = SourceState::Streaming,
        AlterSource::Comment(comment) => report.settings.comment = comment,
    }
    Ok(())
}

#[async_trait]
impl Capture for RecordingCapture {
    async fn create_secret(&self, secret: Secret, there: IfExists) -> Result<(), CaptureError> {
        self.change(format!("create_secret {}", secret.name), |inner| {
            let held = inner.secrets.get(&secret.name);
            let same = held.is_some_and(|h| *h == Secret { created: h.created, ..secret.clone() });
            if writes("Secret", &secret.name, held.is_some(), there)? && !same {
                inner.secrets.insert(secret.name.clone(), secret);
            }
            Ok(())
        })
    }

    async fn drop_secret(&self, name: &str) -> Result<bool, CaptureError> {
        self.change(format!("drop_secret {name}"), |inner| {
            let user = inner.connections.values().find(|c| c.secret.as_deref() == Some(name));
            if let Some(user) = user {
                let by = format!("connection '{}'", user.name);
                return Err(CaptureError::InUse { kind: "Secret", name: name.to_owned(), by });
            }
            Ok(inner.secrets.remove(name).is_some())
        })
    }

    async fn secrets(&self) -> Result<Vec<SecretReport>, CaptureError> {
        Ok(self.inner.lock().secrets.values().map(Secret::report).collect())
    }

    async fn create_connection(
        &self,
        connection: Connection,
        there: IfExists,
    ) -> Result<(), CaptureError> {
        self.change(format!("create_connection {}", connection.name), |inner| {
            let held = inner.connections.get(&connection.name);
            let same =
                held.is_some_and(|h| *h == Connection { created: h.created, ..connection.clone() });
            if !writes("Connection", &connection.name, held.is_some(), there)? || same {
                return Ok(());
            }
            if let Some(secret) = &connection.secret
                && !inner.secrets.contains_key(secret)
            {
                return Err(not_found("Secret", secret));
            }
            inner.connections.insert(connection.name.clone(), connection);
            Ok(())
        })
    }

    async fn drop_connection(&self, name: &str) -> Result<bool, CaptureError> {
        self.change(format!("drop_connection {name}"), |inner| {
            let user = inner.sources.values().find(|s| s.settings.connection == name);
            if let Some(user) = user {
                let by = format!("source '{}'", user.settings.name);
                return Err(CaptureError::InUse { kind: "Connection", name: name.to_owned(), by });
            }
            Ok(inner.connections.remove(name).is_some())
        })
    }

    async fn connections(&self) -> Result<Vec<Connection>, CaptureError> {
        Ok(self.inner.lock().connections.values().cloned().collect())
    }

    async fn create_source(
        &self,
        settings: SourceSettings,
        there: IfExists,
    ) -> Result<SourceReport, CaptureError> {
        let name = settings.name.clone();
        self.change(format!("create_source {name}"), |inner| {
            if let Some(error) = inner.refuse.take() {
                return Err(error);
            }
            if writes("Source", &name, inner.sources.contains_key(&name), there)? {
                if !inner.connections.contains_key(&settings.connection) {
                    return Err(not_found("Connection", &settings.connection));
                }
                inner.sources.insert(name.clone(), report(settings));
            }
            inner.sources.get(&name).cloned().ok_or_else(|| not_found("Source", &name))
        })
    }

    async fn alter_source(
        &self,
        name: &str,
        change: AlterSource,
    ) -> Result<SourceReport, CaptureError> {
        self.change(format!("alter_source {name}"), |inner| {
            let report = inner.sources.get_mut(name).ok_or_else(|| not_found("Source", name))?;
            alter(report, change)?;
            Ok(report.clone())
        })
    }

    async fn drop_source(&self, name: &str) -> Result<Option<String>, CaptureError> {
        self.change(format!("drop_source {name}"), |inner| {
            let gone = inner.sources.remove(name);
            inner.cuts.remove(name);
            Ok(gone.map(|_| format!("Source '{name}' dropped.")))
        })
    }

    async fn sources(&self) -> Result<Vec<SourceReport>, CaptureError> {
        Ok(self.inner.lock().sources.values().cloned().collect())
    }

    async fn cut(&self, source: &str) -> Result<Cut, CaptureError> {
        let inner = self.inner.lock();
        if !inner.sources.contains_key(source) {
            return Err(not_found("Source", source));
        }
        Ok(inner.cuts.get(source).cloned().unwrap_or_default())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
