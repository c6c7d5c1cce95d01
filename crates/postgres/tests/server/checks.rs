//! What a server must have, row by row of what can be missing.

use super::*;

const SCRIPT: &str = "CREATE SCHEMA twitch; CREATE TABLE twitch.xxx (id int, text text); \
     ALTER TABLE twitch.xxx REPLICA IDENTITY FULL; CREATE PUBLICATION mz_source FOR TABLE twitch.xxx";

/// A role of a source's own that may do what it needs to.
const ROLE: &str = "CREATE ROLE capture LOGIN REPLICATION PASSWORD 's3cret pass'; \
     GRANT USAGE ON SCHEMA twitch TO capture; GRANT SELECT ON twitch.xxx TO capture";

async fn as_capture(postgres: &Postgres) -> Access {
    let mut connection = postgres.connection();
    connection.user = Some("capture".into());
    access(&connection, "mz_source").await
}

#[tokio::test]
async fn a_good_server_is_described() {
    for version in versions() {
        let postgres = Postgres::of(&version, &[("max_slot_wal_keep_size", "1GB")]).await;
        postgres.run(SCRIPT).await;
        postgres.run(ROLE).await;
        let facts = checked(&as_capture(&postgres).await, &settings(&["mz_source"])).await.unwrap();
        let system = postgres.run("SELECT system_identifier FROM pg_control_system()").await;
        assert_eq!(Some(facts.identity.system.as_str()), system[0].text(0));
        assert_eq!(facts.identity.timeline, 1);
        assert!(facts.identity.position > Lsn(0) && !facts.standby);
        assert_eq!((facts.slots_used, facts.slots_max), (0, 10));
        assert_eq!(facts.max_slot_wal_keep_bytes, Some(1 << 30));
        assert_eq!(facts.wal_sender_timeout, Some(Duration::from_secs(60)));
        assert_eq!(facts.published.tables.len(), 1);
        assert_eq!(facts.slot, None);
        // A table without a key is worth a word, and nothing else is.
        let [warning] = facts.warnings.as_slice() else { panic!("{:?}", facts.warnings) };
        assert!(warning.contains("no primary key in twitch.xxx"), "{warning}");
    }
}

#[tokio::test]
async fn wal_level_is_asked_for_and_then_a_restart() {
    let Some(mut postgres) = Postgres::everyday(&[("wal_level", "replica")]).await else { return };
    postgres.run(SCRIPT).await;
    let access = postgres.access("mz_source").await;
    let settings = settings(&["mz_source"]);
    let words = ["ALTER SYSTEM SET wal_level = logical;", "is replica"];
    failed(checked(&access, &settings).await, Failure::WalLevel, &words);

    postgres.run("ALTER SYSTEM SET wal_level = logical").await;
    let words = ["logical already", "restart PostgreSQL"];
    failed(checked(&access, &settings).await, Failure::WalLevel, &words);
    // A role that may not see the file is told once the server has read it.
    postgres.run(ROLE).await;
    postgres.run("SELECT pg_reload_conf()").await;
    sleep(Duration::from_millis(300)).await;
    failed(checked(&as_capture(&postgres).await, &settings).await, Failure::WalLevel, &words);

    postgres.stop("fast").await;
    postgres.start().await;
    checked(&access, &settings).await.unwrap();
}

#[tokio::test]
async fn every_right_is_named_that_is_missing() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run(SCRIPT).await;
    postgres.run("CREATE ROLE capture LOGIN PASSWORD 's3cret pass'").await;
    let access = as_capture(&postgres).await;
    let mut settings = settings(&["mz_source"]);
    let refused = Failure::Permission;
    let words = ["role 'capture'", r#"ALTER ROLE "capture" WITH REPLICATION;"#];
    failed(checked(&access, &settings).await, refused, &words);

    postgres.run("ALTER ROLE capture REPLICATION").await;
    let words = ["'capture'", "twitch.xxx", r#"GRANT USAGE ON SCHEMA "twitch" TO "capture";"#];
    failed(checked(&access, &settings).await, refused, &words);

    postgres.run("GRANT USAGE ON SCHEMA twitch TO capture").await;
    let words = ["'capture'", "'id'", r#"GRANT SELECT ON "twitch"."xxx" TO "capture";"#];
    failed(checked(&access, &settings).await, refused, &words);
    // Without a snapshot nothing is read.
    settings.snapshot = SnapshotMode::Never;
    checked(&access, &settings).await.unwrap();
    settings.snapshot = SnapshotMode::Initial;

    postgres.run("GRANT SELECT (id, text) ON twitch.xxx TO capture").await;
    checked(&access, &settings).await.unwrap();

    postgres.run("ALTER TABLE twitch.xxx ENABLE ROW LEVEL SECURITY").await;
    let words = ["twitch.xxx", "'capture'", r#"ALTER ROLE "capture" BYPASSRLS;"#];
    failed(checked(&access, &settings).await, refused, &words);
    postgres.run("ALTER ROLE capture BYPASSRLS").await;
    checked(&access, &settings).await.unwrap();
}

#[tokio::test]
async fn publications_are_missing_empty_or_partial() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run("CREATE TABLE public.\"Odd\" (id int PRIMARY KEY)").await;
    let access = postgres.access("mz_source").await;
    let mut settings = settings(&["My \"Pub\""]);
    let words = ["'postgres'", r#"CREATE PUBLICATION "My ""Pub""" FOR ALL TABLES;"#];
    failed(checked(&access, &settings).await, Failure::PublicationMissing, &words);
    settings.tables = Some(vec![listed(named("public", "Odd"))]);
    let words = [r#"FOR TABLE "public"."Odd";"#];
    failed(checked(&access, &settings).await, Failure::PublicationMissing, &words);

    settings.tables = None;
    postgres.run(r#"CREATE PUBLICATION "My ""Pub""" WITH (publish = 'insert, update')"#).await;
    let facts = checked(&access, &settings).await.unwrap();
    let [empty, partial] = facts.warnings.as_slice() else { panic!("{:?}", facts.warnings) };
    assert!(empty.contains(r#"has no table: ALTER PUBLICATION "My ""Pub""" ADD TABLE"#), "{empty}");
    assert!(partial.contains("does not publish delete, truncate"), "{partial}");

    settings.tables = Some(vec![listed(named("public", "Odd"))]);
    let facts = checked(&access, &settings).await.unwrap();
    assert_eq!(facts.published.missing, vec![named("public", "Odd")]);
    assert!(facts.warnings[0].contains("public.Odd"), "{:?}", facts.warnings);

    let mut server = postgres.session().await;
    let following = following(&access).await;
    settings.publications = vec!["gone".into()];
    let dropped = check(&mut server, &access, &settings, "mz_source", &following).await;
    let words = ["'gone' was dropped", "RESNAPSHOT", r#"CREATE PUBLICATION "gone""#];
    failed(dropped, Failure::PublicationDropped, &words);
}

#[tokio::test]
async fn tables_whose_updates_will_fail_are_told() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres
        .run(
            "CREATE TABLE a (id int); CREATE TABLE b (id int PRIMARY KEY); \
             ALTER TABLE b REPLICA IDENTITY NOTHING; CREATE TABLE c (id int PRIMARY KEY); \
             CREATE TABLE d (id int NOT NULL UNIQUE, x int); \
             ALTER TABLE d REPLICA IDENTITY USING INDEX d_id_key; \
             CREATE PUBLICATION p FOR TABLE a, b, c, d; \
             CREATE PUBLICATION inserts FOR TABLE a WITH (publish = 'insert')",
        )
        .await;
    let access = postgres.access("mz_source").await;
    let mut settings = settings(&["p"]);
    let facts = checked(&access, &settings).await.unwrap();
    let told = facts.warnings.iter().find(|text| text.contains("UPDATE and DELETE")).unwrap();
    assert!(told.contains("on public.a, public.b will fail"), "{told}");
    assert!(told.contains(r#"ALTER TABLE "public"."a" REPLICA IDENTITY FULL;"#), "{told}");

    settings.publications = vec!["inserts".into()];
    let facts = checked(&access, &settings).await.unwrap();
    assert!(facts.warnings.iter().all(|text| !text.contains("UPDATE and DELETE")));

    settings.publications = vec!["p".into()];
    settings.left_out = vec![named("public", "a"), named("public", "b")];
    let facts = checked(&access, &settings).await.unwrap();
    assert!(facts.warnings.iter().all(|text| !text.contains("UPDATE and DELETE")));
    settings.left_out.clear();
    settings.publications = vec!["inserts".into()];

    settings.tables =
        Some(vec![SourceTable { table: named("public", "a"), partition_by: vec!["id".into()] }]);
    let facts = checked(&access, &settings).await.unwrap();
    assert!(facts.warnings.iter().all(|text| !text.contains("no primary key")));
    settings.tables =
        Some(vec![SourceTable { table: named("public", "a"), partition_by: vec!["x".into()] }]);
    failed(checked(&access, &settings).await, Failure::Other, &["'x'", "public.a"]);
}

#[tokio::test]
async fn slots_are_used_up_taken_or_adopted() {
    let Some(postgres) = Postgres::everyday(&[("max_replication_slots", "1")]).await else {
        return;
    };
    postgres.run(SCRIPT).await;
    let access = postgres.access("mz_source").await;
    let mut settings = settings(&["mz_source"]);
    postgres.run("SELECT pg_create_logical_replication_slot('other', 'pgoutput')").await;
    let words = ["1 of 1 replication slots", "max_replication_slots"];
    failed(checked(&access, &settings).await, Failure::SlotsExhausted, &words);
    let mut walsender = Replication::connect(&access).await.unwrap();
    let made = walsender.create_slot("mz_source", SlotLifetime::Permanent, true).await;
    failed(made, Failure::SlotsExhausted, &["53400", "max_replication_slots"]);

    postgres.run("SELECT pg_drop_replication_slot('other')").await;
    postgres.run("SELECT pg_create_logical_replication_slot('mz_source', 'pgoutput')").await;
    let words = ["'mz_source'", "did not make", "ADOPT"];
    failed(checked(&access, &settings).await, Failure::SlotNotOurs, &words);
    settings.slot = Some(SlotChoice { name: "mz_source".into(), adopt: true });
    let facts = checked(&access, &settings).await.unwrap();
    assert_eq!(facts.slot.unwrap().plugin.as_deref(), Some("pgoutput"));

    postgres.run("SELECT pg_drop_replication_slot('mz_source')").await;
    postgres.run("SELECT pg_create_logical_replication_slot('mz_source', 'test_decoding')").await;
    failed(checked(&access, &settings).await, Failure::SlotNotOurs, &["test_decoding"]);

    let mut server = postgres.session().await;
    let following = following(&access).await;
    postgres.run("SELECT pg_drop_replication_slot('mz_source')").await;
    let gone = check(&mut server, &access, &settings, "mz_source", &following).await;
    failed(gone, Failure::SlotLost, &["'mz_source' is gone", "RESNAPSHOT"]);
    let odd = check(&mut server, &access, &settings, "No-Slot", &following).await;
    failed(odd, Failure::Other, &["'No-Slot'"]);
}

#[tokio::test]
async fn a_standby_decodes_where_its_version_can() {
    for version in versions() {
        let mut postgres = Postgres::of(&version, &[]).await;
        postgres.run(SCRIPT).await;
        postgres.stop("fast").await;
        postgres.keep("standby.signal", "");
        postgres.start().await;
        let access = postgres.access("mz_source").await;
        let found = checked(&access, &settings(&["mz_source"])).await;
        if version.parse::<u32>().unwrap() < 16 {
            failed(found, Failure::Other, &["standby", "primary"]);
            continue;
        }
        assert!(found.unwrap().standby);
        let mut walsender = Replication::connect(&access).await.unwrap();
        let pid = walsender.pid();
        let making = tokio::spawn(async move {
            walsender.create_slot("mz_source", SlotLifetime::Permanent, true).await
        });
        let mut server = postgres.session().await;
        let end = Instant::now() + LONG;
        loop {
            let waits = waiting_for(&mut server, pid).await.unwrap();
            if waits.is_some_and(|said| said.contains("pg_log_standby_snapshot()")) {
                break;
            }
            assert!(Instant::now() < end);
        }
        assert!(status(&mut server, "mz_source", &[]).await.unwrap().server > Lsn(0));
        making.abort();
    }
}
