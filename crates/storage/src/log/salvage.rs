//! The way on from damage: each damaged segment is written anew with every frame of it that is whole,
//! and readers pass over the gap.
//!
//! For each segment, oldest first: the damaged file gets a second name in `log/damaged/`, which is made
//! durable; the new file is written whole and synced under a name that a start takes away; it takes the
//! damaged one's place in one step; its index follows, which a start would make if it were missing. So
//! whatever crashes in between, either the damaged file is in its place or the new one is, and the same
//! command goes on. Frames have another salt in the new file, so that nothing of the old one is ever
//! taken for a part of it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;
use hydrant_core::{Random, Timestamp};
use serde::Serialize;

use super::directory::{Directory, Entry};
use super::files::{FoundIndex, FoundSegment, LogFiles, Opened, WholeIndex, header_of, shown};
use super::frame::{Header, Kind};
use super::loss::Loss;
use super::segment::{DATA_START, SegmentHeader};
use super::shared::write_file;
use super::verify::{Repair, Verdict, index_name};
use super::walk::{Done, Seen, Walk};
use crate::dir::{DataDir, make_dir};
use crate::disk::{LogDir, RealDisk};
use crate::error::OpenError;

/// Where damaged files go, below `log/`.
const ASIDE: &str = "damaged";
/// The losses that were agreed to.
const ACCEPTED: &str = "accepted.json";
/// Most files of one name that are kept aside.
const KEPT_MAX: u32 = 1_000;
/// Bytes written at a time.
const WRITE_BYTES: usize = 4 << 20;
/// The one group of a segment written anew, which is no tail that could tear.
const GROUP: u64 = 1;

/// A file that is whole again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Salvaged {
    /// The file, from the data directory on.
    pub file: String,
    /// Where what was there before is kept.
    pub kept: Vec<String>,
    /// Frames with records that the file has now.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
}

impl Verdict {
    /// Whether something can be done about the damages.
    pub fn is_whole(&self) -> bool {
        self.damages.is_empty()
    }

    /// Makes the log whole again without what is lost. Durable on return; after a crash or a failure
    /// in the middle, verify and salvage once more. The caller's duty: that somebody has agreed to the
    /// loss, and that the verdict is of this directory and nobody has used it since.
    ///
    /// # Errors
    /// The disk's. What was done until then stands.
    pub fn salvage(
        &self,
        dir: &DataDir,
        random: &Random,
        now: Timestamp,
    ) -> Result<Vec<Salvaged>, OpenError> {
        let path = dir.path().join("log");
        make_dir(&path.join(ASIDE))?;
        self.salvage_in(LogDir { disk: Arc::new(RealDisk), path }, random, now)
    }

    pub(super) fn salvage_in(
        &self,
        dir: LogDir,
        random: &Random,
        now: Timestamp,
    ) -> Result<Vec<Salvaged>, OpenError> {
        self.accept(&dir)?;
        let files = LogFiles { dir };
        let listing = files.list()?;
        let newest = listing.segments.last().map(|segment| segment.listed);
        let mut all: Vec<_> = listing.segments.iter().map(|segment| segment.listed).collect();
        all.extend(self.repairs.iter().map(|(listed, _)| *listed));
        all.sort_unstable();
        all.dedup();
        let mut works = Works { files: &files, random, now, before: None, done: Vec::new() };
        for listed in all {
            let repair =
                self.repairs.iter().find(|(of, _)| *of == listed).map(|(_, repair)| repair);
            let archived = listing.segments.iter().any(|s| s.listed == listed && s.archived);
            let segment = FoundSegment { listed, newest: Some(listed) == newest, archived };
            works.mend(segment, repair)?;
        }
        Ok(works.done)
    }

    /// Writes down what is agreed to, so that it is not told as a loss again.
    fn accept(&self, dir: &LogDir) -> Result<(), OpenError> {
        let mut all = accepted(dir)?;
        for loss in self.damages.iter().flat_map(|damage| &damage.lost) {
            if !all.contains(loss) {
                all.push(*loss);
            }
        }
        if all.is_empty() {
            return Ok(());
        }
        let (aside, path) = (aside(dir), aside(dir).file(ACCEPTED));
        let text = serde_json::to_vec(&all).map_err(|e| OpenError::io("write", &path, e.into()))?;
        write_file(&aside, ACCEPTED, &text).map_err(|e| OpenError::io("write", path, e))
    }
}

fn aside(dir: &LogDir) -> LogDir {
    LogDir { disk: dir.disk.clone(), path: dir.path.join(ASIDE) }
}

fn read_file(dir: &LogDir, name: &str) -> io::Result<Vec<u8>> {
    let file = dir.disk.open(&dir.file(name))?;
    let mut bytes = vec![0; file.size()? as usize];
    let got = file.read_at(&mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// The losses that were agreed to in this log.
pub(super) fn accepted(dir: &LogDir) -> Result<Vec<Loss>, OpenError> {
    let aside = aside(dir);
    let failed = |e| OpenError::io("read", aside.file(ACCEPTED), e);
    match read_file(&aside, ACCEPTED) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| failed(e.into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

/// A salvage under way, oldest segment first.
struct Works<'a> {
    files: &'a LogFiles,
    random: &'a Random,
    now: Timestamp,
    /// The index of the segment before, which knows where the shards that are idle ended.
    before: Option<WholeIndex>,
    done: Vec<Salvaged>,
}

/// What a segment that was written anew holds.
struct Written {
    directory: Directory,
    end: u64,
    last_ms: u64,
    frames: u64,
    records: u64,
}

impl Works<'_> {
    fn mend(&mut self, segment: FoundSegment, repair: Option<&Repair>) -> Result<(), OpenError> {
        if repair == Some(&Repair::Missing) {
            let FoundIndex::Whole(old) = self.files.index_of_missing(segment.listed)? else {
                return Ok(());
            };
            return self.rewrite(segment, None, &[], Some(&old));
        }
        let Some(opened) = self.files.look(segment)? else { return Ok(()) };
        if segment.archived {
            self.before = match opened.index {
                FoundIndex::Whole(index) => Some(index),
                FoundIndex::Absent | FoundIndex::Damaged(_) => self.before.take(),
            };
            return Ok(());
        }
        if let Some(Repair::Rewrite(without)) = repair {
            return self.rewrite(segment, Some(&opened), without, opened.index.whole());
        }
        if opened.index.whole().is_none() {
            self.index(&opened, repair.is_some())?;
        } else if let FoundIndex::Whole(index) = opened.index {
            self.before = Some(index);
        }
        Ok(())
    }

    /// Makes the index of a complete segment anew.
    fn index(&mut self, opened: &Opened, is_damaged: bool) -> Result<(), OpenError> {
        let (listed, Ok(header)) = (opened.segment.listed, &opened.header) else { return Ok(()) };
        let path = self.files.dir.file(&listed.name());
        let failed = |e| OpenError::io("read", &path, e);
        let mut walk = Walk::new(opened).map_err(failed)?;
        let mut directory = Directory::default();
        let Done { end, ended, .. } = loop {
            match walk.next().map_err(failed)? {
                Seen::Frame(at, header) if header.kind == Kind::Records => {
                    directory.add(header.shard, Entry::of(&header, at));
                }
                Seen::Frame(..) | Seen::Damage(_) => {}
                Seen::Done(done) => break done,
            }
        };
        if !ended {
            return Ok(());
        }
        let kept = self.keep(&index_name(listed))?;
        self.write_index(header, &directory, end, walk.last_ms(), None)?;
        if is_damaged {
            let file = shown(&index_name(listed));
            self.done.push(Salvaged { file, kept: Vec::from_iter(kept), frames: 0, records: 0 });
        }
        Ok(())
    }

    /// Writes a segment anew, with what is whole of the old one, if that is there.
    fn rewrite(
        &mut self,
        segment: FoundSegment,
        old: Option<&Opened>,
        without: &[u64],
        old_index: Option<&WholeIndex>,
    ) -> Result<(), OpenError> {
        let (listed, dir) = (segment.listed, &self.files.dir);
        let name = listed.name();
        let header = match old.map(|old| &old.header) {
            Some(Ok(header)) => SegmentHeader { salt: self.random.bytes(), ..header.clone() },
            _ => SegmentHeader {
                created_ms: self.now.as_millis(),
                floor_ms: self.before.as_ref().map_or(0, |index| index.last_ms),
                ..header_of(listed, self.random.bytes())
            },
        };
        let kept: Vec<_> = [name.clone(), index_name(listed)]
            .iter()
            .filter_map(|name| self.keep(name).transpose())
            .collect::<Result<_, _>>()?;
        let temporary = format!("{name}.tmp");
        let path = dir.file(&temporary);
        let written = write_frames(dir, &temporary, &header, old, without).map_err(|e| {
            // A start would take it away, too.
            let _ = dir.disk.remove(&path);
            OpenError::io("write", &path, e)
        })?;
        let placed = dir.rename(&temporary, &name).and_then(|()| dir.sync());
        placed.map_err(|e| OpenError::io("rename", &path, e))?;
        let Written { directory, end, last_ms, frames, records } = written;
        self.write_index(&header, &directory, end, last_ms, old_index)?;
        self.done.push(Salvaged { file: shown(&name), kept, frames, records });
        Ok(())
    }

    /// Gives a file a second name aside, durably; `None` if there is no such file.
    fn keep(&self, name: &str) -> Result<Option<String>, OpenError> {
        let (dir, aside) = (&self.files.dir, aside(&self.files.dir));
        let from = dir.file(name);
        for n in 1..=KEPT_MAX {
            let kept = format!("{name}.{n}");
            match dir.disk.link(&from, &aside.file(&kept)) {
                Ok(()) => {
                    aside.sync().map_err(|e| OpenError::io("sync", &aside.path, e))?;
                    return Ok(Some(shown(&format!("{ASIDE}/{kept}"))));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(OpenError::io("keep aside", from, e)),
            }
        }
        Err(OpenError::io("keep aside", from, io::ErrorKind::AlreadyExists.into()))
    }

    /// Writes the index of a segment, which also carries where every shard ended so far: behind what is
    /// left of it, if its last frames are lost.
    fn write_index(
        &mut self,
        header: &SegmentHeader,
        directory: &Directory,
        end: u64,
        last_ms: u64,
        old: Option<&WholeIndex>,
    ) -> Result<(), OpenError> {
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for (shard, end) in self.before.iter().chain(old).flat_map(|index| &index.ends) {
            let known = ends.entry(*shard).or_default();
            *known = (*end).max(*known);
        }
        let last_ms = last_ms.max(header.floor_ms).max(old.map_or(0, |index| index.last_ms));
        let bytes = directory.encode(header, end, last_ms, ends);
        let name = header.index_name();
        let path: PathBuf = self.files.dir.file(&name);
        write_file(&self.files.dir, &name, &bytes).map_err(|e| OpenError::io("write", &path, e))?;
        let written = self.files.dir.disk.open(&path).and_then(|f| WholeIndex::read(&*f, header));
        self.before = Some(written.map_err(|e| OpenError::io("read", path, e))?);
        Ok(())
    }
}

/// Writes a segment's file, durable on return, under this name.
fn write_frames(
    dir: &LogDir,
    name: &str,
    header: &SegmentHeader,
    old: Option<&Opened>,
    without: &[u64],
) -> io::Result<Written> {
    let stamp = header.stamp();
    let file = dir.disk.create(&dir.file(name))?;
    let (mut out, mut flushed) = (header.encode(), 0);
    let mut written = Written {
        directory: Directory::default(),
        end: DATA_START,
        last_ms: 0,
        frames: 0,
        records: 0,
    };
    let mut walk = old.map(Walk::new).transpose()?;
    let mut ends: BTreeMap<ShardUid, RecordIndex> = BTreeMap::new();
    while let Some(walk) = &mut walk {
        let (at, found) = match walk.next()? {
            Seen::Frame(at, found) if found.kind == Kind::Records => (at, found),
            Seen::Frame(..) | Seen::Damage(_) => continue,
            Seen::Done(_) => break,
        };
        let end = ends.entry(found.shard).or_default();
        if without.contains(&at) || found.first < *end {
            continue;
        }
        let copied = Header { group: GROUP, durable_upto: DATA_START, ..found };
        out.extend_from_slice(&copied.encode(stamp));
        out.extend_from_slice(walk.body(at, &found)?);
        let entry = Entry::of(&copied, written.end);
        *end = entry.end();
        written.directory.add(copied.shard, entry);
        written.last_ms = written.last_ms.max(copied.arrival_ms);
        written.end += copied.frame_bytes();
        (written.frames, written.records) =
            (written.frames + 1, written.records + u64::from(copied.count));
        out.resize((written.end - flushed) as usize, 0);
        if out.len() >= WRITE_BYTES {
            file.write_at(&[IoSlice::new(&out)], flushed)?;
            flushed = written.end;
            out.clear();
        }
    }
    out.extend_from_slice(&Header::mark(Kind::End, GROUP + 1, written.end).encode(stamp));
    file.write_at(&[IoSlice::new(&out)], flushed)?;
    file.sync()?;
    Ok(written)
}
