//! `cargo xtask bench`: every figure of `docs/performance.md`, measured anew.
//!
//! Each row starts servers of its own in a temporary folder, and what it measured is printed, kept in
//! `bench.json` beside the binary, and with `--write` put into the table of the document.

mod hydrant;
mod peers;
mod redis;
mod rows;
mod s2;
mod starts;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::rows::ROWS;
use self::table::Line;
use crate::process::{cargo, now, root, succeeds};

/// What is wanted.
pub(crate) struct Wanted {
    only: Vec<String>,
    seconds: u64,
    streams: u64,
    write: bool,
}

impl Wanted {
    /// Reads the words behind the command.
    pub(crate) fn read(arguments: &[&str]) -> Result<Self> {
        let mut wanted = Self { only: Vec::new(), seconds: 8, streams: 100_000, write: false };
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{word} needs a value"));
            match *word {
                "--only" => wanted.only.push(known(value()?)?),
                "--seconds" => wanted.seconds = value()?.parse().context("--seconds")?,
                "--streams" => wanted.streams = value()?.parse().context("--streams")?,
                "--write" => wanted.write = true,
                other => bail!("bench takes no {other}"),
            }
        }
        Ok(wanted)
    }
}

fn known(row: &str) -> Result<String> {
    let names = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    if ROWS.iter().any(|known| known.name == row) {
        return Ok(row.to_owned());
    }
    bail!("no row {row}; there are {}", names())
}

/// The programs, and how long each measurement goes on.
pub(crate) struct Bench {
    hydrant: PathBuf,
    seconds: u64,
    streams: u64,
}

impl Bench {
    /// A program of the `measure` package, which lies beside hydrant.
    fn program(&self, name: &str) -> PathBuf {
        self.hydrant.with_file_name(name)
    }
}

/// Measures the rows; false if one of them failed.
pub(crate) fn run(wanted: &Wanted) -> Result<bool> {
    let Some(hydrant) = build()? else { return Ok(false) };
    let kept = hydrant.with_file_name("bench.json");
    let mut lines = table::read(&kept)?;
    let bench = Bench { hydrant, seconds: wanted.seconds, streams: wanted.streams };
    let mut all_well = true;
    for row in ROWS.iter().filter(|row| wanted.only.is_empty() || is_in(row.name, &wanted.only)) {
        println!("\n{}: {}", row.name, row.what);
        let began = now();
        match (row.measure)(&bench) {
            Ok(told) => {
                println!("{} ({:.0} s)", told.measured, began.elapsed().as_secs_f64());
                lines.insert(row.name.to_owned(), Line::new(row, told));
                table::keep(&kept, &lines)?;
            }
            Err(error) => {
                println!("not measured: {error:#}");
                all_well = false;
            }
        }
    }
    println!("\n{}", table::markdown(&lines));
    if wanted.write {
        table::write(&lines)?;
    }
    Ok(all_well)
}

fn is_in(name: &str, names: &[String]) -> bool {
    names.iter().any(|wanted| wanted == name)
}

/// Builds what is measured, unless the environment names a hydrant that has the programs of `measure`
/// beside it. None when it does not build.
fn build() -> Result<Option<PathBuf>> {
    if let Some(given) = std::env::var_os("HYDRANT_BINARY").map(PathBuf::from) {
        let given = given.canonicalize().with_context(|| format!("no {}", given.display()))?;
        for program in ["mixed", "sparse"] {
            let path = given.with_file_name(program);
            if !path.is_file() {
                bail!(
                    "no {}: build it with `cargo build --release -p hydrant-measure`",
                    path.display()
                );
            }
        }
        return Ok(Some(given));
    }
    let build = ["build", "--release", "--package", "hydrant", "--package", "hydrant-measure"];
    if !succeeds(&mut cargo(&build))? {
        return Ok(None);
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(Some(target.join("release/hydrant").canonicalize()?))
}

#[allow(clippy::disallowed_methods, reason = "what is measured is real time")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}
