//! `hydrant log`: what is on the disk, whether it is whole, and the way on if it is not.

mod dump;
mod names;
mod salvage;
mod verify;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use hydrant_core::{Clock, SystemClock, Timestamp};
use hydrant_storage::{ControlReader, LogFiles, SHARD_ROWS, SegmentReport, Verdict};
use serde_json::{Value, json};

use names::Names;

/// Something is damaged.
const DAMAGED: u8 = 1;
/// The log cannot be read, or the command makes no sense.
const UNREADABLE: u8 = 2;

/// Look at the log of a data directory.
#[derive(Debug, Subcommand)]
pub(crate) enum LogTool {
    /// Read all of it, and say what is damaged. Changes nothing; a server may run meanwhile.
    ///
    /// Ends with 0 if the log is whole, 1 if it is damaged, 2 if it cannot be read.
    Verify(Looked),
    /// Print frames and records in the order in which they were written. A server may run meanwhile.
    Dump(dump::Dump),
    /// Go on from damage: say what is lost and, with --accept-loss, make the log whole without it.
    ///
    /// Damaged files are kept in log/damaged. No server may run. Ends with 0 if the log is whole
    /// afterwards, 1 if it is damaged and nothing was changed, 2 if it cannot be read.
    Salvage(salvage::Salvage),
}

/// Which log, and how to print.
#[derive(Debug, Args)]
pub(crate) struct Looked {
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "HYDRANT_DATA_DIR", default_value = "hydrant-data")]
    pub(crate) data_dir: PathBuf,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs a tool to its end; what it could not do is for the caller to print.
pub(crate) fn run(tool: &LogTool) -> Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match tool {
        LogTool::Verify(looked) => verify::run(looked, &mut out),
        LogTool::Dump(dump) => dump::run(dump, &mut out),
        LogTool::Salvage(salvage) => salvage::run(salvage, &mut out),
    };
    let done = done.and_then(|code| Ok(out.flush().map(|()| code)?));
    match done {
        // Nobody reads on. Whether the log is whole was not told.
        Err(e) if is_broken_pipe(&e) => Ok(match tool {
            LogTool::Dump(_) => ExitCode::SUCCESS,
            LogTool::Verify(_) | LogTool::Salvage(_) => failed(),
        }),
        Err(e) => {
            // What was found until then.
            let _ = out.flush();
            Err(e)
        }
        done => done,
    }
}

/// The exit status of a tool that failed.
pub(crate) fn failed() -> ExitCode {
    ExitCode::from(UNREADABLE)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_it = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|e| e.downcast_ref::<io::Error>().is_some_and(is_it))
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// What a verification found.
struct Seen {
    segments: Vec<SegmentReport>,
    verdict: Verdict,
    names: Names,
}

/// Verifies the log and compares it with the control store. `told` gets each segment at once.
fn look(looked: &Looked, told: &mut dyn FnMut(&SegmentReport) -> Result<()>) -> Result<Seen> {
    let files = LogFiles::open(&looked.data_dir)?;
    let rows = ControlReader::open(&looked.data_dir)?;
    let (mut segments, mut failed) = (Vec::new(), None);
    let mut verification = files.verify(now(), &mut |segment| {
        if failed.is_none() {
            failed = told(segment).err();
        }
        segments.push(segment.clone());
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let now = now();
    let compared = rows.each(SHARD_ROWS, |key, row| verification.row(key, row, now));
    compared.context("comparing the log with hydrant.db")?;
    let names = Names::read(&rows)?;
    Ok(Seen { segments, verdict: verification.finish(now), names })
}

/// The damages and notes, for people.
fn print(seen: &Seen, out: &mut dyn Write) -> Result<()> {
    for damage in &seen.verdict.damages {
        let (at, end) = (damage.at, damage.end);
        let place = match end > at {
            true => format!(", byte {at} to {end}"),
            false => format!(", byte {at}"),
        };
        writeln!(out, "DAMAGED {}{place}: {}", damage.file, damage.what)?;
        for loss in &damage.lost {
            writeln!(out, "  lost: {}", seen.names.loss(loss))?;
        }
    }
    for note in &seen.verdict.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// The same, for programs.
fn as_json(seen: &Seen) -> Value {
    let damages = seen.verdict.damages.iter().map(|damage| {
        let lost: Vec<_> = damage.lost.iter().map(|loss| seen.names.loss_json(loss)).collect();
        json!({ "file": damage.file, "at": damage.at, "end": damage.end, "what": damage.what,
                "lost": lost })
    });
    let damages: Vec<_> = damages.collect();
    json!({ "whole": seen.verdict.is_whole(), "segments": seen.segments, "damages": damages,
            "notes": seen.verdict.notes })
}
