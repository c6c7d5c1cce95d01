//! A walk through one segment, frame by frame, past whatever is damaged.

use std::io;

use bytes::Bytes;
use hydrant_core::Timestamp;
use hydrant_core::record::Frame;

use super::files::{Opened, shown};
use super::frame::{Header, Kind, Stamp};
use super::loss::{Damage, Loss, listed_between};
use super::segment::{DATA_START, Scanner, Step};

/// What a walk comes past.
pub(super) enum Seen {
    /// A whole frame, and the byte where it starts.
    Frame(u64, Header),
    /// A place where something else was written.
    Damage(Damage),
    /// The end.
    Done(Done),
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// Past the last frame with records or proof.
    pub(super) end: u64,
    /// It was left for the next one.
    pub(super) ended: bool,
    /// Behind the end is a part of a write that was never acknowledged.
    pub(super) torn: bool,
}

/// A walk. Holds a few megabytes of the segment, or one frame, and its index.
pub(super) struct Walk<'a> {
    opened: &'a Opened,
    /// None if nothing of the segment can be read.
    scanner: Option<Scanner<'a>>,
    /// Where the segment's last frame ends, if its index says so.
    data_end: Option<u64>,
    /// Arrival of the latest record so far.
    last_ms: u64,
    header_told: bool,
    done: Option<Done>,
}

impl<'a> Walk<'a> {
    /// A walk that starts at the segment's first frame.
    pub(super) fn new(opened: &'a Opened) -> io::Result<Self> {
        let scanner = |stamp: Stamp| Scanner::new(&opened.file, stamp);
        let floor_ms = opened.header.as_ref().map_or(0, |header| header.floor_ms);
        Ok(Self {
            opened,
            scanner: opened.stamp.map(scanner).transpose()?,
            data_end: opened.index.whole().map(|index| index.data_end),
            last_ms: floor_ms,
            header_told: opened.header.is_ok(),
            done: None,
        })
    }

    /// The next thing; [`Seen::Done`] for good at the end.
    pub(super) fn next(&mut self) -> io::Result<Seen> {
        if let Some(done) = self.done {
            return Ok(Seen::Done(done));
        }
        if !self.header_told {
            self.header_told = true;
            return self.bad_header();
        }
        let Some(scanner) = &mut self.scanner else {
            return Ok(self.finish(Done { end: DATA_START, ended: true, torn: false }));
        };
        let mut step = scanner.next()?;
        if let Step::Bad(_) = step {
            let is_lost = scanner.proof_of_loss()?.is_some();
            // It may have been in the middle of being written. What proves a loss was written later,
            // so that by now it is whole, or will never be.
            scanner.reread()?;
            step = scanner.next()?;
            let is_tail = self.opened.segment.newest && self.data_end.is_none() && !is_lost;
            if let (Step::Bad(_), true) = (&step, is_tail) {
                let torn = matches!(step, Step::Bad(Some(_))) || scanner.has_more()?;
                let end = scanner.end;
                return Ok(self.finish(Done { end, ended: false, torn }));
            }
        }
        Ok(match step {
            Step::Frame(at, header) => {
                if header.kind == Kind::Records {
                    self.last_ms = self.last_ms.max(header.arrival_ms);
                }
                Seen::Frame(at, header)
            }
            Step::End => {
                let end = scanner.end;
                self.finish(Done { end, ended: true, torn: false })
            }
            Step::Bad(header) => Seen::Damage(self.bad_frame(header.as_ref())?),
        })
    }

    /// The records of the frame that was just seen. `None` if they are none, though their checksum is
    /// right.
    pub(super) fn records(&mut self, at: u64, header: &Header) -> io::Result<Option<Frame>> {
        let Some(scanner) = &mut self.scanner else { return Ok(None) };
        let body = Bytes::copy_from_slice(scanner.body(at, header)?);
        let offsets = (header.count as usize).saturating_mul(4);
        if offsets > body.len() {
            return Ok(None);
        }
        let arrival = Timestamp::from_millis(header.arrival_ms);
        let records = body.slice(offsets..);
        Ok(Frame::new(header.first, arrival, body.slice(..offsets), records).ok())
    }

    /// The bytes of the frame that was just seen, without its header and its padding.
    pub(super) fn body(&mut self, at: u64, header: &Header) -> io::Result<&[u8]> {
        match &mut self.scanner {
            Some(scanner) => scanner.body(at, header),
            None => Ok(&[]),
        }
    }

    /// Arrival of the latest record so far.
    pub(super) fn last_ms(&self) -> u64 {
        self.last_ms
    }

    fn finish(&mut self, done: Done) -> Seen {
        self.done = Some(done);
        Seen::Done(done)
    }

    fn bad_header(&mut self) -> io::Result<Seen> {
        let what = self.opened.header.as_ref().err().copied().unwrap_or_default();
        let (end, lost) = match (&self.scanner, &self.opened.index) {
            (Some(_), _) => (DATA_START, Vec::new()),
            (None, index) => {
                let len = crate::disk::DiskFile::size(&self.opened.file)?;
                let lost = match index.whole() {
                    Some(index) => listed_between(index, 0, u64::MAX),
                    None => vec![Loss::unknown(0, None)],
                };
                (len, lost)
            }
        };
        Ok(Seen::Damage(self.damage(0, end, what.to_owned(), lost)))
    }

    /// Tells of the frame where the scan stands, and goes on behind it.
    fn bad_frame(&mut self, header: Option<&Header>) -> io::Result<Damage> {
        let (opened, data_end) = (self.opened, self.data_end);
        let Some(scanner) = &mut self.scanner else {
            return Ok(self.damage(0, 0, String::new(), Vec::new()));
        };
        let at = scanner.end;
        let next = scanner.resume()?;
        let (end, next_ms) = match next {
            Some(next) => (next, scanner.peek(next)?.filter(|h| h.kind == Kind::Records)),
            None => (scanner.len().max(at).max(data_end.unwrap_or(0)), None),
        };
        let what = match (header, next) {
            _ if data_end == Some(at) => "the frame that ends the segment is not as written",
            (Some(_), _) => "the records of the frame there are not as written",
            (None, Some(_)) => "the frame there is not as written",
            (None, None) => "no frame can be read from there on, though there was more",
        };
        let lost = match (opened.index.whole(), header) {
            (Some(index), _) => {
                listed_between(index, at, if next.is_some() { end } else { u64::MAX })
            }
            (None, Some(header)) => {
                let of_frame = (header.kind == Kind::Records).then_some(Loss {
                    shard: Some(header.shard),
                    first: header.first,
                    end: header.first.plus(header.count.into()),
                    records: Some(header.count.into()),
                });
                let more = end > at + header.frame_bytes();
                let behind = more.then(|| self.unknown(next_ms.map(|h| h.arrival_ms)));
                of_frame.into_iter().chain(behind).collect()
            }
            (None, None) => vec![self.unknown(next_ms.map(|h| h.arrival_ms))],
        };
        if next.is_none() {
            self.done = Some(Done { end: at, ended: true, torn: false });
        }
        Ok(self.damage(at, end, what.to_owned(), lost))
    }

    fn unknown(&self, next_ms: Option<u64>) -> Loss {
        Loss::unknown(self.last_ms, next_ms)
    }

    fn damage(&self, at: u64, end: u64, mut what: String, lost: Vec<Loss>) -> Damage {
        if let Some((byte, error)) = self.opened.file.failure() {
            what.push_str(&format!("; the disk does not give back byte {byte}: {error}"));
        }
        Damage { file: shown(&self.opened.segment.listed.name()), at, end, what, lost }
    }
}
