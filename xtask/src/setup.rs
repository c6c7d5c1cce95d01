//! Installs the clients that the acceptance tests drive hydrant with, outside the repository.
//!
//! Each set is installed once: its folder is named by a hash of the files that pin it and holds a
//! mark when it is complete.

mod java;
mod machine;
mod postgres;
mod rust;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

pub(crate) use self::postgres::told as told_postgres;
use crate::process::{apt_install, present, quietly, root};

/// The Python packages the tests import, and the commands they bring.
const PYTHON_CLIENTS: [&str; 7] = [
    "pytest",
    "pytest-timeout",
    "boto3",
    "awscli",
    "aws-kinesis-agg",
    "psycopg[binary]",
    "snowflake-connector-python",
];
/// Without these no acceptance test runs.
const PYTHON_NEEDED: [&str; 3] = ["pytest", "pytest-timeout", "boto3"];
/// Packages whose needs contradict those of the clients above, each set in a folder of its own
/// beside them: the older generation of Snowflake's driver; clients on aiobotocore.
const PYTHON_ASIDE: [&str; 2] = ["driver4", "aio"];
const MARK: &str = ".complete";

/// Where the clients are.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// The Python that has the packages, unless not even those that every test needs are there.
    pub(crate) python: Option<PathBuf>,
    /// The folder whose `node_modules` has the JavaScript SDK.
    pub(crate) node: Option<PathBuf>,
    /// The folders of the Java programs, each with its `classes` and `lib`, by name.
    pub(crate) java: Vec<(&'static str, PathBuf)>,
    /// The program on the Rust SDK.
    pub(crate) rust: Option<PathBuf>,
    /// The folders of programs of PostgreSQL servers, by major version.
    pub(crate) postgres: BTreeMap<String, PathBuf>,
    /// What could not be installed: name and reason.
    pub(crate) missing: Vec<(String, String)>,
}

impl Clients {
    pub(crate) fn print(&self) {
        if let Some(python) = &self.python {
            println!("python: {}", python.display());
        }
        if let Some(node) = &self.node {
            println!("node modules: {}", node.display());
        }
        for (name, folder) in &self.java {
            println!("java, {name}: {}", folder.display());
        }
        if let Some(program) = &self.rust {
            println!("rust sdk: {}", program.display());
        }
        for (version, folder) in &self.postgres {
            println!("postgresql {version}: {}", folder.display());
        }
        for (name, reason) in &self.missing {
            println!("missing: {name}: {reason}");
        }
    }

    fn miss(&mut self, name: &str, reason: impl ToString) {
        self.missing.push((name.to_owned(), reason.to_string()));
    }
}

/// The folder for what is kept between runs.
pub(crate) fn cache() -> PathBuf {
    let home =
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/hydrant");
    std::env::var_os("HYDRANT_CACHE").map_or_else(home, PathBuf::from)
}

/// Installs what is not there yet. A client that cannot be had is no error: it is in `missing`.
pub(crate) fn run() -> Result<Clients> {
    let cache = cache();
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Two runs at once would install into the same folders.
    let lock = File::create(cache.join("setup.lock"))?;
    lock.lock().context("cannot lock the cache")?;

    let mut clients = Clients::default();
    psql(&mut clients);
    machine::install(&mut clients);
    python(&cache, &mut clients)?;
    node(&cache, &mut clients)?;
    java::install(&cache, &mut clients)?;
    postgres::install(&cache, &mut clients)?;
    rust::build(&cache, &mut clients)?;
    Ok(clients)
}

fn psql(clients: &mut Clients) {
    if present("psql") {
        return;
    }
    if let Err(error) = apt_install("postgresql-client") {
        clients.miss("psql", format!("{error:#}"));
    }
}

fn python(cache: &Path, clients: &mut Clients) -> Result<()> {
    let pins = root().join("tests/requirements.txt");
    let aside = PYTHON_ASIDE.map(|name| root().join(format!("tests/requirements-{name}.txt")));
    let mut all = aside.to_vec();
    all.push(pins.clone());
    let folder = cache.join(format!("python-{}", fingerprint(&all)?));
    let python = folder.join("bin/python");
    if folder.join(MARK).exists() {
        clients.python = Some(python);
        return Ok(());
    }
    if let Err(error) = fresh_venv(&folder) {
        clients.miss("python", format!("{error:#}"));
        return Ok(());
    }
    println!("installing the Python clients into {}", folder.display());
    let of_the_system = clients.missing.len();
    let pip = || {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]);
        command
    };
    clients.python = Some(python.clone());
    if quietly(pip().arg("-c").arg(&pins).args(PYTHON_CLIENTS)).is_err() {
        // One of them cannot be had: find out which, and take the others.
        for package in PYTHON_CLIENTS {
            if let Err(error) = quietly(pip().arg("-c").arg(&pins).arg(package)) {
                clients.miss(package, format!("{error:#}"));
                if PYTHON_NEEDED.contains(&package) {
                    clients.python = None;
                }
            }
        }
    }
    for (name, pins) in PYTHON_ASIDE.iter().zip(&aside) {
        let target = folder.join(name);
        if let Err(error) = quietly(pip().arg("-r").arg(pins).arg("--target").arg(target)) {
            clients.miss(name, format!("{error:#}"));
        }
    }
    // Without the mark the next run tries again.
    if clients.missing.len() == of_the_system {
        File::create(folder.join(MARK))?;
    }
    Ok(())
}

fn fresh_venv(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let make = || quietly(Command::new("python3").args(["-m", "venv"]).arg(folder));
    if make().is_err() {
        // Debian keeps venv in a package of its own.
        apt_install("python3-venv")?;
        make()?;
    }
    Ok(())
}

fn node(cache: &Path, clients: &mut Clients) -> Result<()> {
    let source = root().join("tests/js");
    let files = ["package.json", "package-lock.json"].map(|name| source.join(name));
    let folder = cache.join(format!("node-{}", fingerprint(&files)?));
    if folder.join(MARK).exists() {
        clients.node = Some(folder);
        return Ok(());
    }
    for program in ["node", "npm"] {
        if !present(program) {
            clients.miss("node", format!("there is no {program} on this machine (20 or later)"));
            return Ok(());
        }
    }
    println!("installing the JavaScript SDK into {}", folder.display());
    fs::create_dir_all(&folder)?;
    for (file, name) in files.iter().zip(["package.json", "package-lock.json"]) {
        fs::copy(file, folder.join(name))?;
    }
    let npm = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
    match quietly(Command::new("npm").args(npm).current_dir(&folder)) {
        Ok(_) => {
            File::create(folder.join(MARK))?;
            clients.node = Some(folder);
        }
        Err(error) => clients.miss("node", format!("{error:#}")),
    }
    Ok(())
}

/// FNV-1a over the files' bytes: a name for this exact set of pins, the same on every machine.
fn fingerprint(files: &[PathBuf]) -> Result<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        for byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_pinned() {
        let pins = fs::read_to_string(root().join("tests/requirements.txt")).unwrap();
        for package in PYTHON_CLIENTS {
            let name = package.split('[').next().unwrap();
            assert!(pins.lines().any(|pin| pin.starts_with(&format!("{name}=="))), "{name}");
        }
        for needed in PYTHON_NEEDED {
            assert!(PYTHON_CLIENTS.contains(&needed));
        }
    }

    #[test]
    fn the_fingerprint_moves_with_the_bytes() {
        let one = root().join("Cargo.toml");
        let two = root().join("clippy.toml");
        let of = |file: &PathBuf| fingerprint(std::slice::from_ref(file)).unwrap();
        assert_eq!(of(&one), of(&one));
        assert_ne!(of(&one), of(&two));
    }
}
