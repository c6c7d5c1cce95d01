//! Round trips, damage, and what is left behind.

use super::*;
use crate::index::Segment;
use bytes::Bytes;
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

fn open(dir: &Path) -> Arc<Files> {
    let on_error: OnSyncError = Arc::new(|_, _| {});
    Arc::new(Files::open(dir.join("data"), File::sync_all, on_error).unwrap())
}

async fn write(files: &Arc<Files>, random: &Random, data: &[u8], step: usize) -> Segment {
    let mut draft = Draft::create(files, random).await.unwrap();
    for piece in data.chunks(step.max(1)) {
        draft.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let written = draft.finish().await.unwrap();
    let segment = Segment { file: written.pending.id(), size_bytes: written.size_bytes };
    written.pending.keep();
    segment
}

async fn read(
    files: &Arc<Files>,
    segments: &[Segment],
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, ReadError> {
    let mut reader = Reader::open(files, segments, range, None).await?;
    let mut data = Vec::new();
    while let Some(bytes) = reader.next().await? {
        data.extend_from_slice(&bytes);
    }
    Ok(data)
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_range_of_any_files_reads_back(
        sizes in prop::collection::vec(prop_oneof![0usize..100, 60_000usize..70_000,
                                                   1_000_000usize..2_200_000], 1..4),
        step in prop_oneof![1_000usize..9_000, 60_000usize..70_000, Just(1usize << 21)],
        a in 0.0..1.0f64,
        b in 0.0..1.0f64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (files, random) = (open(dir.path()), Random::from_seed(1));
            let whole = pattern(sizes.iter().sum());
            let mut segments = Vec::new();
            let mut start = 0;
            for size in sizes {
                segments.push(write(&files, &random, &whole[start..start + size], step).await);
                start += size;
            }
            let cut = |x: f64| (x * whole.len() as f64) as u64;
            let range = cut(a.min(b))..cut(a.max(b));
            let expected = &whole[range.start as usize..range.end as usize];
            assert!(read(&files, &segments, range).await.unwrap() == expected);
        });
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let (files, random) = (open(dir.path()), Random::from_seed(2));
    let whole = pattern(200_000);
    let segment = write(&files, &random, &whole, 9_000).await;
    let path = files.path(segment.file);
    let good = fs::read(&path).unwrap();
    assert_eq!(good.len(), 200_000 + 4 * 4);
    for at in [0, 65_535, 65_536, 199_999, 200_000, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, bad).unwrap();
        let whole = read(&files, &[segment], 0..200_000).await;
        assert!(matches!(whole, Err(ReadError::Damaged { .. })), "byte {at}");
    }
    fs::write(&path, &good[..good.len() - 3]).unwrap();
    assert!(read(&files, &[segment], 0..200_000).await.is_err());
    // A range that touches only sound blocks is served.
    let mut bad = good.clone();
    bad[199_999] ^= 1;
    fs::write(&path, bad).unwrap();
    assert_eq!(read(&files, &[segment], 10..70_000).await.unwrap(), whole[10..70_000]);
}

#[tokio::test]
async fn an_abandoned_draft_leaves_nothing_and_a_kept_file_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let (files, random) = (open(dir.path()), Random::from_seed(3));
    let mut draft = Draft::create(&files, &random).await.unwrap();
    draft.write(Bytes::from(pattern(3 << 20))).await.unwrap();
    assert!(files.settled().unwrap().is_empty(), "a pending file is not for the sweep");
    drop(draft);
    let segment = write(&files, &random, b"x", 1).await;
    while fs::read_dir(files.root.clone())
        .unwrap()
        .flat_map(|d| fs::read_dir(d.unwrap().path()).unwrap())
        .count()
        > 1
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(files.settled().unwrap(), [segment.file]);
    let path = files.path(segment.file);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_layout_being_read_keeps_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (files, random) = (open(dir.path()), Random::from_seed(4));
    let segment = write(&files, &random, b"x", 1).await;
    let layout = FileId::draw(&random);
    let (first, second) = (files.lease(layout), files.lease(layout));
    files.retire(layout, vec![segment.file]);
    drop(first);
    assert!(files.path(segment.file).exists());
    assert!(files.settled().unwrap().is_empty(), "a doomed file is not for the sweep");
    drop(second);
    while files.path(segment.file).exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failed_sync_is_reported_and_leaves_no_file() {
    static SYNCS: AtomicUsize = AtomicUsize::new(0);
    fn failing(_: &File) -> io::Result<()> {
        match SYNCS.fetch_add(1, Ordering::SeqCst) {
            0..=2 => Ok(()),
            _ => Err(io::Error::other("EIO")),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let reported = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reported);
    let on_error: OnSyncError = Arc::new(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let files = Arc::new(Files::open(dir.path().join("data"), failing, on_error).unwrap());
    let mut draft = Draft::create(&files, &Random::from_seed(5)).await.unwrap();
    draft.write(Bytes::from_static(b"x")).await.unwrap();
    assert!(draft.finish().await.is_err());
    assert_eq!(reported.load(Ordering::SeqCst), 1);
}

#[test]
fn names_are_hexadecimal_and_nothing_else() {
    let id = FileId([7; 16]);
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in ["", "..", "../../../../etc/passwd00000000000", &"A".repeat(32), &"0".repeat(33)] {
        assert_eq!(bad.parse::<FileId>(), Err(InvalidFileId));
    }
}

/// Bytes that count themselves while they are held.
struct Held(Arc<AtomicUsize>, Vec<u8>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1.len(), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_byte_does_not_keep_what_was_received_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (files, random) = (open(dir.path()), Random::from_seed(1));
    let mut draft = Draft::create(&files, &random).await.unwrap();
    let held = Arc::new(AtomicUsize::new(0));
    for _ in 0..64 {
        held.fetch_add(64 << 10, Ordering::SeqCst);
        let received = Bytes::from_owner(Held(Arc::clone(&held), vec![7; 64 << 10]));
        draft.write(received.slice(..1)).await.unwrap();
    }
    assert_eq!(held.load(Ordering::SeqCst), 0, "bytes of the connection are still held");
    assert_eq!(draft.finish().await.unwrap().size_bytes, 64);
}
