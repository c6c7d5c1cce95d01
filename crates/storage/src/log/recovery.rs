//! What happens to the log's directory before the first append: every segment is accounted for, a
//! torn tail is cut, and lost acknowledged data is refused.
//!
//! Only the newest segment can have a torn tail: an older one was ended, with a sync, before the next
//! was made. After the cut the segment is ended too, and writing goes on in a new one, so that what a
//! torn write left behind can never be taken for a frame.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogOptions;
use super::archived::{is_fetched, mark_name, marked};
use super::directory::INDEX_HEADER_BYTES;
use super::frame::{Header, Kind};
use super::index::{Index, IndexHeader};
use super::segment::{
    BadHeader, DATA_START, FORMAT, Scan, SegmentHeader, cold_name, number_of, scan, segment_name,
};
use super::shared::{Segment, write_file};
use crate::disk::{DiskFile, LogDir};
use crate::error::OpenError;
use crate::planted::{Bug, planted};

/// What there is to do about an index whose segment is in the archive only.
pub(super) const WAY_ON_ARCHIVED: &str = "its segment is in the archive only: `hydrant restore` the archive \
                                          into a new directory, and serve from there";
const WAY_ON: &str = "`hydrant log salvage` says what is lost, and with --accept-loss makes the \
                      log whole again without it";

/// What was found.
pub(super) struct Recovered {
    /// Complete segments, in order, each with its index in place.
    pub(super) segments: Vec<Arc<Segment>>,
    /// Files of the right size to make segments from.
    pub(super) spares: Vec<String>,
    /// The number of the next segment.
    pub(super) next: u64,
    /// No record arrived later than this.
    pub(super) last_ms: u64,
}

/// Why the directory is not in order yet.
enum Unfit {
    Refused(OpenError),
    /// This index is needed and not as written.
    Index(String),
}

impl From<OpenError> for Unfit {
    fn from(error: OpenError) -> Self {
        Self::Refused(error)
    }
}

/// Brings the directory into order.
pub(super) fn recover(dir: &LogDir, options: &LogOptions) -> Result<Recovered, OpenError> {
    loop {
        match try_recover(dir, options) {
            Ok(found) => return Ok(found),
            Err(Unfit::Refused(error)) => return Err(error),
            // Each time there is one file less.
            Err(Unfit::Index(name)) => {
                tracing::warn!(name, "an index of the log is damaged: it is made anew");
                let path = dir.file(&name);
                let of = Listed::of_index(&name).map(|of| Opening::open(dir, of)).transpose()?;
                if let Some(archived) = of.filter(|of| of.is_archived) {
                    return Err(archived.no_index());
                }
                dir.disk.remove(&path).map_err(|e| OpenError::io("remove", &path, e))?;
            }
        }
    }
}

fn try_recover(dir: &LogDir, options: &LogOptions) -> Result<Recovered, Unfit> {
    let names = dir.disk.list(&dir.path).map_err(|e| OpenError::io("list", &dir.path, e))?;
    let listed = standing(dir, &names)?;
    let mut found = Recovered {
        segments: Vec::new(),
        spares: tidy(dir, options, &names, &listed)?,
        next: listed.last().map_or(1, |newest| newest.no + 1),
        last_ms: 0,
    };
    for &at in &listed {
        let is_newest = Some(&at) == listed.last();
        let mut segment = Opening::open(dir, at)?;
        found.last_ms = found.last_ms.max(segment.header.floor_ms);
        let index = match segment.index_header()? {
            Some(index) => index,
            None if segment.is_archived => return Err(segment.no_index().into()),
            None => {
                let Some(scan) = segment.scan(is_newest)? else {
                    // Nothing was ever written to it.
                    segment.make_spare(options, &mut found.spares)?;
                    continue;
                };
                match segment.write_index(&scan, found.segments.last()) {
                    Ok(index) => index,
                    // No room: the directory stays in memory until there is.
                    Err(Unfit::Refused(OpenError::Full { .. })) => {
                        let last_ms = scan.last_ms.max(segment.header.floor_ms);
                        found.last_ms = found.last_ms.max(last_ms);
                        let segment = Segment::unindexed(segment.header, last_ms, scan);
                        found.segments.push(Arc::new(segment));
                        continue;
                    }
                    Err(e) => return Err(e),
                }
            }
        };
        found.last_ms = found.last_ms.max(index.last_ms);
        let is_archived = segment.is_archived;
        let segment = Segment::complete(segment.header, index.last_ms);
        segment.is_archived.store(is_archived, Ordering::Release);
        found.segments.push(Arc::new(segment));
    }
    dir.sync().map_err(|e| OpenError::io("sync", &dir.path, e))?;
    Ok(found)
}

/// A segment by its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Listed {
    pub(super) no: u64,
    /// The first that it stands for, if it is a cold one.
    pub(super) first: Option<u64>,
}

impl Listed {
    /// The segment that a file's name is of.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::with(name, "seg", "cold")
    }

    /// The segment that the name of an index is of.
    pub(super) fn of_index(name: &str) -> Option<Self> {
        Self::with(name, "idx", "cix")
    }

    /// The segment that a mark stands for.
    pub(super) fn of_mark(name: &str) -> Option<Self> {
        Self::of(marked(name)?)
    }

    /// The segments that these files are of or stand for, in order.
    pub(super) fn all<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<Self> {
        let of = |name: &String| Self::of(name).or_else(|| Self::of_mark(name));
        let mut all: Vec<_> = names.into_iter().filter_map(of).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn with(name: &str, written: &str, cold: &str) -> Option<Self> {
        if let Some(no) = number_of(name, written) {
            return Some(Self { no, first: None });
        }
        let (first, no) = name.split_once('-')?;
        let first = first.bytes().all(|b| b.is_ascii_digit()).then(|| first.parse().ok())??;
        Some(Self { no: number_of(no, cold)?, first: Some(first) })
    }

    /// The name of its file.
    pub(super) fn name(self) -> String {
        match self.first {
            Some(first) => cold_name(first, self.no),
            None => segment_name(self.no),
        }
    }

    /// Whether this one is cold and holds what is kept of the other.
    pub(super) fn stands_for(self, other: Self) -> bool {
        let from = other.first.unwrap_or(other.no);
        self != other && self.first.is_some_and(|first| first <= from) && other.no <= self.no
    }
}

/// The segments in order, without those that a cold one stands for, which are removed.
fn standing(dir: &LogDir, names: &[String]) -> Result<Vec<Listed>, OpenError> {
    let mut listed = Listed::all(names);
    let mut gone = Vec::new();
    for &cold in &listed {
        if cold.first.is_none() {
            continue;
        }
        // It was whole before it had its name, but whoever it stands for goes only if it is still.
        Opening::open(dir, cold)?;
        gone.extend(listed.iter().filter(|other| cold.stands_for(**other)).copied());
    }
    gone.sort_unstable();
    gone.dedup();
    if !gone.is_empty() {
        // The name of the cold one may be in memory only.
        dir.sync().map_err(|e| OpenError::io("sync", &dir.path, e))?;
    }
    for name in names {
        if Listed::of(name).is_none_or(|of| gone.binary_search(&of).is_err()) {
            continue;
        }
        let path = dir.file(name);
        dir.disk.remove(&path).map_err(|e| OpenError::io("remove", &path, e))?;
    }
    listed.retain(|segment| !gone.contains(segment));
    Ok(listed)
}

/// Removes what a crash left half done, and returns the spare files.
fn tidy(
    dir: &LogDir,
    options: &LogOptions,
    names: &[String],
    segments: &[Listed],
) -> Result<Vec<String>, OpenError> {
    let mut spares = Vec::new();
    let files: HashSet<&str> = names.iter().map(String::as_str).collect();
    for name in names {
        let path = dir.file(name);
        let is_gone = |of: Listed| segments.binary_search(&of).is_err();
        let is_orphan = Listed::of_index(name).is_some_and(is_gone)
            || Listed::of_mark(name).is_some_and(|of| is_gone(of) || files.contains(&*of.name()));
        let is_spare = name.starts_with("spare-") && name.ends_with(".seg");
        let fits = is_spare
            && dir
                .disk
                .open(&path)
                .and_then(|f| f.size())
                .map_err(|e| OpenError::io("open", &path, e))?
                == options.segment_bytes;
        if fits {
            spares.push(name.clone());
        } else if is_spare || is_orphan || is_fetched(name) || name.ends_with(".tmp") {
            dir.disk.remove(&path).map_err(|e| OpenError::io("remove", &path, e))?;
        }
    }
    Ok(spares)
}

/// A segment that is being accounted for.
struct Opening<'a> {
    dir: &'a LogDir,
    name: String,
    header: SegmentHeader,
    /// Of the segment, or of the mark that stands for it.
    file: Arc<dyn DiskFile>,
    is_archived: bool,
}

impl<'a> Opening<'a> {
    fn open(dir: &'a LogDir, listed: Listed) -> Result<Self, OpenError> {
        let name = listed.name();
        let (mut path, mut is_archived) = (dir.file(&name), false);
        let mut file = dir.disk.open(&path);
        if file.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            (path, is_archived) = (dir.file(&mark_name(&name)), true);
            file = dir.disk.open(&path);
        }
        let failed = |e| OpenError::io("read", &path, e);
        let file = file.map_err(failed)?;
        let mut bytes = vec![0; DATA_START as usize];
        let got = file.read_at(&mut bytes, 0).map_err(failed)?;
        let damaged = |what: &str| OpenError::Damaged {
            path: path.clone(),
            at: 0,
            what: what.to_owned(),
            way_on: WAY_ON,
        };
        match SegmentHeader::decode(&bytes[..got]) {
            Ok(header) if header.name() == name => {
                Ok(Self { dir, name, header, file, is_archived })
            }
            Ok(_) => Err(damaged("the segment is another one than its name says")),
            Err(BadHeader::Damaged) => Err(damaged("the segment's header is not as written")),
            Err(BadHeader::Format(found)) => Err(OpenError::UnknownFormat {
                path: path.clone(),
                found: found.to_string(),
                known: FORMAT,
            }),
        }
    }

    /// The error of an archived segment without an index, which cannot be made here.
    fn no_index(&self) -> OpenError {
        OpenError::Damaged {
            path: self.dir.file(&self.header.index_name()),
            at: 0,
            what: "the index is not as written".to_owned(),
            way_on: WAY_ON_ARCHIVED,
        }
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> OpenError {
        let path = self.dir.file(&self.name);
        move |e| OpenError::io(action, &path, e)
    }

    /// The head of the segment's index, or `None` if it has to be made.
    fn index_header(&self) -> Result<Option<IndexHeader>, OpenError> {
        let path = self.dir.file(&self.header.index_name());
        let mut bytes = vec![0; INDEX_HEADER_BYTES];
        let read = self.dir.disk.open(&path).and_then(|f| f.read_at(&mut bytes, 0));
        match read {
            Ok(_) => Ok(IndexHeader::decode(&bytes, &self.header)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(OpenError::io("read", path, e)),
        }
    }

    /// Reads all of the segment, and ends it if it was not. `None` if no frame was ever synced.
    fn scan(&mut self, is_newest: bool) -> Result<Option<Scan>, OpenError> {
        let scan = scan(&*self.file, self.header.stamp()).map_err(self.failed("read"))?;
        if scan.ended {
            if is_newest {
                let end = Header::mark(Kind::End, scan.group, scan.end);
                let end = scan.end + end.frame_bytes();
                self.make_durable(scan.group_start, end).map_err(self.failed("sync"))?;
            }
            return Ok(Some(scan));
        }
        let damaged = |what: String| OpenError::Damaged {
            path: self.dir.file(&self.name),
            at: scan.end,
            what,
            way_on: WAY_ON,
        };
        if let Some(proof) = scan.proof_of_loss {
            return Err(damaged(format!(
                "the frame there is not as written, though it was synced: the frame at byte {proof} \
                 was written after that"
            )));
        }
        if !is_newest {
            return Err(damaged(
                "the segment stops there, though it was complete before the next one was begun"
                    .to_owned(),
            ));
        }
        if scan.end == DATA_START {
            return Ok(None);
        }
        self.end(&scan)?;
        Ok(Some(scan))
    }

    /// Makes durable what was read and perhaps never synced. It is written once more for that: where
    /// the sync of an earlier process failed, the kernel has the bytes in memory, takes them for
    /// written, and would let a sync of ours succeed without writing them.
    fn make_durable(&self, start: u64, end: u64) -> io::Result<()> {
        let mut bytes = vec![0; (end - start) as usize];
        let got = self.file.read_at(&mut bytes, start)?;
        self.file.write_at(&[IoSlice::new(&bytes[..got])], start)?;
        self.file.sync()
    }

    /// Cuts what a torn write left, and makes the rest durable, which a killed process may not have.
    fn end(&self, scan: &Scan) -> Result<(), OpenError> {
        let end = Header::mark(Kind::End, scan.group + 1, scan.end);
        let bytes = end.encode(self.header.stamp());
        let cut = || {
            if !planted(Bug::RecoverUnsynced) {
                self.make_durable(scan.group_start, scan.end)?;
            }
            self.file.write_at(&[IoSlice::new(&bytes)], scan.end)?;
            self.file.truncate(scan.end + end.frame_bytes())?;
            self.file.sync()
        };
        cut().map_err(self.failed("end"))?;
        tracing::info!(segment = self.name, end = scan.end, "the log's last segment is complete");
        Ok(())
    }

    fn write_index(
        &self,
        scan: &Scan,
        before: Option<&Arc<Segment>>,
    ) -> Result<IndexHeader, Unfit> {
        let ends = match before {
            Some(before) if before.is_indexed() => self.ends_of(&before.header)?,
            // There was no room for that one, so there is none for this one.
            Some(_) => {
                let path = self.dir.file(&self.header.index_name());
                return Err(OpenError::Full { action: "write", path }.into());
            }
            None => BTreeMap::new(),
        };
        let last_ms = scan.last_ms.max(self.header.floor_ms);
        let bytes = scan.directory.encode(&self.header, scan.end, last_ms, ends);
        let name = self.header.index_name();
        let path = self.dir.file(&name);
        write_file(self.dir, &name, &bytes).map_err(|e| OpenError::io("write", &path, e))?;
        IndexHeader::decode(&bytes, &self.header).ok_or(Unfit::Index(name))
    }

    fn ends_of(&self, before: &SegmentHeader) -> Result<BTreeMap<u64, u64>, Unfit> {
        let name = before.index_name();
        let path = self.dir.file(&name);
        let file = self.dir.disk.open(&path).map_err(|e| OpenError::io("read", &path, e))?;
        match Index::read(&*file, before).and_then(|index| index.ends(&*file)) {
            Ok(ends) => Ok(ends),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(Unfit::Index(name)),
            Err(e) => Err(OpenError::io("read", &path, e).into()),
        }
    }

    fn make_spare(&self, options: &LogOptions, spares: &mut Vec<String>) -> Result<(), OpenError> {
        let failed = self.failed("set aside");
        let spare = format!("spare-{}.seg", self.header.no);
        // The number of a segment that was set aside may have been given again.
        let is_new = !spares.contains(&spare);
        if is_new && self.file.size().map_err(&failed)? == options.segment_bytes {
            self.dir.rename(&self.name, &spare).map_err(&failed)?;
            spares.push(spare);
            Ok(())
        } else {
            self.dir.disk.remove(&self.dir.file(&self.name)).map_err(&failed)
        }
    }
}
