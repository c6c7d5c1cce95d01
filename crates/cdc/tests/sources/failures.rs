//! What goes wrong with servers, and what a source makes of it.

use hydrant_testkit::ManualClock;

use super::*;

/// A jump of the clock that expires no record.
const JUMP: Duration = Duration::from_secs(5 * 3_600);

const SCHEMA: &str = "CREATE TABLE k (id int PRIMARY KEY, v int); \
     ALTER TABLE k REPLICA IDENTITY FULL; CREATE PUBLICATION mz_source FOR TABLE k; \
     INSERT INTO k SELECT i, 0 FROM generate_series(1, 100) i";

async fn started(settings: &[(&str, &str)]) -> Option<(Postgres, World, Arc<Sources>)> {
    let postgres = Postgres::everyday(settings).await?;
    postgres.run(SCHEMA).await;
    let world = World::new(2);
    let sources = world.sources().await;
    world.create(&sources, &postgres).await;
    until(&sources, |r| r.state == SourceState::Streaming).await;
    Some((postgres, world, sources))
}

async fn alter(sources: &Sources, change: AlterSource) {
    sources.alter_source("mz_source", change).await.unwrap();
}

async fn paused(sources: &Sources) {
    alter(sources, AlterSource::Pause).await;
    until(sources, |r| r.state == SourceState::Paused).await;
}

async fn same(world: &World, sources: &Sources, postgres: &Postgres) {
    let cut = caught_up(sources, postgres).await;
    let records = world.records(Some(&cut)).await;
    assert_eq!(folded(&records, "k"), selected(postgres, "k").await);
}

async fn failed(sources: &Sources, failure: Failure) -> String {
    until(sources, |r| r.state == SourceState::Failed(failure)).await.reason
}

async fn slots(postgres: &Postgres) -> Vec<String> {
    let rows = postgres.run("SELECT slot_name FROM pg_replication_slots").await;
    rows.iter().map(|row| row.text(0).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_validation_finds_is_in_the_report() {
    let Some(postgres) = Postgres::everyday(&[("wal_level", "replica")]).await else { return };
    let world = World::new(2);
    let sources = world.sources().await;
    let report = world.create(&sources, &postgres).await;
    assert_eq!(report.state, SourceState::Failed(Failure::WalLevel));
    assert!(report.reason.contains("ALTER SYSTEM SET wal_level = logical"), "{}", report.reason);
    sources.shutdown().await;
}

#[tokio::test]
async fn without_its_publication_a_source_fails_and_begins_once_it_is_there() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    let world = World::new(2);
    let sources = world.sources().await;
    let report = world.create(&sources, &postgres).await;
    assert_eq!(report.state, SourceState::Failed(Failure::PublicationMissing));
    assert!(report.reason.contains("CREATE PUBLICATION"), "{}", report.reason);
    assert_eq!(slots(&postgres).await, Vec::<String>::new());
    postgres.run(SCHEMA).await;
    // Any word makes it look again.
    alter(&sources, AlterSource::Comment("now".into())).await;
    same(&world, &sources, &postgres).await;
    sources.shutdown().await;
}

#[tokio::test]
async fn a_server_that_restarts_is_waited_for() {
    let Some((mut postgres, world, sources)) = started(&[]).await else { return };
    for how in ["fast", "immediate"] {
        postgres.run("INSERT INTO k SELECT i, 1 FROM generate_series(1000, 3000) i").await;
        postgres.stop(how).await;
        until(&sources, |r| r.state == SourceState::Retrying).await;
        postgres.start().await;
        postgres.run("DELETE FROM k WHERE id >= 1000").await;
        same(&world, &sources, &postgres).await;
    }
    assert!(sources.sources().await.unwrap()[0].reconnects >= 2);
    sources.shutdown().await;
}

#[tokio::test]
async fn a_lost_slot_is_not_made_again_until_somebody_says_so() {
    let Some((postgres, world, sources)) = started(&[]).await else { return };
    paused(&sources).await;
    postgres.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
    alter(&sources, AlterSource::Resume).await;
    let reason = failed(&sources, Failure::SlotLost).await;
    assert!(reason.contains("RESNAPSHOT"), "{reason}");
    assert_eq!(slots(&postgres).await, Vec::<String>::new());
    alter(&sources, AlterSource::Resnapshot).await;
    until(&sources, |r| r.epoch == 2 && r.state == SourceState::Streaming).await;
    same(&world, &sources, &postgres).await;
    sources.shutdown().await;
}

#[tokio::test]
async fn a_position_that_somebody_moved_is_a_failure() {
    let Some((postgres, _world, sources)) = started(&[]).await else { return };
    caught_up(&sources, &postgres).await;
    paused(&sources).await;
    postgres.run("INSERT INTO k VALUES (5000, 1)").await;
    postgres
        .run(
            "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_insert_lsn()) \
             FROM pg_replication_slots",
        )
        .await;
    alter(&sources, AlterSource::Resume).await;
    let reason = failed(&sources, Failure::PositionSkipped).await;
    assert!(reason.contains("has confirmed") && reason.contains("stored is"), "{reason}");
    sources.shutdown().await;
}

#[tokio::test]
async fn a_dropped_publication_stays_a_failure_when_it_is_made_again() {
    let Some((postgres, world, sources)) = started(&[]).await else { return };
    postgres.run("DROP PUBLICATION mz_source").await;
    postgres.run("INSERT INTO k VALUES (5000, 1)").await;
    failed(&sources, Failure::PublicationDropped).await;
    postgres.run("CREATE PUBLICATION mz_source FOR TABLE k").await;
    alter(&sources, AlterSource::Comment("again".into())).await;
    sleep(Duration::from_millis(500)).await;
    failed(&sources, Failure::PublicationDropped).await;
    alter(&sources, AlterSource::Resnapshot).await;
    until(&sources, |r| r.epoch == 2 && r.state == SourceState::Streaming).await;
    same(&world, &sources, &postgres).await;
    sources.shutdown().await;
}

#[tokio::test]
async fn the_slot_of_a_source_dropped_without_its_server_goes_later() {
    let Some((mut postgres, world, sources)) = started(&[]).await else { return };
    postgres.stop("fast").await;
    until(&sources, |r| r.state == SourceState::Retrying).await;
    let said = sources.drop_source("mz_source").await.unwrap().unwrap();
    assert!(said.contains("pg_drop_replication_slot"), "{said}");
    postgres.start().await;
    assert_eq!(slots(&postgres).await.len(), 1);
    sources.shutdown().await;
    // Looked for at the start.
    let sources = world.sources().await;
    let deadline = Instant::now() + LONG;
    while !slots(&postgres).await.is_empty() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(20)).await;
    }
    let mut settings = world.settings();
    settings.snapshot = SnapshotMode::Never;
    sources.create_source(settings, IfExists::Fail).await.unwrap();
    let report = until(&sources, |r| r.state == SourceState::Streaming).await;
    assert_eq!(report.epoch, 2, "a source of the same name goes on counting");
    sources.shutdown().await;
}

#[tokio::test]
async fn an_interrupted_snapshot_begins_anew_and_leaves_one_slot() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run(SCHEMA).await;
    postgres.run("INSERT INTO k SELECT i, 0 FROM generate_series(1000, 60000) i").await;
    let world = World::new(2);
    let mut sources = world.sources().await;
    world.create(&sources, &postgres).await;
    let mut epochs = 1;
    for n in 0..6 {
        sleep(Duration::from_millis(20 + 30 * n)).await;
        sources.abort();
        postgres.run("UPDATE k SET v = v + 1 WHERE id < 20").await;
        sources = world.sources().await;
        epochs = until(&sources, |r| r.epoch > 0).await.epoch.max(epochs);
    }
    same(&world, &sources, &postgres).await;
    assert_eq!(slots(&postgres).await.len(), 1);
    println!("{epochs} epochs");
    sources.shutdown().await;
}

#[tokio::test]
async fn a_record_too_large_stops_its_table_or_is_shortened() {
    for oversize in [Oversize::Fail, Oversize::Truncate] {
        let Some(postgres) = Postgres::everyday(&[]).await else { return };
        postgres.run(SCHEMA).await;
        postgres
            .run("CREATE TABLE large (id int PRIMARY KEY, v text); ALTER PUBLICATION mz_source ADD TABLE large")
            .await;
        let world = World::new(2);
        let sources = world.sources().await;
        sources.create_secret(secret(PASSWORD), IfExists::Fail).await.unwrap();
        sources.create_connection(postgres.connection(), IfExists::Fail).await.unwrap();
        let settings = SourceSettings { oversize, ..world.settings() };
        sources.create_source(settings, IfExists::Fail).await.unwrap();
        until(&sources, |r| r.state == SourceState::Streaming).await;
        postgres.run("INSERT INTO large VALUES (1, 'small'), (2, repeat('x', 2000000))").await;
        same(&world, &sources, &postgres).await;
        let report = sources.sources().await.unwrap().pop().unwrap();
        let large = report.tables.iter().find(|t| t.table.table == "large").unwrap();
        let records = world.records(None).await;
        let of_large = records.iter().filter(
            |data| matches!(read(data), Some(SourceRecord::Change(c)) if c.table == "large"),
        );
        match oversize {
            Oversize::Fail => {
                assert_eq!((large.state, of_large.count()), (TableState::Errored, 1));
                let reason = large.reason.as_deref().unwrap();
                assert!(reason.contains("(key public.large|2)"), "{reason}");
                assert!(report.reason.contains("public.large"), "{}", report.reason);
            }
            Oversize::Truncate => {
                assert_eq!((large.state, of_large.count()), (TableState::Live, 2))
            }
        }
        sources.shutdown().await;
    }
}

#[tokio::test]
async fn a_slot_of_somebody_elses_is_used_only_when_adopted() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run(SCHEMA).await;
    postgres.run("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')").await;
    postgres.run("UPDATE k SET v = 1 WHERE id < 50").await;
    let world = World::new(2);
    let sources = world.sources().await;
    sources.create_secret(secret(PASSWORD), IfExists::Fail).await.unwrap();
    sources.create_connection(postgres.connection(), IfExists::Fail).await.unwrap();
    for adopt in [false, true] {
        let slot = Some(SlotChoice { name: "theirs".into(), adopt });
        let settings = SourceSettings { slot, ..world.settings() };
        let report = sources.create_source(settings, IfExists::Replace).await.unwrap();
        if !adopt {
            assert!(!matches!(report.state, SourceState::Streaming));
            failed(&sources, Failure::SlotNotOurs).await;
        }
    }
    postgres.run("DELETE FROM k WHERE id < 10").await;
    same(&world, &sources, &postgres).await;
    assert_eq!(slots(&postgres).await, ["theirs"], "the temporary slot is gone");
    sources.shutdown().await;
}

#[tokio::test]
async fn a_lost_slot_begins_anew_by_itself_where_that_was_said() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run(SCHEMA).await;
    let world = World::new(2);
    let sources = world.sources().await;
    sources.create_secret(secret(PASSWORD), IfExists::Fail).await.unwrap();
    sources.create_connection(postgres.connection(), IfExists::Fail).await.unwrap();
    let settings = SourceSettings { on_slot_loss: OnSlotLoss::Resnapshot, ..world.settings() };
    sources.create_source(settings, IfExists::Fail).await.unwrap();
    for epoch in 1..=5 {
        if epoch == 5 {
            failed(&sources, Failure::SlotLost).await;
            break;
        }
        until(&sources, |r| r.epoch == epoch && r.state == SourceState::Streaming).await;
        same(&world, &sources, &postgres).await;
        paused(&sources).await;
        postgres.run("UPDATE k SET v = v + 1").await;
        postgres.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
        alter(&sources, AlterSource::Resume).await;
    }
    sources.shutdown().await;
}

#[tokio::test]
async fn clocks_say_nothing_of_order() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run(SCHEMA).await;
    let clock = Arc::new(ManualClock::default());
    let world = World::by(3, clock.clone());
    let mut sources = world.sources().await;
    world.create(&sources, &postgres).await;
    until(&sources, |r| r.state == SourceState::Streaming).await;
    let now = clock.now();
    for moment in [now.minus(JUMP), now.plus(2 * JUMP), now.minus(2 * JUMP), now.plus(JUMP)] {
        clock.set(moment);
        postgres.run("UPDATE k SET v = v + 1 WHERE id <= 10").await;
        until(&sources, |r| r.records >= 10).await;
        // What was written is known again by its position alone.
        sources.shutdown().await;
        sources = world.sources().await;
    }
    same(&world, &sources, &postgres).await;
    let records = world.records(None).await;
    let positions = records.iter().filter_map(|data| match read(data) {
        Some(SourceRecord::Change(c)) if c.op != Op::Read => Some(c.stamp.position),
        _ => None,
    });
    let mut positions: Vec<Position> = positions.collect();
    positions.sort_unstable();
    positions.dedup();
    assert_eq!(positions.len(), 40);
    sources.shutdown().await;
}

#[tokio::test]
async fn a_table_that_is_made_again_is_another_one() {
    let Some((postgres, world, sources)) = started(&[]).await else { return };
    postgres
        .run(
            "DROP TABLE k; CREATE TABLE k (id int PRIMARY KEY, v int); \
             ALTER TABLE k REPLICA IDENTITY FULL; INSERT INTO k VALUES (1, 1), (500, 5)",
        )
        .await;
    postgres.run("ALTER PUBLICATION mz_source ADD TABLE k").await;
    postgres.run("INSERT INTO k VALUES (2, 2)").await;
    until(&sources, |r| r.tables.len() == 1 && r.tables[0].snapshot_rows == 3).await;
    postgres.run("DELETE FROM k WHERE id = 500").await;
    same(&world, &sources, &postgres).await;
    sources.shutdown().await;
}
