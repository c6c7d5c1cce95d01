//! Following a slot: what arrives is written, and what is durable is stored, then confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use hydrant_core::Timestamp;
use hydrant_core::capture::{Cut, Failure, Lsn, SourceState};
use hydrant_core::control::ControlError;
use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;
use hydrant_postgres::{Access, Arrival, Server, ServerError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::source::append::{Flush, Writer};
use crate::source::board::Board;
use crate::source::columns::is_same_key;
use crate::source::feed::Feed;
use crate::source::store::{SourceRow, TableRow};
use crate::source::transcribe::{Step, Transcriber};
use crate::source::worker::{Order, Session, Trouble, Worker};

/// How often a position is stored while changes keep coming.
const CUT_INTERVAL: Duration = Duration::from_secs(1);
/// The same when nothing more has arrived.
const CUT_INTERVAL_IDLE: Duration = Duration::from_millis(100);
/// The same when nothing of the source's came at all.
const CUT_INTERVAL_QUIET: Duration = Duration::from_secs(5);
/// How often the server hears of us.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);
/// Arrivals taken before others have a turn.
const TURN: usize = 1_024;
/// Wait before a position that could not be stored is tried again.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// How often the slot is looked at from beside the stream.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How often the columns of tables are looked at, which the stream tells of only with a change.
const COLUMNS_INTERVAL: Duration = Duration::from_secs(2);
/// A look waits for nobody's lock on a table: the next one finds what this one does not.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";
/// How many times longer than such a look took the next one is waited for.
const COLUMNS_REST: u32 = 20;

/// Where the stream is, beside what the transcriber knows of the open transaction.
struct Stand {
    /// End of the last transaction that was taken, if it is not stored.
    dirty: Option<Lsn>,
    /// How far a server with nothing to send has come.
    quiet: Lsn,
    received: Lsn,
    /// Commit time of the oldest change that is not durable.
    oldest_ms: Option<u64>,
    stored_at: Instant,
    confirmed_at: Instant,
    /// Whether to end between two transactions.
    leaving: bool,
    /// Where at the earliest.
    until: Lsn,
    /// Tables as they are at the armed position, if they differ from what is stored.
    tables: Option<Vec<TableRow>>,
}

impl Worker {
    /// Reads the feed until an order comes (`Ok`) or it cannot go on. With `leave_early` it ends
    /// once all that the stream is ahead of the stored position was read again, and that position
    /// was reached.
    pub(crate) async fn follow<F: Feed>(
        &mut self,
        row: &Arc<SourceRow>,
        feed: &mut F,
        writer: &mut Writer,
        transcriber: &mut Transcriber,
        mut told: mpsc::Receiver<Seen>,
        leave_early: Option<Lsn>,
    ) -> Result<(), Trouble> {
        let mut orders = self.orders.clone();
        let now = Instant::now();
        let resume = self.progress.cut.resume;
        let mut stand = Stand {
            dirty: None,
            quiet: resume,
            received: resume,
            oldest_ms: None,
            stored_at: now - CUT_INTERVAL,
            confirmed_at: now,
            leaving: leave_early.is_some(),
            until: leave_early.unwrap_or_default(),
            tables: None,
        };
        loop {
            match decide(&orders.borrow_and_update(), row) {
                Some(Leave::Now) => return Ok(()),
                Some(Leave::Between) => stand.leaving = true,
                None => {}
            }
            if let Ok(seen) = told.try_recv() {
                stand.saw(seen)?;
            }
            transcriber.clock(self.ports.clock.now().as_millis());
            let mut idle = false;
            for _ in 0..TURN {
                if !writer.has_room() || self.may_leave(&stand, writer, transcriber) {
                    break;
                }
                let Some(arrival) = feed.next().now_or_never() else {
                    idle = true;
                    break;
                };
                self.take(arrival?, feed, writer, transcriber, &mut stand).await?;
            }
            let leaves = self.may_leave(&stand, writer, transcriber);
            // While more of a transaction is to come, small batches would only be many.
            let nothing_comes = leaves || (idle && !transcriber.is_within());
            let which = if nothing_comes { Flush::All } else { Flush::Waited };
            writer.flush(which);
            while let Some(landed) = writer.landed(&row.settings).now_or_never() {
                landed?;
                writer.flush(which);
            }
            self.due(&mut stand, writer, transcriber, idle, leaves);
            if let Some((resume, shards)) = writer.reached() {
                self.keep(feed, &mut stand, resume, shards).await?;
            }
            let stored = stand.dirty.is_none() && self.progress.cut.resume >= stand.until;
            if leaves && !writer.is_armed() && writer.is_drained() && stored {
                return Ok(());
            }
            self.tell(&mut stand, writer, transcriber);
            if Instant::now() >= stand.confirmed_at + CONFIRM_INTERVAL {
                self.confirm(feed, &mut stand, false).await?;
            }
            if !idle && !leaves && writer.has_room() {
                self.failures = 0;
                tokio::task::yield_now().await;
                continue;
            }
            let tick = writer.waits_until().into_iter().fold(stand.tick(), Instant::min);
            tokio::select! {
                changed = orders.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                Some(seen) = told.recv() => stand.saw(seen)?,
                landed = writer.landed(&row.settings) => landed?,
                arrival = feed.next(), if writer.has_room() && !leaves => {
                    self.failures = 0;
                    transcriber.clock(self.ports.clock.now().as_millis());
                    self.take(arrival?, feed, writer, transcriber, &mut stand).await?;
                }
                () = sleep_until(tick) => {}
            }
        }
    }

    /// Whether the stream may be left here: between transactions, with nothing ahead of them.
    fn may_leave(&self, stand: &Stand, writer: &Writer, transcriber: &Transcriber) -> bool {
        let at = stand.dirty.unwrap_or(self.progress.cut.resume);
        let found = at > writer.found().commit_lsn && at.max(stand.quiet) >= stand.until;
        stand.leaving && !transcriber.is_within() && found
    }

    async fn take<F: Feed>(
        &mut self,
        arrival: Arrival,
        feed: &mut F,
        writer: &mut Writer,
        transcriber: &mut Transcriber,
        stand: &mut Stand,
    ) -> Result<(), Trouble> {
        let (start, data) = match arrival {
            Arrival::Wal { start, data, .. } => (start, data),
            Arrival::Keepalive { end, reply, .. } => {
                stand.received = stand.received.max(end);
                if !transcriber.is_within() {
                    stand.quiet = stand.quiet.max(end);
                }
                if reply {
                    self.confirm(feed, stand, false).await?;
                }
                return Ok(());
            }
        };
        stand.received = stand.received.max(start);
        match transcriber.take(&data, start, writer)? {
            Step::Next => {
                if stand.oldest_ms.is_none() {
                    stand.oldest_ms = transcriber.commit_ms();
                }
            }
            Step::Committed(end) => {
                stand.dirty = Some(end);
                stand.received = stand.received.max(end);
                if Instant::now() >= stand.stored_at + CUT_INTERVAL {
                    stand.arm(end, writer, transcriber);
                }
            }
            Step::Changed(oid, difference) => {
                let Some((relation, mut known)) = transcriber.columns_of(oid) else {
                    return Ok(());
                };
                self.board.as_seen(&mut known);
                let columns = feed.columns(&relation, &known).await?;
                let same_key = is_same_key(&known.columns, &columns.columns);
                transcriber.changed(oid, &difference, columns, start, writer)?;
                if !same_key && transcriber.is_after_snapshot(oid) {
                    stand.read_anew(oid, transcriber);
                }
                self.compare(oid, feed, transcriber, stand).await?;
            }
            Step::Told(oid) => self.compare(oid, feed, transcriber, stand).await?,
            // Looked for once: what the publications do not have then is not the source's.
            Step::Unknown(oid) => stand.leaving |= self.unknown.insert(oid),
        }
        Ok(())
    }

    /// Has a table read anew whose changes are not those that follow its rows any more: it was out of
    /// the publications for a while, or its rows are told apart by another key.
    async fn compare<F: Feed>(
        &mut self,
        oid: u32,
        feed: &mut F,
        transcriber: &mut Transcriber,
        stand: &mut Stand,
    ) -> Result<(), Trouble> {
        if transcriber.is_silent(oid) {
            return Ok(());
        }
        let Some(known) = feed.catalog(oid).await? else { return Ok(()) };
        if transcriber.is_another(oid, &known) {
            stand.read_anew(oid, transcriber);
        }
        Ok(())
    }

    /// Makes the present position the next one to store, if it is time.
    fn due(
        &self,
        stand: &mut Stand,
        writer: &mut Writer,
        transcriber: &mut Transcriber,
        idle: bool,
        leaves: bool,
    ) {
        if transcriber.is_within() || writer.is_armed() || !(idle || leaves) {
            return;
        }
        let since = Instant::now() - stand.stored_at;
        match stand.dirty {
            Some(end) if leaves || since >= CUT_INTERVAL_IDLE => {
                stand.arm(end.max(stand.quiet), writer, transcriber);
            }
            None if stand.quiet > self.progress.cut.resume
                && (leaves || since >= CUT_INTERVAL_QUIET) =>
            {
                stand.arm(stand.quiet, writer, transcriber);
            }
            _ => {}
        }
    }

    /// Stores a position, then confirms it.
    async fn keep<F: Feed>(
        &mut self,
        feed: &mut F,
        stand: &mut Stand,
        resume: Lsn,
        shards: BTreeMap<ShardUid, RecordIndex>,
    ) -> Result<(), Trouble> {
        let uid = self.orders.borrow().row.uid.clone();
        let mut next = self.progress.clone();
        next.cut = Cut { epoch: next.cut.epoch, resume, shards, complete: true };
        let altered = stand.tables.take();
        let tables: Vec<&TableRow> = altered.iter().flatten().collect();
        loop {
            match self.store.advance(&uid, &next, &tables, &[]).await {
                Ok(()) => break,
                Err(ControlError::Full | ControlError::Unavailable(_)) => {
                    let text = "positions cannot be stored now";
                    self.board.state(SourceState::Streaming, text);
                    sleep(STORE_RETRY).await;
                    self.confirm(feed, stand, false).await?;
                    if self.orders.borrow().stop {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.progress = next;
        if stand.dirty.is_some_and(|end| end <= resume) {
            stand.dirty = None;
        }
        stand.stored_at = Instant::now();
        let altered = altered.into_iter().flatten().map(|table| (table.captured.oid, table));
        let altered: BTreeMap<u32, TableRow> = altered.collect();
        self.tables.extend(altered.clone());
        let dirty = stand.dirty.is_some();
        let now = self.ports.clock.now();
        self.board.tell(|shown| {
            shown.cut = self.progress.cut.clone();
            shown.unconfirmed_since = dirty.then_some(now);
            shown.tables.extend(altered);
        });
        self.confirm(feed, stand, false).await
    }

    async fn confirm<F: Feed>(
        &self,
        feed: &mut F,
        stand: &mut Stand,
        reply: bool,
    ) -> Result<(), Trouble> {
        stand.confirmed_at = Instant::now();
        Ok(feed.confirm(stand.received, self.progress.cut.resume, reply).await?)
    }

    fn tell(&self, stand: &mut Stand, writer: &Writer, transcriber: &mut Transcriber) {
        if writer.is_drained() && !transcriber.is_within() {
            stand.oldest_ms = None;
        }
        let stall = writer.stall();
        let now: Timestamp = self.ports.clock.now();
        let mut said = false;
        self.board.note(|shown| {
            transcriber.count(shown);
            shown.received = stand.received;
            shown.server = shown.server.max(stand.received);
            shown.oldest_ms = stand.oldest_ms;
            if stand.dirty.is_some() && shown.unconfirmed_since.is_none() {
                shown.unconfirmed_since = Some(now);
            }
            said = shown.reason != stall.as_deref().unwrap_or_default();
        });
        if said {
            self.board.state(SourceState::Streaming, stall.unwrap_or_default());
        }
    }
}

impl Stand {
    /// Makes a position the next one to store, with the tables as they are there: what comes later
    /// must not be stored with it.
    fn arm(&mut self, resume: Lsn, writer: &mut Writer, transcriber: &mut Transcriber) {
        if writer.arm(resume) {
            self.tables = transcriber.altered();
        }
    }

    /// Leaves, so that a table is read anew.
    fn read_anew(&mut self, oid: u32, transcriber: &mut Transcriber) {
        transcriber.silence(oid);
        self.leaving = true;
    }

    fn saw(&mut self, seen: Seen) -> Result<(), Trouble> {
        match seen {
            Seen::Trouble(trouble) => return Err(trouble),
            Seen::OtherTables => self.leaving = true,
        }
        Ok(())
    }

    /// When to look again.
    fn tick(&self) -> Instant {
        let confirm = self.confirmed_at + CONFIRM_INTERVAL;
        match self.dirty {
            Some(_) => confirm.min(Instant::now().max(self.stored_at) + CUT_INTERVAL_IDLE),
            None => confirm,
        }
    }
}

enum Leave {
    Now,
    Between,
}

/// What an order means for a stream that runs by `row`.
fn decide(order: &Order, row: &SourceRow) -> Option<Leave> {
    let now = &order.row;
    if order.stop || now.paused || now.resnapshots != row.resnapshots {
        return Some(Leave::Now);
    }
    let (then, now) = (&row.settings, &now.settings);
    let same = now.tables == then.tables && now.left_out == then.left_out;
    (!same).then_some(Leave::Between)
}

/// What a look from beside the stream has found.
pub(crate) enum Seen {
    /// The source cannot go on.
    Trouble(Trouble),
    /// The publications have other tables than when the stream began.
    OtherTables,
}

/// A connection for looks from beside the stream.
async fn beside(access: &Access) -> Result<Server, ServerError> {
    let mut server = Server::connect(access).await?;
    server.query(LOCK_TIMEOUT).await?;
    Ok(server)
}

/// Looks at the slot, the publications and the columns of tables from beside the stream, as long as the
/// guard is held.
pub(super) fn monitor(
    session: &Session,
    slot: &str,
    board: &Arc<Board>,
) -> (JoinSet<()>, mpsc::Receiver<Seen>) {
    let (sender, told) = mpsc::channel(1);
    let (access, board, slot) = (session.access.clone(), board.clone(), slot.to_owned());
    let settings = session.row.settings.clone();
    let members = session.facts.members.clone();
    let mut guard = JoinSet::new();
    guard.spawn(async move {
        let mut server: Option<Server> = None;
        let mut looked = Instant::now();
        let mut next = looked;
        loop {
            sleep_until(next.min(looked + LOOK_INTERVAL)).await;
            let began = Instant::now();
            if server.is_none() {
                server = beside(&access).await.ok();
            }
            let Some(connected) = &mut server else {
                next = Instant::now() + COLUMNS_INTERVAL;
                looked = Instant::now();
                continue;
            };
            if began >= next {
                let live = board.live();
                match hydrant_postgres::published(connected, &settings).await {
                    Ok(published) => board.saw(&live, &published.tables),
                    // What is wrong with the publications the next validation says too.
                    Err(ServerError::Failed { .. }) => {}
                    Err(_) => server = None,
                }
                next = Instant::now() + COLUMNS_INTERVAL.max(began.elapsed() * COLUMNS_REST);
            }
            let Some(connected) = server.as_mut().filter(|_| looked.elapsed() >= LOOK_INTERVAL)
            else {
                continue;
            };
            looked = Instant::now();
            let Ok(status) =
                hydrant_postgres::status(connected, &slot, &settings.publications).await
            else {
                server = None;
                continue;
            };
            board.slot_status(&status);
            let lost = match &status.slot {
                Some(found) => found.lost.as_ref().map(|why| hydrant_postgres::lost(&slot, why)),
                None => Some(hydrant_postgres::gone(&slot)),
            };
            if let Some(text) = lost {
                let trouble = Trouble::Failed(Failure::SlotLost, text);
                let _ = sender.send(Seen::Trouble(trouble)).await;
            }
            if let Some(gone) = status.publications_missing.first() {
                let text = format!(
                    "publication {gone} was dropped: create it again, then ALTER SOURCE {} \
                     RESNAPSHOT; its changes in between are not in the slot",
                    settings.name
                );
                let trouble = Trouble::Failed(Failure::PublicationDropped, text);
                let _ = sender.send(Seen::Trouble(trouble)).await;
            }
            match hydrant_postgres::members(connected, &settings.publications).await {
                Ok(now) if now != members => drop(sender.send(Seen::OtherTables).await),
                Ok(_) => {}
                Err(_) => server = None,
            }
        }
    });
    (guard, told)
}
