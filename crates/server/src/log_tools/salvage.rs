//! `hydrant log salvage`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use hydrant_core::Random;
use hydrant_storage::{DataDir, LogFiles, Salvaged};
use serde_json::json;

use super::{DAMAGED, Looked, as_json, look, now, print};

/// Settings of `log salvage`.
#[derive(Debug, Args)]
pub(crate) struct Salvage {
    #[command(flatten)]
    pub(crate) looked: Looked,

    /// Go on without what is lost. Without this, it is only said what would be.
    #[arg(long)]
    accept_loss: bool,
}

/// Says what is lost, and goes on without it if that is accepted.
pub(super) fn run(salvage: &Salvage, out: &mut dyn Write) -> Result<ExitCode> {
    let looked = &salvage.looked;
    // A directory that is not there must not be made.
    LogFiles::open(&looked.data_dir)?;
    let dir = DataDir::open(&looked.data_dir)?;
    let seen = look(looked, &mut |_| Ok(()))?;
    if !looked.json {
        print(&seen, out)?;
    }
    let is_whole = seen.verdict.is_whole();
    let done = match salvage.accept_loss && !is_whole {
        true => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).context("the system gives no randomness")?;
            seen.verdict.salvage(&dir, &Random::from_entropy(seed), now())?
        }
        false => Vec::new(),
    };
    if looked.json {
        let mut told = as_json(&seen);
        told["salvaged"] = json!(done);
        writeln!(out, "{told}")?;
    } else {
        say(&done, is_whole, salvage.accept_loss, out)?;
    }
    Ok(match is_whole || salvage.accept_loss {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(DAMAGED),
    })
}

fn say(done: &[Salvaged], is_whole: bool, accepted: bool, out: &mut dyn Write) -> Result<()> {
    for salvaged in done {
        let Salvaged { file, kept, frames, records } = salvaged;
        let kept = match kept.is_empty() {
            true => "; there was nothing to keep".to_owned(),
            false => format!("; what was there is kept as {}", kept.join(" and ")),
        };
        match file.ends_with("x") {
            true => writeln!(out, "{file}: made anew{kept}")?,
            false => {
                writeln!(
                    out,
                    "{file}: written anew, {frames} frames with {records} records{kept}"
                )?;
            }
        }
    }
    match (is_whole, accepted) {
        (true, _) => writeln!(out, "whole: there is nothing to do")?,
        (false, true) => writeln!(out, "whole again: hydrant can be started")?,
        (false, false) => writeln!(
            out,
            "nothing was changed; copy the data directory aside, then --accept-loss goes on without \
             what is lost"
        )?,
    }
    Ok(())
}
