//! SHOW SECRETS, CONNECTIONS and SOURCES, DESCRIBE of one of them, and SHOW CREATE.

use hydrant_core::capture::{
    Capture, CapturedTable, Connection, SecretReport, SourceReport, SourceSettings,
};
use hydrant_core::names::Scope;
use serde::Serialize;

use super::create_sql;
use crate::answer::{self, Cell, Head, INT, REAL, TEXT, TIME};
use crate::catalog::shown;
use crate::error::{SqlResult, no_such, unsupported};
use crate::session::Answer;
use crate::show::like;
use crate::sql::capture::{CaptureKind, CaptureStatement};

const SECRETS: &[Head] = &[
    ("name", TEXT),
    ("secret_type", TEXT),
    ("username", TEXT),
    ("created_on", TIME),
    ("comment", TEXT),
];
const CONNECTIONS: &[Head] = &[
    ("name", TEXT),
    ("host", TEXT),
    ("port", INT),
    ("database", TEXT),
    ("user", TEXT),
    ("secret", TEXT),
    ("ssl_mode", TEXT),
    ("has_ssl_certificate_authority", TEXT),
    ("created_on", TIME),
    ("comment", TEXT),
];
const SOURCES: &[Head] = &[
    ("name", TEXT),
    ("state", TEXT),
    ("reason", TEXT),
    ("since", TIME),
    ("connection", TEXT),
    ("publications", TEXT),
    ("stream", TEXT),
    ("slot", TEXT),
    ("epoch", INT),
    ("confirmed_lsn", TEXT),
    ("received_lsn", TEXT),
    ("server_lsn", TEXT),
    ("lag_bytes", INT),
    ("lag_seconds", REAL),
    ("retained_wal_bytes", INT),
    ("wal_status", TEXT),
    ("safe_wal_bytes", INT),
    ("snapshot_rows", INT),
    ("snapshot_rows_estimated", INT),
    ("records", INT),
    ("reconnects", INT),
    ("envelope", TEXT),
    ("created_on", TIME),
    ("comment", TEXT),
];
const SOURCE_TABLES: &[Head] = &[
    ("schema", TEXT),
    ("table", TEXT),
    ("state", TEXT),
    ("reason", TEXT),
    ("identity", TEXT),
    ("primary_key", TEXT),
    ("partition_by", TEXT),
    ("version", INT),
    ("columns", TEXT),
    ("snapshot_rows", INT),
    ("snapshot_rows_estimated", INT),
];

/// As Materialize has them.
const CREATE_SQL: &[Head] = &[("name", TEXT), ("create_sql", TEXT)];

fn head_of(kind: CaptureKind) -> &'static [Head] {
    match kind {
        CaptureKind::Secret => SECRETS,
        CaptureKind::Connection => CONNECTIONS,
        CaptureKind::Source => SOURCES,
    }
}

/// The columns of an answer, for a client that asks before it runs the statement.
pub(crate) fn head(statement: &CaptureStatement) -> Option<&'static [Head]> {
    match statement {
        CaptureStatement::Show { what, .. } => Some(head_of(*what)),
        CaptureStatement::Describe { kind: CaptureKind::Source, .. } => Some(SOURCE_TABLES),
        CaptureStatement::Describe { kind, .. } => Some(head_of(*kind)),
        CaptureStatement::ShowCreate { .. } => Some(CREATE_SQL),
        _ => None,
    }
}

pub(super) async fn show(
    capture: &dyn Capture,
    what: CaptureKind,
    pattern: Option<&str>,
    limit: Option<usize>,
) -> SqlResult<Answer> {
    let mut rows: Vec<Vec<Cell>> = match what {
        CaptureKind::Secret => capture.secrets().await?.into_iter().map(secret).collect(),
        CaptureKind::Connection => {
            capture.connections().await?.into_iter().map(connection).collect()
        }
        CaptureKind::Source => capture.sources().await?.into_iter().map(source).collect(),
    };
    if let Some(pattern) = pattern {
        rows.retain(|r| matches!(&r[0], Cell::Text(name) if like(pattern, name)));
    }
    rows.truncate(limit.unwrap_or(usize::MAX));
    answer::rows(head_of(what), rows)
}

/// The row that SHOW has of a secret or a connection; a row for each table of a source.
pub(super) async fn describe(
    capture: &dyn Capture,
    kind: CaptureKind,
    name: &str,
) -> SqlResult<Answer> {
    let missing = || no_such(kind.noun(), &shown(name));
    let row = match kind {
        CaptureKind::Secret => {
            let found = capture.secrets().await?.into_iter().find(|s| s.name == name);
            secret(found.ok_or_else(missing)?)
        }
        CaptureKind::Connection => connection(connection_of(capture, name).await?),
        CaptureKind::Source => {
            let SourceReport { settings, tables, .. } = source_of(capture, name).await?;
            let rows = tables.into_iter().map(|t| table(t, &settings)).collect();
            return answer::rows(SOURCE_TABLES, rows);
        }
    };
    answer::rows(head_of(kind), vec![row])
}

/// The statement that makes one like it. `near` is the account and region of streams by name.
pub(super) async fn show_create(
    capture: &dyn Capture,
    kind: CaptureKind,
    name: &str,
    near: Option<&Scope>,
) -> SqlResult<Answer> {
    let sql = match kind {
        // The parser takes none: the statement would have the password in it.
        CaptureKind::Secret => return Err(unsupported("SHOW CREATE SECRET")),
        CaptureKind::Connection => create_sql::connection(&connection_of(capture, name).await?),
        CaptureKind::Source => create_sql::source(&source_of(capture, name).await?.settings, near),
    };
    answer::rows(CREATE_SQL, vec![vec![Cell::text(name), Cell::text(sql)]])
}

async fn connection_of(capture: &dyn Capture, name: &str) -> SqlResult<Connection> {
    let found = capture.connections().await?.into_iter().find(|c| c.name == name);
    found.ok_or_else(|| no_such(CaptureKind::Connection.noun(), &shown(name)))
}

async fn source_of(capture: &dyn Capture, name: &str) -> SqlResult<SourceReport> {
    let found = capture.sources().await?.into_iter().find(|s| s.settings.name == name);
    found.ok_or_else(|| no_such(CaptureKind::Source.noun(), &shown(name)))
}

fn secret(secret: SecretReport) -> Vec<Cell> {
    vec![
        Cell::text(secret.name),
        Cell::text(if secret.user.is_some() { "PASSWORD" } else { "GENERIC_STRING" }),
        Cell::optional(secret.user),
        Cell::Time(secret.created),
        Cell::text(secret.comment),
    ]
}

fn connection(connection: Connection) -> Vec<Cell> {
    vec![
        Cell::text(connection.name),
        Cell::text(connection.host),
        Cell::count(connection.port),
        Cell::text(connection.database),
        Cell::optional(connection.user),
        Cell::optional(connection.secret),
        word(&connection.ssl_mode),
        Cell::flag(connection.ssl_authority.is_some()),
        Cell::Time(connection.created),
        Cell::text(connection.comment),
    ]
}

fn source(report: SourceReport) -> Vec<Cell> {
    let estimated = report.tables.iter().map(|t| t.snapshot_rows_estimated).sum::<Option<u64>>();
    let settings = report.settings;
    vec![
        Cell::text(settings.name),
        Cell::text(report.state.name()),
        Cell::text(report.reason),
        Cell::Time(report.since),
        Cell::text(settings.connection),
        Cell::text(settings.publications.join(", ")),
        Cell::text(settings.stream.as_str()),
        Cell::text(report.slot),
        Cell::count(report.epoch),
        Cell::text(report.confirmed.to_string()),
        Cell::text(report.received.to_string()),
        Cell::text(report.server.to_string()),
        Cell::count(report.lag_bytes),
        Cell::Real(report.lag_seconds),
        report.retained_wal_bytes.map_or(Cell::Null, Cell::count),
        Cell::optional(report.wal_status),
        report.safe_wal_bytes.map_or(Cell::Null, Cell::Int),
        Cell::count(report.tables.iter().map(|t| t.snapshot_rows).sum::<u64>()),
        estimated.filter(|_| !report.tables.is_empty()).map_or(Cell::Null, Cell::count),
        Cell::count(report.records),
        Cell::count(report.reconnects),
        word(&settings.envelope),
        Cell::Time(report.created),
        Cell::text(settings.comment),
    ]
}

fn table(captured: CapturedTable, settings: &SourceSettings) -> Vec<Cell> {
    let listed = settings.tables.iter().flatten().find(|t| t.table == captured.table);
    let by = listed.map(|t| t.partition_by.join(", ")).filter(|by| !by.is_empty());
    let mut key: Vec<_> =
        captured.columns.iter().filter_map(|c| c.key.map(|at| (at, c.name.as_str()))).collect();
    key.sort_unstable();
    let key: Vec<_> = key.into_iter().map(|(_, name)| name).collect();
    let columns: Vec<_> =
        captured.columns.iter().map(|c| format!("{} {}", c.name, c.type_name)).collect();
    vec![
        Cell::text(captured.table.schema),
        Cell::text(captured.table.table),
        word(&captured.state),
        Cell::optional(captured.reason),
        Cell::text(match captured.identity {
            'n' => "NOTHING",
            'f' => "FULL",
            'i' => "INDEX",
            _ => "DEFAULT",
        }),
        Cell::text(key.join(", ")),
        Cell::optional(by),
        Cell::count(captured.version),
        Cell::text(columns.join(", ")),
        Cell::count(captured.snapshot_rows),
        captured.snapshot_rows_estimated.map_or(Cell::Null, Cell::count),
    ]
}

fn word(value: &impl Serialize) -> Cell {
    Cell::Text(create_sql::word(value))
}
