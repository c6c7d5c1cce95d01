//! Whether the log is as it was written: every checksum, every frame's place and order, the indexes,
//! and the ends of the shards.

mod archived;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::control::{ControlError, Entry as ControlEntry};
use hydrant_core::limits::RETENTION_HOURS_MIN;
use hydrant_core::log::ShardUid;
use hydrant_core::sequence::RecordIndex;
use serde::Serialize;

use super::directory::Entry;
use super::files::{FoundIndex, FoundSegment, LogFiles, Opened, WholeIndex, shown};
use super::frame::{Header, Kind};
use super::loss::{Damage, Loss, listed_between};
use super::recovery::Listed;
use super::salvage::accepted;
use super::shards::{Row, uid_of};
use super::upkeep::Kept;
use super::walk::{Done, Seen, Walk};
use crate::disk::DiskFile;
use crate::error::OpenError;

/// A shard that was sealed less than this before its segments were read may have been written to
/// meanwhile.
const SETTLED: Duration = Duration::from_secs(60);
/// No stream keeps its records for less, so that what was freed had arrived longer ago than this.
const KEPT_MIN: Duration = Duration::from_secs(RETENTION_HOURS_MIN as u64 * 3600);

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentState {
    /// It is being written, or was when its server ended; the next start ends it.
    Open,
    /// It is complete.
    Ended,
    /// It is complete, and stands for several that held little any more.
    Cold,
    /// It is complete, and in the archive only: what is said of it is what its index says.
    Archived,
}

/// What was found in one segment.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentReport {
    /// Its file, from the data directory on.
    pub file: String,
    /// Its number.
    pub number: u64,
    /// The first of the segments that it stands for, if it is a cold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<u64>,
    /// What it is.
    pub state: SegmentState,
    /// Bytes of the file.
    pub bytes: u64,
    /// Past the last byte in use.
    pub end: u64,
    /// Whole frames with records.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Arrival of the first record, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_ms: Option<u64>,
    /// Arrival of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ms: Option<u64>,
    /// Where a write begins that was cut short, or is under way: nothing of it was acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_at: Option<u64>,
    /// How many damages were found.
    pub damages: usize,
}

/// What has to be done about a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// It has to be written anew, without the frames that start at these bytes.
    Rewrite(Vec<u64>),
    /// Its index has to be made anew.
    Index,
    /// An empty one has to take its place.
    Missing,
}

/// Segments that are not there, and when records that were in them arrived.
#[derive(Clone, Copy, Debug)]
struct Gap {
    from: u64,
    to: u64,
    after_ms: u64,
    until_ms: u64,
}

/// What is known of a log that is being verified. First the segments ([`LogFiles::verify`]), then the
/// rows of the shards ([`Verification::row`]), then [`Verification::finish`].
#[derive(Debug)]
pub struct Verification {
    started: Timestamp,
    damages: Vec<Damage>,
    notes: Vec<String>,
    repairs: Vec<(Listed, Repair)>,
    /// Where each shard ends by the frames that are there.
    ends: HashMap<ShardUid, RecordIndex>,
    /// Of the newest segment that has one.
    newest_index: Option<WholeIndex>,
    missing: Vec<(Listed, Vec<Loss>)>,
    gaps: Vec<Gap>,
    kept: HashMap<ShardUid, Kept>,
    /// Losses that somebody has agreed to.
    accepted: Vec<Loss>,
    /// Segments that are in the archive only.
    archived: usize,
    /// Segments were freed or merged meanwhile, so that what was found is not of one moment.
    moved: bool,
}

/// What is wrong with a log, and what is worth knowing.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What is not as it was written. Empty: the log is whole.
    pub damages: Vec<Damage>,
    /// What is no damage.
    pub notes: Vec<String>,
    #[serde(skip)]
    pub(super) repairs: Vec<(Listed, Repair)>,
}

impl LogFiles {
    /// Reads every segment. Calls `told` with each, in order, as it is through. Holds a few megabytes
    /// at a time, an index, and where each shard ends. A server may run meanwhile.
    ///
    /// # Errors
    /// A file cannot be read, or another version of hydrant wrote it.
    pub fn verify(
        &self,
        now: Timestamp,
        told: &mut dyn FnMut(&SegmentReport),
    ) -> Result<Verification, OpenError> {
        let mut found = Verification {
            started: now,
            damages: Vec::new(),
            notes: Vec::new(),
            repairs: Vec::new(),
            ends: HashMap::new(),
            newest_index: None,
            missing: Vec::new(),
            gaps: Vec::new(),
            kept: HashMap::new(),
            accepted: accepted(&self.dir)?,
            archived: 0,
            moved: false,
        };
        let mut seen = HashSet::new();
        loop {
            let listing = self.list()?;
            let before = seen.len();
            let mut last: Option<(u64, u64)> = None;
            for &segment in &listing.segments {
                if !seen.insert(segment.listed) {
                    continue;
                }
                match found.segment(self, segment, last)? {
                    Some(report) => {
                        last = Some((segment.listed.no, report.last_ms.unwrap_or(0)));
                        told(&report);
                    }
                    None => found.moved = true,
                }
            }
            if !found.moved || seen.len() == before {
                if !found.moved {
                    found.missing(self, listing.missing)?;
                }
                return Ok(found);
            }
        }
    }
}

/// A segment that is being verified.
struct Checked {
    report: SegmentReport,
    damages: Vec<Damage>,
    out_of_order: Vec<u64>,
    /// The index does not say what the frames say.
    contradicted: Option<String>,
}

impl Verification {
    /// Verifies a segment. `None` if it is not there any more.
    fn segment(
        &mut self,
        files: &LogFiles,
        segment: FoundSegment,
        before: Option<(u64, u64)>,
    ) -> Result<Option<SegmentReport>, OpenError> {
        let Some(opened) = files.look(segment)? else { return Ok(None) };
        let path = files.dir.file(&segment.listed.name());
        let checked = match segment.archived {
            true => self.archived(&opened),
            false => self.frames(&opened),
        };
        let checked = checked.map_err(|e| OpenError::io("read", &path, e))?;
        let Checked { mut report, mut damages, out_of_order, contradicted } = checked;
        let mut repair = (!damages.is_empty()).then_some(Repair::Rewrite(out_of_order));
        if segment.archived {
            // There is nothing here that it could be written anew from.
            repair = None;
        }
        let index_damage = match (&opened.index, contradicted) {
            _ if segment.archived => None,
            (FoundIndex::Damaged(at), _) => Some((*at, "the index is not as written".to_owned())),
            (FoundIndex::Whole(_), Some(what)) if repair.is_none() => Some((0, what)),
            _ => None,
        };
        if let Some((at, what)) = index_damage {
            let what = format!("{what}; no record is lost by that");
            let file = shown(&index_name(segment.listed));
            damages.push(Damage { file, at, end: at, what, lost: Vec::new() });
            repair = repair.or(Some(Repair::Index));
        }
        if !damages.is_empty() && !files.is_there(&opened) {
            return Ok(None);
        }
        report.damages = damages.len();
        self.damages.append(&mut damages);
        self.repairs.extend(repair.map(|repair| (segment.listed, repair)));
        if let (Some((no, after_ms)), Ok(header)) = (before, &opened.header) {
            let first = header.stands_for.unwrap_or(header.no);
            let (from, to) = (no + 1, first.saturating_sub(1));
            if from <= to && header.floor_ms > after_ms {
                self.gaps.push(Gap { from, to, after_ms, until_ms: header.floor_ms });
            }
        }
        if let FoundIndex::Whole(index) = opened.index {
            self.newest_index = Some(index);
        }
        Ok(Some(report))
    }

    fn frames(&mut self, opened: &Opened) -> std::io::Result<Checked> {
        let mut checked = Checked::new(opened)?;
        let mut walk = Walk::new(opened)?;
        let done = loop {
            match walk.next()? {
                Seen::Frame(at, header) if header.kind == Kind::Records => {
                    let is_whole = walk.records(at, &header)?.is_some();
                    self.frame(opened, (at, header), is_whole, &mut checked);
                }
                Seen::Frame(..) => {}
                Seen::Damage(damage) => checked.damages.push(damage),
                Seen::Done(done) => break done,
            }
        };
        checked.finish(opened, done);
        Ok(checked)
    }

    fn frame(
        &mut self,
        opened: &Opened,
        (at, header): (u64, Header),
        is_whole: bool,
        checked: &mut Checked,
    ) {
        let entry = Entry::of(&header, at);
        let end = self.ends.entry(header.shard).or_default();
        let in_order = *end <= header.first || self.moved;
        if !in_order || !is_whole {
            let what = match is_whole {
                true => "the frame there has sequence numbers that an earlier one has",
                false => "the frame there holds no records, though its checksum is right",
            };
            checked.damages.push(Damage {
                file: opened.segment.file(),
                at,
                end: at + header.frame_bytes(),
                what: what.to_owned(),
                lost: vec![Loss {
                    shard: Some(header.shard),
                    first: entry.first,
                    end: entry.end(),
                    records: Some(header.count.into()),
                }],
            });
            checked.out_of_order.push(at);
            return;
        }
        *end = entry.end().max(*end);
        let report = &mut checked.report;
        report.frames += 1;
        report.records += u64::from(header.count);
        report.first_ms = Some(report.first_ms.unwrap_or(u64::MAX).min(header.arrival_ms));
        report.last_ms = Some(report.last_ms.unwrap_or(0).max(header.arrival_ms));
        if let (Some(index), None) = (opened.index.whole(), &checked.contradicted)
            && index.find(header.shard, header.first) != Some(entry)
        {
            checked.contradicted = Some(format!("the index does not list the frame at byte {at}"));
        }
    }

    fn missing(&mut self, files: &LogFiles, missing: Vec<Listed>) -> Result<(), OpenError> {
        for listed in missing {
            match files.index_of_missing(listed)? {
                FoundIndex::Whole(index) => {
                    let lost = listed_between(&index, 0, u64::MAX);
                    self.missing.push((listed, lost));
                }
                FoundIndex::Absent => {}
                FoundIndex::Damaged(_) => self.notes.push(format!(
                    "{} is not as written, and the segment it is of is not there: nothing tells what \
                     was in it",
                    shown(&index_name(listed))
                )),
            }
        }
        Ok(())
    }

    /// Compares a shard's row in the control store with what is there.
    ///
    /// # Errors
    /// The row does not parse.
    pub fn row(
        &mut self,
        key: &str,
        row: &ControlEntry,
        now: Timestamp,
    ) -> Result<(), ControlError> {
        let Some(shard) = uid_of(key) else { return Ok(()) };
        let row: Row = row.json(key)?;
        let retention = Duration::from_millis(row.retention_ms);
        let kept = Kept { retention, trimmed: row.trimmed };
        self.kept.insert(shard, kept);
        let found = self.ends.get(&shard).copied().unwrap_or_default();
        if let Some(sealed) = row.sealed_end.filter(|sealed| found > *sealed) {
            let beyond = RecordIndex(found.0 - 1).time();
            self.notes.push(format!(
                "shard {} was sealed at {}, and has records behind that, up to {beyond}",
                shard.0,
                sealed.time()
            ));
        }
        let settled = |end: &RecordIndex| end.time().plus(SETTLED) < self.started;
        let indexed = self.newest_index.as_ref().and_then(|index| index.ends.get(&shard.0));
        let indexed = indexed.copied().map(RecordIndex);
        let end = indexed.max(row.sealed_end.filter(settled)).unwrap_or_default();
        // A server frees what nobody may read any more.
        if end <= found || self.moved || !kept.reaches(end, now) || self.is_explained(shard, end) {
            return Ok(());
        }
        let shortest = Kept { retention: retention.min(KEPT_MIN), ..kept };
        if shortest.reaches(end, now) {
            self.damages.push(Damage {
                file: "hydrant.db".to_owned(),
                at: 0,
                end: 0,
                what: format!(
                    "the last records of shard {} are in no segment: the file that held them is missing",
                    shard.0
                ),
                lost: vec![Loss { shard: Some(shard), first: found, end, records: None }],
            });
        } else {
            self.notes.push(format!(
                "the last records of shard {}, up to {}, are in no segment: they expired before its \
                 retention was raised, or a file is missing",
                shard.0,
                end.time()
            ));
        }
        Ok(())
    }

    fn is_explained(&self, shard: ShardUid, end: RecordIndex) -> bool {
        let damaged = self.damages.iter().flat_map(|damage| &damage.lost);
        let missing = self.missing.iter().flat_map(|(_, lost)| lost);
        damaged.chain(missing).chain(&self.accepted).any(|loss| loss.explains(shard, end))
    }

    /// What it comes to, once every row was compared.
    pub fn finish(mut self, now: Timestamp) -> Verdict {
        for (listed, mut lost) in std::mem::take(&mut self.missing) {
            let is_kept = |loss: &Loss| {
                let kept = loss.shard.and_then(|shard| self.kept.get(&shard));
                kept.is_some_and(|kept| kept.reaches(loss.end, now))
            };
            lost.retain(is_kept);
            // Otherwise it was freed, and a crash left its index.
            if !lost.is_empty() {
                let (file, what) =
                    (shown(&listed.name()), "the segment's file is missing".to_owned());
                self.damages.push(Damage { file, at: 0, end: 0, what, lost });
                self.repairs.push((listed, Repair::Missing));
            }
        }
        let longest = self.kept.values().map(|kept| kept.retention).max().unwrap_or_default();
        for gap in &self.gaps {
            let Gap { from, to, after_ms, until_ms } = *gap;
            let of = |ms| Timestamp::from_millis(ms);
            let is_missing = |(listed, _): &(Listed, Repair)| (from..=to).contains(&listed.no);
            if of(until_ms).plus(longest) > now && !self.repairs.iter().any(is_missing) {
                self.notes.push(format!(
                    "segments {from} to {to} are not there: they were freed, as nothing in them was \
                     kept any more, or their files are missing; what was in them arrived from {} to {}",
                    of(after_ms),
                    of(until_ms)
                ));
            }
        }
        if self.archived > 0 {
            self.notes.push(format!(
                "{} segments are in the archive only: their indexes were read, and not their records",
                self.archived
            ));
        }
        let unknown = self.ends.keys().filter(|shard| !self.kept.contains_key(shard)).count();
        if unknown > 0 {
            self.notes.push(format!("{unknown} shards with records were dropped"));
        }
        if self.moved {
            self.notes.push(
                "the server freed or merged segments meanwhile: they were not compared with each \
                 other, nor with the shards' ends"
                    .to_owned(),
            );
        }
        self.repairs.sort_by_key(|(listed, _)| *listed);
        Verdict { damages: self.damages, notes: self.notes, repairs: self.repairs }
    }
}

impl Checked {
    fn new(opened: &Opened) -> std::io::Result<Self> {
        let segment = opened.segment;
        let report = SegmentReport {
            file: segment.file(),
            number: segment.number(),
            stands_for: segment.stands_for(),
            state: SegmentState::Open,
            bytes: opened.file.size()?,
            end: 0,
            frames: 0,
            records: 0,
            first_ms: None,
            last_ms: None,
            torn_at: None,
            damages: 0,
        };
        let (damages, out_of_order) = (Vec::new(), Vec::new());
        Ok(Self { report, damages, out_of_order, contradicted: None })
    }

    fn finish(&mut self, opened: &Opened, done: Done) {
        let Done { end, ended, torn } = done;
        self.report.end = end;
        self.report.torn_at = torn.then_some(end);
        self.report.state = match opened.segment.stands_for() {
            Some(_) => SegmentState::Cold,
            None if ended => SegmentState::Ended,
            None => SegmentState::Open,
        };
        if let Some(index) = opened.index.whole() {
            let frames = index.entries.len() as u64;
            if frames != self.report.frames {
                let there = self.report.frames;
                let what = format!("the index lists {frames} frames, and there are {there}");
                self.contradicted.get_or_insert(what);
            }
            if index.data_end != end || self.report.last_ms > Some(index.last_ms) {
                let what = "the index ends elsewhere than its segment";
                self.contradicted.get_or_insert_with(|| what.to_owned());
            }
        }
    }
}

/// The name of a segment's index.
pub(super) fn index_name(listed: Listed) -> String {
    super::files::header_of(listed, [0; 16]).index_name()
}
