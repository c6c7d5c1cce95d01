//! What a segment holds, frame by frame, for whoever wants to see it.

use std::collections::HashSet;

use hydrant_core::Timestamp;
use hydrant_core::log::ShardUid;
use hydrant_core::record::Frame;
use hydrant_core::sequence::RecordIndex;

use super::files::{FoundSegment, LogFiles, Opened, WholeIndex};
use super::frame::Kind;
use super::loss::Damage;
use super::walk::{Seen, Walk};
use crate::error::OpenError;

/// Which frames are looked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those of these shards; all of them without.
    pub shards: Option<HashSet<ShardUid>>,
    /// Those with a record at this or above.
    pub from: RecordIndex,
    /// Those with a record below this.
    pub to: Option<RecordIndex>,
    /// Also what is in them.
    pub records: bool,
}

/// A whole frame.
#[derive(Clone, Debug)]
pub struct FrameFound {
    /// Where in the segment's file it starts.
    pub at: u64,
    /// Its bytes, header and padding included.
    pub bytes: u64,
    /// Whose records they are.
    pub shard: ShardUid,
    /// Place of the first record.
    pub first: RecordIndex,
    /// How many.
    pub count: u32,
    /// When they arrived.
    pub arrival: Timestamp,
    /// The group it was written in; groups are synced together.
    pub group: u64,
    /// Every byte of the segment before this was synced before it was written.
    pub durable_upto: u64,
    /// The records, if they were asked for and are some.
    pub records: Option<Frame>,
}

/// What is in a segment.
#[derive(Clone, Debug)]
pub enum Found {
    /// A whole frame with records.
    Frame(FrameFound),
    /// Bytes that are not what was written.
    Damage(Damage),
    /// From this byte on there is a write that was cut short, or is under way.
    Torn(u64),
}

impl Wanted {
    fn wants(&self, shard: ShardUid, first: RecordIndex, end: RecordIndex) -> bool {
        let is_of = self.shards.as_ref().is_none_or(|shards| shards.contains(&shard));
        is_of && end > self.from && self.to.is_none_or(|to| first < to)
    }

    /// Whether there may be such frames in the segment, by its header and its index.
    fn may_be_in(&self, opened: &Opened) -> bool {
        let after =
            |ms| self.to.is_some_and(|to| RecordIndex::at(Timestamp::from_millis(ms)) >= to);
        if opened.header.as_ref().is_ok_and(|header| after(header.floor_ms)) {
            return false;
        }
        let Some(index) = opened.index.whole() else { return true };
        let holds = |index: &WholeIndex, shard: &ShardUid| {
            index.find(*shard, self.from).is_some_and(|e| self.wants(*shard, e.first, e.end()))
        };
        match &self.shards {
            Some(shards) => shards.iter().any(|shard| holds(index, shard)),
            None => index.last_ms >= self.from.time().as_millis(),
        }
    }
}

impl LogFiles {
    /// Calls `visit` with what is wanted of a segment, in the order in which it was written, until it
    /// answers false. Says whether to go on with the next segment. A segment that was freed meanwhile
    /// is passed over, and so is one that is in the archive only.
    ///
    /// # Errors
    /// The file cannot be read, or another version of hydrant wrote it; or the first one of `visit`.
    pub fn visit<E: From<OpenError>>(
        &self,
        segment: FoundSegment,
        wanted: &Wanted,
        visit: &mut dyn FnMut(Found) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let Some(opened) = self.look(segment)? else { return Ok(true) };
        if segment.archived {
            return Ok(true);
        }
        if !wanted.may_be_in(&opened) {
            return Ok(true);
        }
        let path = self.dir.file(&segment.listed.name());
        let failed = |e| OpenError::io("read", &path, e);
        let mut walk = Walk::new(&opened).map_err(failed)?;
        loop {
            let found = match walk.next().map_err(failed)? {
                Seen::Frame(at, header) => {
                    let end = header.first.plus(header.count.into());
                    if header.kind != Kind::Records
                        || !wanted.wants(header.shard, header.first, end)
                    {
                        continue;
                    }
                    let records = match wanted.records {
                        true => walk.records(at, &header).map_err(failed)?,
                        false => None,
                    };
                    Found::Frame(FrameFound {
                        at,
                        bytes: header.frame_bytes(),
                        shard: header.shard,
                        first: header.first,
                        count: header.count,
                        arrival: Timestamp::from_millis(header.arrival_ms),
                        group: header.group,
                        durable_upto: header.durable_upto,
                        records,
                    })
                }
                Seen::Damage(_) if !self.is_there(&opened) => return Ok(true),
                Seen::Damage(damage) => Found::Damage(damage),
                Seen::Done(done) if done.torn => {
                    return visit(Found::Torn(done.end));
                }
                Seen::Done(_) => return Ok(true),
            };
            if !visit(found)? {
                return Ok(false);
            }
        }
    }
}
