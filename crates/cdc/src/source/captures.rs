//! The statements: what they check, store and start.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::capture::{
    AlterSource, Capture, CaptureError, Connection, Cut, IfExists, SOURCES_MAX, Secret,
    SecretReport, SourceReport, SourceSettings,
};
use hydrant_core::control::ControlError;
use hydrant_postgres::{Access, Server};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::source::store::{Leaving, SlotStage, SourceRow};
use crate::source::worker::Order;
use crate::source::{Inner, Sources, settings};

/// How often the slots of dropped sources are tried again.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Longest that dropping one slot is waited for.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

fn unavailable(error: ControlError) -> CaptureError {
    match error {
        ControlError::TooLarge(text) => CaptureError::Invalid(text),
        other => CaptureError::Unavailable(other.to_string()),
    }
}

fn not_found(kind: &'static str, name: &str) -> CaptureError {
    CaptureError::NotFound { kind, name: name.to_owned() }
}

/// Whether a `CREATE` goes on: `false` if what is there stays.
fn may_create(
    kind: &'static str,
    name: &str,
    exists: bool,
    there: IfExists,
) -> Result<bool, CaptureError> {
    match (exists, there) {
        (true, IfExists::Fail) => Err(CaptureError::Exists { kind, name: name.to_owned() }),
        (true, IfExists::Keep) => Ok(false),
        (false, _) | (true, IfExists::Replace) => Ok(true),
    }
}

#[async_trait]
impl Capture for Sources {
    async fn create_secret(&self, secret: Secret, there: IfExists) -> Result<(), CaptureError> {
        settings::secret(&secret)?;
        let inner = &self.inner;
        let _order = inner.writing.lock().await;
        let seen = inner.store.secret_row(&secret.name).await.map_err(unavailable)?;
        if !may_create("Secret", &secret.name, seen.is_some(), there)? {
            return Ok(());
        }
        // One that cannot be decrypted any more is replaced in any case.
        let held = seen.and_then(|row| inner.store.unseal(row).ok());
        let same = |held: Secret| held == Secret { created: held.created, ..secret.clone() };
        if !held.is_some_and(same) {
            inner.store.put_secret(&secret).await.map_err(unavailable)?;
        }
        let users = inner.store.connections().await.map_err(unavailable)?;
        let users = users.iter().filter(|c| c.secret.as_ref() == Some(&secret.name));
        let users: Vec<&str> = users.map(|c| c.name.as_str()).collect();
        inner.look_again(|settings| users.contains(&settings.connection.as_str()));
        Ok(())
    }

    async fn drop_secret(&self, name: &str) -> Result<bool, CaptureError> {
        let inner = &self.inner;
        let _order = inner.writing.lock().await;
        let connections = inner.store.connections().await.map_err(unavailable)?;
        if let Some(user) = connections.iter().find(|c| c.secret.as_deref() == Some(name)) {
            let by = format!("connection '{}'", user.name);
            return Err(CaptureError::InUse { kind: "Secret", name: name.to_owned(), by });
        }
        inner.store.delete_secret(name).await.map_err(unavailable)
    }

    async fn secrets(&self) -> Result<Vec<SecretReport>, CaptureError> {
        self.inner.store.secrets().await.map_err(unavailable)
    }

    async fn create_connection(
        &self,
        connection: Connection,
        there: IfExists,
    ) -> Result<(), CaptureError> {
        settings::connection(&connection)?;
        let inner = &self.inner;
        let _order = inner.writing.lock().await;
        let seen = inner.store.connection(&connection.name).await.map_err(unavailable)?;
        if !may_create("Connection", &connection.name, seen.is_some(), there)? {
            return Ok(());
        }
        if let Some(secret) = &connection.secret {
            let found = inner.store.secret_row(secret).await.map_err(unavailable)?;
            let found = found.ok_or_else(|| not_found("Secret", secret))?;
            if found.user.is_none() && connection.user.is_none() {
                return Err(CaptureError::Invalid(format!(
                    "give the connection a USER: secret '{secret}' names none"
                )));
            }
        }
        let same =
            |held: Connection| held == Connection { created: held.created, ..connection.clone() };
        if !seen.is_some_and(same) {
            inner.store.put_connection(&connection.name, &connection).await.map_err(unavailable)?;
        }
        inner.look_again(|settings| settings.connection == connection.name);
        Ok(())
    }

    async fn drop_connection(&self, name: &str) -> Result<bool, CaptureError> {
        let inner = &self.inner;
        let _order = inner.writing.lock().await;
        let sources = inner.store.sources().await.map_err(unavailable)?;
        if let Some(user) = sources.iter().find(|s| s.settings.connection == name) {
            let by = format!("source '{}'", user.settings.name);
            return Err(CaptureError::InUse { kind: "Connection", name: name.to_owned(), by });
        }
        inner.store.delete_connection(name).await.map_err(unavailable)
    }

    async fn connections(&self) -> Result<Vec<Connection>, CaptureError> {
        self.inner.store.connections().await.map_err(unavailable)
    }

    async fn create_source(
        &self,
        settings: SourceSettings,
        there: IfExists,
    ) -> Result<SourceReport, CaptureError> {
        settings::source(&settings)?;
        let name = settings.name.clone();
        {
            let _order = self.inner.writing.lock().await;
            let seen = self.inner.store.source(&name).await.map_err(unavailable)?;
            if may_create("Source", &name, seen.is_some(), there)? {
                if let Some(old) = seen {
                    self.inner.leave(&old).await?;
                }
                self.inner.create(settings).await?;
            }
        }
        self.inner.settled(&name).await
    }

    async fn alter_source(
        &self,
        name: &str,
        change: AlterSource,
    ) -> Result<SourceReport, CaptureError> {
        let inner = &self.inner;
        let _order = inner.writing.lock().await;
        let seen = inner.store.source(name).await.map_err(unavailable)?;
        let seen = seen.ok_or_else(|| not_found("Source", name))?;
        let mut row = seen.clone();
        let looks = matches!(change, AlterSource::Resume);
        inner.there(&row, &change)?;
        alter(&mut row, change)?;
        if row != seen {
            inner.store.put_source(name, &row).await.map_err(unavailable)?;
        }
        if row != seen || looks {
            inner.order(row);
        }
        inner.report(name)
    }

    async fn drop_source(&self, name: &str) -> Result<Option<String>, CaptureError> {
        let _order = self.inner.writing.lock().await;
        let Some(row) = self.inner.store.source(name).await.map_err(unavailable)? else {
            return Ok(None);
        };
        self.inner.leave(&row).await.map(Some)
    }

    async fn sources(&self) -> Result<Vec<SourceReport>, CaptureError> {
        let now = self.inner.ports.clock.now();
        let running = self.inner.running.lock();
        Ok(running.values().map(|running| running.board.report(now)).collect())
    }

    async fn cut(&self, source: &str) -> Result<Cut, CaptureError> {
        let running = self.inner.running.lock();
        let running = running.get(source).ok_or_else(|| not_found("Source", source))?;
        Ok(running.board.read(|shown| shown.cut.clone()))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }
}

/// What an `ALTER` makes of a source's row.
fn alter(row: &mut SourceRow, change: AlterSource) -> Result<(), CaptureError> {
    match change {
        AlterSource::AddTable(listed) => {
            settings::source_table(&listed)?;
            match &mut row.settings.tables {
                Some(tables) => {
                    tables.retain(|there| there.table != listed.table);
                    tables.push(listed);
                    settings::source(&row.settings)?;
                }
                None if !listed.partition_by.is_empty() => {
                    return Err(CaptureError::Invalid(
                        "a source FOR ALL TABLES takes every table by its primary key; list the \
                         tables to choose PARTITION BY"
                            .into(),
                    ));
                }
                None => row.settings.left_out.retain(|table| *table != listed.table),
            }
        }
        AlterSource::DropTable(table) => {
            settings::table(&table)?;
            match &mut row.settings.tables {
                Some(tables) => {
                    let before = tables.len();
                    tables.retain(|listed| listed.table != table);
                    if tables.len() == before {
                        return Err(not_found("Table", &table.to_string()));
                    }
                    if tables.is_empty() {
                        return Err(CaptureError::Invalid(
                            "it is the source's last table: DROP SOURCE instead".into(),
                        ));
                    }
                }
                None if row.settings.left_out.contains(&table) => {}
                None => {
                    row.settings.left_out.push(table);
                    settings::source(&row.settings)?;
                }
            }
        }
        AlterSource::Resnapshot => row.resnapshots += 1,
        AlterSource::Pause => row.paused = true,
        AlterSource::Resume => row.paused = false,
        AlterSource::Comment(text) => {
            row.settings.comment = text;
            settings::source(&row.settings)?;
        }
    }
    Ok(())
}

impl Inner {
    async fn create(self: &Arc<Self>, settings: SourceSettings) -> Result<(), CaptureError> {
        let connection = &settings.connection;
        let found = self.store.connection(connection).await.map_err(unavailable)?;
        found.ok_or_else(|| not_found("Connection", connection))?;
        let sources = self.store.sources().await.map_err(unavailable)?;
        if sources.len() >= SOURCES_MAX {
            return Err(CaptureError::Invalid(format!("there are at most {SOURCES_MAX} sources")));
        }
        let uid = hex::encode(self.ports.random.bytes::<8>());
        let row = SourceRow {
            uid,
            created: self.ports.clock.now(),
            settings,
            paused: false,
            resnapshots: 0,
        };
        let slot = row.slot().name;
        if let Some(other) = sources
            .iter()
            .find(|s| s.settings.connection == row.settings.connection && s.slot().name == slot)
        {
            let by = format!("source '{}'", other.settings.name);
            return Err(CaptureError::InUse { kind: "Slot", name: slot, by });
        }
        let name = row.settings.name.clone();
        self.store.put_source(&name, &row).await.map_err(unavailable)?;
        self.run(row).await.map_err(unavailable)
    }

    /// Gives a running source its new row.
    fn order(&self, row: SourceRow) {
        let running = self.running.lock();
        let Some(running) = running.get(&row.settings.name) else { return };
        running.board.tell(|shown| shown.settings = row.settings.clone());
        running.orders.send_modify(|order: &mut Order| order.row = Arc::new(row));
    }

    /// Whether a table that a source of all tables is to leave out is one of its.
    fn there(&self, row: &SourceRow, change: &AlterSource) -> Result<(), CaptureError> {
        let AlterSource::DropTable(table) = change else { return Ok(()) };
        let running = self.running.lock();
        let Some(running) = running.get(&row.settings.name) else { return Ok(()) };
        if row.settings.tables.is_some() || !row.settings.takes(table) {
            return Ok(());
        }
        let absent = running.board.read(|shown| {
            // Before the first snapshot is complete nobody knows what it has.
            shown.cut.complete && shown.tables.values().all(|it| it.captured.table != *table)
        });
        if absent { Err(not_found("Table", &table.to_string())) } else { Ok(()) }
    }

    /// Has sources that wait after a failure look again: what they connect with is another.
    fn look_again(&self, uses: impl Fn(&SourceSettings) -> bool) {
        for running in self.running.lock().values() {
            if running.board.read(|shown| uses(&shown.settings)) {
                running.orders.send_modify(|_| {});
            }
        }
    }

    fn report(&self, name: &str) -> Result<SourceReport, CaptureError> {
        let running = self.running.lock();
        let running = running.get(name).ok_or_else(|| not_found("Source", name))?;
        Ok(running.board.report(self.ports.clock.now()))
    }

    /// The report once validation has had an outcome, or after a while.
    async fn settled(&self, name: &str) -> Result<SourceReport, CaptureError> {
        let mut changes = self.changes.subscribe();
        let deadline = Instant::now() + self.options.create_wait;
        loop {
            changes.mark_unchanged();
            let settled = {
                let running = self.running.lock();
                let running = running.get(name).ok_or_else(|| not_found("Source", name))?;
                running.board.read(|shown| shown.settled)
            };
            if settled || timeout_at(deadline, changes.changed()).await.is_err() {
                return self.report(name);
            }
        }
    }

    /// Stops a source and forgets it; what has become of its slot, in words.
    async fn leave(self: &Arc<Self>, row: &SourceRow) -> Result<String, CaptureError> {
        let running = self.running.lock().remove(&row.settings.name);
        if let Some(running) = running {
            running.stop().await;
        }
        let left = async {
            let progress = self.store.progress(&row.uid).await?;
            let connection = self.store.connection(&row.settings.connection).await?;
            let secret = match connection.as_ref().and_then(|c| c.secret.as_ref()) {
                Some(secret) => self.store.secret_row(secret).await?,
                None => None,
            };
            let slot = (progress.stage != SlotStage::None).then_some(progress.slot);
            let leaving = Leaving { name: row.settings.name.clone(), slot, connection, secret };
            self.store.leave(row, &leaving).await?;
            Ok(leaving)
        };
        let leaving = match left.await {
            Ok(leaving) => leaving,
            Err(error) => {
                // It is still there, so it goes on.
                self.run(row.clone()).await.map_err(unavailable)?;
                return Err(unavailable(error));
            }
        };
        self.changes.send_modify(|n| *n += 1);
        Ok(self.clear(&row.uid, &leaving).await)
    }

    /// Drops the slot of a dropped source; why it is still there, in words.
    async fn drop_slot(
        &self,
        slot: &str,
        connection: &Connection,
        leaving: &Leaving,
    ) -> Result<(), String> {
        let secret = leaving.secret.clone().map(|row| self.store.unseal(row)).transpose();
        let secret = secret.map_err(|e| e.to_string())?;
        let drop = async {
            let clock = self.ports.clock.clone();
            let access = Access::new(connection, secret.as_ref(), &leaving.name, clock).await?;
            let mut server = Server::connect(&access).await?;
            hydrant_postgres::drop_slot(&mut server, slot, access.application()).await?;
            server.close().await;
            Ok::<_, hydrant_postgres::ServerError>(())
        };
        match timeout(DROP_TIMEOUT, drop).await {
            Ok(dropped) => dropped.map_err(|e| e.to_string()),
            Err(_) => Err("the server does not answer".to_owned()),
        }
    }

    /// Removes what is left of a dropped source: its tables' rows, and its slot. Doing it twice is no
    /// error. What came of it, in words.
    async fn clear(&self, uid: &str, leaving: &Leaving) -> String {
        let name = &leaving.name;
        let dropped = match (&leaving.slot, &leaving.connection) {
            (Some(slot), Some(connection)) => {
                let dropped = self.drop_slot(slot, connection, leaving).await;
                let said = dropped.map(|()| format!("Source {name} dropped, and its slot {slot}."));
                said.map_err(|why| (slot, why))
            }
            _ => Ok(format!("Source {name} dropped.")),
        };
        match dropped {
            Ok(text) => {
                let cleared = async {
                    self.store.delete_tables(uid).await?;
                    self.store.delete_leaving(uid).await
                };
                if let Err(error) = cleared.await {
                    tracing::warn!(source = name, %error, "rows of a dropped source stay until the next look");
                }
                text
            }
            Err((slot, why)) => format!(
                "Source {name} dropped. Its slot {slot} is still on the server and holds its \
                 write-ahead log: it is dropped as soon as the server can be reached, or run SELECT \
                 pg_drop_replication_slot('{slot}') there. ({why})"
            ),
        }
    }
}

/// Drops the slots of sources that were dropped while their server could not be reached.
pub(super) async fn sweep(inner: Arc<Inner>) {
    loop {
        match inner.store.leaving_by_uid().await {
            Ok(leaving) => {
                for (uid, leaving) in leaving {
                    let said = inner.clear(&uid, &leaving).await;
                    tracing::info!(source = leaving.name, "{said}");
                }
            }
            Err(error) => tracing::warn!(%error, "dropped sources cannot be looked for"),
        }
        sleep(SWEEP_INTERVAL).await;
    }
}
