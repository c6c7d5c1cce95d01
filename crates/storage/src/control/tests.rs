//! The control store: conformance, reopening, refusals.

use std::os::unix::fs::PermissionsExt;

use hydrant_core::control::{ControlStore, Write};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let mut temps = Vec::new();
    let temps = Mutex::new(&mut temps);
    hydrant_testkit::control_conformance(async || {
        let temp = tempfile::tempdir().unwrap();
        let control = Control::open(&DataDir::open(temp.path()).unwrap()).unwrap();
        temps.lock().push(temp);
        control as Arc<dyn ControlStore>
    })
    .await;
}

#[tokio::test]
async fn survives_being_opened_again() {
    let temp = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..5u64 {
        let dir = DataDir::open(temp.path()).unwrap();
        let control = Control::open(&dir).unwrap();
        let seen = control.get("a").await.unwrap();
        assert_eq!(seen.as_ref().map_or(0, |e| e.version), last);
        let version = control.commit(vec![Write::put("a", seen.as_ref(), &round)]).await.unwrap();
        assert!(version > last, "versions go on growing");
        last = version;
        if round % 2 == 0 {
            control.close().await;
            assert!(control.commit(Vec::new()).await.is_err(), "closed");
        } else {
            let writer = control.writer.lock().take();
            drop(control);
            writer.unwrap().join().unwrap();
        }
    }
    // A row deleted before the restart keeps its version from being given out again.
    let control = Control::open(&DataDir::open(temp.path()).unwrap()).unwrap();
    control.commit(vec![Write::delete("a", last)]).await.unwrap();
    control.close().await;
    drop(control);
    let control = Control::open(&DataDir::open(temp.path()).unwrap()).unwrap();
    assert!(control.commit(vec![Write::insert("a", &0)]).await.unwrap() > last);
}

#[tokio::test]
async fn a_conflict_in_a_group_fails_alone() {
    let temp = tempfile::tempdir().unwrap();
    let control = Control::open(&DataDir::open(temp.path()).unwrap()).unwrap();
    let commits: Vec<_> = (0..500)
        .map(|n| {
            let control = control.clone();
            tokio::spawn(async move {
                control.commit(vec![Write::insert(format!("k{}", n % 250), &n)]).await
            })
        })
        .collect();
    let mut versions = Vec::new();
    for commit in commits {
        versions.extend(commit.await.unwrap().ok());
    }
    assert_eq!(versions.len(), 250, "one of each pair");
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 250, "no two commits share a version");
    control.close().await;
}

#[tokio::test]
async fn moves_its_log_into_the_database() {
    let temp = tempfile::tempdir().unwrap();
    let control = Control::open(&DataDir::open(temp.path()).unwrap()).unwrap();
    let value = "x".repeat(1 << 20);
    for n in 0..40 {
        control.commit(vec![Write::insert(format!("{n}"), &value)]).await.unwrap();
    }
    let wal = std::fs::metadata(temp.path().join("hydrant.db-wal")).unwrap().len();
    assert!(wal < 20 << 20, "the write-ahead log is used again: {wal} bytes");
    for name in ["hydrant.db", "hydrant.db-wal"] {
        let mode = std::fs::metadata(temp.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    control.close().await;
}

#[test]
fn refuses_what_is_not_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let path = temp.path().join("hydrant.db");
    std::fs::write(&path, "not a database, but long enough to be taken for one".repeat(99))
        .unwrap();
    let refused = Control::open(&dir).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    std::fs::remove_file(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("create table t (a); pragma user_version = 7").unwrap();
    let refused = Control::open(&dir).err().unwrap();
    assert!(matches!(refused, OpenError::UnknownFormat { .. }), "{refused}");
    other.execute_batch("pragma application_id = 1752786034; pragma user_version = 2").unwrap();
    let refused = Control::open(&dir).err().unwrap();
    assert!(refused.to_string().contains("has format 2"), "{refused}");
}
