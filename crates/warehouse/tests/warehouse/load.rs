//! COPY: framing, errors under each ON_ERROR, once per file.

use crate::world::{World, gzip};

async fn world() -> World {
    let mut w = World::new().await;
    w.bucket("b");
    w.run("create database d").await;
    w.run("create table t (v variant)").await;
    w.run("create stage s url='s3://b/in/' file_format=(type='JSON')").await;
    w
}

const BAD: &str = "{\"a\":1}\n{\"a\":}\n{\"a\":3}\n";

#[tokio::test]
async fn a_file_is_loaded_once_and_a_changed_one_again() {
    let mut w = world().await;
    w.put("b", "in/1.json.gz", gzip("{\"a\":1}{\"a\":2} {\"a\":3}")).await;
    w.put("b", "in/2.json", "{\"a\":4}\n\n{\"a\":5}").await;
    w.put("b", "other/3.json", "{\"a\":6}").await;
    let rows = w.rows("copy into t from @s").await;
    assert_eq!(rows[0], "s3://b/in/1.json.gz|LOADED|3|3|1|0|NULL|NULL|NULL|NULL");
    assert_eq!(rows.len(), 2);
    assert_eq!(w.value("select sum(v:a) from t").await, "15");
    assert_eq!(w.rows("copy into t from @s").await, ["Copy executed with 0 files processed."]);
    w.put("b", "in/2.json", "{\"a\":10}").await;
    assert_eq!(w.rows("copy into t from @s").await.len(), 1);
    assert_eq!(w.value("select sum(v:a) from t").await, "25");
    w.run("copy into t from @s files=('1.json.gz') force=true").await;
    assert_eq!(w.value("select count(*) from t").await, "9");
    // Another table has a memory of its own, and so has a truncated one.
    w.run("create table u (v variant)").await;
    assert_eq!(w.rows("copy into u from @s").await.len(), 2);
    w.run("truncate table u").await;
    assert_eq!(w.rows("copy into u from @s").await.len(), 2);
    assert_eq!(w.value("select count(*) from u").await, "4");
}

#[tokio::test]
async fn a_bad_line_does_what_on_error_says_and_is_found_again() {
    for (option, status, rows) in [
        ("skip_file", "LOAD_FAILED", "0"),
        ("continue", "PARTIALLY_LOADED", "2"),
        ("skip_file_1", "LOAD_FAILED", "0"),
        ("skip_file_2", "PARTIALLY_LOADED", "2"),
        ("'skip_file_10%'", "LOAD_FAILED", "0"),
        ("'skip_file_50%'", "PARTIALLY_LOADED", "2"),
    ] {
        let mut w = world().await;
        w.put("b", "in/bad.json", BAD).await;
        w.put("b", "in/good.json", "{\"a\":9}").await;
        let report = w.rows(&format!("copy into t from @s on_error={option}")).await;
        assert!(
            report[0].starts_with(&format!("s3://b/in/bad.json|{status}|")),
            "{option}: {report:?}"
        );
        assert!(report[0].contains("Error parsing JSON: "), "{option}: {report:?}");
        assert!(report[0].contains("|2|1|NULL"), "line and character: {report:?}");
        let bad = w.value("select count(*) from t where v:a <> 9").await;
        assert_eq!(bad, rows, "{option}");
        assert_eq!(w.value("select count(*) from t where v:a = 9").await, "1", "{option}");
        let history = w
            .rows(
                "select file_name, status, first_error_line_number, first_error_message from \
                 table(information_schema.copy_history(table_name=>'T', \
                 start_time=>dateadd(hours, -1, current_timestamp()))) where error_count > 0",
            )
            .await;
        assert!(history[0].starts_with("in/bad.json|"), "{history:?}");
        assert!(history[0].contains("|2|Error parsing JSON"), "{history:?}");
    }
    let mut w = world().await;
    w.put("b", "in/a.json", "{\"a\":9}").await;
    w.put("b", "in/bad.json", BAD).await;
    let e = w.try_run("copy into t from @s").await.unwrap_err();
    assert_eq!(e.code, 100_069);
    assert!(e.message.contains("in/bad.json', line 2, character 1"), "{e}");
    assert_eq!(w.value("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_broken_gzip_is_an_error_of_the_file() {
    let mut w = world().await;
    let whole = gzip(&"{\"a\":1}\n".repeat(1000));
    w.put("b", "in/cut.json.gz", whole[..whole.len() / 2].to_vec()).await;
    w.put("b", "in/junk.json.gz", "this is no gzip").await;
    let mut flipped = gzip(&"{\"a\":1}\n".repeat(1000));
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    w.put("b", "in/sum.json.gz", flipped).await;
    let rows = w.rows("copy into t from @s on_error=skip_file").await;
    for row in &rows {
        assert!(row.contains("LOAD_FAILED") && row.contains("gzip"), "{row}");
    }
    assert_eq!(rows.len(), 3);
    assert_eq!(w.value("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_transformation_makes_columns() {
    let mut w = world().await;
    w.run("create table x (id int, name string, at timestamp_ntz, file string, n int)").await;
    w.put(
        "b",
        "in/1.json",
        "{\"id\":1,\"u\":{\"name\":\"A\"},\"at\":\"2024-01-01T00:00:00Z\"}\n{\"id\":\"x\"}",
    )
    .await;
    let rows = w
        .rows(
            "copy into x from (select $1:id::int, $1:u.name::string, t.$1:at, metadata$filename, \
             metadata$file_row_number from @s t) on_error=continue",
        )
        .await;
    assert!(rows[0].contains("PARTIALLY_LOADED|2|1|"), "{rows:?}");
    assert!(rows[0].contains("Numeric value 'x' is not recognized|2|1|ID"), "{rows:?}");
    assert_eq!(w.rows("select * from x").await, ["1|A|2024-01-01 00:00:00|in/1.json|1"]);
    w.run("create table y (id int, NAME string)").await;
    w.put("b", "m/1.json", "{\"ID\":5,\"Name\":\"q\"}").await;
    w.run("copy into y from 's3://b/m/' file_format=(type=json) match_by_column_name=case_insensitive").await;
    assert_eq!(w.rows("select * from y").await, ["5|q"]);
    assert_eq!(
        w.rows("select $1:id, metadata$filename from @s").await,
        ["1|in/1.json", "\"x\"|in/1.json"]
    );
    let e = w.try_run("copy into y from @s").await.unwrap_err();
    assert!(e.message.contains("one and only one column of variant"), "{e}");
}

#[tokio::test]
async fn an_outer_array_is_stripped_when_told() {
    let mut w = world().await;
    w.put("b", "in/a.json", "[{\"a\":1},{\"a\":2}]").await;
    w.run("create table u (v variant)").await;
    w.run("copy into u from @s file_format=(type='JSON' strip_outer_array=true)").await;
    w.run("copy into t from @s").await;
    assert_eq!(w.value("select count(*) from u").await, "2");
    assert_eq!(w.value("select array_size(v) from t").await, "2");
}

#[tokio::test]
async fn listing_shows_names_by_plain_prefix() {
    let mut w = world().await;
    w.put("b", "in/1.json", "{}").await;
    w.put("b", "in_old/1.json", "{}").await;
    w.run("create stage p url='s3://b/in'").await;
    assert_eq!(w.rows("ls @p").await.len(), 2);
    assert_eq!(w.rows("list @s pattern='.*1[.]json'").await.len(), 1);
    let e = w.try_run("list @nope").await.unwrap_err();
    assert_eq!((e.code, e.sqlstate), (2003, "02000"));
    w.run("create stage gone url='s3://nobucket/'").await;
    assert!(w.try_run("list @gone").await.unwrap_err().message.contains("NoSuchBucket"));
}

#[tokio::test]
async fn commits_to_one_table_at_once_lose_nothing() {
    use hydrant_warehouse::EngineSessions;
    use hydrant_warehouse::session::Sessions;
    let mut w = world().await;
    let mut running = Vec::new();
    for n in 0..8 {
        let mut session = EngineSessions(w.engine.clone()).open("x", w.session.names());
        running.push(tokio::spawn(async move {
            for i in 0..5 {
                let sql = format!("insert into t select parse_json('{{\"a\":{}}}')", n * 100 + i);
                session.execute(&sql, &[]).await.unwrap();
            }
        }));
    }
    for task in running {
        task.await.unwrap();
    }
    assert_eq!(w.value("select count(*), count(distinct v:a::int) from t").await, "40|40");
    w.restart().await;
    assert_eq!(w.value("select count(*) from t").await, "40");
}

#[tokio::test]
async fn two_loads_of_the_same_files_at_once_load_them_once() {
    use hydrant_warehouse::EngineSessions;
    use hydrant_warehouse::session::Sessions;
    let mut w = world().await;
    for n in 0..20 {
        w.put("b", &format!("in/{n}.json"), "{\"a\":1}").await;
    }
    let mut running = Vec::new();
    for _ in 0..4 {
        let mut session = EngineSessions(w.engine.clone()).open("x", w.session.names());
        running
            .push(tokio::spawn(async move { session.execute("copy into t from @s", &[]).await }));
    }
    for task in running {
        task.await.unwrap().unwrap();
    }
    assert_eq!(w.value("select count(*) from t").await, "20");
}
