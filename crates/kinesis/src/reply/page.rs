//! Records of one shard, and where they end, straight from the frames that hold them: measured first,
//! then written all at once, or in pieces that are made as their client takes them.

use bytes::Bytes;
use hydrant_core::catalog::Shard;
use hydrant_core::record::{Frame, Record};
use hydrant_wire::{Format, Pieces, Reply};

use super::cbor::Cbor;
use super::json::Json;
use crate::error::Error;
use crate::room::Reserved;
use crate::shards::ChildShard;

/// Bytes of one piece of a reply: few enough to be in a processor's cache still when they are copied to
/// the socket. A shorter reply is one piece.
pub(super) const PIECE_BYTES: usize = 192 << 10;
/// Room in a piece for what is written behind its last data.
const PIECE_SLACK_BYTES: usize = 8 << 10;

/// What stands around the records in a reply to `GetRecords`, or in a `SubscribeToShardEvent`.
pub(crate) struct Page<'a> {
    /// Their shard.
    pub(crate) shard: &'a Shard,
    /// `MillisBehindLatest`.
    pub(crate) behind_ms: u64,
    /// The member that says where to go on, and its value, which needs no escapes in JSON.
    pub(crate) next: Option<(&'static str, &'a str)>,
    /// At the end of a closed shard, those that follow it.
    pub(crate) children: Option<Vec<ChildShard>>,
}

/// How the parts of a page are written in a format. What is written of a record is as long as was
/// measured.
pub(super) trait Writing: Send + 'static {
    /// Bytes that stand between two records.
    const BETWEEN_BYTES: usize;

    /// For records of this shard.
    fn of(shard: &Shard) -> Self;
    /// Writes what stands in front of so many records.
    fn start(&self, page: &Page<'_>, records: usize, out: &mut Vec<u8>);
    /// Writes what stands behind the records. Fails only where a value cannot be written at all.
    fn end(&self, page: &Page<'_>, out: &mut Vec<u8>) -> Result<(), Error>;
    /// Bytes that are written of a record, and between it and the one before.
    fn measure(&mut self, record: &Record<'_>) -> usize;
    /// Writes what stands in front of a record's data.
    fn open(&mut self, record: &Record<'_>, is_first: bool, out: &mut Vec<u8>);
    /// Writes some of the data: a multiple of three bytes, or all the rest.
    fn data(part: &[u8], out: &mut Vec<u8>);
    /// Writes what stands behind the data.
    fn close(record: &Record<'_>, out: &mut Vec<u8>);
}

impl Page<'_> {
    /// Writes a page with these records into a buffer that `make` made for so many bytes; it is full
    /// afterwards. Fails only where a value cannot be written at all.
    pub(crate) fn write(
        &self,
        frames: &[Frame],
        format: Format,
        make: impl FnOnce(usize) -> Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        match format {
            Format::Json => Measured::<Json>::new(self, frames)?.write(frames, make),
            Format::Cbor => Measured::<Cbor>::new(self, frames)?.write(frames, make),
        }
    }

    /// The reply with these records. A long one keeps them, and of the room what it takes.
    pub(crate) fn reply(
        &self,
        frames: Vec<Frame>,
        format: Format,
        room: Reserved,
    ) -> Result<Reply, Error> {
        match format {
            Format::Json => Measured::<Json>::new(self, &frames)?.reply(frames, room),
            Format::Cbor => Measured::<Cbor>::new(self, &frames)?.reply(frames, room),
        }
    }

    /// How many members the page has in either format.
    pub(super) fn members(&self) -> usize {
        2 + usize::from(self.next.is_some()) + usize::from(self.children.is_some())
    }
}

/// A page whose length is known.
pub(super) struct Measured<W> {
    writing: W,
    start: Vec<u8>,
    end: Vec<u8>,
    pub(super) bytes: usize,
}

impl<W: Writing> Measured<W> {
    pub(super) fn new(page: &Page<'_>, frames: &[Frame]) -> Result<Self, Error> {
        let mut writing = W::of(page.shard);
        let (mut start, mut end) = (Vec::new(), Vec::new());
        writing.start(page, frames.iter().map(Frame::len).sum(), &mut start);
        writing.end(page, &mut end)?;
        let records = frames.iter().flat_map(Frame::records);
        let records: usize = records.map(|record| writing.measure(&record)).sum();
        let bytes = start.len() + records.saturating_sub(W::BETWEEN_BYTES) + end.len();
        Ok(Self { writing, start, end, bytes })
    }

    fn write(
        mut self,
        frames: &[Frame],
        make: impl FnOnce(usize) -> Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let mut out = make(self.bytes);
        out.extend_from_slice(&self.start);
        Place::default().write(frames, &mut self.writing, usize::MAX, &mut out);
        out.extend_from_slice(&self.end);
        Ok(out)
    }

    fn reply(self, frames: Vec<Frame>, room: Reserved) -> Result<Reply, Error> {
        let bytes = self.bytes;
        if bytes <= PIECE_BYTES {
            let whole = self.write(&frames, Vec::with_capacity)?;
            return Ok(Reply::Whole(whole.into()));
        }
        let held = frames.iter().map(Frame::held_bytes).sum::<usize>().max(bytes);
        let room = room.keep(held);
        let mut pieces = self.pieces(frames, PIECE_BYTES);
        let pieces = std::iter::from_fn(move || {
            let _held = &room;
            pieces.next()
        });
        Ok(Reply::Pieces(Pieces::new(bytes as u64, pieces)))
    }

    /// The page in pieces of about so many bytes.
    pub(super) fn pieces(
        self,
        frames: Vec<Frame>,
        piece_bytes: usize,
    ) -> impl Iterator<Item = Bytes> + Send + 'static {
        let Self { mut writing, start, end, .. } = self;
        let (mut frames, mut place, mut start) = (frames, Place::default(), Some(start));
        let mut spare = Bytes::new();
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let mut out = buffer(std::mem::take(&mut spare), piece_bytes + PIECE_SLACK_BYTES);
            if let Some(start) = start.take() {
                out.extend_from_slice(&start);
            }
            if place.write(&frames, &mut writing, piece_bytes, &mut out) {
                out.extend_from_slice(&end);
                (is_over, frames) = (true, Vec::new());
            }
            let piece = Bytes::from(out);
            // For the next piece, if this one is gone by then.
            spare = piece.clone();
            spare.truncate(0);
            Some(piece)
        })
    }
}

/// An empty buffer: that of `spare` again, if nobody else has any of it.
fn buffer(spare: Bytes, capacity: usize) -> Vec<u8> {
    match spare.is_unique() {
        true => {
            let mut buffer = Vec::from(spare);
            buffer.clear();
            buffer
        }
        false => Vec::with_capacity(capacity),
    }
}

/// How far the records have been written.
#[derive(Default)]
struct Place {
    frame: usize,
    record: usize,
    /// How many bytes of the record's data; `None` if none of the record has been written.
    data: Option<usize>,
}

impl Place {
    /// Goes on until the buffer has `until` bytes or a few more; `true` if all has been written.
    fn write<W: Writing>(
        &mut self,
        frames: &[Frame],
        writing: &mut W,
        until: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        while let Some(frame) = frames.get(self.frame) {
            while self.record < frame.len() {
                if out.len() >= until || !self.write_record(frame, writing, until, out) {
                    return false;
                }
                self.record += 1;
            }
            (self.frame, self.record) = (self.frame + 1, 0);
        }
        true
    }

    fn write_record<W: Writing>(
        &mut self,
        frame: &Frame,
        writing: &mut W,
        until: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let record = frame.get(self.record);
        let is_first = self.frame == 0 && self.record == 0;
        let done = self.data.take().unwrap_or_else(|| {
            writing.open(&record, is_first, out);
            0
        });
        let rest = &record.data[done..];
        // As many as base64 makes the missing bytes of.
        let fitting = until.saturating_sub(out.len()).max(4) / 4 * 3;
        let part = &rest[..rest.len().min(fitting)];
        W::data(part, out);
        if part.len() < rest.len() {
            self.data = Some(done + part.len());
            return false;
        }
        W::close(&record, out);
        true
    }
}
