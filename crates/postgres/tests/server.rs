//! The server's side against real PostgreSQL servers.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod postgres;

use std::collections::BTreeMap;
use std::time::Duration;

use hydrant_core::capture::{
    Envelope, Failure, Lsn, OnSlotLoss, Oversize, PgTable, SlotChoice, SnapshotMode,
    SourceSettings, SourceTable, SslMode,
};
use hydrant_core::names::Scope;
use hydrant_postgres::{
    Access, Arrival, Facts, Following, Identity, Piece, Progress, Published, Replication, Server,
    ServerError, SlotLifetime, Snapshot, TypeKind, check, drop_slot, members, memberships,
    primary_key, published, release, status, table_columns, types, waiting_for,
};
use tokio::time::{Instant, sleep, timeout};

use postgres::{PASSWORD, Postgres, access, secret, versions};

/// Longest that anything here may take.
const LONG: Duration = Duration::from_secs(60);

fn settings(publications: &[&str]) -> SourceSettings {
    SourceSettings {
        name: "mz_source".into(),
        connection: "PG".into(),
        publications: publications.iter().map(|name| (*name).to_owned()).collect(),
        slot: None,
        tables: None,
        left_out: Vec::new(),
        scope: Scope {
            account: "000000000000".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        },
        stream: "twitch".parse().unwrap(),
        shards: 1,
        envelope: Envelope::default(),
        snapshot: SnapshotMode::Initial,
        oversize: Oversize::default(),
        transactions: false,
        on_slot_loss: OnSlotLoss::default(),
        comment: String::new(),
    }
}

fn named(schema: &str, table: &str) -> PgTable {
    PgTable { schema: schema.into(), table: table.into() }
}

fn listed(table: PgTable) -> SourceTable {
    SourceTable { table, partition_by: Vec::new() }
}

async fn checked(access: &Access, settings: &SourceSettings) -> Result<Facts, ServerError> {
    let mut server = Server::connect(access).await?;
    check(&mut server, access, settings, "mz_source", &Progress::default()).await
}

/// A source that has followed this server from its beginning.
async fn following(access: &Access) -> Progress {
    let mut walsender = Replication::connect(access).await.unwrap();
    let Identity { system, timeline, .. } = walsender.identify().await.unwrap();
    let following = Some(Following { system, timeline, resume: Lsn(0) });
    Progress { slot_ours: true, following }
}

fn failed<T: std::fmt::Debug>(result: Result<T, ServerError>, failure: Failure, words: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.failure(), Some(failure), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
    assert!(!text.contains(PASSWORD), "{text}");
}

/// Reads a snapshot to its end: the lines of each table.
async fn rows(
    access: &Access,
    exported: &str,
    readers: usize,
    found: &Published,
) -> Vec<Vec<String>> {
    let snapshot = Snapshot::open(access, exported, readers).await.unwrap();
    let mut reading = snapshot.read(&found.tables).await.unwrap();
    let mut lines = vec![Vec::new(); found.tables.len()];
    let mut done = vec![false; found.tables.len()];
    while let Some(piece) = timeout(LONG, reading.next()).await.unwrap() {
        match piece.unwrap() {
            Piece::Rows { table, rows, lines: bytes } => {
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                assert!(text.ends_with('\n') && !done[table]);
                let before = lines[table].len() as u64;
                lines[table].extend(text.lines().map(str::to_owned));
                assert_eq!(lines[table].len() as u64 - before, rows);
            }
            Piece::Done { table } => done[table] = true,
        }
    }
    assert!(done.iter().all(|done| *done));
    lines
}

/// Reads from a stream until a message of this kind comes.
async fn until(stream: &mut Replication, kind: u8) -> (Lsn, Vec<u8>) {
    loop {
        match timeout(LONG, stream.next()).await.unwrap().unwrap() {
            Arrival::Wal { start, data, .. } if data[0] == kind => return (start, data.to_vec()),
            _ => {}
        }
    }
}

#[path = "server/checks.rs"]
mod checks;
#[path = "server/logins.rs"]
mod logins;
#[path = "server/slots.rs"]
mod slots;
#[path = "server/snapshots.rs"]
mod snapshots;
#[path = "server/tables.rs"]
mod tables;
