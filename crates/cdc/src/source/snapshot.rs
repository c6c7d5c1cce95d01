//! A new epoch, and tables that come later: a slot, its snapshot, and the rows as of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hydrant_core::capture::{Cut, Lsn, SnapshotMode, SourceState, TableState};
use hydrant_postgres::{
    CreatedSlot, Piece, PublishedTable, Replication, ServerError, SlotLifetime, Snapshot,
};
use tokio::time::{interval, sleep};

use crate::copy;
use crate::source::append::{Flush, Writer};
use crate::source::store::{SlotStage, TableRow, key_columns};
use crate::source::worker::{Session, Trouble, Worker};

/// How often it is looked which transaction the slot waits for.
const WAIT_LOOK: Duration = Duration::from_secs(2);
/// How long a stream that is being resharded is given before a look at it fails.
const TAILS_AT_ONCE: usize = 64;

impl Worker {
    /// Begins an epoch: makes the slot and reads the snapshot. Returns the connection that made the
    /// slot. Whatever goes wrong, the next attempt begins another epoch.
    pub(super) async fn epoch(&mut self, session: &mut Session) -> Result<Replication, Trouble> {
        let row = session.row.clone();
        let choice = row.slot();
        let found = session.facts.slot.clone();
        let first = self.progress.stage == SlotStage::None;
        let adopted = found.filter(|_| first && choice.adopt);
        let mut next = self.progress.clone();
        if first {
            let last = self.store.last_epoch(&row.settings.name).await?.unwrap_or_default();
            next.cut.epoch = last.epoch;
            next.slot = choice.name.clone();
        }
        (next.stage, next.broken) = (SlotStage::Intended, None);
        next.system.clone_from(&session.facts.identity.system);
        next.timeline = session.facts.identity.timeline;
        next.cut = Cut { epoch: next.cut.epoch + 1, ..Cut::default() };
        next.floors = self.floors(&row).await?;
        let gone: Vec<u32> = self.tables.keys().copied().collect();
        // The name comes first: a slot that a crash leaves behind is known to be ours.
        self.store.advance(&row.uid, &next, &[], &gone).await?;
        (self.progress, self.tables) = (next, Default::default());
        self.gone_at.clear();
        self.show_progress();

        self.board.state(SourceState::CreatingSlot, "");
        if !first {
            let application = session.access.application();
            hydrant_postgres::drop_slot(&mut session.server, &self.progress.slot, application)
                .await?;
        }
        let mut replication = Replication::connect(&session.access).await?;
        let rows = row.settings.snapshot == SnapshotMode::Initial;
        let slot = self.progress.slot.clone();
        let mut borrowed = false;
        let (resume, created) = match adopted {
            Some(adopted) => {
                let at = adopted.confirmed.unwrap_or_default();
                let created = match rows {
                    true => Some(self.temporary(session, &mut replication).await?),
                    false => None,
                };
                borrowed = rows;
                (at, created.unwrap_or(CreatedSlot { consistent: at, snapshot: None }))
            }
            None => {
                let lifetime = SlotLifetime::Permanent;
                let created = self.slot(session, &mut replication, (&slot, lifetime), rows).await?;
                (created.consistent, created)
            }
        };
        let mut next = self.progress.clone();
        (next.stage, next.consistent) = (SlotStage::Made, created.consistent);
        next.resnapshots = row.resnapshots;
        self.store.advance(&row.uid, &next, &[], &[]).await?;
        self.progress = next;

        let mut writer = self.writer(&row).await?;
        match &created.snapshot {
            Some(exported) => {
                self.board.state(SourceState::Snapshotting, "");
                let read =
                    self.read(session, exported, created.consistent, &mut writer, None).await;
                self.settled(&mut writer, read).await?;
            }
            None => self.take_tables(session, resume),
        }
        writer.arm(resume.max(Lsn(1)));
        let (_, shards) = writer.reached().unwrap_or_default();
        let mut next = self.progress.clone();
        next.cut = Cut { epoch: next.cut.epoch, resume, shards, complete: true };
        let tables: Vec<&TableRow> = self.tables.values().collect();
        self.store.advance(&row.uid, &next, &tables, &[]).await?;
        self.progress = next;
        self.show_progress();
        if borrowed {
            // Its temporary slot would hold the log as long as it lasts.
            replication.stop().await;
            replication = Replication::connect(&session.access).await?;
        }
        Ok(replication)
    }

    /// Nothing is under way on return, so that the next attempt sees all there is.
    async fn settled<T>(
        &self,
        writer: &mut Writer,
        result: Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        if result.is_err() {
            writer.settle().await;
        }
        result
    }

    pub(super) fn show_progress(&self) {
        self.board.tell(|shown| {
            shown.cut = self.progress.cut.clone();
            shown.slot.clone_from(&self.progress.slot);
            shown.tables.clone_from(&self.tables);
            shown.received = shown.received.max(shown.cut.resume);
            shown.server = shown.server.max(shown.cut.resume);
        });
    }

    /// The ends of all shards: what is below is older than the epoch.
    async fn floors(
        &self,
        row: &crate::source::store::SourceRow,
    ) -> Result<
        std::collections::BTreeMap<
            hydrant_core::log::ShardUid,
            hydrant_core::sequence::RecordIndex,
        >,
        Trouble,
    > {
        use futures::stream::{self, StreamExt, TryStreamExt};
        let settings = &row.settings;
        let held = self.ports.streams.get(&settings.scope, &settings.stream);
        let held = held.ok_or_else(|| Trouble::no_stream(settings))?;
        let log = &self.ports.log;
        let uids: Vec<_> = held.stream.shards.iter().map(|shard| shard.uid).collect();
        let tails = stream::iter(uids)
            .map(|uid| async move { Ok((uid, log.tail(uid).await?.end)) })
            .buffer_unordered(TAILS_AT_ONCE);
        let tails: Result<_, hydrant_core::log::LogError> = tails.try_collect().await;
        tails.map_err(|e| Trouble::of_log(&e, settings))
    }

    /// Creates a slot; shows meanwhile what it waits for.
    async fn slot(
        &self,
        session: &mut Session,
        replication: &mut Replication,
        (name, lifetime): (&str, SlotLifetime),
        export: bool,
    ) -> Result<CreatedSlot, Trouble> {
        let pid = replication.pid();
        let mut looks = interval(WAIT_LOOK);
        looks.tick().await;
        let creating = replication.create_slot(name, lifetime, export);
        tokio::pin!(creating);
        loop {
            tokio::select! {
                created = &mut creating => return Ok(created?),
                _ = looks.tick() => {
                    if let Some(text) = hydrant_postgres::waiting_for(&mut session.server, pid).await? {
                        let text = format!("waiting for {text}");
                        self.board.state(SourceState::CreatingSlot, text);
                    }
                }
            }
        }
    }

    async fn temporary(
        &self,
        session: &mut Session,
        replication: &mut Replication,
    ) -> Result<CreatedSlot, Trouble> {
        let name = format!("hydrant_tmp_{}", hex::encode(self.ports.random.bytes::<8>()));
        self.slot(session, replication, (&name, SlotLifetime::Temporary), true).await
    }

    /// Takes the tables without their rows.
    fn take_tables(&mut self, session: &Session, from: Lsn) {
        for table in &session.facts.published.tables {
            let mut captured = table.captured.clone();
            captured.state = TableState::Live;
            captured.version = self.next_version(captured.oid);
            let memberships = table.memberships.clone();
            self.tables.insert(captured.oid, TableRow { captured, from, memberships });
        }
    }

    /// Reads the rows of the source's tables as of a snapshot: those of `only`, if it says so, which
    /// then come into a stream that runs already.
    async fn read(
        &mut self,
        session: &mut Session,
        exported: &str,
        consistent: Lsn,
        writer: &mut Writer,
        only: Option<&BTreeSet<u32>>,
    ) -> Result<(), Trouble> {
        let settings = &session.row.settings;
        let readers = self.options.snapshot_readers;
        let mut snapshot = Snapshot::open(&session.access, exported, readers).await?;
        let published = hydrant_postgres::published(snapshot.server(), settings).await?;
        let wanted =
            |table: &PublishedTable| only.is_none_or(|only| only.contains(&table.captured.oid));
        let read: Vec<PublishedTable> = published.tables.into_iter().filter(wanted).collect();
        for table in &read {
            let mut captured = table.captured.clone();
            captured.state = TableState::Snapshotting;
            captured.version = self.next_version(captured.oid);
            let row =
                TableRow { captured, from: consistent, memberships: table.memberships.clone() };
            self.tables.insert(row.captured.oid, row);
        }
        self.show_progress();
        let mut transcriber = self.transcriber(session)?;
        transcriber.clock(self.ports.clock.now().as_millis());
        if only.is_none() {
            transcriber.snapshot(true, consistent, writer);
        }
        let oids: Vec<u32> = read.iter().map(|table| table.captured.oid).collect();
        for oid in &oids {
            transcriber.prepare(*oid)?;
            if only.is_some() {
                transcriber.clear(*oid, consistent, writer)?;
            }
        }
        let mut reading = snapshot.read(&read).await?;
        loop {
            let piece = tokio::select! {
                piece = reading.next() => piece,
                landed = writer.landed(settings) => {
                    landed?;
                    writer.flush(Flush::Full);
                    continue;
                }
            };
            match piece.transpose()? {
                None => break,
                Some(Piece::Done { table }) => transcriber.state(oids[table], TableState::Live),
                Some(Piece::Rows { table, lines, .. }) => {
                    let mut lines = copy::lines(&lines);
                    while transcriber.rows(oids[table], &mut lines, consistent, writer)? {
                        writer.flush(Flush::Full);
                        writer.landed(settings).await?;
                    }
                    writer.flush(Flush::Full);
                }
            }
            transcriber.clock(self.ports.clock.now().as_millis());
            self.board.note(|shown| transcriber.count(shown));
        }
        if only.is_none() {
            transcriber.snapshot(false, consistent, writer);
        }
        writer.drain(settings).await?;
        self.board.note(|shown| transcriber.count(shown));
        self.tables = transcriber.tables();
        Ok(())
    }

    /// A table that was read before has another version now.
    fn next_version(&self, oid: u32) -> u64 {
        self.tables.get(&oid).map_or(1, |before| before.captured.version + 1)
    }

    /// Tables that have to be read, and those that the source has and does not take, or that are
    /// published no more: if they come again, changes in between are missing. To be read are tables
    /// that the source takes and does not have, that were out of the publications since they were
    /// read, and whose rows are told apart by another key.
    pub(super) fn differences(&self, session: &Session) -> (BTreeSet<u32>, Vec<u32>) {
        let taken = session.facts.published.tables.iter();
        let taken: BTreeMap<u32, &PublishedTable> =
            taken.map(|table| (table.captured.oid, table)).collect();
        let gone = self.tables.keys().filter(|oid| !taken.contains_key(oid)).copied().collect();
        let is_new = |(oid, now): (&u32, &&PublishedTable)| match self.tables.get(oid) {
            None => true,
            Some(before) => {
                before.captured.state == TableState::Pending
                    || before.was_away(&now.memberships)
                    || before.has_other_key(&key_columns(&now.captured))
            }
        };
        let new = taken.iter().filter(|(oid, now)| is_new((oid, now)));
        (new.map(|(oid, _)| *oid).collect(), gone)
    }

    /// Lets tables go, and reads the rows of new ones: a temporary slot says as of where.
    pub(super) async fn reconcile(
        &mut self,
        session: &mut Session,
        new: BTreeSet<u32>,
        gone: Vec<u32>,
    ) -> Result<(), Trouble> {
        let row = session.row.clone();
        if !gone.is_empty() {
            self.store.advance(&row.uid, &self.progress, &[], &gone).await?;
            self.tables.retain(|oid, _| !gone.contains(oid));
            self.show_progress();
        }
        if new.is_empty() {
            return Ok(());
        }
        if row.settings.snapshot == SnapshotMode::Never {
            let mut known = self.tables.clone();
            self.take_tables(session, self.progress.cut.resume);
            known.retain(|oid, _| !new.contains(oid));
            self.tables.extend(known);
            return self.keep_tables(&row.uid, &new).await;
        }
        let mut replication = Replication::connect(&session.access).await?;
        let created = self.temporary(session, &mut replication).await?;
        let exported = created.snapshot.as_deref().ok_or_else(|| {
            ServerError::Transient("the server made a slot without a snapshot".into())
        })?;
        let mut writer = self.writer(&row).await?;
        let read = self.read(session, exported, created.consistent, &mut writer, Some(&new)).await;
        self.settled(&mut writer, read).await?;
        replication.stop().await;
        writer.arm(self.progress.cut.resume);
        if let Some((_, shards)) = writer.reached() {
            self.progress.cut.shards = shards;
        }
        self.keep_tables(&row.uid, &new).await
    }

    async fn keep_tables(&mut self, uid: &str, new: &BTreeSet<u32>) -> Result<(), Trouble> {
        let tables: Vec<&TableRow> = self.tables.values().collect();
        let kept = tables.into_iter().filter(|table| new.contains(&table.captured.oid));
        let kept: Vec<&TableRow> = kept.collect();
        loop {
            match self.store.advance(uid, &self.progress, &kept, &[]).await {
                Ok(()) => break,
                Err(hydrant_core::control::ControlError::Full) => sleep(WAIT_LOOK).await,
                Err(error) => return Err(error.into()),
            }
        }
        // Whoever goes and comes again is looked for again.
        self.unknown.retain(|oid| !new.contains(oid));
        self.show_progress();
        Ok(())
    }
}
