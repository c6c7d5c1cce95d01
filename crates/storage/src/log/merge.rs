//! Mixed retentions: what is still kept of segments that hold mostly nothing any more is copied,
//! clustered by shard, into one cold segment that stands for all of them. Mixed traffic: a segment in
//! which the frames of a shard are scattered is copied like that, too, so that the shard is read in
//! few pieces.
//!
//! The cold segment is whole and durable under a name of its own before the first of the others goes. A
//! crash in between leaves both, and the next start takes away what the cold one stands for.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hydrant_core::Timestamp;
use hydrant_core::log::{LogError, ShardUid};

use super::directory::{Directory, Entry};
use super::frame::{HEADER_BYTES, Header, Kind};
use super::segment::{DATA_START, RESERVED_BYTES, SegmentHeader};
use super::shared::{Segment, Shared, unavailable, write_file};
use super::upkeep::{Kept, free};
use crate::disk::{DiskFile, is_full};
use crate::planted::{Bug, planted};

/// A segment of which less than one part in so many is kept is worth a copy.
const KEPT_SHARE: u64 = 2;
/// A cold segment smaller than one part in so many of what a segment holds is worth one, too.
const COLD_SHARE: u64 = 8;
/// Most segments that are looked at in one go, so that it stays short however many there are.
const LOOKS_MAX: usize = 16;
/// A segment is scattered only if the copy has fewer pieces by this factor.
const PIECES_FACTOR: u64 = 2;
/// A piece this large is as good as one of any size.
const PIECE_BYTES: u64 = 1 << 20;
/// Most scattered segments that are copied in one go: with one a minute, at most 17 MiB/s.
const GATHERED_MAX: usize = 4;
/// Bytes written at a time.
const WRITE_BYTES: usize = 4 << 20;
/// The one group of a cold segment, which is no tail that could tear.
const GROUP: u64 = 1;

/// A segment that is merged, and the frames that are kept of it.
struct Source {
    segment: Arc<Segment>,
    kept: Vec<(ShardUid, Entry)>,
}

/// Merges the first run of neighbours among `segments` that is worth it, and returns how many went.
pub(super) fn merge(
    shared: &Shared,
    segments: &[Arc<Segment>],
    kept: &HashMap<ShardUid, Kept>,
) -> Result<usize, LogError> {
    let present: Vec<_> = segments.iter().filter(|s| shared.has(s) && s.is_indexed()).collect();
    if present.is_empty() {
        return Ok(0);
    }
    let start = shared.merge_from.load(Ordering::Relaxed) % present.len();
    let end = present.len().min(start + LOOKS_MAX);
    shared.merge_from.store(if end == present.len() { 0 } else { end }, Ordering::Relaxed);
    let run = find_run(shared, &present[start..end], kept)?;
    let Some(last) = run.last() else { return Ok(0) };
    // Few at a time would be copied again and again.
    let is_single_cold = run.len() == 1 && last.segment.header.stands_for.is_some();
    if run.len() < shared.options.merged_min || is_single_cold {
        return Ok(0);
    }
    if !are_neighbours(shared, &run) {
        return Ok(0);
    }
    put_in_place(shared, &run)?;
    Ok(run.len())
}

/// Copies scattered segments, the oldest first, each clustered by shard, and returns how many.
pub(super) fn gather(
    shared: &Shared,
    segments: &[Arc<Segment>],
    kept: &HashMap<ShardUid, Kept>,
) -> Result<usize, LogError> {
    let now = shared.clock.now();
    let mut gathered = 0;
    for segment in segments {
        let is_settled = segment.is_gathered.load(Ordering::Relaxed)
            || segment.header.stands_for.is_some()
            || segment.is_archived()
            || !segment.is_indexed()
            || !shared.has(segment);
        if is_settled {
            continue;
        }
        let entries = shared.ask_index(segment, |index, file| index.entries(file))?;
        if !is_scattered(shared, &entries) {
            segment.is_gathered.store(true, Ordering::Relaxed);
            continue;
        }
        let is_kept = |(shard, entry): &(ShardUid, Entry)| {
            kept.get(shard).is_some_and(|kept| kept.reaches(entry.end(), now))
        };
        let kept = entries.into_iter().filter(is_kept).collect();
        let put = put_in_place(shared, &[Source { segment: segment.clone(), kept }]);
        // It would be no better the next time.
        segment.is_gathered.store(matches!(put, Err(LogError::Corrupt(_))), Ordering::Relaxed);
        put?;
        gathered += 1;
        if gathered == GATHERED_MAX {
            break;
        }
    }
    Ok(gathered)
}

/// Whether the frames of a shard stand together in small pieces only, and need not.
fn is_scattered(shared: &Shared, entries: &[(ShardUid, Entry)]) -> bool {
    let (mut pieces, mut shards, mut before) = (0, 0, None);
    for &(shard, entry) in entries {
        shards += u64::from(before.is_none_or(|(last, _)| last != shard));
        pieces += u64::from(before != Some((shard, entry.at)));
        before = Some((shard, entry.at + entry.bytes));
    }
    let bytes: u64 = entries.iter().map(|(_, entry)| u64::from(entry.bytes)).sum();
    let fewest = shards + bytes / PIECE_BYTES;
    bytes < pieces * shared.options.scattered_bytes && pieces > PIECES_FACTOR * fewest
}

/// Makes a cold segment of what is kept of the run, and lets go of the run.
fn put_in_place(shared: &Shared, run: &[Source]) -> Result<(), LogError> {
    let name = run.last().map(|source| source.segment.name()).unwrap_or_default();
    match copy(shared, run) {
        Ok(cold) => {
            replace(shared, run, cold);
            for source in run {
                let freed = free(shared, &source.segment);
                freed.map_err(|e| {
                    shared.fail(&format!("freeing {}: {e}", source.segment.name()));
                    unavailable(&source.segment.name(), &e)
                })?;
            }
            Ok(())
        }
        Err(Uncopied::Damaged(what)) => Err(LogError::Corrupt(what)),
        Err(Uncopied::Disk(e)) if is_full(&e) => Err(LogError::Full),
        Err(Uncopied::Disk(e)) => {
            shared.fail(&format!("merging up to {name}: {e}"));
            Err(unavailable(&name, &e))
        }
    }
}

/// Neighbours of each of which little is kept, and of all of which no more than a segment holds.
fn find_run(
    shared: &Shared,
    segments: &[&Arc<Segment>],
    kept: &HashMap<ShardUid, Kept>,
) -> Result<Vec<Source>, LogError> {
    let now = shared.clock.now();
    let shortest = kept.values().map(|kept| kept.retention).min().unwrap_or_default();
    let room = shared.options.segment_bytes.saturating_sub(DATA_START + RESERVED_BYTES);
    let (mut run, mut bytes) = (Vec::new(), 0);
    for &segment in segments {
        // Nothing in it can have expired, so it is hardly worth the look.
        if Timestamp::from_millis(segment.header.floor_ms).plus(shortest) > now {
            break;
        }
        let index = shared.index(segment)?;
        let is_kept = |(shard, entry): &(ShardUid, Entry)| {
            kept.get(shard).is_some_and(|kept| kept.reaches(entry.end(), now))
        };
        let entries = shared.ask_index(segment, |index, file| index.entries(file))?;
        let kept: Vec<_> = entries.into_iter().filter(is_kept).collect();
        let kept_bytes: u64 = kept.iter().map(|(_, entry)| u64::from(entry.bytes)).sum();
        let is_sparse = kept_bytes * KEPT_SHARE < index.data_end().saturating_sub(DATA_START);
        let is_cold = segment.header.stands_for.is_some();
        let is_worth_it = is_sparse || (is_cold && kept_bytes * COLD_SHARE < room);
        if is_worth_it && !segment.is_archived() && bytes + kept_bytes <= room {
            bytes += kept_bytes;
            run.push(Source { segment: segment.clone(), kept });
            continue;
        }
        if run.len() >= shared.options.merged_min {
            break;
        }
        run.clear();
        bytes = 0;
    }
    Ok(run)
}

/// Whether a cold segment may stand for the run: none but these is in between.
fn are_neighbours(shared: &Shared, run: &[Source]) -> bool {
    let numbers = |s: &Source| s.segment.header.no;
    let (first, last) = (run.first().map(numbers), run.last().map(numbers));
    let segments = shared.segments.read();
    let between = segments.iter().filter(|s| {
        let no = Some(s.header.no);
        first <= no && no <= last
    });
    between.count() == run.len()
}

/// Why nothing was copied. Everything is as it was.
enum Uncopied {
    /// A frame that is kept cannot be read, or is not as written; it stays where it is.
    Damaged(String),
    Disk(io::Error),
}

impl From<io::Error> for Uncopied {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Writes the cold segment and its index, durable on return.
fn copy(shared: &Shared, run: &[Source]) -> Result<Arc<Segment>, Uncopied> {
    let (first, last) = match run {
        [] => return Err(Uncopied::Disk(io::ErrorKind::InvalidInput.into())),
        [first, ..] => (&first.segment, &run[run.len() - 1].segment),
    };
    let header = SegmentHeader {
        no: last.header.no,
        salt: shared.random.bytes(),
        created_ms: shared.clock.now().as_millis(),
        floor_ms: first.header.floor_ms,
        stands_for: Some(first.header.stands_for.unwrap_or(first.header.no)),
    };
    let bytes: u64 = run.iter().flat_map(|s| &s.kept).map(|(_, e)| u64::from(e.bytes)).sum();
    // Half of the floor is for this, so that room can be made where there is little.
    if shared.dir.free_bytes()? < bytes.saturating_add(shared.options.free_bytes_min / 2) {
        return Err(Uncopied::Disk(io::ErrorKind::StorageFull.into()));
    }
    let ends = shared.ask_index(last, |index, file| index.ends(file));
    let ends = ends.map_err(|e| Uncopied::Damaged(e.to_string()))?;
    let temporary = format!("{}.tmp", header.name());
    let written = write_frames(shared, run, &header, &temporary);
    let (directory, end) = match written {
        Ok(written) => written,
        Err(e) => {
            let _ = shared.dir.disk.remove(&shared.dir.file(&temporary));
            return Err(e);
        }
    };
    let last_ms = last.last_ms.load(Ordering::Acquire);
    let index = directory.encode(&header, end, last_ms, ends);
    // Without its segment an index is taken away again by the next start.
    if let Err(e) = write_file(&shared.dir, &header.index_name(), &index) {
        let _ = shared.dir.disk.remove(&shared.dir.file(&temporary));
        return Err(e.into());
    }
    shared.dir.rename(&temporary, &header.name())?;
    shared.dir.sync()?;
    Ok(Arc::new(Segment::complete(header, last_ms)))
}

fn write_frames(
    shared: &Shared,
    run: &[Source],
    header: &SegmentHeader,
    name: &str,
) -> Result<(Directory, u64), Uncopied> {
    let mut frames: Vec<(ShardUid, Entry, usize)> = Vec::new();
    let mut files: Vec<Arc<dyn DiskFile>> = Vec::new();
    for (n, source) in run.iter().enumerate() {
        frames.extend(source.kept.iter().map(|(shard, entry)| (*shard, *entry, n)));
        let name = source.segment.name();
        let file = shared.dir.disk.open(&shared.dir.file(&name));
        let file = file.map_err(|e| Uncopied::Damaged(format!("{name}: {e}")))?;
        // They are read in another order than they stand in.
        let kept = source.kept.iter().map(|(_, entry)| u64::from(entry.bytes)).sum::<u64>();
        let size = file.size()?;
        if kept * KEPT_SHARE > size {
            file.will_need(0, size);
        }
        files.push(file);
    }
    frames.sort_by_key(|(shard, entry, _)| (*shard, entry.first));
    let stamp = header.stamp();
    let file = shared.dir.disk.create(&shared.dir.file(name))?;
    let (mut directory, mut at, mut flushed) = (Directory::default(), DATA_START, 0);
    let mut out = header.encode();
    for (shard, entry, n) in frames {
        let segment = &run[n].segment;
        let mut frame = vec![0; entry.bytes as usize];
        let got = files[n].read_at(&mut frame, entry.at.into());
        let got = got.map_err(|e| Uncopied::Damaged(format!("{}: {e}", segment.name())))?;
        let found = (got == frame.len()).then(|| Header::decode(&frame, segment.stamp)).flatten();
        let is_good = |h: &Header| {
            let body = frame.get(HEADER_BYTES..HEADER_BYTES + h.body_bytes as usize);
            let is_that = (h.kind, h.shard, h.first) == (Kind::Records, shard, entry.first);
            is_that && body.is_some_and(|body| crc32c::crc32c(body) == h.body_crc)
        };
        let Some(found) = found.filter(is_good) else {
            let what =
                format!("{}, byte {}: the frame is not as written", segment.name(), entry.at);
            return Err(Uncopied::Damaged(what));
        };
        let copied = Header { group: GROUP, durable_upto: DATA_START, ..found };
        frame[..HEADER_BYTES].copy_from_slice(&copied.encode(stamp));
        directory.add(shard, Entry::of(&copied, at));
        at += copied.frame_bytes();
        out.append(&mut frame);
        if out.len() >= WRITE_BYTES {
            file.write_at(&[IoSlice::new(&out)], flushed)?;
            flushed += out.len() as u64;
            out.clear();
        }
    }
    out.extend_from_slice(&Header::mark(Kind::End, GROUP + 1, at).encode(stamp));
    file.write_at(&[IoSlice::new(&out)], flushed)?;
    if !planted(Bug::MergeUnsynced) {
        file.sync()?;
    }
    Ok((directory, at))
}

/// Puts the cold segment where the others were, for readers that come from now on.
fn replace(shared: &Shared, run: &[Source], cold: Arc<Segment>) {
    let mut segments = shared.segments.write();
    let is_merged = |s: &Arc<Segment>| run.iter().any(|source| Arc::ptr_eq(&source.segment, s));
    if let Some(place) = segments.iter().position(is_merged) {
        segments.insert(place, cold);
    }
    segments.retain(|s| !is_merged(s));
}
