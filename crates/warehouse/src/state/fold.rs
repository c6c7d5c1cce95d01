//! Changes folded in memory: of each row only what it came to.

use std::collections::HashMap;

use hydrant_core::capture::{Captured, Op, Position};

use super::schema::{Fault, RowKey, Schema, anew, shown};
use super::value::Value;

/// What a row of a table with a key came to.
#[derive(Debug)]
pub(super) struct Latest {
    pub(super) position: Position,
    /// `None`: it is gone.
    pub(super) row: Option<Vec<Value>>,
}

/// How often a row came and went in a table without a key.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) row: Vec<Value>,
    /// Positions of the rows that came and are there still.
    pub(super) added: Vec<Position>,
    /// Positions of the changes that took away rows that are not among those.
    pub(super) removed: Vec<Position>,
}

/// The changes of rows.
#[derive(Debug)]
pub(super) enum Changes {
    Keyed(HashMap<RowKey, Latest>),
    Counted(HashMap<RowKey, Counted>),
}

/// Changes since what is in files.
pub(super) struct Fold<'a> {
    pub(super) schema: &'a Schema,
    pub(super) changes: Changes,
    /// No row that was changed last before this is there any more.
    pub(super) truncated_at: Position,
    /// Whether every change so far is a row that a snapshot read, so that no file has it.
    pub(super) only_reads: bool,
    /// Bytes of the records, which bounds the memory.
    pub(super) bytes: usize,
}

/// Bytes counted for a change beside its record.
const CHANGE_BYTES: usize = 128;

impl<'a> Fold<'a> {
    pub(super) fn new(schema: &'a Schema, truncated_at: Position) -> Self {
        let changes = match schema.is_keyed() {
            true => Changes::Keyed(HashMap::new()),
            false => Changes::Counted(HashMap::new()),
        };
        Self { schema, changes, truncated_at, only_reads: true, bytes: 0 }
    }

    /// Takes a change in; `bytes` is the size of its record.
    pub(super) fn take(&mut self, change: &Captured<'_>, bytes: usize) -> Result<(), Fault> {
        let mut position = change.stamp.position;
        if change.op == Op::Read {
            // A snapshot comes before the changes that were committed at its very point, and after
            // all of an earlier snapshot of the same table.
            position.seq = 0;
            self.truncate(position);
        }
        if position < self.truncated_at {
            return Ok(());
        }
        self.bytes += bytes + CHANGE_BYTES;
        self.only_reads &= change.op == Op::Read;
        let told = |row: &str| anew(format_args!("{}: the record has no {row}", shown(position)));
        let at = |fault: Fault| format!("{}: {fault}", shown(position));
        let schema = self.schema;
        let after = |change: &Captured<'_>| -> Result<(RowKey, Vec<Value>), Fault> {
            let fields = change.after.as_ref().ok_or_else(|| told("row"))?;
            let row = schema.row(fields, &change.unavailable).map_err(at)?;
            let key = schema.key_of(fields).ok_or_else(|| told("whole primary key"))?;
            Ok((key, row))
        };
        let before = |change: &Captured<'_>| {
            let fields = change.before.as_ref().ok_or_else(|| told("row from before"))?;
            schema.key_of(fields).ok_or_else(|| told("whole primary key from before"))
        };
        match (&mut self.changes, change.op) {
            (_, Op::Truncate) => self.truncate(position),
            (Changes::Keyed(rows), Op::Delete) => {
                put(rows, before(change)?, Latest { position, row: None })?;
            }
            (Changes::Keyed(rows), _) => {
                let (key, row) = after(change)?;
                put(rows, key, Latest { position, row: Some(row) })?;
            }
            (Changes::Counted(rows), op) => {
                if !change.unavailable.is_empty() {
                    return Err(told("whole row; REPLICA IDENTITY FULL is needed"));
                }
                if matches!(op, Op::Update | Op::Delete) {
                    let counted = rows.entry(before(change)?).or_default();
                    if counted.added.pop().is_none() {
                        counted.removed.push(position);
                    }
                }
                if op != Op::Delete {
                    let (key, row) = after(change)?;
                    let counted = rows.entry(key).or_default();
                    counted.row = row;
                    counted.added.push(position);
                }
            }
        }
        Ok(())
    }

    /// Forgets what was before `at`.
    fn truncate(&mut self, at: Position) {
        if at <= self.truncated_at {
            return;
        }
        self.truncated_at = at;
        match &mut self.changes {
            Changes::Keyed(rows) => rows.retain(|_, latest| latest.position >= at),
            Changes::Counted(rows) => rows.retain(|_, counted| {
                counted.added.retain(|p| *p >= at);
                counted.removed.retain(|p| *p >= at);
                !counted.added.is_empty() || !counted.removed.is_empty()
            }),
        }
    }
}

/// Puts a change over an earlier one of the same row. Shards are read one after the other, so that
/// the earlier one may come later.
fn put(rows: &mut HashMap<RowKey, Latest>, key: RowKey, mut new: Latest) -> Result<(), Fault> {
    match rows.get_mut(&key) {
        Some(old) if old.position > new.position => {
            if let Some(row) = &mut old.row {
                fill(row, new.row.as_deref());
            }
        }
        Some(old) => {
            if let Some(row) = &mut new.row {
                if old.row.is_none() && row.contains(&Value::Unchanged) {
                    return Err(missing(new.position));
                }
                fill(row, old.row.as_deref());
            }
            *old = new;
        }
        None => {
            rows.insert(key, new);
        }
    }
    Ok(())
}

/// Takes unchanged values from the row before.
fn fill(row: &mut [Value], before: Option<&[Value]>) {
    let Some(before) = before else { return };
    for (value, old) in row.iter_mut().zip(before) {
        if *value == Value::Unchanged {
            *value = old.clone();
        }
    }
}

/// A change that tells only a part of a row which is not there.
pub(super) fn missing(position: Position) -> Fault {
    anew(format_args!(
        "{}: the row that was changed is not in the table, and the record tells only a part of it",
        shown(position)
    ))
}
