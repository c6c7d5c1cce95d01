//! A segment's file: its name, its 4 KiB header, and what a scan of it finds.

use std::io;

use super::directory::{Directory, Entry};
use super::frame::{ALIGN, HEADER_BYTES, Header, Kind, Stamp, u32_at, u64_at};
use crate::disk::DiskFile;
use crate::planted::{Bug, planted};

/// Where the first frame starts.
pub(super) const DATA_START: u64 = 4_096;
/// Room kept at the end of a segment for the frames that cover and end it.
pub(super) const RESERVED_BYTES: u64 = 2 * HEADER_BYTES as u64;
/// The format this build writes and reads.
pub(super) const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"hydr-log";
const SCAN_BYTES: usize = 4 << 20;
/// Bytes searched at a time for a frame behind a bad one.
const BLOCK_BYTES: usize = 4 << 10;

/// `N.seg`: a segment as it was written.
pub(super) fn segment_name(no: u64) -> String {
    format!("{no:012}.seg")
}

/// `F-N.cold`: what was still kept of the segments from `F` to `N`.
pub(super) fn cold_name(first: u64, no: u64) -> String {
    format!("{first:012}-{no:012}.cold")
}

/// The number in a name of `N.extension`.
pub(super) fn number_of(name: &str, extension: &str) -> Option<u64> {
    let number = name.strip_suffix(extension)?.strip_suffix('.')?;
    number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())?
}

/// The head of a segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) no: u64,
    /// Drawn anew for each use of a file, so that frames of an earlier use do not verify.
    pub(super) salt: [u8; 16],
    pub(super) created_ms: u64,
    /// No record of an earlier segment arrived later than this, so a clock that stands before it is
    /// held here.
    pub(super) floor_ms: u64,
    /// The first of the segments that a cold one stands for; none in one as it was written.
    pub(super) stands_for: Option<u64>,
}

/// Why bytes are not a segment's header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Another version of hydrant wrote it.
    Format(u32),
    /// It is damaged, or was never a segment.
    Damaged,
}

impl SegmentHeader {
    /// What the segment's frames, and no others, are written with.
    pub(super) fn stamp(&self) -> Stamp {
        let seed = match planted(Bug::StaleFrames) {
            true => 0,
            false => crc32c::crc32c(&self.salt),
        };
        Stamp { seed, segment: self.no as u32 }
    }

    /// What no other segment of the moment has.
    pub(super) fn key(&self) -> (u64, Option<u64>) {
        (self.no, self.stands_for)
    }

    /// The name of the segment's file.
    pub(super) fn name(&self) -> String {
        match self.stands_for {
            None => segment_name(self.no),
            Some(first) => cold_name(first, self.no),
        }
    }

    /// The name of its index's file.
    pub(super) fn index_name(&self) -> String {
        match self.stands_for {
            None => format!("{:012}.idx", self.no),
            Some(first) => format!("{first:012}-{:012}.cix", self.no),
        }
    }

    /// The header's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(DATA_START as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.no.to_le_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.floor_ms.to_le_bytes());
        // Numbers start from 1.
        out.extend_from_slice(&self.stands_for.unwrap_or(0).to_le_bytes());
        out.resize(DATA_START as usize - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what [`SegmentHeader::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let checked = DATA_START as usize - 4;
        if bytes.len() < DATA_START as usize || &bytes[..8] != MAGIC {
            return Err(BadHeader::Damaged);
        }
        if crc32c::crc32c(&bytes[..checked]) != u32_at(bytes, checked) {
            return Err(BadHeader::Damaged);
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(BadHeader::Format(format));
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&bytes[24..40]);
        Ok(Self {
            no: u64_at(bytes, 16),
            salt,
            created_ms: u64_at(bytes, 40),
            floor_ms: u64_at(bytes, 48),
            stands_for: Some(u64_at(bytes, 56)).filter(|first| *first > 0),
        })
    }
}

/// What a scan found, from the first frame to the end of the segment or the first bad frame.
pub(super) struct Scan {
    pub(super) directory: Directory,
    /// Past the last good frame, the one that ends the segment not counted.
    pub(super) end: u64,
    /// The last group of the segment, and where it starts. Only of those before it is it known that
    /// they were synced.
    pub(super) group: u64,
    pub(super) group_start: u64,
    /// Arrival of the latest record, if there is one.
    pub(super) last_ms: u64,
    /// Whether the segment was ended, so that nothing belongs behind `end`.
    pub(super) ended: bool,
    /// A frame behind `end` which proves that `end` was synced further: acknowledged data is lost.
    pub(super) proof_of_loss: Option<u64>,
}

/// Reads a segment from its first frame on, verifying every checksum, and looks behind a bad frame
/// for the proof that it was good once.
pub(super) fn scan(file: &dyn DiskFile, stamp: Stamp) -> io::Result<Scan> {
    let mut scanner = Scanner::new(file, stamp)?;
    let mut scan = frames(&mut scanner)?;
    if !scan.ended {
        scan.proof_of_loss = scanner.proof_of_loss()?;
    }
    Ok(scan)
}

/// Reads what is good of a segment that another may be writing: a frame that is not, is not yet.
pub(super) fn scan_written(file: &dyn DiskFile, stamp: Stamp) -> io::Result<Scan> {
    frames(&mut Scanner::new(file, stamp)?)
}

fn frames(scanner: &mut Scanner<'_>) -> io::Result<Scan> {
    let (mut directory, mut last_ms) = (Directory::default(), 0);
    let ended = loop {
        match scanner.next()? {
            Step::Frame(at, header) if header.kind == Kind::Records => {
                directory.add(header.shard, Entry::of(&header, at));
                last_ms = last_ms.max(header.arrival_ms);
            }
            Step::Frame(..) => {}
            Step::End => break true,
            Step::Bad(_) => break false,
        }
    };
    let (end, group, group_start) = (scanner.end, scanner.group, scanner.group_start);
    Ok(Scan { directory, end, group, group_start, last_ms, ended, proof_of_loss: None })
}

/// What is at the place where a scan stands.
pub(super) enum Step {
    /// A whole frame that starts at this byte; the scan now stands behind it.
    Frame(u64, Header),
    /// The frame that ends the segment, whole.
    End,
    /// No whole frame, or one that does not belong there. The header, if only what is behind it is
    /// not as written.
    Bad(Option<Header>),
}

/// Goes from frame to frame of a segment.
pub(super) struct Scanner<'a> {
    window: Window<'a>,
    stamp: Stamp,
    /// Where it stands: past the last good frame.
    pub(super) end: u64,
    /// The last group, and where it starts.
    pub(super) group: u64,
    /// See there.
    pub(super) group_start: u64,
}

impl<'a> Scanner<'a> {
    /// A scan that stands at the first frame.
    pub(super) fn new(file: &'a dyn DiskFile, stamp: Stamp) -> io::Result<Self> {
        let window = Window::new(file)?;
        Ok(Self { window, stamp, end: DATA_START, group: 0, group_start: DATA_START })
    }

    /// Looks at the next frame, and goes past it if it is whole and does not end the segment.
    pub(super) fn next(&mut self) -> io::Result<Step> {
        let at = self.end;
        let Some(header) = self.window.header(at, self.stamp)? else { return Ok(Step::Bad(None)) };
        let next_group = header.group > self.group && header.durable_upto == at;
        let same_group = header.group == self.group && header.durable_upto == self.group_start;
        if !next_group && (!same_group || self.group == 0) {
            return Ok(Step::Bad(None));
        }
        if !self.window.body_is_good(at, &header)? {
            return Ok(Step::Bad(Some(header)));
        }
        if next_group {
            self.group_start = at;
            self.group = header.group;
        }
        if header.kind == Kind::End {
            return Ok(Step::End);
        }
        self.end += header.frame_bytes();
        Ok(Step::Frame(at, header))
    }

    /// A frame behind this place which proves that the segment was synced further.
    pub(super) fn proof_of_loss(&mut self) -> io::Result<Option<u64>> {
        let end = self.end;
        self.window.find_header(end, self.stamp, |h| h.durable_upto > end)
    }

    /// The body of a frame that was found. The caller's duty: the frame is the last one found.
    pub(super) fn body(&mut self, at: u64, header: &Header) -> io::Result<&[u8]> {
        let body = self.window.get(at + HEADER_BYTES as u64, header.body_bytes as usize)?;
        Ok(body.unwrap_or_default())
    }

    /// Forgets what was read ahead: the file may have been written to since.
    pub(super) fn reread(&mut self) -> io::Result<()> {
        self.window = Window::new(self.window.file)?;
        Ok(())
    }

    /// Whether a frame of this segment starts anywhere behind this place.
    pub(super) fn has_more(&mut self) -> io::Result<bool> {
        Ok(self.window.find_header(self.end, self.stamp, |_| true)?.is_some())
    }

    /// Goes on to the next whole frame behind a bad one, and returns where it starts. Without one it
    /// stays where it is.
    pub(super) fn resume(&mut self) -> io::Result<Option<u64>> {
        let mut from = self.end + ALIGN;
        while let Some(at) = self.window.find_header(from, self.stamp, |_| true)? {
            from = at + ALIGN;
            let Some(header) = self.window.header(at, self.stamp)? else { continue };
            let same_group = (header.group, header.durable_upto) == (self.group, self.group_start);
            let later = header.group > self.group && header.durable_upto > self.group_start;
            let first = self.group == 0 && header.durable_upto >= self.group_start;
            let belongs = (same_group || later || first) && header.durable_upto <= at;
            if belongs && self.window.body_is_good(at, &header)? {
                (self.end, self.group) = (at, header.group);
                self.group_start = header.durable_upto;
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The header at this byte, if there is one.
    pub(super) fn peek(&mut self, at: u64) -> io::Result<Option<Header>> {
        self.window.header(at, self.stamp)
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.window.len
    }
}

/// A part of a file in memory, moved along as it is read.
struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        Ok(Self { file, len: file.size()?, start: 0, bytes: Vec::new() })
    }

    /// The `len` bytes at `at`, or `None` if the file ends before that.
    fn get(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if at.saturating_add(len as u64) > self.len {
            return Ok(None);
        }
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + len as u64 > end {
            let want = (self.len - at).min(SCAN_BYTES.max(len) as u64) as usize;
            self.bytes.resize(want, 0);
            self.start = at;
            let got = self.file.read_at(&mut self.bytes, at)?;
            self.bytes.truncate(got);
        }
        let from = (at - self.start) as usize;
        Ok(self.bytes.get(from..from + len))
    }

    fn header(&mut self, at: u64, stamp: Stamp) -> io::Result<Option<Header>> {
        Ok(self.get(at, HEADER_BYTES)?.and_then(|bytes| Header::decode(bytes, stamp)))
    }

    fn body_is_good(&mut self, at: u64, header: &Header) -> io::Result<bool> {
        let body = self.get(at + HEADER_BYTES as u64, header.body_bytes as usize)?;
        let is_good = |body| crc32c::crc32c(body) == header.body_crc;
        Ok(body.is_some_and(|body| is_good(body) || planted(Bug::BodyUnchecked)))
    }

    /// The first place at or behind `at` with a header of this segment that `is` wanted. Quick over
    /// zeros, of which most of a young segment is made.
    fn find_header(
        &mut self,
        mut at: u64,
        stamp: Stamp,
        is: impl Fn(&Header) -> bool,
    ) -> io::Result<Option<u64>> {
        const ZEROS: [u8; BLOCK_BYTES + HEADER_BYTES] = [0; BLOCK_BYTES + HEADER_BYTES];
        loop {
            let left = self.len.saturating_sub(at) as usize;
            let want = left.min(ZEROS.len());
            let Some(block) = self.get(at, want)? else { return Ok(None) };
            if block == &ZEROS[..want] {
                at += BLOCK_BYTES as u64;
            } else {
                let headers = block.windows(HEADER_BYTES).step_by(ALIGN as usize);
                let hit = |bytes: &[u8]| Header::decode(bytes, stamp).is_some_and(|h| is(&h));
                if let Some(n) = headers.take(BLOCK_BYTES / ALIGN as usize).position(hit) {
                    return Ok(Some(at + n as u64 * ALIGN));
                }
                at += BLOCK_BYTES as u64;
            }
            if left <= BLOCK_BYTES {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_notices_damage() {
        let header =
            SegmentHeader { no: 7, salt: [9; 16], created_ms: 1, floor_ms: 2, stands_for: Some(3) };
        let bytes = header.encode();
        assert_eq!(bytes.len(), DATA_START as usize);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for at in [0, 8, 16, 30, 50, 100, 4_095] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&bad), Err(BadHeader::Damaged), "byte {at}");
        }
        let mut newer = bytes[..4_092].to_vec();
        newer[8] = 9;
        newer.extend_from_slice(&crc32c::crc32c(&newer).to_le_bytes());
        assert_eq!(SegmentHeader::decode(&newer), Err(BadHeader::Format(9)));
    }

    #[test]
    fn names_are_numbers() {
        assert_eq!(number_of(&segment_name(12), "seg"), Some(12));
        assert_eq!(number_of("spare-1.seg", "seg"), None);
        assert_eq!(number_of("1.idx", "seg"), None);
    }
}
