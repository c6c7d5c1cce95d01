//! `cargo xtask bench --counts`: how many instructions the hot paths take, which hardly changes from
//! run to run where times do. A loss of more than a fifth is a failure.
//!
//! They are counted by valgrind (callgrind) in the build that the tests use, so that nothing is built
//! for this alone; what is compared is a number with the same number of an earlier commit. The numbers
//! stand in `xtask/counts.toml`, for each kind of machine that code chooses instructions by.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

use crate::process::{apt_install, cargo, present, quietly, root, succeeds};
use crate::tally::Tally;

const FILE: &str = "xtask/counts.toml";
const HEAD: &str = "\
# Instructions of one run of each hot path, by what the machine offers under valgrind.
# Written by `cargo xtask bench --counts --record`; what it fails on is a fifth more.
";
/// How much more is a failure.
const LOSS_MAX: f64 = 1.2;
/// How much less is worth a new record, so that it is not lost again unseen.
const GAIN_MIN: f64 = 0.8;
/// Runs beyond the first, which pays for what is done once.
const RUNS: u64 = 4;
/// Programs at a time.
const AT_ONCE: usize = 2;

/// Instructions by workload.
type Counts = BTreeMap<String, u64>;
/// Counts by kind of machine.
type Recorded = BTreeMap<String, Counts>;

/// Counts, and compares with what was recorded.
pub(crate) fn check() -> Result<Tally> {
    if let Err(error) = valgrind() {
        return Ok(Tally::skip(format!("instruction counts: {error:#}")));
    }
    let Some(program) = build()? else {
        return Ok(Tally::failure("instruction counts: hydrant-measure does not build"));
    };
    let machine = machine(&program)?;
    let Some(before) = read()?.remove(&machine) else {
        let note =
            format!("instruction counts: none were recorded on a machine like this, {machine}");
        return Ok(Tally::skip(note));
    };
    Ok(compare(&before, &count(&program)?))
}

/// Counts, and writes that down.
pub(crate) fn record() -> Result<bool> {
    valgrind()?;
    let Some(program) = build()? else { return Ok(false) };
    let mut recorded = read()?;
    let counts = count(&program)?;
    counts.iter().for_each(|(name, count)| println!("{name:<24} {count:>14}"));
    recorded.insert(machine(&program)?, counts);
    fs::write(root().join(FILE), format!("{HEAD}\n{}", toml::to_string(&recorded)?))?;
    Ok(true)
}

fn valgrind() -> Result<()> {
    if present("valgrind") { Ok(()) } else { apt_install("valgrind") }
}

/// The program that has the workloads. Built with the features of the whole workspace, as the tests
/// are, so that its dependencies are there already.
fn build() -> Result<Option<PathBuf>> {
    if !succeeds(&mut cargo(&["build", "--workspace", "--bin", "counts"]))? {
        return Ok(None);
    }
    let program = std::env::current_exe()?.with_file_name("counts");
    ensure!(program.is_file(), "no {} after building it", program.display());
    Ok(Some(program))
}

fn machine(program: &Path) -> Result<String> {
    let mut command = Command::new("valgrind");
    let said = quietly(command.args(["--tool=none", "-q"]).arg(program).arg("--machine"))?;
    Ok(said.trim().to_owned())
}

fn count(program: &Path) -> Result<Counts> {
    let names = quietly(&mut Command::new(program))?;
    let todo: Mutex<Vec<&str>> = Mutex::new(names.lines().collect());
    let work = || -> Result<Vec<(String, u64)>> {
        let mut done = Vec::new();
        loop {
            let next = todo.lock().ok().and_then(|mut todo| todo.pop());
            let Some(name) = next else { return Ok(done) };
            let (once, all) = (total(program, name, 0)?, total(program, name, RUNS)?);
            done.push((name.to_owned(), all.saturating_sub(once) / RUNS));
        }
    };
    let done = std::thread::scope(|threads| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| threads.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().ok().context("a count failed"));
        joined.map(|done| done?).collect::<Result<Vec<_>>>()
    })?;
    Ok(done.into_iter().flatten().collect())
}

/// Instructions of a whole process.
fn total(program: &Path, name: &str, runs: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([name, &runs.to_string()]);
    let output = command.output().context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed under valgrind:\n{said}");
    collected(&said).with_context(|| format!("valgrind counted nothing of {name}:\n{said}"))
}

/// Reads callgrind's closing line, such as `==77== Collected : 123456`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

fn read() -> Result<Recorded> {
    let text = fs::read_to_string(root().join(FILE)).unwrap_or_default();
    toml::from_str(&text).with_context(|| FILE.to_owned())
}

fn compare(before: &Counts, now: &Counts) -> Tally {
    let mut tally = Tally::default();
    for (name, count) in now {
        let Some(recorded) = before.get(name) else {
            tally.add(Tally::failure(format!("{name}: not in {FILE}; {ADVICE}")));
            continue;
        };
        let ratio = *count as f64 / (*recorded).max(1) as f64;
        println!("{name:<24} {count:>14} instructions, {ratio:.2} of what was recorded");
        if ratio > LOSS_MAX {
            let note = format!(
                "{name}: {count} instructions, {recorded} were recorded. If it is worth that, {ADVICE}"
            );
            tally.add(Tally::failure(note));
        } else {
            if ratio < GAIN_MIN {
                println!("  faster: {ADVICE}");
            }
            tally.add(Tally::counted(1, 0, 0));
        }
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        tally.add(Tally::failure(format!("{name}: in {FILE}, and no workload; {ADVICE}")));
    }
    tally
}

const ADVICE: &str = "record anew with `cargo xtask bench --counts --record`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_callgrind_is_read() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== no"), None);
    }

    #[test]
    fn a_fifth_more_is_a_failure() {
        let counts = |n: u64| Counts::from([("a".to_owned(), n)]);
        let failed = |before: u64, now: u64| compare(&counts(before), &counts(now)).failed();
        assert_eq!((failed(100, 120), failed(100, 121), failed(100, 10)), (0, 1, 0));
        assert_eq!(compare(&counts(1), &Counts::new()).failed(), 1);
        assert_eq!(compare(&Counts::new(), &counts(1)).failed(), 1);
    }

    #[test]
    fn what_was_recorded_can_be_read() {
        read().unwrap();
    }
}
