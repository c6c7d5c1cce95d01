//! A source's task: what it does after a start, an error or a statement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hydrant_core::capture::{Failure, Lsn, OnSlotLoss, Secret, SourceState};
use hydrant_core::control::ControlError;
use hydrant_postgres::{Access, Facts, Replication, Server, ServerError};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::source::append::Writer;
use crate::source::board::Board;
use crate::source::feed::Live;
use crate::source::follow::monitor;
use crate::source::store::{Progress, SlotStage, SourceRow, Store, TableRow};
use crate::source::transcribe::Transcriber;
use crate::source::{Options, Ports};

/// First wait before an error that passes is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The same when somebody else holds the slot.
const RETRY_BUSY: Duration = Duration::from_secs(1);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often a failed source looks whether somebody has mended it.
const RECHECK: Duration = Duration::from_secs(30);
/// The same where each look is a login that is refused.
const RECHECK_LOGIN: Duration = Duration::from_secs(60);
/// The same where each look reads a snapshot.
const RECHECK_SNAPSHOT: Duration = Duration::from_secs(1_800);
/// Most epochs that begin by themselves within an hour.
const LOSSES_PER_HOUR: usize = 3;
const HOUR: Duration = Duration::from_secs(3_600);

/// What the task is told.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) row: Arc<SourceRow>,
    pub(crate) stop: bool,
}

/// Why a source does not go on.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    Server(ServerError),
    /// Somebody has to mend it.
    Failed(Failure, String),
    /// It passes.
    Passing(String),
    /// A shard was closed; its children take the records.
    Resharded,
}

impl From<ServerError> for Trouble {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Failed { failure, text } => Self::Failed(failure, text),
            other => Self::Server(other),
        }
    }
}

impl From<ControlError> for Trouble {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::TooLarge(_) | ControlError::Corrupt(_) => {
                Self::Failed(Failure::Other, error.to_string())
            }
            other => Self::Passing(other.to_string()),
        }
    }
}

pub(crate) struct Worker {
    pub(super) ports: Ports,
    pub(super) options: Options,
    pub(super) board: Arc<Board>,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) store: Store,
    pub(super) progress: Progress,
    pub(super) tables: BTreeMap<u32, TableRow>,
    /// Attempts that failed since the source last worked.
    pub(super) failures: u32,
    /// Tables that the stream told of and that were looked for.
    pub(super) unknown: BTreeSet<u32>,
    /// Where the log ended when tables were first seen to be published no more: what was committed
    /// before is still theirs.
    pub(super) gone_at: BTreeMap<u32, Lsn>,
}

/// What an attempt works with.
pub(super) struct Session {
    pub(super) row: Arc<SourceRow>,
    pub(super) access: Access,
    pub(super) server: Server,
    pub(super) facts: Facts,
}

impl Worker {
    pub(crate) fn new(
        ports: Ports,
        options: Options,
        board: Arc<Board>,
        orders: watch::Receiver<Order>,
        progress: Progress,
        tables: Vec<TableRow>,
    ) -> Self {
        let store = Store::new(ports.control.clone(), ports.seal.clone());
        let tables = tables.into_iter().map(|t| (t.captured.oid, t)).collect();
        Self {
            ports,
            options,
            board,
            orders,
            store,
            progress,
            tables,
            failures: 0,
            unknown: BTreeSet::new(),
            gone_at: BTreeMap::new(),
        }
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self) {
        loop {
            let order = self.orders.borrow_and_update().clone();
            if order.stop {
                return;
            }
            if order.row.paused {
                self.board.state(SourceState::Paused, "");
                if self.orders.changed().await.is_err() {
                    return;
                }
                self.failures = 0;
                continue;
            }
            if let Err(trouble) = self.attempt(order.row.clone()).await {
                let wait = self.show(&order.row, trouble).await;
                tokio::select! {
                    () = sleep(wait) => {}
                    changed = self.orders.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.failures = 0;
                    }
                }
            }
        }
    }

    /// Shows what went wrong, and tells how long to wait.
    async fn show(&mut self, row: &SourceRow, trouble: Trouble) -> Duration {
        let (first, text) = match trouble {
            Trouble::Failed(Failure::SlotLost, text) => {
                if row.settings.on_slot_loss == OnSlotLoss::Resnapshot && self.lose(row).await {
                    tracing::warn!(source = row.settings.name, text, "a new epoch begins");
                    return Duration::ZERO;
                }
                return self.failed(row, Failure::SlotLost, text);
            }
            Trouble::Failed(Failure::PublicationDropped, text) => {
                // Recreating it does not bring back what was not decoded meanwhile.
                if self.is_following(row) && self.progress.broken.is_none() {
                    let next = Progress { broken: Some(text.clone()), ..self.progress.clone() };
                    if let Err(error) = self.store.advance(&row.uid, &next, &[], &[]).await {
                        tracing::warn!(%error, "that a publication was dropped is not stored");
                    }
                }
                return self.failed(row, Failure::PublicationDropped, text);
            }
            Trouble::Failed(failure, text) => return self.failed(row, failure, text),
            Trouble::Resharded => (RETRY, "the stream is being resharded".to_owned()),
            Trouble::Passing(text) | Trouble::Server(ServerError::Transient(text)) => (RETRY, text),
            Trouble::Server(ServerError::SlotBusy(text)) => (RETRY_BUSY, text),
            Trouble::Server(ServerError::Failed { failure, text }) => {
                return self.failed(row, failure, text);
            }
        };
        tracing::info!(source = row.settings.name, text, "a source tries again");
        self.board.note(|shown| shown.reconnects += 1);
        self.board.state(SourceState::Retrying, text);
        let most = first.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures += 1;
        // Between a half and all of it.
        let part = (self.ports.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        most.mul_f64(0.5 + part / 2.0)
    }

    fn failed(&mut self, row: &SourceRow, failure: Failure, text: String) -> Duration {
        tracing::warn!(source = row.settings.name, ?failure, text, "a source has failed");
        self.board.state(SourceState::Failed(failure), text);
        match failure {
            Failure::Authentication | Failure::Tls => RECHECK_LOGIN,
            // A snapshot would be read and written again up to the same row.
            Failure::Undecodable if !self.is_following(row) => RECHECK_SNAPSHOT,
            _ => RECHECK,
        }
    }

    /// Whether the lost slot makes a new epoch; if so, that is stored.
    async fn lose(&mut self, row: &SourceRow) -> bool {
        let now = self.ports.clock.now();
        let mut next = self.progress.clone();
        next.losses.retain(|at| now.since(*at) < HOUR);
        if next.losses.len() >= LOSSES_PER_HOUR {
            return false;
        }
        next.losses.push(now);
        next.cut.complete = false;
        self.store.advance(&row.uid, &next, &[], &[]).await.is_ok()
    }

    /// Looks, begins or goes on, and follows. Returns when it is told something.
    async fn attempt(&mut self, row: Arc<SourceRow>) -> Result<(), Trouble> {
        let mut orders = self.orders.clone();
        let begun = tokio::select! {
            begun = self.begin(row.clone()) => begun?,
            () = interrupted(&mut orders, &row) => return Ok(()),
        };
        let Some((mut session, replication, leave_early)) = begun else { return Ok(()) };
        self.stream(&mut session, replication, leave_early).await
    }

    /// Everything up to the stream. `None` if there is something else to look at first.
    async fn begin(
        &mut self,
        row: Arc<SourceRow>,
    ) -> Result<Option<(Session, Replication, Option<Lsn>)>, Trouble> {
        self.progress = self.store.progress(&row.uid).await?;
        let tables = self.store.tables(&row.uid).await?;
        self.tables = tables.into_iter().map(|t| (t.captured.oid, t)).collect();
        let following = self.is_following(&row);
        if !following || self.failures == 0 {
            self.board.state(SourceState::Validating, "");
        }
        if let Some(text) = self.progress.broken.as_ref().filter(|_| following) {
            return Err(Trouble::Failed(Failure::PublicationDropped, text.clone()));
        }
        let mut session = self.look(row, following).await?;
        let settings = &session.row.settings;
        let made = self.ports.make_stream.make(&settings.scope, &settings.stream, settings.shards);
        made.await.map_err(|e| Trouble::Failed(Failure::Stream, e.to_string()))?;
        let mut left = None;
        if !following {
            left = Some(self.epoch(&mut session).await?);
        }
        let (new, gone) = self.differences(&session);
        let mut leave_early = None;
        if !new.is_empty() || !gone.is_empty() {
            let until = self.read_on_until(&session, &gone);
            if until.is_some() || self.is_ahead(&session.row).await? {
                // Numbers in the transaction that was being read depend on the tables as they were.
                leave_early = Some(until.unwrap_or_default());
            } else {
                self.reconcile(&mut session, new, gone).await?;
                return Ok(None);
            }
        }
        let mut replication = match left {
            Some(replication) => replication,
            None => Replication::connect(&session.access).await?,
        };
        self.start(&mut session, &mut replication).await?;
        Ok(Some((session, replication, leave_early)))
    }

    /// How far the stream has to be read before tables that are published no more are let go: their
    /// changes up to then are in it. `None` if it was.
    fn read_on_until(&mut self, session: &Session, gone: &[u32]) -> Option<Lsn> {
        self.gone_at.retain(|oid, _| gone.contains(oid));
        for oid in gone {
            // One that a statement took out of the source is let go at once.
            if self
                .tables
                .get(oid)
                .is_some_and(|row| session.row.settings.takes(&row.captured.table))
            {
                self.gone_at.entry(*oid).or_insert(session.facts.end);
            }
        }
        let until = self.gone_at.values().copied().max();
        until.filter(|until| self.progress.cut.resume < *until)
    }

    fn is_following(&self, row: &SourceRow) -> bool {
        self.progress.stage == SlotStage::Made
            && self.progress.cut.complete
            && self.progress.resnapshots == row.resnapshots
    }

    async fn access(&self, row: &SourceRow) -> Result<Access, Trouble> {
        let name = &row.settings.connection;
        let connection = self.store.connection(name).await?.ok_or_else(|| {
            let text = format!("connection '{name}' does not exist: CREATE CONNECTION {name} …");
            Trouble::Failed(Failure::Other, text)
        })?;
        let secret = match &connection.secret {
            Some(secret) => self.secret(secret).await?,
            None => None,
        };
        let clock = self.ports.clock.clone();
        Ok(Access::new(&connection, secret.as_ref(), &row.settings.name, clock).await?)
    }

    /// A secret, if there is one; that its password cannot be decrypted does not pass.
    async fn secret(&self, name: &str) -> Result<Option<Secret>, Trouble> {
        let Some(row) = self.store.secret_row(name).await? else { return Ok(None) };
        let opened = self.store.unseal(row);
        opened.map(Some).map_err(|error| {
            let text = match error {
                ControlError::Unavailable(text) => text,
                other => other.to_string(),
            };
            Trouble::Failed(Failure::Authentication, text)
        })
    }

    async fn look(&mut self, row: Arc<SourceRow>, following: bool) -> Result<Session, Trouble> {
        let access = self.access(&row).await?;
        let mut server = Server::connect(&access).await?;
        let slot_ours = self.progress.stage != SlotStage::None;
        let stored = &self.progress;
        let following = following.then(|| hydrant_postgres::Following {
            system: stored.system.clone(),
            timeline: stored.timeline,
            resume: stored.cut.resume,
        });
        let progress = hydrant_postgres::Progress { slot_ours, following };
        let slot = if slot_ours { self.progress.slot.clone() } else { row.slot().name };
        let facts =
            hydrant_postgres::check(&mut server, &access, &row.settings, &slot, &progress).await?;
        self.board.tell(|shown| {
            shown.warnings.clone_from(&facts.warnings);
            shown.slot = slot;
        });
        Ok(Session { row, access, server, facts })
    }

    /// Whether some shard has records past the stored position.
    async fn is_ahead(&self, row: &SourceRow) -> Result<bool, Trouble> {
        let writer = self.writer(row).await?;
        Ok(writer.found().commit_lsn >= self.progress.cut.resume)
    }

    pub(super) async fn writer(&self, row: &SourceRow) -> Result<Writer, Trouble> {
        let Progress { cut, floors, .. } = &self.progress;
        Writer::open(&self.ports, &row.settings, cut, floors).await
    }

    pub(super) fn transcriber(&self, session: &Session) -> Result<Transcriber, Trouble> {
        let tables: Vec<TableRow> = self.tables.values().cloned().collect();
        let (row, database) = (session.row.clone(), session.access.database());
        Transcriber::new(row, database, self.progress.cut.epoch, &tables)
    }

    /// Begins to stream at the stored position, if the server has not gone past it.
    async fn start(
        &mut self,
        session: &mut Session,
        replication: &mut Replication,
    ) -> Result<(), Trouble> {
        let (slot, resume) = (self.progress.slot.clone(), self.progress.cut.resume);
        let publications = &session.row.settings.publications;
        let begun = replication.start(&slot, publications, resume).await;
        if let Err(ServerError::SlotBusy(said)) = begun {
            let application = session.access.application();
            let held = hydrant_postgres::release(&mut session.server, &slot, application).await?;
            return Err(ServerError::SlotBusy(match held {
                Some(held) => format!("{held}. {said}"),
                None => said,
            })
            .into());
        }
        begun?;
        // Only now nobody else can move it.
        let status = hydrant_postgres::status(&mut session.server, &slot, &[]).await?;
        let confirmed = status.slot.as_ref().and_then(|slot| slot.confirmed);
        if let Some(confirmed) = confirmed.filter(|confirmed| *confirmed > resume) {
            return Err(Trouble::Failed(
                Failure::PositionSkipped,
                format!(
                    "slot {slot} has confirmed {confirmed}, stored is {resume}: somebody else read \
                     from the slot, and what is between is lost: ALTER SOURCE {} RESNAPSHOT",
                    session.row.settings.name
                ),
            ));
        }
        self.board.slot_status(&status);
        if self.progress.timeline != session.facts.identity.timeline {
            let mut next = self.progress.clone();
            next.timeline = session.facts.identity.timeline;
            self.store.advance(&session.row.uid, &next, &[], &[]).await?;
            self.progress = next;
        }
        Ok(())
    }

    /// Follows until it is told something or cannot go on. On return nothing is under way.
    async fn stream(
        &mut self,
        session: &mut Session,
        replication: Replication,
        leave_early: Option<Lsn>,
    ) -> Result<(), Trouble> {
        let mut writer = self.writer(&session.row).await?;
        let mut transcriber = self.transcriber(session)?;
        self.board.state(SourceState::Streaming, "");
        let server = Server::connect(&session.access).await?;
        let (_watching, told) = monitor(session, &self.progress.slot, &self.board);
        let row = session.row.clone();
        let publications = row.settings.publications.clone();
        let mut live = Live { replication, server, publications };
        self.progress.floors.clone_from(writer.floors());
        let followed =
            self.follow(&row, &mut live, &mut writer, &mut transcriber, told, leave_early).await;
        let settled = async {
            if let Err(Trouble::Failed(Failure::Undecodable, _)) = followed {
                // Each attempt ends here, so what came before would never be written.
                let _ = writer.drain(&row.settings).await;
            }
            writer.settle().await;
            live.replication.stop().await;
        };
        let mut orders = self.orders.clone();
        tokio::select! {
            () = settled => {}
            // What is under way is found again.
            () = interrupted(&mut orders, &row), if followed.is_err() => {}
        }
        followed
    }
}

/// Waits until the source is told what cannot wait for its snapshot.
async fn interrupted(orders: &mut watch::Receiver<Order>, row: &SourceRow) {
    let urgent = |order: &Order| {
        let now = &order.row;
        order.stop || now.paused || now.resnapshots != row.resnapshots
    };
    if orders.wait_for(urgent).await.is_err() {
        std::future::pending::<()>().await;
    }
}
