//! PostgreSQL servers of several versions: Debian's with its tools, and further ones from the npm
//! packages pinned in `tests/postgresql`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Clients, MARK, apt_install, fingerprint};
use crate::process::{present, quietly, root};

/// The versions that come from npm.
const VERSIONS: [&str; 4] = ["14", "16", "17", "18"];
/// Where Debian puts a version's programs: here, then the version, then `bin`.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The links a package lists instead of having them: npm's archives cannot hold links.
const LINKS: &str = "pg-symlinks.json";

#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// Installs the servers that are not there yet.
pub(super) fn install(cache: &Path, clients: &mut Clients) -> Result<()> {
    match debian() {
        Ok((version, programs)) => {
            clients.postgres.insert(version, programs);
        }
        Err(error) => clients.miss("postgres", format!("{error:#}")),
    }
    let source = root().join("tests/postgresql");
    let files = ["package.json", "package-lock.json"].map(|name| source.join(name));
    let folder = cache.join(format!("postgresql-{}", fingerprint(&files)?));
    if !folder.join(MARK).exists()
        && let Err(error) = fetch(&files, &folder)
    {
        for version in VERSIONS {
            clients.miss(&format!("postgres {version}"), format!("{error:#}"));
        }
        return Ok(());
    }
    for version in VERSIONS {
        let programs = package(&folder, version).join("native/bin");
        if programs.join("postgres").exists() {
            clients.postgres.entry(version.to_owned()).or_insert(programs);
        } else {
            let reason = format!("no package for {}", std::env::consts::ARCH);
            clients.miss(&format!("postgres {version}"), reason);
        }
    }
    Ok(())
}

/// The newest version of Debian's, with its folder of programs; installed when there is none.
fn debian() -> Result<(String, PathBuf)> {
    if let Some(found) = newest(Path::new(DEBIAN)) {
        return Ok(found);
    }
    apt_install("postgresql")?;
    newest(Path::new(DEBIAN)).with_context(|| format!("no server in {DEBIAN}"))
}

fn newest(folder: &Path) -> Option<(String, PathBuf)> {
    let versions = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs.join("postgres").exists().then_some((version, programs))
    });
    versions.max().map(|(version, programs)| (version.to_string(), programs))
}

fn fetch(files: &[PathBuf], folder: &Path) -> Result<()> {
    for program in ["node", "npm"] {
        ensure!(present(program), "there is no {program} on this machine (20 or later)");
    }
    println!("installing PostgreSQL {} into {}", VERSIONS.join(", "), folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for file in files {
        fs::copy(file, folder.join(file.file_name().context("a file without a name")?))?;
    }
    let npm = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
    quietly(Command::new("npm").args(npm).current_dir(folder))?;
    for version in VERSIONS {
        let package = package(folder, version);
        if package.exists() {
            link(&package)?;
        }
    }
    File::create(folder.join(MARK))?;
    Ok(())
}

/// The folder of a version's package, by npm's name of this machine's processor.
fn package(folder: &Path, version: &str) -> PathBuf {
    let processor = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    folder.join("node_modules").join(format!("{version}-{processor}"))
}

/// Makes the links that a package lists. Its own script would do it too; none of npm's scripts run.
fn link(package: &Path) -> Result<()> {
    let list = package.join("native").join(LINKS);
    let text = fs::read(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let links: Vec<Link> = serde_json::from_slice(&text)?;
    for Link { source, target } in links {
        let (name, inside) = (source.file_name().unwrap_or_default(), below(&target));
        ensure!(
            inside && source.parent() == target.parent() && name != OsStr::new(""),
            "{} links {} to {}",
            list.display(),
            target.display(),
            source.display()
        );
        std::os::unix::fs::symlink(name, package.join(target))?;
    }
    Ok(())
}

/// Whether a path stays in the folder it is taken from.
fn below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// The servers by version, as the tests read them from the environment.
pub(crate) fn told(servers: &BTreeMap<String, PathBuf>) -> String {
    let one = |(version, folder): (&String, &PathBuf)| format!("{version}={}", folder.display());
    servers.iter().map(one).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_pinned() {
        let source = root().join("tests/postgresql");
        let lock = fs::read(source.join("package-lock.json")).unwrap();
        let lock: serde_json::Value = serde_json::from_slice(&lock).unwrap();
        for version in VERSIONS {
            let package = &lock["packages"][format!("node_modules/{version}-x64")];
            assert!(package["integrity"].as_str().unwrap().starts_with("sha512-"), "{version}");
            assert_eq!(package["license"], "MIT");
            let pinned = package["version"].as_str().unwrap();
            assert!(pinned.starts_with(&format!("{version}.")), "{version} is {pinned}");
        }
    }

    #[test]
    fn a_link_stays_in_its_package() {
        assert!(below(Path::new("native/lib/libpq.so")));
        assert!(!below(Path::new("native/../../x")) && !below(Path::new("/etc/x")));
    }

    #[test]
    fn the_newest_version_is_the_greatest_number() {
        let folder = std::env::temp_dir().join(format!("versions-{}", std::process::id()));
        for version in ["9", "15", "common"] {
            fs::create_dir_all(folder.join(version).join("bin")).unwrap();
            fs::write(folder.join(version).join("bin/postgres"), "").unwrap();
        }
        assert_eq!(newest(&folder).unwrap().0, "15");
        fs::remove_dir_all(&folder).unwrap();
    }
}
