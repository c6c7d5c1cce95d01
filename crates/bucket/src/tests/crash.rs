//! What is there after a stop between any two steps, and after many at once.

use super::*;
use crate::index::{PARTS, UPLOADS};
use async_trait::async_trait;
use hydrant_core::control::{Entry, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A control store whose commits stop at a point: before they take effect, or after.
struct Stopping {
    inner: MemoryControl,
    /// Commits still to let through.
    budget: AtomicUsize,
    takes_effect: bool,
}

#[async_trait]
impl ControlStore for Stopping {
    async fn get(&self, key: &str) -> Result<Option<Entry>, ControlError> {
        self.inner.get(key).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Entry)>, ControlError> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<u64, ControlError> {
        let left =
            self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() {
            return self.inner.commit(writes).await;
        }
        if self.takes_effect {
            self.inner.commit(writes).await?;
        }
        std::future::pending().await
    }
}

fn stopping(commits: usize, takes_effect: bool) -> (tempfile::TempDir, Arc<Stopping>, Harness) {
    let dir = tempfile::tempdir().unwrap();
    let control =
        Arc::new(Stopping { inner: MemoryControl::new(), budget: commits.into(), takes_effect });
    let clock = Arc::new(ManualClock::default());
    let bucket = open(dir.path(), Arc::clone(&control) as _, Arc::clone(&clock));
    let harness = Harness {
        dir: tempfile::tempdir().unwrap(),
        control: Arc::clone(&control) as _,
        clock,
        bucket,
    };
    (dir, control, harness)
}

/// Stops the commit that makes an object visible, then starts a new process.
async fn put_and_stop(takes_effect: bool) -> Harness {
    // Commits: the bucket, the claim of sequencers, the object.
    let (dir, control, mut harness) = stopping(2, takes_effect);
    assert_eq!(harness.put("/lake", "").await.status, 200);
    let put = harness.put("/lake/x", "hello");
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), put).await.is_err());
    harness.dir = dir;
    assert_eq!(harness.files().len(), 1, "the file stays while the outcome is open");
    control.budget.store(usize::MAX, Ordering::SeqCst);
    harness.restart();
    harness
}

#[tokio::test]
async fn before_the_commit_there_is_no_object_and_the_sweep_takes_the_file() {
    let h = put_and_stop(false).await;
    assert_eq!(h.get("/lake/x").await.status, 404);
    assert!(h.notifications().await.is_empty());
    assert_eq!(h.bucket.sweep().await.unwrap().files_removed, 1);
    h.files_settle_at(0).await;
}

#[tokio::test]
async fn after_the_commit_there_is_the_object_and_its_notification() {
    let h = put_and_stop(true).await;
    assert_eq!(h.get("/lake/x").await.text(), "hello");
    assert_eq!(h.notifications().await.len(), 1);
    let swept = h.bucket.sweep().await.unwrap();
    assert_eq!((swept.objects, swept.files_removed), (1, 0));
    assert_eq!(h.get("/lake/x").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_one_key_leave_one_object_and_one_file() {
    let h = Arc::new(Harness::with_bucket("lake").await);
    let writers = (0..40).map(|n| {
        let h = Arc::clone(&h);
        tokio::spawn(async move {
            let body = format!("{n}").repeat(1_000 * (1 + n % 3));
            assert_eq!(h.put("/lake/x", &body).await.status, 200);
            let seen = h.get("/lake/x").await;
            assert_eq!(seen.status, 200);
            assert_eq!(seen.text().len().to_string(), seen.header("content-length"));
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let object = h.get("/lake/x").await;
    let notes = h.notifications().await;
    assert_eq!(notes.len(), 40);
    let last = notes.last_key_value().unwrap().1;
    assert_eq!(
        format!("\"{}\"", last.etag),
        object.header("etag"),
        "the last note is the winner's"
    );
    h.files_settle_at(1).await;
    assert_eq!(h.bucket.sweep().await.unwrap().files_removed, 0);
}

#[tokio::test]
async fn only_one_of_many_creates_succeeds() {
    let h = Arc::new(Harness::with_bucket("lake").await);
    let writers = (0..20).map(|n: u32| {
        let h = Arc::clone(&h);
        let body = n.to_string();
        tokio::spawn(async move {
            h.call(Method::PUT, "/lake/x", &[("if-none-match", "*")], body.as_bytes()).await.status
        })
    });
    let mut statuses = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        statuses.push(writer.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 1);
    assert_eq!(statuses.iter().filter(|s| **s == 412).count(), 19);
    h.files_settle_at(1).await;
}

#[tokio::test]
async fn notifications_are_numbered_on_after_a_restart() {
    let mut h = Harness::with_bucket("lake").await;
    for n in 0..3 {
        h.put("/lake/x", &n.to_string()).await;
        h.restart();
    }
    let notes: Vec<_> = h.notifications().await.into_values().collect();
    assert_eq!(notes.len(), 3);
    let last = h.get("/lake/x").await;
    assert_eq!(format!("\"{}\"", notes[2].etag), last.header("etag"));
}

#[tokio::test]
async fn a_flipped_bit_on_the_disk_is_an_error_and_never_data() {
    let h = Harness::with_bucket("lake").await;
    h.put("/lake/small", "hello").await;
    let path = h.files().pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let got = h.get("/lake/small").await;
    assert_eq!((got.status, got.element("Code").as_str()), (500, "InternalError"));

    h.delete("/lake/small").await;
    h.files_settle_at(0).await;
    h.put("/lake/large", &"x".repeat(3 << 20)).await;
    let path = h.files().pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(2 << 20) + 5] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let got = h.get("/lake/large").await;
    assert_eq!(got.status, 200);
    assert!(got.body.is_err(), "the connection is cut before the damaged block");
    let range = h.call(Method::GET, "/lake/large", &[("range", "bytes=0-99")], b"").await;
    assert_eq!(range.text().len(), 100);
}

#[tokio::test]
async fn an_upload_whose_end_was_cut_off_is_cleared() {
    let h = Harness::with_bucket("lake").await;
    let upload = h.call(Method::POST, "/lake/x?uploads", &[], b"").await.element("UploadId");
    let part = h.put(&format!("/lake/x?partNumber=1&uploadId={upload}"), "hello").await;
    assert_eq!(part.status, 200);
    assert_eq!(h.bucket.sweep().await.unwrap(), Swept::default(), "an unfinished upload is alive");
    // The upload's row goes in the commit; its parts' rows later, unless the process stops there.
    let (key, entry) = h.control.scan(UPLOADS, None, 1).await.unwrap().pop().unwrap();
    h.control.commit(vec![Write::delete(key, entry.version)]).await.unwrap();
    let swept = h.bucket.sweep().await.unwrap();
    assert_eq!((swept.parts_removed, swept.files_removed), (1, 1));
    assert!(h.control.scan(PARTS, None, 1).await.unwrap().is_empty());
    h.files_settle_at(0).await;
}

#[test]
fn a_commit_nobody_waits_for_any_more_keeps_its_file() {
    for part in [false, true] {
        let (dir, control, harness) = stopping(usize::MAX, true);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let path = runtime.block_on(async {
            harness.put("/lake", "").await;
            harness.put("/lake/first", "claims the sequencers").await;
            match part {
                false => "/lake/a".to_owned(),
                true => {
                    let begun = harness.call(Method::POST, "/lake/a?uploads", &[], b"").await;
                    format!("/lake/a?partNumber=1&uploadId={}", begun.element("UploadId"))
                }
            }
        });
        control.budget.store(0, Ordering::SeqCst);
        runtime.block_on(async {
            tokio::select! {
                _ = harness.put(&path, "data") => unreachable!("the commit does not return"),
                () = tokio::time::sleep(Duration::from_millis(300)) => {}
            }
        });
        // As a server does that is told to stop: whatever runs is dropped where it waits.
        drop(runtime);
        control.budget.store(usize::MAX, Ordering::SeqCst);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let bucket = open(dir.path(), Arc::clone(&control) as _, Arc::clone(&harness.clock));
            let again = Harness { bucket, ..harness };
            let got = match part {
                false => again.get("/lake/a").await,
                true => {
                    let etag = "8d777f385d3dfec8815d20f7496026dc";
                    let list = format!(
                        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>\
                         <ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
                    );
                    let upload = path.split_once("uploadId=").unwrap().1;
                    let to = format!("/lake/a?uploadId={upload}");
                    let done = again.call(Method::POST, &to, &[], list.as_bytes()).await;
                    assert_eq!(done.status, 200, "{}", done.text());
                    again.get("/lake/a").await
                }
            };
            assert_eq!((got.status, got.text().as_str()), (200, "data"), "part: {part}");
        });
    }
}

/// What one client does to a few keys; returns the ETags of what it was told is stored.
async fn act(h: &Harness, random: &Random, client: u32) -> Vec<(String, String)> {
    let mut stored = Vec::new();
    for step in 0..40 {
        let [kind, key, from] = random.bytes::<3>();
        let (key, from) = (format!("k{}", key % 3), format!("k{}", from % 3));
        let path = format!("/lake/{key}");
        let body = format!("{client} {step}");
        let done = match kind % 8 {
            0..=2 => h.put(&path, &body).await,
            3 => {
                let source = [("x-amz-copy-source", format!("lake/{from}"))];
                let source = [(source[0].0, source[0].1.as_str())];
                h.call(Method::PUT, &path, &source, b"").await
            }
            4 => {
                let begun = h.call(Method::POST, &format!("{path}?uploads"), &[], b"").await;
                if begun.status != 200 {
                    continue;
                }
                let id = begun.element("UploadId");
                let part = h.put(&format!("{path}?partNumber=1&uploadId={id}"), &body).await;
                let list = format!(
                    "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag>\
                     </Part></CompleteMultipartUpload>",
                    part.header("etag").trim_matches('"')
                );
                let to = format!("{path}?uploadId={id}");
                h.call(Method::POST, &to, &[], list.as_bytes()).await
            }
            5 => h.delete(&path).await,
            6 => {
                h.delete("/lake").await;
                h.put("/lake", "").await
            }
            _ => {
                h.bucket.sweep().await.unwrap();
                h.get(&path).await
            }
        };
        assert!(done.status < 500, "{kind}: {}", done.text());
        if kind % 8 < 5 && done.status == 200 {
            let etag = match kind % 8 {
                3 | 4 => done.element("ETag").replace("&quot;", ""),
                _ => done.header("etag").to_owned(),
            };
            stored.push((key, etag.trim_matches('"').to_owned()));
        }
    }
    stored
}

/// Puts, copies, uploads in parts, deletes, ends of the bucket and sweeps, all at once: each success
/// is one notification, and what is left is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_success_is_one_notification_whatever_else_goes_on() {
    for seed in 1..=4_u64 {
        println!("seed {seed}");
        let h = Arc::new(Harness::with_bucket("lake").await);
        let clients = (0..8).map(|client| {
            let (h, random) = (Arc::clone(&h), Random::from_seed(seed * 100 + u64::from(client)));
            tokio::spawn(async move { act(&h, &random, client).await })
        });
        let mut stored = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            stored.extend(client.await.unwrap());
        }
        let notes = h.notifications().await.into_values();
        let mut noted: Vec<_> = notes.map(|note| (note.key, note.etag)).collect();
        stored.sort();
        noted.sort();
        assert!(stored.len() > 50, "seed {seed}: too little was stored to tell");
        assert_eq!(stored, noted, "seed {seed}");
        h.bucket.sweep().await.unwrap();
        let left = h.bucket.sweep().await.unwrap();
        h.files_settle_at(left.objects as usize).await;
        for key in ["k0", "k1", "k2"] {
            let got = h.get(&format!("/lake/{key}")).await;
            assert!([200, 404].contains(&got.status), "seed {seed}: {}", got.text());
        }
    }
}
