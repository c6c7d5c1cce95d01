//! Every promise of [`ControlStore`], checked.

use std::sync::Arc;

use hydrant_core::control::{ControlError, ControlStore, Expected, Write, scan_all};
use hydrant_core::limits::{
    COMMIT_WRITES_MAX, CONTROL_KEY_BYTES_MAX, CONTROL_VALUE_BYTES_MAX, SCAN_ROWS_MAX,
};

type Store = Arc<dyn ControlStore>;

/// Runs an implementation of the control port through every promise of its documentation; panics at
/// the first one broken. `make` opens an empty store; it is called once a check.
pub async fn control_conformance(make: impl AsyncFn() -> Store) {
    writes_name_what_they_saw(&*make().await).await;
    a_commit_is_all_or_nothing(&*make().await).await;
    a_row_that_comes_back_has_a_new_version(&*make().await).await;
    scans_in_order_and_within_bounds(&*make().await).await;
    scans_at_most_so_many_rows(&*make().await).await;
    refuses_what_is_too_large(&*make().await).await;
    takes_any_text(&*make().await).await;
    concurrent_increments_all_count(make().await).await;
    scans_see_whole_commits(make().await).await;
}

fn conflict(key: &str) -> Option<ControlError> {
    Some(ControlError::Conflict { key: key.to_owned() })
}

async fn put(store: &dyn ControlStore, key: &str, value: &str) -> u64 {
    let seen = store.get(key).await.unwrap();
    store.commit(vec![Write::put(key, seen.as_ref(), &value)]).await.unwrap()
}

async fn writes_name_what_they_saw(store: &dyn ControlStore) {
    assert_eq!(store.get("a").await.unwrap(), None);
    let first = store.commit(vec![Write::insert("a", &1)]).await.unwrap();
    let entry = store.get("a").await.unwrap().unwrap();
    assert_eq!((entry.version, &*entry.value), (first, "1"), "a commit's version is its rows'");
    assert_eq!(store.commit(vec![Write::insert("a", &2)]).await.err(), conflict("a"));
    let second = store.commit(vec![Write::update("a", first, &3)]).await.unwrap();
    assert!(second > first, "versions grow");
    assert_eq!(store.commit(vec![Write::update("a", first, &4)]).await.err(), conflict("a"));
    assert_eq!(store.commit(vec![Write::delete("a", first)]).await.err(), conflict("a"));
    assert_eq!(store.commit(vec![Write::check_absent("a")]).await.err(), conflict("a"));
    assert_eq!(&*store.get("a").await.unwrap().unwrap().value, "3", "a conflict changes nothing");
    store.commit(vec![Write::delete("a", second)]).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    assert_eq!(store.commit(vec![Write::update("a", second, &5)]).await.err(), conflict("a"));
    assert_eq!(store.commit(vec![Write::delete("a", second)]).await.err(), conflict("a"));
    store.commit(vec![Write::check_absent("a")]).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None, "a check writes nothing");
    store.commit(Vec::new()).await.unwrap();
}

async fn a_commit_is_all_or_nothing(store: &dyn ControlStore) {
    let old = put(store, "old", "x").await;
    let kept = put(store, "kept", "x").await;
    put(store, "blocked", "x").await;
    let bad = vec![
        Write::insert("new", &1),
        Write::update("old", old, &2),
        Write::delete("kept", kept),
        Write::insert("blocked", &0),
    ];
    assert_eq!(store.commit(bad).await.err(), conflict("blocked"));
    assert_eq!(store.get("new").await.unwrap(), None);
    assert_eq!(store.get("old").await.unwrap().unwrap().version, old);
    assert_eq!(store.get("kept").await.unwrap().unwrap().version, kept);

    let all = vec![
        Write::insert("new", &1),
        Write::update("old", old, &2),
        Write::delete("kept", kept),
        Write::check_absent("absent"),
    ];
    let version = store.commit(all).await.unwrap();
    assert_eq!(store.get("new").await.unwrap().unwrap().version, version);
    assert_eq!(store.get("old").await.unwrap().unwrap().version, version);
    assert_eq!(store.get("kept").await.unwrap(), None);
    let first_of_two = vec![Write::insert("new", &1), Write::insert("old", &1)];
    assert_eq!(store.commit(first_of_two).await.err(), conflict("new"), "the first is named");
}

async fn a_row_that_comes_back_has_a_new_version(store: &dyn ControlStore) {
    let before = put(store, "a", "same").await;
    store.commit(vec![Write::delete("a", before)]).await.unwrap();
    let after = put(store, "a", "same").await;
    assert!(after > before, "a deleted row's version is never given out again");
    assert_eq!(store.commit(vec![Write::update("a", before, &0)]).await.err(), conflict("a"));
}

async fn scans_in_order_and_within_bounds(store: &dyn ControlStore) {
    let keys = ["a", "a/", "a/1", "a/10", "a/2", "a/é", "a/\u{10ffff}", "a/\u{10ffff}x", "a0", "b"];
    let mut version = 0;
    for key in keys.iter().rev() {
        version = put(store, key, key).await;
    }
    let scan = async |prefix, after, limit| {
        let rows = store.scan(prefix, after, limit).await.unwrap();
        rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(scan("", None, 99).await, keys, "by bytes");
    assert_eq!(scan("a/", None, 99).await, keys[1..8], "the prefix itself is in");
    assert_eq!(scan("a/", Some("a/"), 99).await, keys[2..8], "after is not");
    assert_eq!(scan("a/", Some("a/1"), 2).await, ["a/10", "a/2"]);
    assert_eq!(scan("a/", Some("a/1\u{0}"), 1).await, ["a/10"], "after need not exist");
    assert_eq!(scan("a/\u{10ffff}", None, 99).await, keys[6..8], "the highest character");
    assert_eq!(scan("a/", Some(""), 99).await, keys[1..8], "after below the prefix");
    assert_eq!(scan("a/", Some("a0"), 99).await, [""; 0], "after above the prefix");
    assert_eq!(scan("a/", Some("zzz"), 99).await, [""; 0]);
    assert_eq!(scan("c", None, 99).await, [""; 0]);
    assert_eq!(scan("a", None, 0).await, [""; 0]);
    assert_eq!(scan("a%", None, 9).await, [""; 0], "a prefix is text, not a pattern");
    assert_eq!(scan("A", None, 9).await, [""; 0], "case counts");
    let rows = store.scan("a", None, 1).await.unwrap();
    assert_eq!(rows[0].1, store.get("a").await.unwrap().unwrap());
    assert_eq!(rows[0].1.version, version);
}

async fn scans_at_most_so_many_rows(store: &dyn ControlStore) {
    let keys: Vec<_> = (0..SCAN_ROWS_MAX + 5).map(|n| format!("n/{n:06}")).collect();
    for keys in keys.chunks(COMMIT_WRITES_MAX) {
        store.commit(keys.iter().map(|k| Write::insert(k, &0)).collect()).await.unwrap();
    }
    let page = store.scan("n/", None, usize::MAX).await.unwrap();
    assert_eq!(page.len(), SCAN_ROWS_MAX);
    let all: Vec<_> = scan_all(store, "n/").await.unwrap().into_iter().map(|(k, _)| k).collect();
    assert_eq!(all, keys);
}

async fn refuses_what_is_too_large(store: &dyn ControlStore) {
    let raw =
        |key: String, value: String| Write { key, expected: Expected::Absent, value: Some(value) };
    let largest = raw("k".repeat(CONTROL_KEY_BYTES_MAX), "v".repeat(CONTROL_VALUE_BYTES_MAX));
    store.commit(vec![largest.clone()]).await.unwrap();
    let read = store.get(&largest.key).await.unwrap().unwrap();
    assert_eq!(read.value.len(), CONTROL_VALUE_BYTES_MAX);
    let good = Write::insert("good", &1);
    let many: Vec<_> = (0..=COMMIT_WRITES_MAX).map(|n| Write::insert(n.to_string(), &0)).collect();
    for bad in [
        vec![good.clone(), raw("k".repeat(CONTROL_KEY_BYTES_MAX + 1), String::new())],
        vec![good.clone(), raw("v".into(), "v".repeat(CONTROL_VALUE_BYTES_MAX + 1))],
        many,
    ] {
        let refused = store.commit(bad).await;
        assert!(matches!(refused, Err(ControlError::TooLarge(_))), "{refused:?}");
    }
    assert_eq!(store.get("good").await.unwrap(), None);
    assert_eq!(store.get("0").await.unwrap(), None);
}

async fn takes_any_text(store: &dyn ControlStore) {
    for text in ["", "'; drop table rows; --", "a\0b", "é\u{10ffff}", "\"\\", "%_"] {
        let key = format!("k{text}");
        store.commit(vec![Write::insert(&key, &text)]).await.unwrap();
        let entry = store.get(&key).await.unwrap().unwrap();
        assert_eq!(entry.json::<String>(&key).unwrap(), text);
    }
}

async fn concurrent_increments_all_count(store: Store) {
    let start = store.commit(vec![Write::insert("counter", &0)]).await.unwrap();
    let counters: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    loop {
                        let entry = store.get("counter").await.unwrap().unwrap();
                        let count: u64 = entry.json("counter").unwrap();
                        let write = Write::update("counter", entry.version, &(count + 1));
                        match store.commit(vec![write]).await {
                            Ok(version) => {
                                let read = store.get("counter").await.unwrap().unwrap();
                                assert!(
                                    read.version >= version,
                                    "a commit is seen once it returned"
                                );
                                break;
                            }
                            Err(ControlError::Conflict { .. }) => {}
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
            })
        })
        .collect();
    for counter in counters {
        counter.await.unwrap();
    }
    let entry = store.get("counter").await.unwrap().unwrap();
    assert_eq!(entry.json::<u64>("counter").unwrap(), 80, "no increment is lost");
    assert!(entry.version >= start + 80, "no two commits share a version");
}

async fn scans_see_whole_commits(store: Store) {
    let keys: Vec<_> = (0..20).map(|n| format!("pair/{n:02}")).collect();
    store.commit(keys.iter().map(|k| Write::insert(k, &0)).collect()).await.unwrap();
    let writer = tokio::spawn({
        let (store, keys) = (store.clone(), keys.clone());
        async move {
            for n in 1..50 {
                let version = store.get(&keys[0]).await.unwrap().unwrap().version;
                let writes = keys.iter().map(|k| Write::update(k, version, &n)).collect();
                store.commit(writes).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let rows = store.scan("pair/", None, 99).await.unwrap();
        assert_eq!(rows.len(), keys.len());
        assert!(rows.iter().all(|(_, e)| *e == rows[0].1), "one scan is one view");
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}
