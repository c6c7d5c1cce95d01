//! Tables whose changes are left out: stopped ones, and those that are to be read anew.

use hydrant_core::capture::TableState;

use super::{Table, Transcriber};
use crate::source::feed::Catalog;

impl Transcriber {
    /// Whether changes of a table are left out: it is stopped, or is to be read anew.
    pub(crate) fn is_silent(&self, oid: u32) -> bool {
        let errored = |table: &Table| table.row.captured.state == TableState::Errored;
        self.tables.get(&oid).is_none_or(|table| table.silent || errored(table))
    }

    /// Whether a table is another than the one whose rows were read, by what the catalog has of it.
    pub(crate) fn is_another(&self, oid: u32, known: &Catalog) -> bool {
        let key: Vec<&str> = known.key.iter().map(String::as_str).collect();
        self.tables.get(&oid).is_some_and(|table| {
            table.row.was_away(&known.memberships) || table.row.has_other_key(&key)
        })
    }

    /// Whether the transaction that is being read comes after the rows of a table that were read.
    pub(crate) fn is_after_snapshot(&self, oid: u32) -> bool {
        let from = self.tables.get(&oid).map(|table| table.row.from);
        self.open.zip(from).is_some_and(|(open, from)| open.begin.final_lsn >= from)
    }

    /// Leaves out what follows of a table until it is read anew. Its changes go on to be counted: the
    /// numbers of others must not depend on when this was noticed. A position behind it is stored with
    /// it, so that it is not forgotten.
    pub(crate) fn silence(&mut self, oid: u32) {
        if let Some(table) = self.tables.get_mut(&oid) {
            tracing::info!(table = %table.row.captured.table, "a table will be read anew");
            table.silent = true;
            table.row.captured.state = TableState::Pending;
            self.altered = true;
        }
    }

    /// Stops a table. Its records so far stay.
    pub(super) fn fail(&mut self, oid: u32, reason: String) {
        let Some(table) = self.tables.get_mut(&oid) else { return };
        tracing::warn!(table = %table.row.captured.table, reason, "a table is stopped");
        let name = &self.source.settings.name;
        table.row.captured.state = TableState::Errored;
        table.row.captured.reason =
            Some(format!("{reason}; mend it, then ALTER SOURCE {name} RESNAPSHOT"));
        table.key = None;
        self.altered = true;
    }
}
