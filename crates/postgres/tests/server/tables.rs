//! Published tables: columns, keys, types, partitions.

use super::*;

async fn found(postgres: &Postgres, publications: &[&str]) -> Published {
    let mut server = Server::connect(&postgres.access("mz_source").await).await.unwrap();
    published(&mut server, &settings(publications)).await.unwrap()
}

fn shape(found: &Published, table: usize) -> Vec<(&str, &str, Option<u16>)> {
    let columns = found.tables[table].captured.columns.iter();
    columns.map(|it| (it.name.as_str(), it.type_name.as_str(), it.key)).collect()
}

#[tokio::test]
async fn columns_are_those_that_are_published() {
    for version in versions() {
        let postgres = Postgres::of(&version, &[]).await;
        postgres
            .run(
                "CREATE TABLE t (b numeric(10,2), gone int, a text NOT NULL, \"C c\" timestamptz, \
                   d int GENERATED ALWAYS AS (1) STORED, PRIMARY KEY (\"C c\", a) INCLUDE (b)); \
                 ALTER TABLE t DROP COLUMN gone; \
                 CREATE TABLE nokey (id int); ALTER TABLE nokey REPLICA IDENTITY FULL; \
                 CREATE PUBLICATION p FOR TABLE t, nokey; CREATE PUBLICATION q FOR ALL TABLES",
            )
            .await;
        let all = found(&postgres, &["p"]).await;
        assert_eq!(all.tables.len(), 2);
        assert_eq!(all.tables[0].captured.identity, 'f');
        assert_eq!(all.tables[1].captured.identity, 'd');
        let wanted = [
            ("b", "numeric(10,2)", None),
            ("a", "text", Some(2)),
            ("C c", "timestamp with time zone", Some(1)),
        ];
        assert_eq!(shape(&all, 1), wanted, "PostgreSQL {version}");
        let columns = &all.tables[1].captured.columns;
        assert!(columns[0].nullable && !columns[1].nullable);
        assert_eq!((columns[0].type_oid, columns[0].type_modifier), (1700, (10 << 16) + 2 + 4));
        assert_eq!(shape(&found(&postgres, &["p", "q"]).await, 1), wanted);
        let mut server = postgres.session().await;
        let oid = all.tables[1].captured.oid;
        assert_eq!(primary_key(&mut server, oid).await.unwrap(), ["C c", "a"]);
        let known = table_columns(&mut server, oid).await.unwrap();
        let numbers: Vec<_> = known.columns.iter().map(|c| (c.attnum, c.key)).collect();
        assert_eq!(
            numbers,
            [(Some(1), None), (Some(3), Some(2)), (Some(4), Some(1)), (Some(5), None)]
        );
        assert!(table_columns(&mut server, 1).await.unwrap().columns.is_empty());
        rows_that_were_there(&postgres, &mut server).await;

        let number: u32 = version.parse().unwrap();
        if number >= 15 {
            let sql = "CREATE PUBLICATION few FOR TABLE t (a, b)";
            postgres.run(sql).await;
            let few = found(&postgres, &["few"]).await;
            assert_eq!(shape(&few, 0), [("b", "numeric(10,2)", None), ("a", "text", None)]);
            let mut server = postgres.session().await;
            let refused = published(&mut server, &settings(&["few", "p"])).await;
            failed(refused, Failure::Other, &["public.t", "'few'", "'p'"]);
        }
        if number >= 18 {
            let sql = "CREATE PUBLICATION generated FOR TABLE t \
                       WITH (publish_generated_columns = stored)";
            postgres.run(sql).await;
            assert_eq!(shape(&found(&postgres, &["generated"]).await, 0)[3].0, "d");
        }
    }
}

/// What added columns are in the rows that were there.
async fn rows_that_were_there(postgres: &Postgres, server: &mut Server) {
    postgres
        .run(
            "CREATE TABLE was (id int); INSERT INTO was VALUES (1); \
             ALTER TABLE was ADD n int DEFAULT 5, ADD t text DEFAULT E'a\\\\,\"{\\'', \
               ADD b bytea DEFAULT '\\x00ff', ADD l int[] DEFAULT '{1,2}', ADD z text, \
               ADD at timestamptz DEFAULT '2026-03-01 12:00:00+01'; \
             ALTER TABLE was ALTER n SET DEFAULT 6; \
             CREATE TABLE parts (id int) PARTITION BY RANGE (id); \
             CREATE TABLE part PARTITION OF parts DEFAULT; INSERT INTO parts VALUES (1); \
             ALTER TABLE parts ADD n int DEFAULT 7",
        )
        .await;
    let rows = server.query("SELECT 'was'::regclass::oid, 'parts'::regclass::oid").await.unwrap();
    let oid = |n| rows[0].text(n).unwrap().parse().unwrap();
    let was = table_columns(server, oid(0)).await.unwrap();
    let missing: Vec<_> = was.columns.iter().map(|c| c.missing.as_deref()).collect();
    let at = Some("2026-03-01 11:00:00+00");
    let text = Some("a\\,\"{'");
    assert_eq!(missing, [None, Some("5"), text, Some("\\x00ff"), Some("{1,2}"), None, at]);
    assert!(was.filenode > 0 && was.defaults.len() == 5);
    let parts = table_columns(server, oid(1)).await.unwrap();
    assert_eq!(parts.columns[1].missing.as_deref(), Some("7"));
    let sql = "ALTER TABLE was ADD v float DEFAULT random()";
    postgres.run(sql).await;
    let anew = table_columns(server, oid(0)).await.unwrap();
    assert!(anew.filenode != was.filenode && anew.columns.iter().all(|c| c.missing.is_none()));
}

#[tokio::test]
async fn a_partitioned_table_is_itself_or_its_leaves() {
    for version in versions() {
        let postgres = Postgres::of(&version, &[]).await;
        postgres
            .run(
                "CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id); \
                 CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10) \
                   PARTITION BY RANGE (id); \
                 CREATE TABLE m1a PARTITION OF m1 FOR VALUES FROM (0) TO (5); \
                 CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20); \
                 CREATE PUBLICATION leaves FOR TABLE m; \
                 CREATE PUBLICATION root FOR TABLE m WITH (publish_via_partition_root)",
            )
            .await;
        let name = |found: Published| {
            found.tables.iter().map(|t| t.captured.table.table.clone()).collect::<Vec<_>>()
        };
        assert_eq!(name(found(&postgres, &["leaves"]).await), ["m1a", "m2"]);
        assert_eq!(name(found(&postgres, &["root"]).await), ["m"]);
        assert_eq!(name(found(&postgres, &["root", "leaves"]).await), ["m"]);
    }
}

#[tokio::test]
async fn types_are_seen_through() {
    let Some(postgres) = Postgres::everyday(&[]).await else { return };
    postgres
        .run(
            "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN feeling AS mood; \
             CREATE DOMAIN feelings AS feeling[]; CREATE TYPE pair AS (a int, b text); \
             CREATE TABLE t (a mood, b feeling, c mood[], d feelings, e pair, f int4range, \
               g int4multirange, h int[], i int2vector); \
             CREATE PUBLICATION p FOR TABLE t",
        )
        .await;
    let all = found(&postgres, &["p"]).await;
    let columns = &all.tables[0].captured.columns;
    let of = |place: usize| all.types[&columns[place].type_oid];
    assert_eq!(columns[3].type_name, "public.feelings");
    let mood = of(0);
    assert_eq!((mood.kind, mood.base, mood.element), (TypeKind::Enum, mood.oid, None));
    assert_eq!((of(1).kind, of(1).base), (TypeKind::Enum, mood.oid));
    assert_eq!((of(2).kind, of(2).element), (TypeKind::Base, Some(mood.oid)));
    assert_eq!((of(3).kind, of(3).element), (TypeKind::Base, Some(mood.oid)));
    let kinds: Vec<TypeKind> = (4..7).map(|place| of(place).kind).collect();
    assert_eq!(kinds, [TypeKind::Composite, TypeKind::Range, TypeKind::Multirange]);
    assert_eq!(of(7).element, Some(23));
    assert_eq!(of(8).element, None, "its text is no array literal");
    let mut server = postgres.session().await;
    let asked = types(&mut server, &[columns[3].type_oid, 999_999]).await.unwrap();
    assert_eq!(asked.get(&columns[3].type_oid), Some(&of(3)));
    assert_eq!(asked.get(&mood.oid), Some(&mood));
}

#[tokio::test]
async fn a_table_that_was_away_is_published_by_other_rows() {
    for version in versions() {
        let postgres = Postgres::of(&version, &[]).await;
        postgres
            .run(
                "CREATE TABLE t (id int PRIMARY KEY); \
                 CREATE TABLE parted (id int) PARTITION BY RANGE (id); \
                 CREATE TABLE leaf PARTITION OF parted DEFAULT; \
                 CREATE PUBLICATION p FOR TABLE t, parted",
            )
            .await;
        let number: u32 = version.parse().unwrap();
        let names = ["p".to_owned()];
        let mut server = postgres.session().await;
        let ways: &[[&str; 3]] = &[
            ["SET TABLE t, parted", "DROP TABLE t, parted", "ADD TABLE t, parted"],
            [
                "SET TABLES IN SCHEMA public",
                "DROP TABLES IN SCHEMA public",
                "ADD TABLES IN SCHEMA public",
            ],
        ];
        // Schemas came with 15.
        let ways = if number >= 15 { ways } else { &ways[..1] };
        for [first, away, again] in ways {
            postgres.run(&format!("ALTER PUBLICATION p {first}")).await;
            let before = found(&postgres, &["p"]).await;
            let members_before = members(&mut server, &names).await.unwrap();
            assert_eq!(before.tables.len(), 2, "PostgreSQL {version}");
            for table in &before.tables {
                let oid = table.captured.oid;
                let rows = memberships(&mut server, &names, oid).await.unwrap();
                assert_eq!((rows.len(), &rows), (1, &table.memberships), "PostgreSQL {version}");
            }
            postgres.run(&format!("ALTER PUBLICATION p {away}")).await;
            postgres.run(&format!("ALTER PUBLICATION p {again}")).await;
            let after = found(&postgres, &["p"]).await;
            assert_ne!(members(&mut server, &names).await.unwrap(), members_before);
            let held = |it: &u32| after.tables.iter().any(|table| table.memberships.contains(it));
            let mut rows = before.tables.iter().flat_map(|table| &table.memberships);
            assert!(!rows.any(held), "PostgreSQL {version}: {before:?} {after:?}");
        }
        postgres.run("ALTER PUBLICATION p SET (publish = 'insert')").await;
        let now = members(&mut server, &names).await.unwrap();
        postgres.run("ALTER PUBLICATION p SET (publish = 'insert, update')").await;
        assert_ne!(members(&mut server, &names).await.unwrap(), now);
    }
}
