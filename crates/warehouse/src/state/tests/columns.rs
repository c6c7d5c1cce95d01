//! Columns that come, go and have a default.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_and_go() {
    let mut world = World::new(2, StateOptions::default()).await;
    world.begin(1).await;
    world.publish(true).await;
    world.run(TABLES[0]).await;
    world.model.t.insert(1, ("x".into(), "1.50".into()));
    world.snapshot().await;
    world.publish(true).await;
    world.pump().await;
    let added = column("C d", 16, "boolean", None);
    world.script.report.lock().tables[0].columns.push(added);
    world.position.commit_lsn.0 += 10;
    let after = r#""before":null,"after":{"id":2,"a":"y","b":null,"C d":true},"#;
    world.change(2, "t", "c", after, "").await;
    world.publish(true).await;
    world.pump().await;
    let all = "SELECT * FROM t ORDER BY id";
    assert_eq!(world.rows(all).await, ["1|x|1.50|", "2|y||true"]);
    assert_eq!(world.rows("SELECT id FROM t WHERE \"C d\"").await, ["2"]);
    world.script.report.lock().tables[0].columns.remove(1);
    world.publish(true).await;
    world.pump().await;
    assert_eq!(world.rows(all).await, ["1|1.50|", "2||true"]);
    // One of the same name has none of the values of the one before.
    world.script.report.lock().tables[0].columns.push(column("a", 25, "text", None));
    world.publish(true).await;
    world.pump().await;
    assert_eq!(world.rows(all).await, ["1|1.50||", "2||true|"]);
    // A type that is another one needs a new snapshot.
    world.script.report.lock().tables[0].columns[0].type_oid = 20;
    world.publish(true).await;
    world.pump().await;
    assert!(format!("{:?}", world.rows("SHOW TABLES").await).contains("RESNAPSHOT"));
    assert_eq!(world.rows("SELECT count(*) FROM t").await, ["2"]);
}

/// What a column is in the rows that were there when it was added, in files, in memory and where a
/// row is found again by all of its values.

#[tokio::test(flavor = "multi_thread")]
async fn a_default_is_in_the_rows_that_were_there() {
    let mut world = World::new(3, StateOptions::default()).await;
    world.begin(1).await;
    world.publish(true).await;
    world.run(TABLES[0]).await;
    world.run(TABLES[1]).await;
    world.model.t.insert(1, ("x".into(), "1.50".into()));
    world.snapshot().await;
    world.position.commit_lsn.0 += 10;
    for (x, y) in [(1, "p"), (1, "p"), (2, "q")] {
        let after = format!(r#""before":null,"after":{{"x":{x},"y":"{y}"}},"#);
        world.change(0, "m", "c", &after, "").await;
    }
    world.publish(true).await;
    world.pump().await;
    let added = |name: &str, type_oid, missing: &str, nullable| PgColumn {
        missing: Some(missing.into()),
        nullable,
        ..column(name, type_oid, "text", None)
    };
    for (table, of) in [(0, "t"), (1, "m")] {
        // Not folded yet, and from before.
        world.position.commit_lsn.0 += 10;
        match of {
            "t" => {
                let after = r#""before":null,"after":{"id":2,"a":"y","b":null},"#;
                world.change(2, of, "c", after, "").await;
            }
            _ => {
                let after = r#""before":null,"after":{"x":3,"y":null},"#;
                world.change(0, of, "c", after, "").await;
            }
        }
        let mut report = world.script.report.lock();
        report.tables[table].columns.push(added("d", 25, "\"it's\"", true));
        report.tables[table].columns.push(added("e", 23, "7", false));
    }
    world.publish(true).await;
    world.pump().await;
    let all = ["SELECT * FROM t ORDER BY id", "SELECT * FROM m ORDER BY x"];
    assert_eq!(world.rows(all[0]).await, ["1|x|1.50|it's|7", "2|y||it's|7"]);
    assert_eq!(world.rows(all[1]).await, ["1|p|it's|7", "1|p|it's|7", "2|q|it's|7", "3||it's|7"]);
    world.position.commit_lsn.0 += 10;
    let changed = [
        (r#"{"x":1,"y":"p","d":"it's","e":7}"#, r#"{"x":1,"y":"p","d":null,"e":7}"#),
        (r#"{"x":3,"y":null,"d":"it's","e":7}"#, r#"{"x":3,"y":null,"d":"it's","e":8}"#),
        (r#"{"x":1,"y":"p","d":null,"e":7}"#, r#"{"x":4,"y":"p","d":null,"e":7}"#),
    ];
    for (before, after) in changed {
        let rows = format!(r#""before":{before},"after":{after},"#);
        world.change(0, "m", "u", &rows, "").await;
    }
    world.publish(true).await;
    world.pump().await;
    assert_eq!(world.rows(all[1]).await, ["1|p|it's|7", "2|q|it's|7", "3||it's|8", "4|p||7"]);
}
