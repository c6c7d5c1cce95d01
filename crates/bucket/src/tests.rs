//! Tests of the whole service: requests in, replies, rows and files out.

mod crash;
mod listing;
mod objects;
mod real_client;

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::{HeaderMap, Method};
use hydrant_core::names::Scope;
use hydrant_core::notify::{OUTBOX_PREFIX, ObjectCreated};
use hydrant_testkit::{ManualClock, MemoryControl};

use super::*;

struct Harness {
    dir: tempfile::TempDir,
    control: Arc<dyn ControlStore>,
    clock: Arc<ManualClock>,
    bucket: Arc<Bucket>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Result<Bytes, String>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(self.body.as_ref().unwrap()).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// What stands in the first element of this name.
    fn element(&self, name: &str) -> String {
        let text = self.text();
        let open = format!("<{name}>");
        let from = text.find(&open).map(|at| at + open.len());
        let from = from.unwrap_or_else(|| panic!("no {name} in {text}"));
        text[from..from + text[from..].find('<').unwrap()].to_owned()
    }
}

fn principal() -> Principal {
    principal_in("us-east-1")
}

fn principal_in(region: &str) -> Principal {
    let account = "000000000000".parse().unwrap();
    Principal::for_tests(Scope { account, region: region.parse().unwrap() })
}

fn open(
    dir: &std::path::Path,
    control: Arc<dyn ControlStore>,
    clock: Arc<ManualClock>,
) -> Arc<Bucket> {
    static SEED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let seed = SEED.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let options = BucketOptions::new(dir, "000000000000".parse().unwrap());
    Bucket::open(options, control, clock, Arc::new(Random::from_seed(seed)), Doorbell::new())
        .unwrap()
}

impl Harness {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let control: Arc<dyn ControlStore> = Arc::new(MemoryControl::new());
        let clock = Arc::new(ManualClock::default());
        let bucket = open(dir.path(), Arc::clone(&control), Arc::clone(&clock));
        Self { dir, control, clock, bucket }
    }

    async fn with_bucket(name: &str) -> Self {
        let harness = Self::new();
        assert_eq!(harness.put(&format!("/{name}"), "").await.status, 200);
        harness
    }

    /// A new process on the same directory and store.
    fn restart(&mut self) {
        let (control, clock) = (Arc::clone(&self.control), Arc::clone(&self.clock));
        self.bucket = open(self.dir.path(), control, clock);
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.send_as(&principal(), request).await
    }

    async fn send_as(&self, principal: &Principal, request: Request<Full<Bytes>>) -> Answer {
        let reply = self.bucket.handle(principal, request).await;
        let (parts, body) = reply.into_parts();
        let body = body.collect().await.map(|b| b.to_bytes()).map_err(|e| e.to_string());
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:1");
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            request = request.header("content-length", body.len());
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await
    }

    async fn put(&self, path: &str, body: &str) -> Answer {
        self.call(Method::PUT, path, &[], body.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], b"").await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], b"").await
    }

    /// Data files on the disk.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in std::fs::read_dir(self.dir.path().join("data")).unwrap() {
            for file in std::fs::read_dir(dir.unwrap().path()).unwrap() {
                found.push(file.unwrap().path());
            }
        }
        found
    }

    /// Waits until removals in the background are through.
    async fn files_settle_at(&self, count: usize) {
        for _ in 0..20_000 {
            if self.files().len() == count {
                return;
            }
            tokio::task::spawn_blocking(|| {}).await.unwrap();
        }
        assert_eq!(self.files().len(), count);
    }

    async fn notifications(&self) -> BTreeMap<String, ObjectCreated> {
        let rows = hydrant_core::control::scan_all(self.control.as_ref(), OUTBOX_PREFIX).await;
        rows.unwrap().into_iter().map(|(k, e)| (k.clone(), e.json(&k).unwrap())).collect()
    }
}
