//! `cargo xtask torture`: power cuts, kills and simulation in turn, for hours, and the ledger of all
//! that was ever done this way, in `docs/reliability.md`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::kept::{split, thousands};
use crate::process::{cargo, now, root};
use crate::{kept, setup, test};

const LEDGER: &str = "docs/reliability.md";
/// The line before the ledger's rows.
const BEGIN: &str = "<!-- kept by `cargo xtask torture` from here on -->";
const TIMES_OF_A_TURN: &str = "600";
const SEEDS_OF_A_TURN: u64 = 1_000;
const CRASHES_OF_A_TURN: &str = "1000000";
/// What is cut off, how: the kind as `tests/cutoff.py` takes it, and its name in the ledger.
const CUTS: [(&str, &str); 3] = [
    ("ext4", "power cuts of ext4"),
    ("xfs", "power cuts of XFS"),
    ("kill", "kills under an SDK's load"),
];
const FAULTS: &str = "rounds of machines that fail";
const SEEDS: &str = "simulated seeds";
const CRASHES: &str = "simulated crashes";

/// How often each thing was done, and how many records or batches were acknowledged meanwhile.
type Ledger = BTreeMap<String, (u64, u64)>;
/// A name of the ledger, and what comes to it.
type Row = (&'static str, u64, u64);

/// Goes on for so long, and a turn at least; false if something was lost.
pub(crate) fn run(hours: f64) -> Result<bool> {
    ensure!(hours.is_finite() && hours >= 0.0, "--hours takes a number of hours");
    let clients = setup::run()?;
    let python = clients.python.context("the Python clients cannot be installed")?;
    let binary = test::binary()?.context("hydrant does not build")?;
    let (begun, patience) = (now(), Duration::from_secs_f64(hours * 3_600.0));
    loop {
        let Some(cuts) = cut(&python, &binary)? else { return Ok(false) };
        enter(&cuts)?;
        let mut faults = Command::new(&python);
        faults
            .args(["-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/test_faults.py"])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HYDRANT_BINARY", &binary)
            .env("HYDRANT_TEST_FAULTS", "1")
            .env("HYDRANT_TEST_STOPPED_SECONDS", "60");
        if follow(&mut faults)?.is_empty() || !simulate()? {
            return Ok(false);
        }
        enter(&[(FAULTS, 1, 0)])?;
        if begun.elapsed() >= patience {
            return Ok(true);
        }
    }
}

/// The cuts of a turn, of every kind at a time, as each mostly waits for its disk.
fn cut(python: &Path, binary: &Path) -> Result<Option<Vec<Row>>> {
    let of_kind = |(kind, name): (&str, &'static str)| -> Result<_> {
        let mut command = Command::new(python);
        command
            .args(["tests/cutoff.py", kind, "--times", TIMES_OF_A_TURN])
            .env("HYDRANT_BINARY", binary);
        let said = follow(&mut command)?;
        let told: Option<Value> = said.last().and_then(|line| serde_json::from_str(line).ok());
        Ok(told.map(|told| {
            let count = |what: &str| told.get(what).and_then(Value::as_u64).unwrap_or_default();
            (name, count("times"), count("records acknowledged"))
        }))
    };
    std::thread::scope(|threads| {
        let running = CUTS.map(|cuts| threads.spawn(move || of_kind(cuts)));
        running.into_iter().map(|one| one.join().ok().context("a count of cuts failed")?).collect()
    })
}

/// Simulates with seeds that the ledger has not seen.
fn simulate() -> Result<bool> {
    let first = read()?.1.get(SEEDS).map_or(0, |row| row.0) + 1;
    let tests = ["nothing_is_lost_whatever_the_seed", "a_power_cut_at_every_operation"];
    let mut command = cargo(&["test", "-p", "hydrant-storage", "--lib", "--", "--nocapture"]);
    command
        .args(tests)
        .env("HYDRANT_SEED_FIRST", first.to_string())
        .env("HYDRANT_SEEDS", SEEDS_OF_A_TURN.to_string())
        .env("HYDRANT_CRASHES", CRASHES_OF_A_TURN);
    let said = follow(&mut command)?;
    let number = |behind: &str| -> Option<u64> {
        said.iter().find_map(|line| line[..line.find(behind)?].rsplit(' ').next()?.parse().ok())
    };
    let (crashes, batches) = (number(" crashes, "), number(" batches acknowledged"));
    let (Some(seeds), Some(cuts)) = (number(" seeds from"), number(" power cuts in")) else {
        return Ok(false);
    };
    enter(&[
        (SEEDS, seeds, batches.unwrap_or_default()),
        (CRASHES, cuts + crashes.unwrap_or_default(), 0),
    ])?;
    Ok(said.iter().any(|line| line.starts_with("test result: ok")))
}

/// Runs a command, passing its output on; the lines of it. A failure has no lines.
fn follow(command: &mut Command) -> Result<Vec<String>> {
    // What it reads of stays open, as it ends when that is closed.
    let child = command.current_dir(root()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run {command:?}"))?;
    let input = child.stdin.take();
    let mut lines = Vec::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line?;
        println!("{line}");
        lines.push(line);
    }
    let ok = child.wait()?.success();
    drop(input);
    if !ok {
        println!("failed: {command:?}");
        lines.clear();
    }
    Ok(lines)
}

fn path() -> PathBuf {
    root().join(LEDGER)
}

/// The file, and the rows in it.
fn read() -> Result<(String, Ledger)> {
    let text = fs::read_to_string(path()).with_context(|| format!("cannot read {LEDGER}"))?;
    let ledger = rows(&text)?;
    Ok((text, ledger))
}

fn rows(text: &str) -> Result<Ledger> {
    let (_, table, _) = split(text, BEGIN)?;
    let mut ledger = Ledger::new();
    for line in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, times, acknowledged, ..] = cells[..] else { bail!("no row: {line}") };
        let number = |text: &str| text.replace(',', "").parse::<u64>();
        let row = (number(times)?, number(acknowledged)?);
        ledger.insert(name.to_owned(), row);
    }
    Ok(ledger)
}

/// Adds to the rows of the ledger.
fn enter(more: &[Row]) -> Result<()> {
    let (text, mut ledger) = read()?;
    for (name, times, acknowledged) in more {
        let row = ledger.entry((*name).to_owned()).or_default();
        *row = (row.0 + times, row.1 + acknowledged);
    }
    fs::write(path(), with(&text, &ledger)?)?;
    Ok(())
}

/// The text with these rows.
fn with(text: &str, ledger: &Ledger) -> Result<String> {
    let mut table = "| what | times | acknowledged | lost |\n|---|---|---|---|\n".to_owned();
    for (name, (times, acknowledged)) in ledger {
        let (times, acknowledged) = (thousands(times), thousands(acknowledged));
        table.push_str(&format!("| {name} | {times} | {acknowledged} | 0 |\n"));
    }
    kept::with(text, BEGIN, &table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::END;

    #[test]
    fn the_ledger_is_read_as_it_was_written() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nbehind\n");
        assert_eq!(rows(&text).unwrap(), Ledger::new());
        let ledger = Ledger::from([
            (SEEDS.to_owned(), (1_234_567, 89)),
            ("kills".to_owned(), (300, 12_000)),
        ]);
        let written = with(&text, &ledger).unwrap();
        assert!(written.starts_with("before\n") && written.ends_with("\nbehind\n"), "{written}");
        assert!(written.contains("| simulated seeds | 1,234,567 | 89 | 0 |"), "{written}");
        assert_eq!(rows(&written).unwrap(), ledger);
        assert_eq!(with(&written, &ledger).unwrap(), written);
    }

    #[test]
    fn the_committed_ledger_has_its_place() {
        read().unwrap();
    }
}
