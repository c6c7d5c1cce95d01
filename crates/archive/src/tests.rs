//! Archives of real data directories in a store in memory, which fails when told to.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use hydrant_core::catalog::StreamCatalog;
use hydrant_core::control::{ControlStore, Write, scan_all};
use hydrant_core::log::{LogEngine, LogError, ReadLimit, ShardUid};
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::RecordIndex;
use hydrant_core::{Clock, Random};
use hydrant_storage::{ArchiveUse, Control, DataDir, Log, LogOptions};
use hydrant_testkit::ManualClock;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use std::time::Duration;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const SEGMENT_BYTES: u64 = 64 << 10;
const A: ShardUid = ShardUid(1);
const ALL: ReadLimit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };

/// A store in memory that counts puts, and fails all after so many.
#[derive(Debug)]
pub(crate) struct Flaky {
    inner: InMemory,
    puts: AtomicUsize,
    fails_after: AtomicUsize,
    body_bytes_max: AtomicUsize,
}

impl std::fmt::Display for Flaky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that fails")
    }
}

impl Flaky {
    pub(crate) fn new() -> Arc<Self> {
        let limit = || AtomicUsize::new(usize::MAX);
        let (fails_after, body_bytes_max) = (limit(), limit());
        let (inner, puts) = (InMemory::new(), AtomicUsize::new(0));
        Arc::new(Self { inner, puts, fails_after, body_bytes_max })
    }

    /// Every body that is got is cut off after so many bytes.
    pub(crate) fn cut_bodies_after(&self, bytes: usize) {
        self.body_bytes_max.store(bytes, Ordering::SeqCst);
    }

    fn puts(&self) -> usize {
        self.puts.swap(0, Ordering::SeqCst)
    }

    fn fail_after(&self, puts: usize) {
        self.puts();
        self.fails_after.store(puts, Ordering::SeqCst);
    }

    fn count(&self) -> object_store::Result<()> {
        let nth = self.puts.fetch_add(1, Ordering::SeqCst);
        if nth >= self.fails_after.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic { store: "test", source: "told to".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.count()?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.count()?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, o: GetOptions) -> object_store::Result<GetResult> {
        let mut found = self.inner.get_opts(location, o).await?;
        let max = self.body_bytes_max.load(Ordering::SeqCst);
        if (found.range.end - found.range.start) as usize > max {
            let (meta, range, attributes) =
                (found.meta.clone(), found.range.clone(), found.attributes.clone());
            let body = found.bytes().await?.slice(..max);
            let cut = object_store::Error::Generic { store: "test", source: "cut off".into() };
            let payload = GetResultPayload::Stream(stream::iter([Ok(body), Err(cut)]).boxed());
            found = GetResult { payload, meta, range, attributes };
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, p: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(p).await
    }

    async fn copy_opts(&self, f: &Path, t: &Path, o: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(f, t, o).await
    }
}

/// A server's data, on a real disk.
struct Node {
    dir: PathBuf,
    control: Arc<Control>,
    log: Arc<Log>,
    clock: Arc<ManualClock>,
    random: Arc<Random>,
}

impl Node {
    fn open(dir: PathBuf, clock: Arc<ManualClock>, seed: u64) -> Self {
        let data = DataDir::open(&dir).unwrap();
        let control = Control::open(&data).unwrap();
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            free_bytes_min: 0,
            merged_min: 2,
            scattered_bytes: 0,
            ..LogOptions::default()
        };
        let random = Arc::new(Random::from_seed(seed));
        let ports: (Arc<dyn ControlStore>, Arc<dyn Clock>) = (control.clone(), clock.clone());
        let log = Log::open(&data, options, ports.0, ports.1, &random).unwrap();
        Self { dir, control, log, clock, random }
    }

    fn archive(&self, store: &Arc<Flaky>) -> Archive {
        let store: Arc<dyn ObjectStore> = store.clone();
        let scratch = self.dir.join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        let options = Options {
            data_dir: self.dir.clone(),
            scratch,
            named: named(),
            secrets: false,
            keep: Keep { points: 3, age: Some(DAY / 2) },
            archived_in: None,
        };
        Archive::new(Target::of(store), options, self.clock.clone(), self.random.clone())
    }

    /// Appends a batch of `bytes`; the index of its one record.
    async fn put(&self, shard: ShardUid, fill: u8, bytes: usize) -> RecordIndex {
        self.clock.advance(Duration::from_millis(1));
        let done = self.log.append(shard, batch(fill, bytes)).await.unwrap();
        done.get().first
    }

    /// A file of the bucket, and the row that names it.
    async fn object(&self, name: &str, text: &str) {
        let path = self.dir.join("bucket").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.control.commit(vec![Write::insert(format!("object/{name}"), &0)]).await.unwrap();
    }

    async fn read(&self, shard: ShardUid) -> Vec<(RecordIndex, u8, usize)> {
        let (mut from, mut found) = (RecordIndex::MIN, Vec::new());
        loop {
            let page = self.log.read(shard, from, ALL).await.unwrap();
            if page.is_empty() {
                return found;
            }
            let records = page.frames.iter().flat_map(|frame| frame.records());
            found.extend(records.map(|r| (r.index, r.data[0], r.data.len())));
            from = page.next;
        }
    }

    async fn close(self) {
        self.log.close().await;
        self.control.close().await;
    }
}

fn batch(fill: u8, bytes: usize) -> RecordBatch {
    let mut batch = RecordBatch::new();
    batch.push(b"k", &vec![fill; bytes]);
    batch
}

fn named() -> NamedFiles {
    Arc::new(|rows| {
        async move {
            let rows = scan_all(rows.as_ref(), "object/").await?;
            Ok(rows.iter().map(|(key, _)| format!("bucket/{}", &key["object/".len()..])).collect())
        }
        .boxed()
    })
}

/// What a test starts from.
struct World {
    temp: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Arc<Flaky>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        clock.advance(DAY * 10_000);
        Self { temp: tempfile::tempdir().unwrap(), clock, store: Flaky::new() }
    }

    fn node(&self, name: &str, seed: u64) -> Node {
        Node::open(self.temp.path().join(name), self.clock.clone(), seed)
    }

    async fn restore(&self, name: &str) -> Result<Restored, ArchiveError> {
        let target = Target::of(self.store.clone());
        let dir = self.temp.path().join(name);
        restore(&target, &dir, None, self.clock.as_ref(), &Random::from_seed(99)).await
    }

    async fn objects(&self, prefix: &str) -> usize {
        use futures::TryStreamExt;
        let found: Vec<_> = self.store.list(Some(&prefix.into())).try_collect().await.unwrap();
        found.len()
    }
}

fn number(took: Took) -> u64 {
    match took {
        Took::Point(taken) => taken.number,
        Took::Unchanged(_) => panic!("nothing was archived"),
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_point_is_restored() {
    let world = World::new();
    let node = world.node("a", 1);
    node.log.create(A, DAY).await.unwrap();
    let archive = node.archive(&world.store);
    node.object("x", "first").await;
    let mut put = Vec::new();
    for n in 0..60u8 {
        put.push((node.put(A, n, 5_000).await, n, 5_000));
        if n % 7 == 0 {
            assert_eq!(number(archive.point().await.unwrap()), u64::from(n / 7) + 1);
        }
    }
    node.object("deep/y", "second").await;
    archive.point().await.unwrap();
    world.store.puts();
    assert!(matches!(archive.point().await.unwrap(), Took::Unchanged(_)));
    assert_eq!(world.store.puts(), 0, "nothing is put where nothing was written");

    let lost = node.put(A, 99, 10).await;
    let restored = world.restore("b").await.unwrap();
    assert_eq!(
        (restored.secrets, restored.at),
        (false, world.clock.now().minus(Duration::from_millis(1)))
    );
    let again = world.node("b", 2);
    assert_eq!(again.read(A).await, put);
    let text = std::fs::read_to_string(again.dir.join("bucket/deep/y")).unwrap();
    assert_eq!(text, "second");
    let catalog = StreamCatalog::open(again.control.clone()).await.unwrap();
    let shards = catalog.allocate_shards(1).await.unwrap();
    assert!(shards.iter().all(|shard| *shard > A), "records of the log have it");
    let next = again.put(A, 1, 10).await;
    assert!(next > lost, "{next:?} might have been given before, like {lost:?}");
    let refused = world.restore("b").await.unwrap_err().to_string();
    assert!(refused.contains("is not empty"), "{refused}");

    // It goes on where it was restored from; the one that was believed lost does not.
    assert!(number(again.archive(&world.store).point().await.unwrap()) > restored.number);
    node.put(A, 3, 10).await;
    let taken = archive.point().await.unwrap_err();
    assert!(matches!(taken, ArchiveError::Taken { .. }), "{taken}");
    let third = world.restore("c").await.unwrap();
    assert_eq!(third.number, restored.number + 1);
    node.close().await;
    again.close().await;
}

#[tokio::test]
async fn each_byte_of_a_segment_is_put_a_few_times_at_most() {
    let world = World::new();
    let node = world.node("a", 1);
    node.log.create(A, DAY).await.unwrap();
    let archive = node.archive(&world.store);
    for n in 0..300u32 {
        node.put(A, n as u8, 100).await;
        archive.point().await.unwrap();
    }
    let target = Target::of(world.store.clone());
    let newest = point::read(&target, 300).await.unwrap();
    let most = newest.files.iter().map(|f| f.pieces.len()).max().unwrap();
    assert!(most <= 12, "{most} pieces");
    world.restore("b").await.unwrap();
    let again = world.node("b", 2);
    assert_eq!(again.read(A).await.len(), 300);
    node.close().await;
    again.close().await;
}

#[tokio::test]
async fn a_point_that_was_cut_short_anywhere_is_no_point() {
    let world = World::new();
    let node = world.node("a", 1);
    node.log.create(A, DAY).await.unwrap();
    let mut kept = Vec::new();
    for after in 0..40 {
        kept.push(node.put(A, after, 20_000).await);
        node.object(&format!("o{after}"), "text").await;
        let (archive, before) = (node.archive(&world.store), world.objects("points").await);
        world.store.fail_after(usize::from(after % 6));
        let failed = archive.point().await.is_err();
        world.store.fail_after(usize::MAX);
        if failed {
            assert_eq!(world.objects("points").await, before);
        }
        if after % 6 == 5 {
            // A start of its own, which clears away what the others left.
            node.archive(&world.store).point().await.unwrap();
            world.restore(&format!("b{after}")).await.unwrap();
            let again = world.node(&format!("b{after}"), 7 + u64::from(after));
            let found: Vec<_> = again.read(A).await.iter().map(|(index, ..)| *index).collect();
            assert_eq!(found, kept);
            again.close().await;
        }
    }
    node.close().await;
}

#[tokio::test]
async fn what_expired_goes_with_the_points_that_name_it() {
    let world = World::new();
    let node = world.node("a", 1);
    node.log.create(A, DAY).await.unwrap();
    let archive = node.archive(&world.store);
    for n in 0..40 {
        node.put(A, n, 10_000).await;
    }
    archive.point().await.unwrap();
    let full = world.objects("data").await;
    world.clock.advance(DAY * 2);
    node.put(A, 1, 60_000).await;
    node.put(A, 2, 60_000).await;
    assert!(node.log.reclaim().await.unwrap() > 3);
    archive.point().await.unwrap();
    assert!(world.objects("data").await < full, "the old point was too old");
    assert_eq!(world.objects("points").await, 1);

    // An idle server lets go as well.
    node.put(A, 3, 10).await;
    archive.point().await.unwrap();
    assert_eq!(world.objects("points").await, 2);
    world.clock.advance(DAY);
    assert!(matches!(archive.point().await.unwrap(), Took::Unchanged(_)));
    assert_eq!(world.objects("points").await, 1);
    assert!(matches!(archive.point().await.unwrap(), Took::Unchanged(_)));

    // What no point ever named goes with the first one after a start.
    world.store.put(&format!("data/ab/{}", "0".repeat(62)).into(), "x".into()).await.unwrap();
    let before = world.objects("data").await;
    node.put(A, 4, 10).await;
    node.archive(&world.store).point().await.unwrap();
    assert!(world.objects("data").await <= before + 2);
    let stray = Path::from(format!("data/ab/{}", "0".repeat(62)));
    world.store.head(&stray).await.unwrap_err();
    world.restore("b").await.unwrap();
    node.close().await;
}

#[tokio::test]
async fn damage_in_the_archive_is_no_data() {
    let world = World::new();
    let node = world.node("a", 1);
    node.log.create(A, DAY).await.unwrap();
    node.object("x", "as it was put").await;
    node.put(A, 1, 100).await;
    node.archive(&world.store).point().await.unwrap();
    let target = Target::of(world.store.clone());
    let manifest = point::read(&target, 1).await.unwrap();
    let file = manifest.files.iter().find(|f| f.path == "bucket/x").unwrap();
    let object = file.pieces[0].sum.object();
    world.store.put(&object, "as it was not".into()).await.unwrap();
    let refused = world.restore("b").await.unwrap_err().to_string();
    assert!(refused.contains("bucket/x"), "{refused}");
    let dir = world.temp.path().join("b");
    assert!(dir.join(RESTORING).exists() && !dir.join("bucket/x").exists());

    // Repeated when it is mended, it goes on.
    world.store.put(&object, "as it was put".into()).await.unwrap();
    world.restore("b").await.unwrap();
    assert!(!dir.join(RESTORING).exists());
    let again = world.node("b", 2);
    assert_eq!(again.read(A).await.len(), 1);
    again.close().await;
    node.close().await;
}

#[tokio::test]
async fn a_restore_that_ended_before_its_last_step_is_repeated() {
    let world = World::new();
    let node = world.node("a", 1);
    node.log.create(A, DAY).await.unwrap();
    for n in 0..20 {
        node.put(A, n, 9_000).await;
    }
    node.archive(&world.store).point().await.unwrap();
    world.restore("b").await.unwrap();
    let dir = world.temp.path().join("b");
    // As a crash leaves it that comes before the marker is gone.
    let point = identity::Identity::of(&dir, &Random::from_seed(0)).unwrap().restored;
    std::fs::write(dir.join(RESTORING), serde_json::to_vec(&point).unwrap()).unwrap();
    world.clock.advance(DAY / 24);
    world.restore("b").await.unwrap();
    let again = world.node("b", 2);
    assert_eq!(again.read(A).await.len(), 20);
    again.put(A, 1, 1).await;
    again.close().await;
    let again = world.node("b", 2);
    assert_eq!(again.read(A).await.len(), 21);
    again.close().await;
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_under_load_has_all_that_was_acknowledged_before() {
    let world = World::new();
    let node = Arc::new(world.node("a", 1));
    node.log.create(A, DAY).await.unwrap();
    let acknowledged = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let stop = tokio_util::sync::CancellationToken::new();
    let load = tokio::spawn({
        let (node, acknowledged, stop) = (node.clone(), acknowledged.clone(), stop.clone());
        async move {
            for n in 0.. {
                if stop.is_cancelled() {
                    return;
                }
                let index = node.put(A, n as u8, 3_000).await;
                node.object(&format!("o{n}"), "text").await;
                acknowledged.lock().push(index);
            }
        }
    });
    let archive = node.archive(&world.store);
    for turn in 0..6 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let before = acknowledged.lock().clone();
        archive.point().await.unwrap();
        let name = format!("b{turn}");
        world.restore(&name).await.unwrap();
        let again = world.node(&name, 50 + turn);
        let found: Vec<_> = again.read(A).await.iter().map(|(index, ..)| *index).collect();
        assert!(found.starts_with(&before), "turn {turn}");
        let rows = scan_all(again.control.as_ref(), "object/").await.unwrap();
        assert!(rows.len() >= before.len());
        for (key, _) in rows {
            let path = again.dir.join("bucket").join(&key["object/".len()..]);
            assert!(path.exists(), "{key}");
        }
        again.close().await;
    }
    stop.cancel();
    load.await.unwrap();
    Arc::into_inner(node).unwrap().close().await;
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test]
async fn frames_that_a_power_cut_took_back_leave_the_archive() {
    let world = World::new();
    let node = world.node("a", 1);
    node.log.create(A, DAY).await.unwrap();
    let mut kept = vec![node.put(A, 1, 1_000).await];
    node.archive(&world.store).point().await.unwrap();
    kept.push(node.put(A, 2, 1_000).await);
    // What a power cut leaves that comes before the third was synced, and after it was copied.
    copy_dir(&node.dir, &world.temp.path().join("cut"));
    node.put(A, 3, 1_000).await;
    node.archive(&world.store).point().await.unwrap();
    node.close().await;
    let cut = world.node("cut", 2);
    kept.push(cut.put(A, 4, 1_000).await);
    cut.archive(&world.store).point().await.unwrap();
    world.restore("b").await.unwrap();
    let again = world.node("b", 3);
    let found: Vec<_> = again.read(A).await.iter().map(|(index, ..)| *index).collect();
    assert_eq!(found, kept);
    cut.close().await;
    again.close().await;
}

impl Node {
    /// Has segments leave the disk an hour after their newest record.
    fn keeps_in(&self, archive: &Arc<Archive>, store: &Arc<Flaky>) {
        let segments = Segments::of(archive.clone(), Target::of(store.clone()));
        self.log.archive_to(ArchiveUse {
            archive: Arc::new(segments),
            local_retention: Some(DAY / 24),
            cache_bytes: 2 * SEGMENT_BYTES,
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_are_only_in_the_archive_stay_there_and_are_read() {
    let world = World::new();
    let node = world.node("a", 1);
    node.log.create(A, DAY * 7).await.unwrap();
    let archive = Arc::new(node.archive(&world.store));
    node.keeps_in(&archive, &world.store);
    let mut put = Vec::new();
    for n in 0..60u8 {
        put.push((node.put(A, n, 5_000).await, n, 5_000));
    }
    world.clock.advance(DAY / 12);
    node.log.reclaim().await.unwrap();
    assert_eq!(node.log.evict().await.unwrap(), 0, "no point has them");
    archive.point().await.unwrap();
    let evicted = node.log.evict().await.unwrap();
    assert!(evicted >= 3, "{evicted}");
    assert!(matches!(archive.point().await.unwrap(), Took::Unchanged(_)));
    assert_eq!(node.read(A).await, put);

    // Points come and go, and a start: what they name stays.
    for n in 60..70u8 {
        put.push((node.put(A, n, 5_000).await, n, 5_000));
        world.clock.advance(DAY / 12);
        archive.point().await.unwrap();
    }
    node.close().await;
    let node = world.node("a", 2);
    let archive = Arc::new(node.archive(&world.store));
    assert!(node.log.archived_segments() >= evicted);
    put.push((node.put(A, 70, 10).await, 70, 10));
    archive.point().await.unwrap();
    assert!(world.objects("points").await <= 3);
    node.keeps_in(&archive, &world.store);
    assert_eq!(node.read(A).await, put);
    world.restore("b").await.unwrap();
    let again = world.node("b", 3);
    assert_eq!((again.log.archived_segments(), again.read(A).await), (0, put.clone()));
    again.close().await;

    // A copy elsewhere has them as well, if it is told where they are.
    let elsewhere = Flaky::new();
    let mut backup = node.archive(&elsewhere);
    let refused = backup.point().await.unwrap_err().to_string();
    assert!(refused.contains("--archive-url"), "{refused}");
    backup.options.archived_in = Some(Target::of(world.store.clone()));
    backup.point().await.unwrap();
    let target = Target::of(elsewhere);
    let dir = world.temp.path().join("c");
    restore(&target, &dir, None, world.clock.as_ref(), &Random::from_seed(5)).await.unwrap();
    let again = world.node("c", 4);
    assert_eq!(again.read(A).await, put);
    again.close().await;

    // What somebody removed there does not leave the disk, and what is damaged there is not read.
    let newest = point::numbers(&archive.target).await.unwrap().pop().unwrap();
    let newest = point::read(&archive.target, newest).await.unwrap();
    let of_log = |f: &&manifest::File| f.path.starts_with("log/") && f.path.ends_with(".seg");
    let mut held: Vec<_> = newest.files.iter().filter(of_log).collect();
    held.sort_by(|a, b| a.path.cmp(&b.path));
    let first = held[0].pieces[0].sum.object();
    let bytes = world.store.get(&first).await.unwrap().bytes().await.unwrap();
    let mut bad = bytes.to_vec();
    bad[5_000] ^= 1;
    world.store.put(&first, bad.into()).await.unwrap();
    let limit = ReadLimit { records_max: 1, ..ALL };
    let failed = node.log.read(A, RecordIndex::MIN, limit).await.unwrap_err();
    assert!(matches!(failed, LogError::Unavailable(_)), "{failed}");
    world.store.put(&first, bytes.into()).await.unwrap();
    node.log.read(A, RecordIndex::MIN, limit).await.unwrap();
    let stay = held.iter().find(|f| node.dir.join(&f.path).exists()).unwrap();
    world.store.delete(&stay.pieces[0].sum.object()).await.unwrap();
    node.log.evict().await.unwrap();
    assert!(node.dir.join(&stay.path).exists());

    // They go when they have expired, here and there.
    let before = world.objects("data").await;
    world.clock.advance(DAY * 8);
    assert!(node.log.reclaim().await.unwrap() >= evicted);
    assert_eq!(node.log.archived_segments(), 0);
    node.put(A, 1, 10).await;
    archive.point().await.unwrap();
    assert!(world.objects("data").await < before);
    node.close().await;
}
