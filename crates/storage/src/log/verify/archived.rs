//! Segments that are in the archive only, as far as what is left of them tells.

use std::io;

use super::{Checked, SegmentState, Verification, index_name};
use crate::log::archived::{mark_name, receipt_of};
use crate::log::files::{Opened, shown};
use crate::log::loss::Damage;
use crate::log::recovery::WAY_ON_ARCHIVED;

impl Verification {
    /// What the index of an archived segment says.
    pub(super) fn archived(&mut self, opened: &Opened) -> io::Result<Checked> {
        self.archived += 1;
        let mut checked = Checked::new(opened)?;
        checked.report.state = SegmentState::Archived;
        let is_whole = opened.header.is_ok() && receipt_of(&opened.file)?.is_some();
        if let Some(index) = opened.index.whole() {
            let report = &mut checked.report;
            (report.end, report.frames) = (index.data_end, index.entries.len() as u64);
            report.records = index.entries.iter().map(|(_, entry)| u64::from(entry.count)).sum();
            report.last_ms = (report.frames > 0).then_some(index.last_ms);
            for (shard, entry) in &index.entries {
                let end = self.ends.entry(*shard).or_default();
                *end = entry.end().max(*end);
            }
        }
        if !is_whole || opened.index.whole().is_none() {
            let file = shown(&match is_whole {
                true => index_name(opened.segment.listed),
                false => mark_name(&opened.segment.listed.name()),
            });
            let what = format!("it is not as written; {WAY_ON_ARCHIVED}");
            checked.damages.push(Damage { file, at: 0, end: 0, what, lost: Vec::new() });
        }
        Ok(checked)
    }
}
