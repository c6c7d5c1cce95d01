//! `cargo xtask test`: the workspace's own tests, then the acceptance suites in `tests/`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::counts;
use crate::process::{cargo, root, succeeds};
use crate::setup::{self, Clients};
use crate::tally::{self, Tally};

/// The name of the part that is `cargo test --workspace`.
const RUST: &str = "rust";
/// The name of the part that counts instructions.
const COUNTS: &str = "counts";

/// Everything.
pub(crate) fn all() -> Result<Tally> {
    let clients = setup::run()?;
    clients.print();
    let mut sum = rust(&clients)?;
    sum.add(counts::check()?);
    sum.add(acceptance(&clients, None)?);
    Ok(sum)
}

/// One part.
pub(crate) fn only(name: &str) -> Result<Tally> {
    if name == RUST {
        return rust(&Clients::default());
    }
    if name == COUNTS {
        return counts::check();
    }
    let known = suites()?;
    if !known.iter().any(|suite| suite == name) {
        bail!("no suite {name}; there are {RUST}, {COUNTS}, {}", known.join(", "));
    }
    let clients = setup::run()?;
    clients.print();
    acceptance(&clients, Some(name))
}

/// Runs the workspace's tests, passing their output on and summing their closing lines.
fn rust(clients: &Clients) -> Result<Tally> {
    let seed = first_seed();
    println!("\n$ HYDRANT_SEED_FIRST={seed} cargo test --workspace --no-fail-fast");
    let mut child = cargo(&["test", "--workspace", "--no-fail-fast"])
        .env("HYDRANT_TEST_POSTGRES", setup::told_postgres(&clients.postgres))
        .env("HYDRANT_SEED_FIRST", seed)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let mut sum = Tally::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            if let Some(counts) = tally::of_cargo_test(&line) {
                sum.add(counts);
            }
        }
    }
    let ok = child.wait()?.success();
    if !ok && sum.failed() == 0 {
        sum.add(Tally::failure("cargo test --workspace did not finish"));
    }
    Ok(sum)
}

/// The first seed of the simulations: the environment's, or one that no run had before.
#[allow(clippy::disallowed_methods, reason = "seeds that were never run come from the real time")]
fn first_seed() -> String {
    std::env::var("HYDRANT_SEED_FIRST").unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.as_secs().to_string()
    })
}

/// Runs the acceptance suites, or one of them, against the built binary.
fn acceptance(clients: &Clients, suite: Option<&str>) -> Result<Tally> {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let Some(python) = &clients.python else {
        let note = "acceptance tests: their Python clients cannot be installed (see above)";
        return Ok(if ci { Tally::failure(note) } else { Tally::skip(note) });
    };
    let Some(binary) = binary()? else {
        return Ok(Tally::failure("acceptance tests: hydrant does not build"));
    };
    let counts = setup::cache().join(format!("counts-{}", std::process::id()));
    let mut pytest = Command::new(python);
    pytest
        .args(["-m", "pytest", "-p", "no:cacheprovider"])
        .arg(suite.map_or_else(|| "tests".to_owned(), |name| format!("tests/test_{name}.py")))
        .current_dir(root())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HYDRANT_BINARY", &binary)
        .env("HYDRANT_TEST_COUNTS", &counts)
        .env("HYDRANT_TEST_MISSING", missing(clients));
    if let Some(folder) = &clients.node {
        pytest.env("HYDRANT_TEST_NODE", folder);
    }
    for (name, folder) in &clients.java {
        pytest.env(format!("HYDRANT_TEST_JAVA_{}", name.to_uppercase()), folder);
    }
    pytest.env("HYDRANT_TEST_POSTGRES", setup::told_postgres(&clients.postgres));
    if let Some(program) = &clients.rust {
        pytest.env("HYDRANT_TEST_RUST_SDK", program);
    }
    let ok = succeeds(&mut pytest)?;
    let told = fs::read_to_string(&counts).unwrap_or_default();
    let _ = fs::remove_file(&counts);
    let mut sum = tally::of_acceptance(&told).unwrap_or_default();
    if !ok && sum.failed() == 0 {
        sum.add(Tally::failure("acceptance tests: pytest did not finish"));
    }
    Ok(sum)
}

/// The names and reasons of the clients that are not there, a line each, for the tests to say.
fn missing(clients: &Clients) -> String {
    let line = |(name, reason): &(String, String)| format!("{name}: {}", reason.replace('\n', " "));
    clients.missing.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Builds the binary, unless the environment names one. None when it does not build.
pub(crate) fn binary() -> Result<Option<PathBuf>> {
    if let Some(given) = std::env::var_os("HYDRANT_BINARY") {
        return Ok(Some(PathBuf::from(given)));
    }
    if !succeeds(&mut cargo(&["build", "--package", "hydrant"]))? {
        return Ok(None);
    }
    Ok(Some(built_beside_us()?))
}

/// Cargo put `hydrant` beside this program: both are of the same workspace and profile.
fn built_beside_us() -> Result<PathBuf> {
    let us = std::env::current_exe()?;
    let binary = us.with_file_name(format!("hydrant{}", std::env::consts::EXE_SUFFIX));
    if !binary.is_file() {
        bail!("no {} after building it", binary.display());
    }
    Ok(binary)
}

/// The names of the acceptance suites, sorted.
fn suites() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("tests"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(suite) = name.strip_prefix("test_").and_then(|rest| rest.strip_suffix(".py")) {
            names.push(suite.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
