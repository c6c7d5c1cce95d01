//! Changes become records: what the server sends, with the source's tables, keys and numbers.
//!
//! Numbers within a transaction have to come out the same when the server sends it again, so they
//! count what the source's tables have, whatever of it is in the stream already, and a table only
//! comes, goes or gets another version together with a stored position.

mod rows;
mod silence;

use std::collections::HashMap;
use std::sync::Arc;

use hydrant_core::capture::{CapturedTable, Failure, Lsn, Op, Oversize, Position, TableState};

use crate::envelope::{At, Change, Encoder, Notice, Transaction};
use crate::key::Key;
use crate::pgoutput::{Begin, Message, Old, decode};
use crate::relation::{Difference, Relation, Relations, Told};
use crate::row::Row;
use crate::source::append::Writer;
use crate::source::board::{Count, OPS, Shown};
use crate::source::columns::Columns;
use crate::source::store::{SourceRow, TableRow, key_columns};
use crate::source::worker::Trouble;

/// A captured table, ready to write its changes.
struct Table {
    row: TableRow,
    relation: Arc<Relation>,
    /// `None` while the stream has not told of the table, and for an errored one.
    key: Option<Key>,
    counts: [Count; OPS.len()],
    /// The transaction whose changes `order` counts.
    commit: Lsn,
    order: u64,
    /// Whether its changes are counted and left out.
    silent: bool,
}

/// What a message asks of who reads the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Next,
    /// A transaction is complete, up to this position.
    Committed(Lsn),
    /// A table has other columns; its catalog has to be asked before anything else is read.
    Changed(u32, Difference),
    /// A table is as it was, as far as the stream tells; its catalog may tell more.
    Told(u32),
    /// A table that may be the source's and is not known.
    Unknown(u32),
}

/// The transaction that is being read.
#[derive(Clone, Copy)]
struct Open {
    begin: Begin,
    seq: u64,
    /// Changes of rows so far, without what tells of the transaction itself.
    changes: u64,
}

pub(crate) struct Transcriber {
    source: Arc<SourceRow>,
    encoder: Encoder,
    relations: Relations,
    tables: HashMap<u32, Table>,
    open: Option<Open>,
    last_commit: Option<Lsn>,
    /// Rows of snapshots so far.
    rows: u64,
    records: u64,
    /// Tables that counted something since it was last taken.
    counted: Vec<u32>,
    now_ms: u64,
    key: String,
    data: Vec<u8>,
    /// Whether rows of [`Self::tables`] differ from what is stored.
    altered: bool,
}

impl Transcriber {
    pub(crate) fn new(
        source: Arc<SourceRow>,
        database: &str,
        epoch: u64,
        tables: &[TableRow],
    ) -> Result<Self, Trouble> {
        let settings = &source.settings;
        let encoder = Encoder::new(settings.envelope, &settings.name, database, epoch);
        let relations = Relations::stored(tables.iter().map(|table| &table.captured))
            .map_err(|e| Trouble::Failed(Failure::Other, e.to_string()))?;
        let table = |row: &TableRow| {
            let relation = Arc::new(Relation::stored(&row.captured));
            let (counts, commit) = Default::default();
            let (row, order) = (row.clone(), 0);
            let silent = row.captured.state == TableState::Pending;
            let oid = row.captured.oid;
            (oid, Table { row, relation, key: None, counts, commit, order, silent })
        };
        Ok(Self {
            encoder,
            relations,
            tables: tables.iter().map(table).collect(),
            source,
            open: None,
            last_commit: None,
            rows: 0,
            records: 0,
            counted: Vec::new(),
            now_ms: 0,
            key: String::new(),
            data: Vec::new(),
            altered: false,
        })
    }

    /// Sets what records say is now.
    pub(crate) fn clock(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Whether a transaction is being read.
    pub(crate) fn is_within(&self) -> bool {
        self.open.is_some()
    }

    /// When the transaction that is being read was committed, milliseconds since the Unix epoch.
    pub(crate) fn commit_ms(&self) -> Option<u64> {
        self.open.and_then(|open| u64::try_from(open.begin.commit_time_us / 1_000).ok())
    }

    /// The tables, if they differ from what is stored; from now on they count as stored.
    pub(crate) fn altered(&mut self) -> Option<Vec<TableRow>> {
        let altered = std::mem::take(&mut self.altered);
        altered.then(|| self.tables.values().map(|table| table.row.clone()).collect())
    }

    /// Adds what was counted since the last time, and what became of the tables that have it.
    pub(crate) fn count(&mut self, shown: &mut Shown) {
        shown.records += std::mem::take(&mut self.records);
        for oid in self.counted.drain(..) {
            let Some(table) = self.tables.get_mut(&oid) else { continue };
            let into = shown.counts.entry(table.row.captured.table.clone()).or_default();
            for (into, count) in into.iter_mut().zip(std::mem::take(&mut table.counts)) {
                into.records += count.records;
                into.bytes += count.bytes;
            }
            if let Some(row) = shown.tables.get_mut(&oid) {
                row.captured.snapshot_rows = table.row.captured.snapshot_rows;
            }
        }
    }

    /// Takes one message of the stream.
    pub(crate) fn take(
        &mut self,
        data: &[u8],
        start: Lsn,
        writer: &mut Writer,
    ) -> Result<Step, Trouble> {
        let message = decode(data).map_err(|e| undecodable(start, &e))?;
        match message {
            Message::Insert { relation, new } => {
                self.row(relation, (Op::Create, None, Some(Row::Tuple(new))), start, writer)?;
            }
            Message::Update { relation, old, new } => {
                let new = Row::Tuple(new);
                self.row(relation, (Op::Update, old, Some(new)), start, writer)?;
            }
            Message::Delete { relation, old } => {
                self.row(relation, (Op::Delete, Some(old), None), start, writer)?;
            }
            Message::Begin(begin) => {
                self.open = Some(Open { begin, seq: 0, changes: 0 });
                if self.source.settings.transactions {
                    self.notice(&Notice::TransactionBegin, start, writer);
                }
            }
            Message::Commit(commit) => {
                self.end(start, writer);
                self.last_commit = Some(commit.commit_lsn);
                self.open = None;
                return Ok(Step::Committed(commit.end_lsn));
            }
            Message::Relation(told) => return self.tell(&told, start),
            Message::Truncate { relations, .. } => {
                for relation in relations {
                    self.truncate(relation, start, writer)?;
                }
            }
            Message::Emitted(emitted) => {
                if emitted.transactional {
                    self.notice(&Notice::Emitted(emitted), start, writer);
                } else {
                    let position = Position { commit_lsn: emitted.lsn, seq: 1 };
                    let at = At { position, lsn: emitted.lsn, ..self.at(start) };
                    self.write_notice(&Notice::Emitted(emitted), &at, writer);
                }
            }
            Message::Type { .. } | Message::Origin { .. } => {}
        }
        Ok(Step::Next)
    }

    fn tell(&mut self, told: &crate::pgoutput::Relation<'_>, start: Lsn) -> Result<Step, Trouble> {
        if !self.tables.contains_key(&told.oid) {
            let table = hydrant_core::capture::PgTable {
                schema: told.schema.to_owned(),
                table: told.name.to_owned(),
            };
            let takes = self.source.settings.takes(&table);
            return Ok(if takes { Step::Unknown(told.oid) } else { Step::Next });
        }
        let heard = self.relations.tell(told);
        let heard = heard.map_err(|e| Trouble::Failed(Failure::Other, e.to_string()))?;
        if let Told::Changed(_, difference) = heard {
            return Ok(Step::Changed(told.oid, difference));
        }
        let relation = heard.relation().clone();
        self.settle(told.oid, relation, start)?;
        Ok(Step::Told(told.oid))
    }

    /// Makes a table ready with what the stream tells of it.
    fn settle(&mut self, oid: u32, relation: Arc<Relation>, start: Lsn) -> Result<(), Trouble> {
        let Some(table) = self.tables.get_mut(&oid) else { return Ok(()) };
        table.relation = relation;
        if table.row.captured.state == TableState::Errored {
            return Ok(());
        }
        let key = key_of(&self.source, &table.row.captured, &table.relation);
        match key {
            Ok(key) => table.key = Some(key),
            Err(error) => self.fail(oid, format!("{error} (at {start})")),
        }
        Ok(())
    }

    /// What the stream tells of a table now, and the columns it had.
    pub(crate) fn columns_of(&self, oid: u32) -> Option<(Arc<Relation>, CapturedTable)> {
        let relation = self.relations.get(oid)?.clone();
        Some((relation, self.tables.get(&oid)?.row.captured.clone()))
    }

    /// Takes over a table's columns as they are now, and writes the record that says so.
    pub(crate) fn changed(
        &mut self,
        oid: u32,
        difference: &Difference,
        columns: Columns,
        start: Lsn,
        writer: &mut Writer,
    ) -> Result<(), Trouble> {
        let Some(relation) = self.relations.get(oid).cloned() else { return Ok(()) };
        let Some(table) = self.tables.get_mut(&oid) else { return Ok(()) };
        let captured = &mut table.row.captured;
        captured.table = relation.table.clone();
        captured.identity = relation.identity.letter();
        captured.version = relation.version;
        columns.put(captured);
        let captured = captured.clone();
        self.altered = true;
        self.settle(oid, relation, start)?;
        if captured.state != TableState::Errored {
            let notice = Notice::Schema { table: &captured, difference: Some(difference) };
            self.notice(&notice, start, writer);
        }
        Ok(())
    }

    fn at(&self, lsn: Lsn) -> At {
        let Some(Open { begin, seq, changes }) = self.open else {
            return At { lsn, last_commit: self.last_commit, now_ms: self.now_ms, ..At::default() };
        };
        At {
            position: Position { commit_lsn: begin.final_lsn, seq },
            lsn,
            last_commit: self.last_commit,
            transaction: Some(Transaction {
                xid: begin.xid,
                commit_time_us: begin.commit_time_us,
                total_order: changes,
                data_collection_order: 0,
            }),
            now_ms: self.now_ms,
        }
    }

    fn next_at(&mut self, lsn: Lsn) -> At {
        if let Some(open) = &mut self.open {
            open.seq += 1;
        }
        self.at(lsn)
    }

    fn notice(&mut self, notice: &Notice<'_>, start: Lsn, writer: &mut Writer) {
        let at = self.next_at(start);
        self.write_notice(notice, &at, writer);
    }

    fn write_notice(&mut self, notice: &Notice<'_>, at: &At, writer: &mut Writer) {
        let key = match notice {
            Notice::Schema { table, .. } => table.table.to_string(),
            _ => self.source.settings.name.clone(),
        };
        let Some(lane) = writer.route(key.as_bytes(), at.position) else { return };
        self.data.clear();
        self.encoder.notice(notice, at, &mut self.data);
        writer.push(lane, key.as_bytes(), &self.data);
        self.records += 1;
    }

    fn end(&mut self, start: Lsn, writer: &mut Writer) {
        if !self.source.settings.transactions {
            return;
        }
        let Some(Open { begin, .. }) = self.open else { return };
        let touched: Vec<(Arc<Relation>, u64)> = self
            .tables
            .values()
            .filter(|table| table.commit == begin.final_lsn && table.order > 0)
            .map(|table| (table.relation.clone(), table.order))
            .collect();
        let mut tables: Vec<(&Relation, u64)> = touched.iter().map(|(r, n)| (&**r, *n)).collect();
        tables.sort_by(|(a, _), (b, _)| a.table.cmp(&b.table));
        let changes = tables.iter().map(|(_, n)| n).sum();
        self.notice(&Notice::TransactionEnd { changes, tables: &tables }, start, writer);
    }

    /// The table, if its changes are written; with the change's place.
    fn place(&mut self, oid: u32, start: Lsn) -> Result<Option<At>, Trouble> {
        let Some(Open { begin, .. }) = self.open else {
            return Err(undecodable(start, &"a change outside of a transaction"));
        };
        let Some(table) = self.tables.get_mut(&oid) else { return Ok(None) };
        if table.row.captured.state == TableState::Errored || begin.final_lsn < table.row.from {
            return Ok(None);
        }
        if table.commit != begin.final_lsn {
            (table.commit, table.order) = (begin.final_lsn, 0);
        }
        table.order += 1;
        let order = table.order;
        if let Some(open) = &mut self.open {
            open.changes += 1;
        }
        let mut at = self.next_at(start);
        if let Some(transaction) = &mut at.transaction {
            transaction.data_collection_order = order;
        }
        Ok(Some(at))
    }

    fn row(
        &mut self,
        oid: u32,
        (op, old, new): (Op, Option<Old<'_>>, Option<Row<'_>>),
        start: Lsn,
        writer: &mut Writer,
    ) -> Result<(), Trouble> {
        let replaced = match (op, new, self.tables.get(&oid)) {
            (Op::Update, Some(new), Some(Table { key: Some(key), .. })) => key.replaced(old, new),
            _ => false,
        };
        if replaced {
            self.record(oid, (Op::Delete, old, None), start, writer)?;
            return self.record(oid, (Op::Create, old, new), start, writer);
        }
        self.record(oid, (op, old, new), start, writer)
    }

    /// Writes a change of a row, unless it is in the stream already.
    fn record(
        &mut self,
        oid: u32,
        (op, old, new): (Op, Option<Old<'_>>, Option<Row<'_>>),
        start: Lsn,
        writer: &mut Writer,
    ) -> Result<(), Trouble> {
        let Some(at) = self.place(oid, start)? else { return Ok(()) };
        let Some(table) = self.tables.get_mut(&oid).filter(|table| !table.silent) else {
            return Ok(());
        };
        let Some(key) = &table.key else {
            return Err(undecodable(start, &"a change of a table before its columns"));
        };
        let before = old.map(|old| Row::Tuple(old.tuple()));
        let Some(row) = new.or(before) else {
            return Err(undecodable(start, &"a change without a row"));
        };
        let told = if new.is_some() { old } else { None };
        let made = key.of(&table.relation, row, told, &mut self.key);
        made.map_err(|e| undecodable(start, &e))?;
        let Some(lane) = writer.route(self.key.as_bytes(), at.position) else { return Ok(()) };
        let change = Change { relation: &table.relation, op, old, new, key };
        self.data.clear();
        let max = writer.record_bytes_max();
        let written = self.encoder.change(&change, &at, &mut self.data);
        written.map_err(|e| undecodable(start, &e))?;
        if self.data.len() > max && !self.shorten(oid, start, max, (op, old, new, &at))? {
            return Ok(());
        }
        writer.push(lane, self.key.as_bytes(), &self.data);
        self.tally(oid, op);
        Ok(())
    }

    /// Writes a record that is too large again, shorter, or stops its table.
    fn shorten(
        &mut self,
        oid: u32,
        start: Lsn,
        max: usize,
        (op, old, new, at): (Op, Option<Old<'_>>, Option<Row<'_>>, &At),
    ) -> Result<bool, Trouble> {
        let bytes = self.data.len();
        if self.source.settings.oversize == Oversize::Truncate
            && let Some(Table { relation, key: Some(key), .. }) = self.tables.get(&oid)
        {
            let change = Change { relation, op, old, new, key };
            self.data.clear();
            let fits = self.encoder.change_within(&change, at, max, &mut self.data);
            if fits.map_err(|e| undecodable(start, &e))? {
                return Ok(true);
            }
        }
        let key = self.key.clone();
        let reason = format!(
            "a record of {bytes} bytes at {start} (key {key}) is larger than the {max} bytes that \
             the stream takes: raise them with UpdateMaxRecordSize, or create the source with \
             OVERSIZE 'truncate'"
        );
        self.fail(oid, reason);
        Ok(false)
    }

    fn tally(&mut self, oid: u32, op: Op) {
        self.records += 1;
        let Some(table) = self.tables.get_mut(&oid) else { return };
        if table.counts.iter().all(|count| count.records == 0) {
            self.counted.push(oid);
        }
        if let Some(n) = OPS.iter().position(|(of, _)| *of == op) {
            table.counts[n].records += 1;
            table.counts[n].bytes += self.data.len() as u64;
        }
    }

    fn truncate(&mut self, oid: u32, start: Lsn, writer: &mut Writer) -> Result<(), Trouble> {
        let Some(at) = self.place(oid, start)? else { return Ok(()) };
        self.write_truncate(oid, &at, writer)
    }

    /// Writes a truncation to every shard that does not have it.
    fn write_truncate(&mut self, oid: u32, at: &At, writer: &mut Writer) -> Result<(), Trouble> {
        let Some(Table { row, relation, key: Some(key), silent: false, .. }) =
            self.tables.get(&oid)
        else {
            return Ok(());
        };
        let (old, new) = (None, None);
        let change = Change { relation, op: Op::Truncate, old, new, key };
        self.data.clear();
        let written = self.encoder.change(&change, at, &mut self.data);
        written.map_err(|e| undecodable(at.lsn, &e))?;
        self.key = row.captured.table.to_string();
        for lane in writer.everywhere(at.position) {
            writer.push(lane, self.key.as_bytes(), &self.data);
            self.tally(oid, Op::Truncate);
        }
        Ok(())
    }
}

/// How a table's partition keys are made.
fn key_of(
    source: &SourceRow,
    captured: &CapturedTable,
    relation: &Relation,
) -> Result<Key, crate::key::KeyError> {
    Key::new(relation, &key_columns(captured), &source.partition_by(&captured.table))
}

fn undecodable(at: Lsn, error: &dyn std::fmt::Display) -> Trouble {
    let text = format!(
        "the change at {at} cannot be read: {error}. Nothing is skipped: the source goes on once \
         this can be read, or begins anew with ALTER SOURCE … RESNAPSHOT"
    );
    Trouble::Failed(Failure::Undecodable, text)
}
