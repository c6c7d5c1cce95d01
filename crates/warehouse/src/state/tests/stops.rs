//! What a table cannot follow.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_stops_the_table_and_says_why() {
    let mut world = World::new(1, StateOptions::default()).await;
    world.begin(1).await;
    world.publish(true).await;
    for sql in TABLES {
        world.run(sql).await;
    }
    for _ in 0..20 {
        world.transaction().await;
    }
    world.publish(true).await;
    world.pump().await;
    let model = world.model.clone();
    world.check(&model, "before").await;
    world.position.commit_lsn.0 += 10;
    let bad = r#""before":null,"after":{"id":7,"a":"x","b":"NaN"},"#;
    world.change(1, "t", "u", bad, "").await;
    world.change(0, "m", "d", r#""before":{"x":99,"y":"none"},"after":null,"#, "").await;
    world.publish(true).await;
    world.pump().await;
    world.check(&model, "nothing of the cut is there").await;
    let mut shown = String::new();
    for line in world.rows("SHOW TABLES").await {
        let _ = writeln!(shown, "{line}");
    }
    assert!(shown.contains("column 'b' has the value \"NaN\""), "{shown}");
    assert!(shown.contains("TEXT COLUMNS (b)"), "{shown}");
    assert!(shown.contains("the row that was removed is not in the table"), "{shown}");
    // A new epoch begins both anew.
    world.begin(2).await;
    world.snapshot().await;
    world.publish(true).await;
    world.pump().await;
    world.check(&model, "after").await;
    assert!(!format!("{:?}", world.rows("SHOW TABLES").await).contains("errored"));
    for sql in [
        "INSERT INTO t VALUES (1, 'a', 1)",
        "TRUNCATE TABLE t",
        "COPY INTO t FROM 's3://b/' FILE_FORMAT = (TYPE = JSON)",
    ] {
        let e = world.try_run(sql).await.unwrap_err();
        assert!(e.message.contains("current state of p.t"), "{e}");
    }
    // As text it is there.
    let sql = "CREATE OR REPLACE TABLE t FROM SOURCE s (REFERENCE p.t, TEXT COLUMNS (b))";
    world.run(sql).await;
    world.position.commit_lsn.0 += 10;
    world.change(1, "t", "u", bad, "").await;
    world.publish(true).await;
    world.pump().await;
    assert_eq!(world.rows("SELECT b FROM t WHERE id = 7").await, ["NaN"]);
    world.run("DROP TABLE t").await;
    world.pump().await;
    assert!(world.try_run("SELECT * FROM t").await.is_err());
}
