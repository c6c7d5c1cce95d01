//! The Java clients: for each program in `tests/java` a Maven project that pins what it needs, and
//! the hashes of all that comes with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::{Clients, MARK, apt_install, fingerprint};
use crate::process::{present, quietly, root};

/// The folders in `tests/java`: the SDK, the consumer library, the producer library.
const PROGRAMS: [&str; 3] = ["sdk", "kcl", "kpl"];
/// What a program's jars must be, as `sha256sum` writes it.
const HASHES: &str = "jars.sha256";

/// Fetches the jars and compiles the programs, each in a folder of its own with `lib` and `classes`.
pub(super) fn install(cache: &Path, clients: &mut Clients) -> Result<()> {
    for name in PROGRAMS {
        let source = root().join("tests/java").join(name);
        let mut files = Vec::new();
        for entry in fs::read_dir(&source)? {
            files.push(entry?.path());
        }
        files.sort();
        let folder = cache.join(format!("java-{name}-{}", fingerprint(&files)?));
        if !folder.join(MARK).exists() {
            println!("installing the Java client {name} into {}", folder.display());
            if let Err(error) = one(cache, &source, &files, &folder) {
                clients.miss(&format!("java {name}"), format!("{error:#}"));
                continue;
            }
        }
        clients.java.push((name, folder));
    }
    Ok(())
}

fn one(cache: &Path, source: &Path, files: &[PathBuf], folder: &Path) -> Result<()> {
    for (program, package) in [("javac", "default-jdk-headless"), ("mvn", "maven")] {
        if !present(program) {
            apt_install(package)?;
        }
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let (lib, classes) = (folder.join("lib"), folder.join("classes"));
    fs::create_dir_all(&classes)?;
    quietly(
        Command::new("mvn")
            .args(["--quiet", "--batch-mode", "--strict-checksums", "--no-transfer-progress"])
            .arg(format!("-Dmaven.repo.local={}", cache.join("maven").display()))
            .arg(format!("-DoutputDirectory={}", lib.display()))
            .arg("-DincludeScope=runtime")
            .arg("--file")
            .arg(source.join("pom.xml"))
            .arg("dependency:copy-dependencies"),
    )?;
    let wanted = fs::read_to_string(source.join(HASHES))?;
    let found = hashes(&lib)?;
    ensure!(wanted == found, "the jars are not those of {HASHES}: {}", difference(&wanted, &found));
    quietly(
        Command::new("javac")
            .arg("-cp")
            .arg(lib.join("*"))
            .arg("-d")
            .arg(&classes)
            .args(files.iter().filter(|file| file.extension().is_some_and(|is| is == "java"))),
    )?;
    File::create(folder.join(MARK))?;
    Ok(())
}

/// The hash and the name of each file, a line each, sorted by name.
fn hashes(folder: &Path) -> Result<String> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?.to_string_lossy();
        sums.insert(name.into_owned(), Sha256::digest(fs::read(&path)?));
    }
    let mut text = String::new();
    for (name, sum) in sums {
        for byte in sum {
            write!(text, "{byte:02x}")?;
        }
        writeln!(text, "  {name}")?;
    }
    Ok(text)
}

/// The lines that only one of the two has.
fn difference(wanted: &str, found: &str) -> String {
    let only = |one: &str, other: &str| -> Vec<String> {
        let other: Vec<&str> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect()
    };
    format!("missing {:?}, there instead {:?}", only(wanted, found), only(found, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_pinned() {
        for name in PROGRAMS {
            let source = root().join("tests/java").join(name);
            let pom = fs::read_to_string(source.join("pom.xml")).unwrap();
            assert!(!pom.contains("LATEST") && !pom.contains("RELEASE"), "{name}");
            let hashes = fs::read_to_string(source.join(HASHES)).unwrap();
            let names: Vec<&str> =
                hashes.lines().map(|line| line.split_once("  ").unwrap().1).collect();
            assert!(names.is_sorted() && !names.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_jar_that_is_another_is_named() {
        let said = difference("1  a.jar\n2  b.jar\n", "1  a.jar\n3  b.jar\n");
        assert_eq!(said, "missing [\"2  b.jar\"], there instead [\"3  b.jar\"]");
    }
}
