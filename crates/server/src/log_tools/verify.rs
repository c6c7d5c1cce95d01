//! `hydrant log verify`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use hydrant_core::Timestamp;
use hydrant_storage::{SegmentReport, SegmentState};

use super::{DAMAGED, Looked, as_json, look, print};

/// Verifies, and prints each segment as it is through.
pub(super) fn run(looked: &Looked, out: &mut dyn Write) -> Result<ExitCode> {
    let seen = look(looked, &mut |segment| match looked.json {
        true => Ok(()),
        false => {
            writeln!(out, "{}", line(segment))?;
            Ok(out.flush()?)
        }
    })?;
    if looked.json {
        writeln!(out, "{}", as_json(&seen))?;
    } else {
        print(&seen, out)?;
        let records: u64 = seen.segments.iter().map(|s| s.records).sum();
        let all = format!("{} segments with {records} records", seen.segments.len());
        match seen.verdict.damages.len() {
            0 => writeln!(out, "whole: {all}")?,
            places => writeln!(
                out,
                "damaged in {places} places: {all} can be read; `hydrant log salvage` goes on without \
                 the rest"
            )?,
        }
    }
    Ok(match seen.verdict.is_whole() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(DAMAGED),
    })
}

/// A segment in a line.
pub(super) fn line(segment: &SegmentReport) -> String {
    let SegmentReport { file, bytes, end, frames, records, .. } = segment;
    let state = match segment.state {
        SegmentState::Open => "not ended",
        SegmentState::Ended => "ended",
        SegmentState::Cold => "cold",
        SegmentState::Archived => "in the archive only",
    };
    let mut line =
        format!("{file}: {state}, {end} of {bytes} bytes, {frames} frames, {records} records");
    if let (Some(first), Some(last)) = (segment.first_ms, segment.last_ms) {
        let [first, last] = [first, last].map(Timestamp::from_millis);
        line.push_str(&format!(", {first} to {last}"));
    }
    if let Some(torn) = segment.torn_at {
        line.push_str(&format!(
            ", behind byte {torn} a write that was cut short or is under way, never acknowledged"
        ));
    }
    match segment.damages {
        0 => {}
        n => line.push_str(&format!(", DAMAGED in {n} places")),
    }
    line
}
