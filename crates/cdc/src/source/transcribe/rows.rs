//! Rows of a snapshot become records.

use std::collections::BTreeMap;

use hydrant_core::capture::{Lsn, Op, Position, TableState};

use super::{Table, Transcriber, undecodable};
use crate::copy::Line;
use crate::envelope::{At, Change, Notice};
use crate::row::Row;
use crate::source::append::Writer;
use crate::source::store::TableRow;
use crate::source::worker::Trouble;

impl Transcriber {
    fn at_snapshot(&self, consistent: Lsn) -> At {
        At {
            position: Position { commit_lsn: consistent, seq: self.rows },
            lsn: consistent,
            now_ms: self.now_ms,
            ..At::default()
        }
    }

    /// Writes to every shard that a snapshot begins or is complete.
    pub(crate) fn snapshot(&mut self, begins: bool, consistent: Lsn, writer: &mut Writer) {
        let notice = if begins { Notice::SnapshotBegin } else { Notice::SnapshotEnd };
        if !begins {
            self.rows += 1;
        }
        let at = self.at_snapshot(consistent);
        self.data.clear();
        self.encoder.notice(&notice, &at, &mut self.data);
        let key = self.source.settings.name.clone();
        for lane in writer.all() {
            writer.push(lane, key.as_bytes(), &self.data);
            self.records += 1;
        }
    }

    /// Clears a table that is read while the source runs: what an interrupted reading left goes.
    pub(crate) fn clear(
        &mut self,
        oid: u32,
        consistent: Lsn,
        writer: &mut Writer,
    ) -> Result<(), Trouble> {
        let at = self.at_snapshot(consistent);
        let at = At { position: Position { seq: 0, ..at.position }, ..at };
        let Some(Table { row, relation, key: Some(key), .. }) = self.tables.get(&oid) else {
            return Ok(());
        };
        if row.captured.version > 1 {
            // It was read before, and its key may be another.
            self.data.clear();
            let notice = Notice::Schema { table: &row.captured, difference: None };
            self.encoder.notice(&notice, &at, &mut self.data);
            self.key = row.captured.table.to_string();
            let lane = writer.lane_of(self.key.as_bytes());
            writer.push(lane, self.key.as_bytes(), &self.data);
            self.records += 1;
        }
        let (old, new) = (None, None);
        let change = Change { relation, op: Op::Truncate, old, new, key };
        self.data.clear();
        let written = self.encoder.change(&change, &at, &mut self.data);
        written.map_err(|e| undecodable(consistent, &e))?;
        self.key = row.captured.table.to_string();
        for lane in writer.all() {
            writer.push(lane, self.key.as_bytes(), &self.data);
            self.records += 1;
        }
        Ok(())
    }

    /// Makes a table ready to be read, by what the catalog says of it.
    pub(crate) fn prepare(&mut self, oid: u32) -> Result<(), Trouble> {
        let Some(table) = self.tables.get(&oid) else { return Ok(()) };
        let relation = table.relation.clone();
        self.settle(oid, relation, table.row.from)
    }

    /// Writes rows of a snapshot, until the lines are at their end or the writer has no room: then
    /// `true`.
    pub(crate) fn rows<'a>(
        &mut self,
        oid: u32,
        lines: &mut impl Iterator<Item = &'a [u8]>,
        consistent: Lsn,
        writer: &mut Writer,
    ) -> Result<bool, Trouble> {
        while writer.has_room() {
            let Some(line) = lines.next() else { return Ok(false) };
            self.rows += 1;
            self.line(oid, line, consistent, writer)?;
        }
        Ok(true)
    }

    fn line(
        &mut self,
        oid: u32,
        line: &[u8],
        consistent: Lsn,
        writer: &mut Writer,
    ) -> Result<(), Trouble> {
        let at = self.at_snapshot(consistent);
        let Some(table) = self.tables.get_mut(&oid) else { return Ok(()) };
        table.row.captured.snapshot_rows += 1;
        let Some(key) = &table.key else { return Ok(()) };
        let line = Line::new(line, table.relation.columns.len());
        let row = Row::Line(line.map_err(|e| undecodable(consistent, &e))?);
        let made = key.of(&table.relation, row, None, &mut self.key);
        made.map_err(|e| undecodable(consistent, &e))?;
        let (old, new) = (None, Some(row));
        let change = Change { relation: &table.relation, op: Op::Read, old, new, key };
        self.data.clear();
        let written = self.encoder.change(&change, &at, &mut self.data);
        written.map_err(|e| undecodable(consistent, &e))?;
        let max = writer.record_bytes_max();
        if self.data.len() > max
            && !self.shorten(oid, consistent, max, (Op::Read, None, new, &at))?
        {
            return Ok(());
        }
        let lane = writer.lane_of(self.key.as_bytes());
        writer.push(lane, self.key.as_bytes(), &self.data);
        self.tally(oid, Op::Read);
        Ok(())
    }

    /// The tables as they are now.
    pub(crate) fn tables(&self) -> BTreeMap<u32, TableRow> {
        self.tables.iter().map(|(oid, table)| (*oid, table.row.clone())).collect()
    }

    /// Shows that a table's rows are being read, or all were.
    pub(crate) fn state(&mut self, oid: u32, state: TableState) {
        if let Some(table) = self.tables.get_mut(&oid)
            && table.row.captured.state != TableState::Errored
        {
            table.row.captured.state = state;
        }
    }
}
