//! Slots and streams: created, held, released, dropped, lost.

use super::*;

async fn slot(access: &Access, name: &str) -> Replication {
    let mut walsender = Replication::connect(access).await.unwrap();
    walsender.create_slot(name, SlotLifetime::Permanent, false).await.unwrap();
    walsender
}

#[tokio::test]
async fn a_stream_brings_changes_and_confirms_them() {
    for version in versions() {
        let postgres = Postgres::of(&version, &[]).await;
        postgres.run("CREATE TABLE t (id int); CREATE PUBLICATION \"My, Pub\" FOR TABLE t").await;
        let access = postgres.access("mz_source").await;
        let publications = ["My, Pub".to_owned()];
        let mut stream = Replication::connect(&access).await.unwrap();
        let identity = stream.identify().await.unwrap();
        let made = stream.create_slot("mz_source", SlotLifetime::Permanent, true).await.unwrap();
        assert!(made.consistent >= identity.position && made.snapshot.is_some());
        stream.start("mz_source", &publications, made.consistent).await.unwrap();

        let mut server = postgres.session().await;
        server.query("INSERT INTO t VALUES (1)").await.unwrap();
        let (start, begin) = until(&mut stream, b'B').await;
        assert!(start >= made.consistent);
        assert_eq!(begin.len(), 1 + 8 + 8 + 4);
        until(&mut stream, b'I').await;
        let (_, commit) = until(&mut stream, b'C').await;
        let end = Lsn(u64::from_be_bytes(commit[10..18].try_into().unwrap()));

        let held = status(&mut server, "mz_source", &publications).await.unwrap();
        assert_eq!(held.publications_missing, Vec::<String>::new());
        let row = held.slot.unwrap();
        assert_eq!(row.active_application.as_deref(), Some("hydrant/mz_source"));
        assert_eq!(row.active_pid, Some(stream.pid()));
        assert!(row.confirmed.unwrap() < end && held.server >= end);
        assert_eq!((row.lost, row.wal_status.as_deref()), (None, Some("reserved")));
        assert!(row.retained_wal_bytes.unwrap() > 0);

        stream.confirm(end, end, true).await.unwrap();
        loop {
            // A reply was asked for, so a keepalive comes.
            let came = timeout(LONG, stream.next()).await.unwrap().unwrap();
            if matches!(came, Arrival::Keepalive { end: sent, .. } if sent >= end) {
                break;
            }
        }
        // That keepalive may have been on its way before the server read the confirmation.
        let deadline = Instant::now() + LONG;
        while status(&mut server, "mz_source", &[]).await.unwrap().slot.unwrap().confirmed
            != Some(end)
        {
            assert!(Instant::now() < deadline, "{end} was confirmed");
            sleep(Duration::from_millis(20)).await;
        }
        stream.stop().await;
        let row = status(&mut server, "mz_source", &[]).await.unwrap().slot.unwrap();
        assert_eq!(row.active_pid, None, "stopping frees the slot at once");
    }
}

#[tokio::test]
async fn nothing_is_lost_when_waiting_is_given_up() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run("CREATE TABLE t (id int, x text); CREATE PUBLICATION p FOR TABLE t").await;
    let mut stream = slot(&postgres.access("mz_source").await, "mz_source").await;
    stream.start("mz_source", &["p".to_owned()], Lsn(0)).await.unwrap();
    let sql = "INSERT INTO t SELECT i, repeat('x', i % 3000) FROM generate_series(1, 5000) i";
    postgres.run(sql).await;
    let (mut inserts, mut given_up, mut bytes) = (0, 0, 0);
    while inserts < 5000 {
        match timeout(Duration::from_micros(200), stream.next()).await {
            Err(_) => given_up += 1,
            Ok(Ok(Arrival::Wal { data, .. })) => {
                inserts += usize::from(data[0] == b'I');
                bytes += data.len();
            }
            Ok(other) => drop(other.unwrap()),
        }
        if inserts % 100 == 0 {
            stream.confirm(Lsn(0), Lsn(0), false).await.unwrap();
        }
    }
    assert!(bytes > 5000 * 1200 && given_up < 100_000);
}

#[tokio::test]
async fn a_large_transaction_comes_whole_and_in_order_also_through_tls() {
    const ROWS: usize = 30_000;
    let Some(version) = postgres::everyday() else { return };
    let (_, certificate, key) = super::logins::certificate("localhost");
    let mut postgres = Postgres::stopped(&version, &[("ssl", "on")]);
    postgres.keep("server.crt", &certificate);
    postgres.keep("server.key", &key);
    postgres.start().await;
    postgres.run("CREATE TABLE t (id int, x text); CREATE PUBLICATION p FOR TABLE t").await;
    let mut connection = postgres.connection();
    for mode in [SslMode::Disable, SslMode::Require] {
        connection.ssl_mode = mode;
        let mut stream = slot(&access(&connection, "s").await, "s").await;
        stream.start("s", &["p".to_owned()], Lsn(0)).await.unwrap();
        let sql = "INSERT INTO t SELECT i, repeat('x', i % 300) FROM generate_series(1,";
        postgres.run(&format!("{sql} {ROWS}) i")).await;
        for row in 1..=ROWS {
            let (_, data) = timeout(LONG, until(&mut stream, b'I')).await.unwrap();
            let digits = u32::from_be_bytes(data[9..13].try_into().unwrap()) as usize;
            assert_eq!(data[13..13 + digits], *row.to_string().as_bytes());
        }
        timeout(LONG, until(&mut stream, b'C')).await.unwrap();
        stream.stop().await;
        postgres.run("SELECT pg_drop_replication_slot('s')").await;
    }
}

#[tokio::test]
async fn a_busy_slot_is_taken_back_from_ourselves_only() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run("CREATE TABLE t (id int); CREATE PUBLICATION p FOR TABLE t").await;
    let (ours, other) = (postgres.access("one").await, postgres.access("two").await);
    let publications = ["p".to_owned()];
    let mut held = slot(&ours, "mz_source").await;
    held.start("mz_source", &publications, Lsn(0)).await.unwrap();

    let mut second = Replication::connect(&other).await.unwrap();
    let busy = second.start("mz_source", &publications, Lsn(0)).await.unwrap_err();
    assert!(matches!(&busy, ServerError::SlotBusy(text) if text.contains("55006")), "{busy}");

    let mut server = postgres.session().await;
    let told = release(&mut server, "mz_source", other.application()).await.unwrap().unwrap();
    assert!(told.contains("pg_terminate_backend"), "{told}");
    let busy = drop_slot(&mut server, "mz_source", other.application()).await.unwrap_err();
    assert!(matches!(busy, ServerError::SlotBusy(_)), "{busy}");
    let told = release(&mut server, "mz_source", ours.application()).await.unwrap().unwrap();
    assert!(told.contains("was ended"), "{told}");
    let ended = loop {
        match timeout(LONG, held.next()).await.unwrap() {
            Ok(_) => {}
            Err(ended) => break ended,
        }
    };
    assert!(matches!(&ended, ServerError::Transient(text) if text.contains("57P01")), "{ended}");

    let mut held = Replication::connect(&ours).await.unwrap();
    let end = Instant::now() + LONG;
    while held.start("mz_source", &publications, Lsn(0)).await.is_err() {
        assert!(Instant::now() < end);
        held = Replication::connect(&ours).await.unwrap();
    }
    assert!(drop_slot(&mut server, "mz_source", ours.application()).await.unwrap());
    assert!(!drop_slot(&mut server, "mz_source", ours.application()).await.unwrap());
    let status = status(&mut server, "mz_source", &["p".into(), "q".into()]).await.unwrap();
    assert_eq!((status.slot, status.publications_missing), (None, vec!["q".to_owned()]));
}

#[tokio::test]
async fn a_slot_that_waits_says_for_whom() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run("CREATE TABLE t (id int)").await;
    let mut writer = postgres.session().await;
    writer.query("BEGIN").await.unwrap();
    writer.query("INSERT INTO t VALUES (4711)").await.unwrap();
    let access = postgres.access("mz_source").await;
    let mut walsender = Replication::connect(&access).await.unwrap();
    let pid = walsender.pid();
    let making = tokio::spawn(async move {
        walsender.create_slot("mz_source", SlotLifetime::Temporary, true).await
    });
    let mut server = postgres.session().await;
    let said = async |server: &mut Server, word: &str| {
        let end = Instant::now() + LONG;
        loop {
            let waits = waiting_for(server, pid).await.unwrap();
            if let Some(said) = waits.filter(|said| said.contains(word)) {
                return said;
            }
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(50)).await;
        }
    };
    let said_ = said(&mut server, "idle in transaction").await;
    assert!(said_.contains("'postgres'") && said_.contains("'hydrant/the user'"), "{said_}");
    assert!(
        said_.contains("statement INSERT)") && said_.contains("pg_terminate_backend("),
        "{said_}"
    );
    assert!(!said_.contains("4711"), "{said_}");
    writer.query("PREPARE TRANSACTION 'it''s'").await.unwrap();
    let said_ = said(&mut server, "prepared").await;
    assert!(said_.contains("'it''s'"), "{said_}");
    assert!(!making.is_finished());
    writer.query("ROLLBACK PREPARED 'it''s'").await.unwrap();
    let made = timeout(LONG, making).await.unwrap().unwrap().unwrap();
    assert!(made.snapshot.is_some());
}

#[tokio::test]
async fn a_slot_that_is_gone_or_invalidated_is_lost() {
    for version in versions() {
        let limits = [
            ("max_slot_wal_keep_size", "2MB"),
            ("min_wal_size", "2MB"),
            ("max_wal_size", "4MB"),
            ("wal_keep_size", "0"),
        ];
        let postgres = Postgres::of(&version, &limits).await;
        postgres.run("CREATE TABLE t (id int, x text); CREATE PUBLICATION p FOR TABLE t").await;
        let access = postgres.access("mz_source").await;
        let publications = ["p".to_owned()];
        slot(&access, "mz_source").await.stop().await;
        let mut server = postgres.session().await;
        let end = Instant::now() + LONG;
        let row = loop {
            let sql = "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i";
            server.query(sql).await.unwrap();
            server.query("CHECKPOINT").await.unwrap();
            let row = status(&mut server, "mz_source", &publications).await.unwrap().slot.unwrap();
            if row.lost.is_some() {
                break row;
            }
            assert!(Instant::now() < end, "{row:?}");
        };
        assert_eq!(
            (row.wal_status.as_deref(), row.lost.as_deref()),
            (Some("lost"), Some("wal_removed"))
        );
        let mut stream = Replication::connect(&access).await.unwrap();
        let lost = stream.start("mz_source", &publications, Lsn(0)).await;
        failed(lost, Failure::SlotLost, &["55000", "RESNAPSHOT"]);
        let following = following(&access).await;
        let found = check(&mut server, &access, &settings(&["p"]), "mz_source", &following).await;
        failed(found, Failure::SlotLost, &["invalidated", "wal_removed", "RESNAPSHOT"]);

        drop_slot(&mut server, "mz_source", access.application()).await.unwrap();
        let mut stream = Replication::connect(&access).await.unwrap();
        let lost = stream.start("mz_source", &publications, Lsn(0)).await;
        failed(lost, Failure::SlotLost, &["42704", "RESNAPSHOT"]);
    }
}

#[tokio::test]
async fn a_publication_dropped_under_a_stream_is_told() {
    for version in versions() {
        let postgres = Postgres::of(&version, &[]).await;
        postgres.run("CREATE TABLE t (id int); CREATE PUBLICATION p FOR TABLE t").await;
        let access = postgres.access("mz_source").await;
        let publications = ["p".to_owned()];
        let mut stream = slot(&access, "mz_source").await;
        stream.start("mz_source", &publications, Lsn(0)).await.unwrap();
        postgres.run("DROP PUBLICATION p; INSERT INTO t VALUES (1)").await;
        if version.parse::<u32>().unwrap() >= 18 {
            let mut server = postgres.session().await;
            let found = status(&mut server, "mz_source", &publications).await.unwrap();
            assert_eq!(found.publications_missing, ["p"]);
            continue;
        }
        let dropped = loop {
            match timeout(LONG, stream.next()).await.unwrap() {
                Ok(_) => {}
                Err(error) => break Err::<(), _>(error),
            }
        };
        let words = ["42704", "RESNAPSHOT"];
        failed(dropped, Failure::PublicationDropped, &words);
    }
}

#[tokio::test]
async fn a_slot_of_the_same_name_is_not_made_twice() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    let access = postgres.access("mz_source").await;
    let mut stream = slot(&access, "mz_source").await;
    let twice = stream.create_slot("mz_source", SlotLifetime::Permanent, true).await;
    failed(twice, Failure::SlotNotOurs, &["42710", "ADOPT"]);
    let name = "a_slot_without_wal_level";
    let Some(plain) = Postgres::everyday(&[("wal_level", "replica")]).await else { return };
    let mut walsender = Replication::connect(&plain.access("mz_source").await).await.unwrap();
    let made = walsender.create_slot(name, SlotLifetime::Permanent, true).await;
    failed(made, Failure::WalLevel, &["ALTER SYSTEM SET wal_level = logical;"]);
}

#[tokio::test]
async fn a_server_that_stays_silent_is_given_up() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres.run("CREATE TABLE t (id int); CREATE PUBLICATION p FOR TABLE t").await;
    let mut stream = slot(&postgres.access("mz_source").await, "mz_source").await;
    stream.start("mz_source", &["p".to_owned()], Lsn(0)).await.unwrap();
    let pid = stream.pid().to_string();
    let kill = |signal: &str| {
        assert!(
            std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success()
        );
    };
    kill("-STOP");
    // What it had sent before is still read.
    while timeout(Duration::from_millis(300), stream.next()).await.is_ok() {}
    stream.confirm(Lsn(0), Lsn(0), false).await.unwrap();
    stream.confirm(Lsn(0), Lsn(0), false).await.unwrap();
    tokio::time::pause();
    let error = stream.next().await.unwrap_err();
    tokio::time::resume();
    kill("-CONT");
    assert!(matches!(&error, ServerError::Transient(text) if text.contains("sign of life")));
}
