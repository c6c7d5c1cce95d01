//! A process that is killed, again and again: what it acknowledged is there, once and in order.

use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};

use hydrant_core::control::Write;

use super::*;
use crate::Control;

const DIR: &str = "HYDRANT_TEST_CRASH_DIR";
const ROUND: &str = "HYDRANT_TEST_CRASH_ROUND";
const SHARDS: u64 = 3;

async fn open_both(path: &Path) -> (Arc<Control>, Arc<Log>) {
    let dir = DataDir::open(path).unwrap();
    let control = Control::open(&dir).unwrap();
    let clock = Arc::new(ManualClock::default());
    let options = options(256 << 10);
    let random = Random::from_seed(path.as_os_str().len() as u64);
    let log = Log::open(&dir, options, control.clone(), clock, &random).unwrap();
    (control, log)
}

/// The process that is killed: appends, and says each acknowledgement on its standard output.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a process of its own"]
async fn child() {
    let path = std::env::var(DIR).unwrap();
    let round = std::env::var(ROUND).unwrap();
    let (control, log) = open_both(Path::new(&path)).await;
    let producers: Vec<_> = (0..SHARDS * 2)
        .map(|producer| {
            let (log, control, round) = (log.clone(), control.clone(), round.clone());
            tokio::spawn(async move {
                let shard = ShardUid(producer % SHARDS);
                log.create(shard, DAY).await.unwrap();
                for n in 0.. {
                    let text = format!("{round}/{producer}/{n}");
                    let padded = format!("{text} {}", "x".repeat(n % 700));
                    log.append(shard, batch(&[&padded, &padded])).await.unwrap();
                    println!("acked {text}");
                    if n % 8 == 0 {
                        let key = format!("done/{round}/{producer}");
                        let seen = control.get(&key).await.unwrap();
                        control.commit(vec![Write::put(&key, seen.as_ref(), &n)]).await.unwrap();
                        println!("row {round}/{producer}/{n}");
                    }
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_it_acknowledged() {
    let temp = tempfile::tempdir().unwrap();
    let mut acked: Vec<String> = Vec::new();
    let mut rows: Vec<String> = Vec::new();
    let random = Random::from_seed(7);
    for round in 0..10 {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::tests::crash::child", "--ignored", "--nocapture"])
            .env(DIR, temp.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stop_after = 20 + random.next_u64() % 400;
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            if let Some((_, text)) = line.split_once("acked ") {
                acked.push(text.to_owned());
                seen += 1;
            } else if let Some((_, row)) = line.split_once("row ") {
                rows.push(row.to_owned());
            }
            if seen == stop_after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= stop_after, "round {round}: the child did not get that far");
        check(temp.path(), &acked, &rows, round).await;
    }
}

async fn check(path: &Path, acked: &[String], rows: &[String], round: u64) {
    let (control, log) = open_both(path).await;
    let mut found = std::collections::HashMap::new();
    for shard in (0..SHARDS).map(ShardUid) {
        let mut last: std::collections::HashMap<String, (u64, u64)> = Default::default();
        let records = data(&log, shard).await.unwrap();
        assert!(records.len().is_multiple_of(2), "round {round}: a batch is whole or absent");
        for pair in records.chunks(2) {
            assert_eq!(pair[0], pair[1], "round {round}: a batch is whole or absent");
            let text = pair[0].split(' ').next().unwrap().to_owned();
            let numbers: Vec<u64> = text.split('/').map(|n| n.parse().unwrap()).collect();
            let place = (numbers[0], numbers[2]);
            let before = last.insert(numbers[1].to_string(), place);
            assert!(before.is_none_or(|b| b < place), "round {round}: {text} is out of order");
            assert!(found.insert(text, ()).is_none(), "round {round}: a record is there twice");
        }
    }
    for text in acked {
        assert!(found.contains_key(text), "round {round}: {text} was acknowledged and is lost");
    }
    for row in rows {
        let (key, n) = row.rsplit_once('/').unwrap();
        let key = format!("done/{key}");
        let entry = control.get(&key).await.unwrap();
        let found: u64 =
            entry.unwrap_or_else(|| panic!("round {round}: no {key}")).json(&key).unwrap();
        assert!(found >= n.parse().unwrap(), "round {round}: {key} went back to {found}");
    }
    log.close().await;
    control.close().await;
}
