//! Running other programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // What cargo says at run time comes first: in a target directory that clones share, this program may have been
    // compiled in another of them.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// The cargo that runs us, in the root of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(arguments).current_dir(root()).env("INSTA_WORKSPACE_ROOT", root());
    // What the outer cargo says of this package would make build scripts run again, and with them
    // everything above.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name.as_ref());
        }
    }
    command
}

/// Says the command, runs it, and tells whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    println!("\n$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    Ok(status.success())
}

/// Runs a command quietly; the error is what it printed.
pub(crate) fn quietly(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n");
    bail!("{} failed:\n{last}", shown(command))
}

/// Whether a program of this name answers `--version`.
pub(crate) fn present(program: &str) -> bool {
    quietly(Command::new(program).arg("--version")).is_ok()
}

/// What a command tells as JSON; the error is what it printed.
pub(crate) fn told(command: &mut Command) -> Result<Value> {
    let said = quietly(command)?;
    serde_json::from_str(&said).with_context(|| format!("what {} told", shown(command)))
}

/// Whether this process may do everything on this machine.
pub(crate) fn is_root() -> bool {
    quietly(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

#[allow(clippy::disallowed_methods, reason = "how long a command takes is real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Installs a package of Debian's, which only root can.
pub(crate) fn apt_install(package: &str) -> Result<()> {
    anyhow::ensure!(
        is_root(),
        "not on this machine, and only root installs it: apt-get install {package}"
    );
    println!("installing {package}");
    quietly(Command::new("apt-get").args(["update", "-q"]))?;
    quietly(
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    Ok(())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
