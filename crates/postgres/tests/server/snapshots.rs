//! Reading the rows that were there: whole, once, as of one moment.

use super::*;

/// A walsender that holds an exported snapshot.
async fn exported(access: &Access) -> (Replication, String, Lsn) {
    let mut walsender = Replication::connect(access).await.unwrap();
    let made = walsender.create_slot("mz_source", SlotLifetime::Temporary, true).await.unwrap();
    (walsender, made.snapshot.unwrap(), made.consistent)
}

async fn everything(access: &Access, snapshot: &str, publication: &str) -> Published {
    let mut opened = Snapshot::open(access, snapshot, 1).await.unwrap();
    published(opened.server(), &settings(&[publication])).await.unwrap()
}

#[tokio::test]
async fn rows_are_those_of_one_moment_while_others_write() {
    for version in versions() {
        let postgres = Postgres::of(&version, &[]).await;
        let sql = "CREATE TABLE t (id int PRIMARY KEY, x text); \
             INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i; \
             CREATE TABLE empty (id int); CREATE PUBLICATION p FOR TABLE t, empty";
        postgres.run(sql).await;
        let access = postgres.access("mz_source").await;
        let (mut stream, snapshot, consistent) = exported(&access).await;
        let mut writer = postgres.session().await;
        let changes = "INSERT INTO t VALUES (0, 'new'); DELETE FROM t WHERE id % 2 = 0; \
                       UPDATE t SET x = 'changed' WHERE id % 3 = 0";
        writer.query(changes).await.unwrap();
        let found = everything(&access, &snapshot, "p").await;
        let all = rows(&access, &snapshot, 3, &found).await;
        assert_eq!(all[0], Vec::<String>::new());
        let mut ids: Vec<u32> = Vec::new();
        for line in &all[1] {
            let (id, x) = line.split_once('\t').unwrap();
            assert_eq!(x.len(), 500);
            ids.push(id.parse().unwrap());
        }
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(1..=20000), "PostgreSQL {version}: {}", ids.len());
        assert_eq!(found.tables[1].captured.snapshot_rows_estimated, None, "nobody analyzed");
        // The stream goes on exactly there.
        stream.start("mz_source", &["p".to_owned()], consistent).await.unwrap();
        let (_, insert) = until(&mut stream, b'I').await;
        assert!(insert.ends_with(b"new"), "{insert:?}");
    }
}

#[tokio::test]
async fn a_large_table_is_cut_and_nothing_is_left_out() {
    let Some(postgres) = Postgres::everyday(&[("max_wal_size", "64MB")]).await else { return };
    // Rows as wide as pages: 36,000 pages are three ranges.
    let sql = "CREATE UNLOGGED TABLE t (id int, x text); ALTER TABLE t ALTER x SET STORAGE PLAIN; \
         INSERT INTO t SELECT i, repeat('x', 7000) FROM generate_series(1, 36000) i";
    postgres.run(sql).await;
    postgres.run("ALTER TABLE t SET LOGGED; CREATE PUBLICATION p FOR TABLE t").await;
    let access = postgres.access("mz_source").await;
    let (_held, snapshot, _) = exported(&access).await;
    let found = everything(&access, &snapshot, "p").await;
    let opened = Snapshot::open(&access, &snapshot, 2).await.unwrap();
    let mut reading = opened.read(&found.tables).await.unwrap();
    let (mut ids, mut longest) = (Vec::new(), 0);
    while let Some(piece) = timeout(LONG, reading.next()).await.unwrap() {
        let Piece::Rows { lines, .. } = piece.unwrap() else { continue };
        longest = longest.max(lines.len());
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let end = line.iter().position(|byte| *byte == b'\t').unwrap();
            ids.push(std::str::from_utf8(&line[..end]).unwrap().parse::<u32>().unwrap());
        }
    }
    assert!(longest <= 256 * 1024 + 8 * 1024, "{longest}");
    assert!(!ids.is_sorted(), "two connections read at once");
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(1..=36000), "{}", ids.len());
}

#[tokio::test]
async fn filters_lists_partitions_and_heirs_are_honoured() {
    for version in versions() {
        let number: u32 = version.parse().unwrap();
        let postgres = Postgres::of(&version, &[]).await;
        postgres
            .run(
                "CREATE TABLE m (id int, x text) PARTITION BY RANGE (id); \
                 CREATE TABLE m1 (x text, id int); \
                 ALTER TABLE m ATTACH PARTITION m1 FOR VALUES FROM (0) TO (10); \
                 CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20); \
                 INSERT INTO m SELECT i, 'x' || i FROM generate_series(0, 19) i; \
                 CREATE TABLE parent (id int); CREATE TABLE child (more int) INHERITS (parent); \
                 INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3); \
                 CREATE TABLE \"We\"\"ird\" (\"a b\" text, n int); \
                 INSERT INTO \"We\"\"ird\" VALUES (E'tab\\tnew\\nline\\\\', 1), (NULL, 2); \
                 CREATE PUBLICATION p FOR TABLE m, parent, \"We\"\"ird\" \
                   WITH (publish_via_partition_root)",
            )
            .await;
        let access = postgres.access("mz_source").await;
        let (_held, snapshot, _) = exported(&access).await;
        let found = everything(&access, &snapshot, "p").await;
        let names: Vec<&str> =
            found.tables.iter().map(|it| it.captured.table.table.as_str()).collect();
        assert_eq!(names, ["We\"ird", "child", "m", "parent"]);
        let mut all = rows(&access, &snapshot, 2, &found).await;
        all.iter_mut().for_each(|lines| lines.sort());
        assert_eq!(all[0], [r"\N	2", r"tab\tnew\nline\\	1"]);
        assert_eq!(
            (all[1].as_slice(), all[3].as_slice()),
            (&["2\t3".to_owned()][..], &["1".to_owned()][..])
        );
        let mut wanted: Vec<String> = (0..20).map(|i| format!("{i}\tx{i}")).collect();
        wanted.sort();
        assert_eq!(all[2], wanted, "PostgreSQL {version}");

        if number >= 15 {
            postgres
                .run(
                    "CREATE PUBLICATION low FOR TABLE m (id) WHERE (id < 5) \
                       WITH (publish_via_partition_root); \
                     CREATE PUBLICATION high FOR TABLE m (id) WHERE (id > 17) \
                       WITH (publish_via_partition_root)",
                )
                .await;
            let mut opened = Snapshot::open(&access, &snapshot, 1).await.unwrap();
            let both = settings(&["low", "high"]);
            // The snapshot is older than these publications, and sees none.
            assert!(published(opened.server(), &both).await.unwrap().tables.is_empty());
            drop(_held);
            let (_held, snapshot, _) = exported(&access).await;
            let mut opened = Snapshot::open(&access, &snapshot, 1).await.unwrap();
            let found = published(opened.server(), &both).await.unwrap();
            let mut all = rows(&access, &snapshot, 2, &found).await;
            all[0].sort();
            assert_eq!(all[0], ["0", "1", "18", "19", "2", "3", "4"]);
        }
    }
}

#[tokio::test]
async fn rights_to_columns_or_roots_are_enough() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres
        .run(
            "CREATE ROLE capture LOGIN REPLICATION PASSWORD 's3cret pass'; \
             CREATE TABLE m (id int) PARTITION BY RANGE (id); \
             CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10); \
             INSERT INTO m SELECT generate_series(0, 9); GRANT SELECT ON m TO capture; \
             CREATE TABLE t (id int, hidden text); INSERT INTO t VALUES (1, 'x'); \
             GRANT SELECT (id) ON t TO capture; \
             CREATE PUBLICATION p FOR TABLE m WITH (publish_via_partition_root)",
        )
        .await;
    let column_lists = postgres.version.parse::<u32>().unwrap() >= 15;
    if column_lists {
        postgres.run("ALTER PUBLICATION p ADD TABLE t (id)").await;
    }
    let mut connection = postgres.connection();
    connection.user = Some("capture".into());
    let access = access(&connection, "mz_source").await;
    checked(&access, &settings(&["p"])).await.unwrap();
    let (_held, snapshot, _) = exported(&access).await;
    let found = everything(&access, &snapshot, "p").await;
    let all = rows(&access, &snapshot, 2, &found).await;
    assert_eq!(all[0].len(), 10);
    assert!(!column_lists || all[1] == ["1"]);
}

#[tokio::test]
async fn a_table_that_changes_its_file_ends_the_snapshot() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    let sql = "CREATE TABLE t (id int); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR TABLE t";
    postgres.run(sql).await;
    let access = postgres.access("mz_source").await;
    for change in [
        "TRUNCATE t",
        "ALTER TABLE t ALTER id TYPE bigint",
        "ALTER TABLE t RENAME TO old; CREATE TABLE t (id bigint); INSERT INTO t VALUES (7); \
         ALTER PUBLICATION p ADD TABLE t",
        "ALTER TABLE t RENAME id TO other",
        "DROP TABLE t",
    ] {
        let (_held, snapshot, _) = exported(&access).await;
        let found = everything(&access, &snapshot, "p").await;
        postgres.run(change).await;
        let opened = Snapshot::open(&access, &snapshot, 2).await.unwrap();
        let mut reading = opened.read(&found.tables).await.unwrap();
        let error = loop {
            match timeout(LONG, reading.next()).await.unwrap() {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("{change} went unnoticed"),
            }
        };
        assert!(matches!(error, ServerError::Transient(_)), "{change}: {error}");
        assert!(timeout(LONG, reading.next()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_snapshot_that_nobody_takes_waits_and_ends_with_its_taker() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    let sql = "CREATE TABLE t (id int, x text); CREATE PUBLICATION p FOR TABLE t; \
         INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) i";
    postgres.run(sql).await;
    let access = postgres.access("mz_source").await;
    let (held, snapshot, _) = exported(&access).await;
    let found = everything(&access, &snapshot, "p").await;
    let opened = Snapshot::open(&access, &snapshot, 2).await.unwrap();
    let mut reading = opened.read(&found.tables).await.unwrap();
    reading.next().await.unwrap().unwrap();
    let readers = "SELECT count(*) FROM pg_stat_activity WHERE application_name = \
                   'hydrant/mz_source' AND backend_type = 'client backend'";
    sleep(Duration::from_millis(500)).await;
    assert_ne!(postgres.run(readers).await[0].text(0), Some("0"), "50 MB do not fit anywhere");
    drop(reading);
    let end = Instant::now() + LONG;
    while postgres.run(readers).await[0].text(0) != Some("0") {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(50)).await;
    }
    drop(held);
    let end = Instant::now() + LONG;
    while Snapshot::open(&access, &snapshot, 1).await.is_ok() {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(50)).await;
    }
    let gone = Snapshot::open(&access, &snapshot, 1).await.unwrap_err();
    assert!(matches!(gone, ServerError::Transient(_)), "{gone}");
}
