//! Rows: a table is what the source has at each of its cuts.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_what_postgresql_has_at_every_cut() {
    for seed in 0..4 {
        let small = StateOptions { fold_bytes: 2_000 + 600 * seed as usize, bucket_rows: 8 };
        let mut world = World::new(seed, small).await;
        world.begin(1).await;
        world.publish(true).await;
        for sql in TABLES {
            world.run(sql).await;
        }
        let mut published = Model::default();
        for round in 0..25 {
            let what = format!("seed {seed}, round {round}");
            match world.below(12) {
                0 => {
                    let epoch = world.epoch + 1;
                    world.begin(epoch).await;
                    world.publish(false).await;
                    world.pump().await;
                    world.check(&published, &format!("{what}: before the snapshot")).await;
                    world.snapshot().await;
                    if world.below(2) == 0 {
                        world.publish(false).await;
                        world.pump().await;
                        world.check(&published, &format!("{what}: within the snapshot")).await;
                    }
                }
                _ => {
                    for _ in 0..1 + world.below(8) {
                        world.transaction().await;
                    }
                }
            }
            world.clock.advance(Duration::from_millis(700));
            world.publish(true).await;
            // Whatever fails or crashes on the way, queries see one cut or the other.
            for _ in 0..world.below(4) {
                if world.below(2) == 0 {
                    world.control.lose_commits(1);
                } else {
                    world.control.lose_answers(1);
                }
                let _ = world.engine.run_state_once().await;
                world.control.lose_commits(0);
                world.control.lose_answers(0);
                if world.below(2) == 0 {
                    world.crash(small).await;
                }
                let t = world.rows("SELECT id, a, b FROM t ORDER BY id").await;
                assert!(t == published.t() || t == world.model.t(), "{what}: {t:?}");
            }
            world.pump().await;
            published = world.model.clone();
            let model = published.clone();
            world.check(&model, &what).await;
        }
        let files: usize = std::fs::read_dir(world.dir.path().join("tables")).unwrap().count();
        assert!(files <= 2, "seed {seed}");
    }
}

/// Says how long a table of a million rows takes, and how long random updates of it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_million_rows() {
    const ROWS: u64 = 1_000_000;
    let mut world = World::new(3, StateOptions::default()).await;
    world.begin(1).await;
    let record = |world: &World, op: &str, id: u64, n: u64| {
        let body =
            format!("a chat message of {n}, which is about as long as they are, with {id} in it");
        let row = row_t(id as i64, &body, &format!("{}.25", n % 1000));
        format!(r#"{{"before":null,"after":{row},{}}},"op":"{op}"}}"#, world.stamp("t"))
    };
    for first in (0..ROWS).step_by(1_000) {
        for shard in 0..SHARDS {
            let mut batch = RecordBatch::new();
            for id in (first..first + 1_000).filter(|id| shard_of(*id as i64) == shard) {
                world.position.seq += 1;
                batch.push(b"k", record(&world, "r", id, id).as_bytes());
            }
            world.log.append(ShardUid(shard), batch).await.unwrap();
        }
    }
    world.publish(true).await;
    world.run(TABLES[0]).await;
    let began = tokio::time::Instant::now();
    world.pump().await;
    println!("snapshot of {ROWS} rows: {:?}", began.elapsed());
    assert_eq!(world.rows("SELECT count(*) FROM t").await, [ROWS.to_string()]);
    for updates in [1_u64, 100, 1_000, 1_000, 10_000] {
        world.position.commit_lsn.0 += 10;
        for _ in 0..updates {
            let id = world.below(ROWS);
            world.position.seq += 1;
            let data = record(&world, "u", id, world.position.seq);
            world.put(shard_of(id as i64), data).await;
        }
        world.publish(true).await;
        let began = tokio::time::Instant::now();
        world.pump().await;
        println!("{updates} updates: {:?}", began.elapsed());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default());
}
