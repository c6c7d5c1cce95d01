//! `cargo xtask fuzz`: libFuzzer on the decoders, from the committed corpus on.
//!
//! The compiler's own flags instrument the code, so that the pinned toolchain and a C++ compiler are
//! all it takes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{apt_install, cargo, present, quietly, root, succeeds};

/// How long each target runs, unless told otherwise.
const SECONDS_DEFAULT: u64 = 60;
/// An input that takes longer is a finding.
const INPUT_SECONDS_MAX: u32 = 10;
/// More memory than this is a finding.
const MEMORY_MIB_MAX: u32 = 2_048;
const CORPUS: &str = "fuzz/corpus";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    seconds: u64,
    seed: Option<u32>,
    keep: bool,
    targets: Vec<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Reads `[--seconds N] [--seed N] [--keep] [TARGET…]`.
    pub(crate) fn read(arguments: &[&'a str]) -> Result<Self> {
        let mut wanted =
            Self { seconds: SECONDS_DEFAULT, seed: None, keep: false, targets: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut number = || rest.next().with_context(|| format!("{argument} needs a number"));
            match *argument {
                "--seconds" => wanted.seconds = number()?.parse().context("--seconds")?,
                "--seed" => wanted.seed = Some(number()?.parse().context("--seed")?),
                "--keep" => wanted.keep = true,
                option if option.starts_with('-') => bail!("no such option: {option}"),
                target => wanted.targets.push(target),
            }
        }
        Ok(wanted)
    }
}

/// Fuzzes the targets one after the other; true if none has a finding.
pub(crate) fn run(wanted: &Wanted<'_>) -> Result<bool> {
    let known = targets()?;
    for target in &wanted.targets {
        ensure!(
            known.iter().any(|name| name == target),
            "no target {target}; there are {}",
            known.join(", ")
        );
    }
    if !["c++", "g++", "clang++"].into_iter().any(present) {
        apt_install("g++").context("libFuzzer needs a C++ compiler")?;
    }
    let work = work();
    let fuzzer = build(&work)?;
    let chosen = known.iter().filter(|name| {
        wanted.targets.is_empty() || wanted.targets.iter().any(|target| target == name)
    });
    let mut findings = 0;
    for target in chosen {
        let found = Outcome::of(&fuzzer, &work, target, wanted)?;
        println!("fuzz: {found}");
        findings += usize::from(!found.ok);
        if found.ok && wanted.keep {
            keep(&fuzzer, &work, target)?;
        }
    }
    Ok(findings == 0)
}

/// The targets are the folders of the corpus; the fuzz crate's test sees to it that each is there.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join(CORPUS)).context(CORPUS)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Where the fuzzer is built, and where what it finds is kept: apart from ordinary builds, whose
/// flags are others.
fn work() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(target.unwrap_or_else(|| "target".into())).join("fuzz")
}

fn build(work: &Path) -> Result<PathBuf> {
    let told = quietly(Command::new("rustc").arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not tell its host")?.to_owned();
    let mut flags = vec!["--cfg fuzzing".to_owned(), "-Cpasses=sancov-module".to_owned()];
    for option in ["level=4", "inline-8bit-counters", "pc-table", "trace-compares"] {
        flags.push(format!("-Cllvm-args=-sanitizer-coverage-{option}"));
    }
    // Naming the host as target keeps the flags from build scripts and macros.
    let mut build = cargo(&["build", "--profile", "fuzz", "--package", "hydrant-fuzz"]);
    build
        .args(["--features", "libfuzzer", "--target", &host, "--target-dir"])
        .arg(work)
        .env("RUSTFLAGS", flags.join(" "))
        .env("CARGO_INCREMENTAL", "0")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    ensure!(succeeds(&mut build)?, "the fuzzer does not build");
    let binary = format!("hydrant-fuzz{}", std::env::consts::EXE_SUFFIX);
    Ok(work.join(host).join("fuzz").join(binary))
}

/// How a target did.
#[derive(Debug, Default)]
struct Outcome {
    target: String,
    ok: bool,
    seed: String,
    executions: u64,
    seconds: u64,
    edges: u64,
    artifact: Option<String>,
}

impl Outcome {
    fn of(fuzzer: &Path, work: &Path, target: &str, wanted: &Wanted<'_>) -> Result<Self> {
        let grown = work.join("corpus").join(target);
        let artifacts = work.join("findings").join(target);
        fs::create_dir_all(&grown)?;
        fs::create_dir_all(&artifacts)?;
        let mut command = Command::new(fuzzer);
        command
            .arg(format!("-max_total_time={}", wanted.seconds))
            .arg(format!("-seed={}", wanted.seed.unwrap_or(0)))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-print_final_stats=1", "-use_value_profile=1"])
            .arg(&grown)
            .arg(root().join(CORPUS).join(target))
            .env("HYDRANT_FUZZ_TARGET", target)
            .stderr(Stdio::piped());
        println!("\nfuzzing {target} for {} s", wanted.seconds);
        let mut child =
            command.spawn().with_context(|| format!("cannot run {}", fuzzer.display()))?;
        let mut outcome = Self { target: target.to_owned(), ..Self::default() };
        if let Some(said) = child.stderr.take() {
            for line in BufReader::new(said).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                outcome.hear(&line);
            }
        }
        outcome.ok = child.wait()?.success();
        Ok(outcome)
    }

    /// Takes what a line of libFuzzer's tells, and passes on what is said of a finding.
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.parse::<u64>().ok()
        };
        if let Some(edges) = after("cov:") {
            self.edges = self.edges.max(edges);
        } else if let Some(executions) = after("stat::number_of_executed_units:") {
            self.executions = executions;
        } else if let ["INFO:", "Seed:", seed] = words[..] {
            seed.clone_into(&mut self.seed);
        } else if let ["Done", _, "runs", "in", seconds, ..] = words[..] {
            self.seconds = seconds.parse().unwrap_or(0);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.artifact = Some(path.to_owned());
        } else if !line.starts_with("INFO:") && !line.starts_with("stat::") {
            println!("{line}");
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { target, seed, executions, seconds, edges, .. } = self;
        write!(
            f,
            "{target}: {executions} executions in {seconds} s, {edges} edges covered, seed {seed}: "
        )?;
        match &self.artifact {
            _ if self.ok => f.write_str("no finding"),
            Some(path) => write!(
                f,
                "FOUND {path}\n      replay: copy it into {CORPUS}/{target} and run \
                 `cargo test --package hydrant-fuzz`"
            ),
            None => f.write_str("FAILED"),
        }
    }
}

/// Adds to the committed corpus the smallest of the found inputs that reach something new.
fn keep(fuzzer: &Path, work: &Path, target: &str) -> Result<()> {
    let committed = root().join(CORPUS).join(target);
    let merged = Command::new(fuzzer)
        .args(["-merge=1", "-max_len=512"])
        .args([&committed, &work.join("corpus").join(target)])
        .env("HYDRANT_FUZZ_TARGET", target)
        .stderr(Stdio::null())
        .status()?;
    ensure!(merged.success(), "cannot merge the corpus of {target}");
    println!("fuzz: {CORPUS}/{target} has {} inputs now", fs::read_dir(&committed)?.count());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read() {
        let wanted = Wanted::read(&["--seconds", "9", "json", "--keep", "--seed", "3"]).unwrap();
        let want = Wanted { seconds: 9, seed: Some(3), keep: true, targets: vec!["json"] };
        assert_eq!(wanted, want);
        for wrong in [&["--seconds"][..], &["--seconds", "x"], &["--fast"]] {
            assert!(Wanted::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let mut outcome = Outcome { target: "json".to_owned(), ok: true, ..Outcome::default() };
        for line in [
            "INFO: Seed: 77",
            "#5\tNEW    cov: 412 ft: 900 corp: 3/88b lim: 17 exec/s: 9 rss: 40Mb L: 4/4 MS: 1 x",
            "Done 1200 runs in 3 second(s)",
            "stat::number_of_executed_units: 1200",
        ] {
            outcome.hear(line);
        }
        assert_eq!(
            outcome.to_string(),
            "json: 1200 executions in 3 s, 412 edges covered, seed 77: no finding"
        );
    }
}
