//! Tasks that people and CI run: `cargo xtask test`, `bench`, `fuzz`, `torture`, `setup`, `tidy`,
//! `ci`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a terminal program says what it does on the terminal"
)]

mod bench;
mod ci;
mod counts;
mod fuzz;
mod kept;
mod process;
mod setup;
mod tally;
mod test;
mod tidy;
mod torture;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::tally::Tally;

const USAGE: &str = "\
cargo xtask COMMAND

  test              install what the tests need, then run all of them
  test --only NAME  run one part: `rust` (cargo test --workspace), `counts` (see bench), or an
                    acceptance suite, the NAME of tests/test_NAME.py
  setup             the installing part of `test` alone
  fuzz              run libFuzzer on every decoder, a minute each, one after the other
  fuzz [--seconds N] [--seed N] [--keep] [TARGET...]
                    some of them (the folders of fuzz/corpus), for N seconds each; a seed repeats a
                    run; with --keep, inputs that reach something new join fuzz/corpus
  torture [--hours N]
                    power cuts, kills and simulation in turn for N hours (as root); what was done is
                    added to the ledger in docs/reliability.md
  bench [--only ROW]... [--seconds N] [--streams N] [--write]
                    build the release and measure every row of docs/performance.md (about twenty
                    minutes) or some, each for N seconds; --write puts them into its table
  bench --counts    count the instructions of the hot paths under valgrind, and compare with
                    xtask/counts.toml; part of `test`
  bench --counts --record
                    the same, and write them there
  tidy              check the rules of this repository that no compiler checks
  tidy --write      the same, after making the tables in docs/ again that are made of the tests
  ci                format, clippy with warnings denied, tidy, cargo deny if it is installed, test

Clients of the acceptance tests are installed under ${HYDRANT_CACHE:-~/.cache/hydrant}, outside the
repository. HYDRANT_BINARY names a hydrant to test instead of building one; HYDRANT_SEED replays a
seeded test. With CI=true a client that cannot be installed is a failure, elsewhere its tests are
skipped by name.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<bool> {
    match arguments {
        ["test"] => Ok(finish(test::all()?)),
        ["test", "--only", name] => Ok(finish(test::only(name)?)),
        ["setup"] => {
            setup::run()?.print();
            Ok(true)
        }
        ["fuzz", more @ ..] => fuzz::run(&fuzz::Wanted::read(more)?),
        ["torture"] => torture::run(0.0),
        ["torture", "--hours", hours] => torture::run(hours.parse().context("--hours")?),
        ["bench", "--counts"] => Ok(finish(counts::check()?)),
        ["bench", "--counts", "--record"] => counts::record(),
        ["bench", more @ ..] => bench::run(&bench::Wanted::read(more)?),
        ["tidy"] => tidy::run(),
        ["tidy", "--write"] => Ok(tidy::write()? && tidy::run()?),
        ["ci"] => Ok(finish(ci::run()?)),
        [] | ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            Ok(true)
        }
        other => bail!("no such command: {}\n\n{USAGE}", other.join(" ")),
    }
}

/// Prints the closing lines; true if nothing failed.
fn finish(tally: Tally) -> bool {
    print!("{tally}");
    tally.failed() == 0
}
