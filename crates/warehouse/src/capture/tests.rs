//! SQL in, rows out, over a capture that reaches no server.

use std::sync::Arc;

use datafusion::arrow::util::display::array_value_to_string;
use hydrant_core::capture::{Capture, Failure, PgTable, SourceState};
use hydrant_core::notify::Doorbell;
use hydrant_core::{Random, Timestamp};
use hydrant_testkit::{ManualClock, MemoryControl, MemoryLog, OpenSeal, RecordingCapture};

use super::*;
use crate::Follow;
use crate::engine::{EngineOptions, EngineSessions};
use crate::session::{Names, Session, Sessions};

struct World {
    capture: Arc<RecordingCapture>,
    session: Box<dyn Session>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new(with_capture: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let capture = Arc::new(RecordingCapture::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_435_200_000)));
        let log = Arc::new(MemoryLog::new(clock.clone()));
        let follow = Follow { log, capture: capture.clone() };
        let scope = Scope {
            account: "000000000000".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        let options = EngineOptions {
            follow: with_capture.then_some(follow),
            stream_scope: Some(scope),
            ..EngineOptions::new(dir.path())
        };
        let engine = Engine::open(
            options,
            Arc::new(MemoryControl::new()),
            Arc::new(OpenSeal),
            clock,
            Arc::new(Random::from_seed(7)),
            Arc::new(|_| Err("NoSuchBucket".to_owned())),
            Doorbell::new(),
        );
        let session = EngineSessions(engine.await.unwrap()).open("tester", Names::default());
        Self { capture, session, _dir: dir }
    }

    /// The rows, their cells joined by `|`.
    async fn run(&mut self, sql: &str) -> Vec<String> {
        let answer = self.session.execute(sql, &[]).await;
        let answer = answer.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        let mut rows = Vec::new();
        for batch in &answer.batches {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap());
                rows.push(cells.collect::<Vec<_>>().join("|"));
            }
        }
        rows
    }

    async fn error(&mut self, sql: &str) -> SqlError {
        self.session.execute(sql, &[]).await.err().unwrap_or_else(|| panic!("{sql}"))
    }

    async fn connection(&mut self) {
        self.run("create secret pw type = password username = 'u' password = 'hunter2'").await;
        let reach = "host 'h', database 'd', password secret pw, ssl mode 'disable'";
        self.run(&format!("create connection pg to postgres ({reach})")).await;
    }
}

const SOURCE: &str = "create source s from postgres connection pg (publication 'p') \
                      for tables (t partition by (a)) into stream 'twitch'";

#[tokio::test]
async fn secrets_and_connections_are_kept_and_shown_without_the_password() {
    let mut w = World::new(true).await;
    w.connection().await;
    assert_eq!(w.capture.password("PW").unwrap().reveal(), "hunter2");
    let secrets = w.run("show secrets like 'p%'").await;
    assert!(secrets[0].starts_with("PW|PASSWORD|u|2026-"), "{secrets:?}");
    assert!(!secrets[0].contains("hunter2"));
    assert_eq!(w.run("show secrets like 'x%'").await, Vec::<String>::new());
    let connections = w.run("show connections").await;
    assert!(connections[0].starts_with("PG|h|5432|d||PW|disable|N|2026-"), "{connections:?}");
    let again = "create secret if not exists pw type = generic_string secret_string = 'x'";
    assert_eq!(w.run(again).await, ["PW already exists, statement succeeded."]);
    assert_eq!(
        w.error("create secret pw type = generic_string secret_string = 'x'").await.code,
        2002
    );
    assert_eq!(w.error("drop secret pw").await.sqlstate, "2BP01");
    assert_eq!(w.error("drop secret nope").await.code, 2003);
    w.run("drop secret if exists nope").await;
    assert_eq!(w.run("drop connection pg").await, ["PG successfully dropped."]);
    assert_eq!(w.run("drop secret pw").await, ["PW successfully dropped."]);
}

#[tokio::test]
async fn a_password_may_be_a_parameter() {
    let mut w = World::new(true).await;
    let sql = "create secret s type = generic_string secret_string = $1";
    assert_eq!(w.session.describe(sql).await.unwrap(), None);
    w.session.execute(sql, &[Some("it's".to_owned())]).await.unwrap();
    assert_eq!(w.capture.password("S").unwrap().reveal(), "it's");
    assert!(w.session.execute(sql, &[None]).await.is_err());
}

#[tokio::test]
async fn a_source_is_made_told_of_changed_and_dropped() {
    let mut w = World::new(true).await;
    assert_eq!(w.error(SOURCE).await.code, 2003);
    w.connection().await;
    assert_eq!(w.run(SOURCE).await, ["Source S successfully created. It is validating."]);
    let settings = w.capture.sources().await.unwrap().remove(0).settings;
    assert_eq!(settings.scope.region.as_str(), "us-east-1");
    let lost = SourceState::Failed(Failure::SlotLost);
    w.capture.show("S", lost, "RESNAPSHOT it", Vec::new());
    let shown = w.run("show sources").await;
    assert!(shown[0].starts_with("S|failed(slot-lost)|RESNAPSHOT it|"), "{shown:?}");
    assert_eq!(
        w.run("alter source s resnapshot").await[0],
        "Source S changed. It is failed(slot-lost): RESNAPSHOT it"
    );
    w.run("alter source s add table sales.u").await;
    w.run("alter source s drop table t").await;
    let tables = w.capture.sources().await.unwrap().remove(0).settings.tables.unwrap();
    let expected = PgTable { schema: "sales".to_owned(), table: "u".to_owned() };
    assert_eq!(tables.into_iter().map(|t| t.table).collect::<Vec<_>>(), [expected]);
    assert!(w.run("pause source s").await[0].contains("paused"));
    assert!(w.run("resume source s").await[0].contains("streaming"));
    assert_eq!(w.run("describe source s").await, Vec::<String>::new());
    assert_eq!(w.error("describe source x").await.code, 2003);
    assert_eq!(w.run("drop source s").await, ["Source 'S' dropped."]);
    w.run("drop source if exists s").await;
    assert_eq!(w.error("pause source s").await.code, 2003);
}

#[tokio::test]
async fn a_stream_is_a_name_or_an_arn() {
    let mut w = World::new(true).await;
    w.connection().await;
    let sql = |stream: &str| {
        format!(
            "create or replace source s from postgres connection pg (publication 'p') into stream '{stream}'"
        )
    };
    w.run(&sql("arn:aws:kinesis:eu-west-1:111111111111:stream/x.y")).await;
    let settings = w.capture.sources().await.unwrap().remove(0).settings;
    assert_eq!(settings.scope.to_string(), "111111111111/eu-west-1");
    assert_eq!(settings.stream.as_str(), "x.y");
    for bad in ["a b", "", "arn:aws:firehose:eu-west-1:111111111111:stream/x", "arn:x"] {
        assert_eq!(w.error(&sql(bad)).await.code, 1008, "{bad}");
    }
}

#[tokio::test]
async fn what_is_there_is_described_and_its_statement_makes_it_again() {
    let mut w = World::new(true).await;
    w.connection().await;
    let described = w.run("describe secret pw").await;
    assert_eq!(described, w.run("show secrets").await);
    assert!(!described[0].contains("hunter2"));
    assert_eq!(w.run("desc connection pg").await, w.run("show connections").await);
    for kind in ["secret", "connection"] {
        assert_eq!(w.error(&format!("describe {kind} x")).await.code, 2003);
    }
    assert_eq!(w.error("show create secret pw").await.sqlstate, "0A000");
    assert_eq!(w.error("show create source x").await.code, 2003);
    let heads = w.session.describe("show create source s").await.unwrap().unwrap();
    assert_eq!(heads.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["name", "create_sql"]);

    w.run(
        r#"create connection "O'x\" to postgres (host 'h', port 5433, database 'd''b', user 'u\\',
           password secret pw, ssl mode 'verify-ca', ssl certificate authority 'a
b') comment = 'it''s a \\ "word"'"#,
    )
    .await;
    w.run(
        r#"create source "s'1" from postgres connection "O'x\"
           (publication 'P', publication 'q''', slot 'a_1' adopt)
           for tables (orders, "Sales"."Big ""One""" partition by (a, "B c"))
           into stream 'arn:aws:kinesis:eu-west-1:111111111111:stream/x'
           with (envelope 'dms', snapshot 'never', oversize 'truncate', transactions true, shards 4,
           on slot loss 'resnapshot') comment = 'c'"#,
    )
    .await;
    w.run(&SOURCE.replace("for tables (t partition by (a))", "")).await;
    w.run("alter source s drop table sales.u").await;
    w.run(r#"alter source s drop table "Big One""#).await;
    let connections = w.capture.connections().await.unwrap();
    assert_eq!(connections[0].user.as_deref(), Some(r"u\"));
    let settings = |all: Vec<SourceReport>| all.into_iter().map(|s| s.settings).collect::<Vec<_>>();
    let sources = settings(w.capture.sources().await.unwrap());
    let odd = [r#"connection "O'x\""#, r#"source "s'1""#];
    let mut statements = Vec::new();
    for one in ["connection pg", odd[0], odd[1], "source s"] {
        let shown = w.run(&format!("show create {one}")).await.remove(0);
        statements.push(shown.split_once('|').unwrap().1.to_owned());
    }
    let left_out = r#"FOR ALL TABLES EXCEPT (sales.u, public."Big One") INTO STREAM 'twitch'"#;
    assert!(statements[3].contains(left_out), "{}", statements[3]);
    for one in [odd[1], "source s", odd[0], "connection pg"] {
        w.run(&format!("drop {one}")).await;
    }
    for sql in &statements {
        w.run(sql).await;
    }
    assert_eq!(w.capture.connections().await.unwrap(), connections);
    assert_eq!(settings(w.capture.sources().await.unwrap()), sources);
}

#[tokio::test]
async fn without_capture_the_statements_say_so() {
    let mut w = World::new(false).await;
    assert!(w.error("show sources").await.message.contains("change data capture"));
}
