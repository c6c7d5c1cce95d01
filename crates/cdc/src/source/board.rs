//! What a source shows of itself: for `SHOW SOURCES`, for `/metrics` and for who follows its cuts.

use std::collections::BTreeMap;
use std::sync::Arc;

use hydrant_core::capture::{
    CapturedTable, Cut, Lsn, Op, PgTable, SourceReport, SourceSettings, SourceState, TableState,
};
use hydrant_core::{Clock, Timestamp};
use hydrant_postgres::{PublishedTable, Status};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::source::columns::{self, Columns};
use crate::source::store::{Progress, SourceRow, TableRow};

/// Records and bytes that a table had of an operation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// By table, by operation in the order of [`OPS`].
pub(crate) type Counts = BTreeMap<PgTable, [Count; OPS.len()]>;

/// Operations, as they are counted.
pub(crate) const OPS: [(Op, &str); 5] =
    [(Op::Read, "r"), (Op::Create, "c"), (Op::Update, "u"), (Op::Delete, "d"), (Op::Truncate, "t")];

/// From which part of what a slot may hold on the report warns.
pub(crate) const RETAINED_PART_WARNED: f64 = 0.5;
/// From which part on it is urgent.
pub(crate) const RETAINED_PART_URGENT: f64 = 0.8;

/// What is shown now.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) settings: SourceSettings,
    pub(crate) created: Timestamp,
    pub(crate) state: SourceState,
    pub(crate) reason: String,
    pub(crate) warnings: Vec<String>,
    pub(crate) since: Timestamp,
    pub(crate) slot: String,
    pub(crate) cut: Cut,
    pub(crate) received: Lsn,
    pub(crate) server: Lsn,
    /// Commit time of the oldest change that is not durable, milliseconds since the Unix epoch.
    pub(crate) oldest_ms: Option<u64>,
    /// Since when something arrived that the server was not told of as durable.
    pub(crate) unconfirmed_since: Option<Timestamp>,
    pub(crate) retained: Option<u64>,
    pub(crate) wal_status: Option<String>,
    pub(crate) safe_wal: Option<i64>,
    pub(crate) tables: BTreeMap<u32, TableRow>,
    /// Columns as the catalog has them, if they are others, of tables in the version and since the
    /// position beside them.
    pub(crate) seen: BTreeMap<u32, (u64, Lsn, Option<Columns>)>,
    pub(crate) counts: Counts,
    pub(crate) records: u64,
    pub(crate) reconnects: u64,
    /// Whether validation has had an outcome since the process began.
    pub(crate) settled: bool,
}

/// Where a source's task writes what others read.
pub(crate) struct Board {
    shown: Mutex<Shown>,
    changes: Arc<watch::Sender<u64>>,
    clock: Arc<dyn Clock>,
}

impl Board {
    pub(crate) fn new(
        row: &SourceRow,
        progress: &Progress,
        tables: &[TableRow],
        clock: Arc<dyn Clock>,
        changes: &Arc<watch::Sender<u64>>,
    ) -> Arc<Self> {
        let shown = Shown {
            settings: row.settings.clone(),
            created: row.created,
            state: SourceState::Validating,
            reason: String::new(),
            warnings: Vec::new(),
            since: clock.now(),
            slot: row.slot().name,
            cut: progress.cut.clone(),
            received: progress.cut.resume,
            server: progress.cut.resume,
            oldest_ms: None,
            unconfirmed_since: None,
            retained: None,
            wal_status: None,
            safe_wal: None,
            tables: tables.iter().map(|t| (t.captured.oid, t.clone())).collect(),
            seen: BTreeMap::new(),
            counts: Counts::new(),
            records: 0,
            reconnects: 0,
            settled: false,
        };
        Arc::new(Self { shown: Mutex::new(shown), changes: Arc::clone(changes), clock })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Changes what is shown, without waking anybody.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock());
    }

    /// Changes what is shown, and tells who follows.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Shown)) {
        self.note(change);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Shows another state, with its reason.
    pub(crate) fn state(&self, state: SourceState, reason: impl Into<String>) {
        let (reason, now) = (reason.into(), self.now());
        self.tell(|shown| {
            shown.settled |= state != SourceState::Validating;
            if shown.state != state {
                shown.since = now;
            }
            (shown.state, shown.reason) = (state, reason);
        });
    }

    pub(crate) fn slot_status(&self, status: &Status) {
        self.note(|shown| {
            shown.server = shown.server.max(status.server);
            let slot = status.slot.as_ref();
            shown.retained = slot.and_then(|slot| slot.retained_wal_bytes);
            shown.wal_status = slot.and_then(|slot| slot.wal_status.clone());
            shown.safe_wal = slot.and_then(|slot| slot.safe_wal_bytes);
        });
    }

    /// The tables whose changes follow, as they are now: to be asked for before the catalog is.
    pub(crate) fn live(&self) -> Vec<TableRow> {
        let shown = self.shown.lock();
        let live = shown.tables.values().filter(|t| t.captured.state == TableState::Live);
        live.cloned().collect()
    }

    /// Takes in what the catalog said of tables that were as `known` when it was asked.
    pub(crate) fn saw(&self, known: &[TableRow], published: &[PublishedTable]) {
        let published: BTreeMap<u32, &PublishedTable> =
            published.iter().map(|table| (table.captured.oid, table)).collect();
        let mut now = BTreeMap::new();
        for TableRow { captured, from, .. } in known {
            let Some(found) = published.get(&captured.oid) else { continue };
            let seen = columns::seen(captured, &found.captured.columns, &found.catalog);
            let other = (seen != Columns::of(captured)).then_some(seen);
            now.insert(captured.oid, (captured.version, *from, other));
        }
        if self.read(|shown| shown.seen != now) {
            self.tell(|shown| shown.seen = now);
        }
    }

    /// Makes a table's columns those that were seen, unless it has become another one since.
    pub(crate) fn as_seen(&self, table: &mut CapturedTable) {
        self.read(|shown| shown.as_seen(table));
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Shown) -> T) -> T {
        read(&self.shown.lock())
    }

    /// As `SHOW SOURCES` shows it.
    pub(crate) fn report(&self, now: Timestamp) -> SourceReport {
        let shown = self.shown.lock();
        SourceReport {
            settings: shown.settings.clone(),
            created: shown.created,
            state: shown.state.clone(),
            reason: shown.reason(),
            since: shown.since,
            epoch: shown.cut.epoch,
            slot: shown.slot.clone(),
            confirmed: shown.cut.resume,
            received: shown.received,
            server: shown.server,
            lag_bytes: shown.lag_bytes(),
            lag_seconds: shown.lag_seconds(now),
            retained_wal_bytes: shown.retained,
            wal_status: shown.wal_status.clone(),
            safe_wal_bytes: shown.safe_wal,
            tables: shown
                .tables
                .values()
                .map(|table| {
                    let mut table = table.captured.clone();
                    shown.as_seen(&mut table);
                    table
                })
                .collect(),
            records: shown.records,
            reconnects: shown.reconnects,
        }
    }
}

impl Shown {
    fn as_seen(&self, table: &mut CapturedTable) {
        let Some((version, from, columns)) = self.seen.get(&table.oid) else { return };
        let now = self.tables.get(&table.oid);
        let same = now.is_some_and(|now| now.captured.version == *version && now.from == *from);
        // A change of the table that the stream told of is newer.
        if same && table.version == *version {
            table.seen = true;
            if let Some(columns) = columns.clone() {
                columns.put(table);
            }
        }
    }

    fn reason(&self) -> String {
        if !self.reason.is_empty() {
            return self.reason.clone();
        }
        let errored = self.tables.values().filter(|t| t.captured.state == TableState::Errored);
        let errored = errored.map(|t| {
            let why = t.captured.reason.as_deref().unwrap_or_default();
            format!("{}: {why}", t.captured.table)
        });
        let warnings = self.warnings.iter().cloned();
        errored.chain(self.retained_warning()).chain(warnings).collect::<Vec<_>>().join("; ")
    }

    /// How much of what a slot may hold it holds, 0 to 1; `None` if it may hold anything.
    pub(crate) fn retained_part(&self) -> Option<f64> {
        let (held, safe) = (self.retained?, u64::try_from(self.safe_wal?.max(0)).ok()?);
        Some(held as f64 / (held as f64 + safe as f64).max(1.0))
    }

    fn retained_warning(&self) -> Option<String> {
        let part = self.retained_part().filter(|part| *part >= RETAINED_PART_WARNED)?;
        let held = self.retained.unwrap_or_default() >> 20;
        Some(format!(
            "slot '{}' holds {held} MiB of write-ahead log, {:.0} % of max_slot_wal_keep_size, and is \
             lost when it holds all of it: look for a transaction that is open for long \
             (pg_stat_activity.xact_start), or raise max_slot_wal_keep_size",
            self.slot,
            (part * 100.0).floor()
        ))
    }

    pub(crate) fn lag_bytes(&self) -> u64 {
        self.server.0.saturating_sub(self.cut.resume.0)
    }

    pub(crate) fn lag_seconds(&self, now: Timestamp) -> f64 {
        let oldest = self.oldest_ms.map(Timestamp::from_millis);
        oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64())
    }
}
