//! How long a file and a crate may grow, tests not counted. What is over the limit stands in
//! `xtask/budgets.toml` with its length, which may only go down.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::{Finding, Source};

const FILE: &str = "xtask/budgets.toml";
const FILE_LINES_MAX: usize = 500;
const CRATE_LINES_MAX: usize = 5_000;
/// An exception this much above the truth has to be lowered.
const SLACK_LINES: usize = 25;

/// What may be longer, and how long.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    files: BTreeMap<String, usize>,
    crates: BTreeMap<String, usize>,
}

impl Exceptions {
    pub(super) fn read(files: &[Source]) -> Result<Self> {
        let Some(file) = files.iter().find(|file| file.path == FILE) else {
            return Ok(Self::default());
        };
        let table: Table = file.text.parse().with_context(|| FILE.to_owned())?;
        let part = |name: &str| -> Result<BTreeMap<String, usize>> {
            let empty = Table::new();
            let list = table.get(name).and_then(Value::as_table).unwrap_or(&empty);
            list.iter()
                .map(|(key, lines)| {
                    let lines = lines.as_integer().and_then(|lines| usize::try_from(lines).ok());
                    Ok((key.clone(), lines.with_context(|| format!("{FILE}: {key}"))?))
                })
                .collect()
        };
        Ok(Self { files: part("files")?, crates: part("crates")? })
    }
}

pub(super) fn check(files: &[Source], exceptions: &Exceptions) -> Vec<Finding> {
    let mut of_files = BTreeMap::new();
    let mut of_crates = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines = file.lines_of_code().count();
        of_files.insert(file.path.as_str(), lines);
        if let Some((folder, _)) = file.path.split_once("/src/") {
            *of_crates.entry(folder).or_insert(0) += lines;
        }
    }
    let mut findings = over(&of_files, &exceptions.files, FILE_LINES_MAX, "split the file");
    findings.extend(over(&of_crates, &exceptions.crates, CRATE_LINES_MAX, "split the crate"));
    findings
}

fn over(
    found: &BTreeMap<&str, usize>,
    exceptions: &BTreeMap<String, usize>,
    max: usize,
    advice: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (&path, &lines) in found {
        let allowed = exceptions.get(path).copied().unwrap_or(max).max(max);
        if lines > allowed {
            let text = format!("{lines} lines without tests, {allowed} allowed: {advice}");
            findings.push(Finding::new(path, 1, text));
        }
    }
    for (path, &allowed) in exceptions {
        let lines = found.get(path.as_str()).copied().unwrap_or(0);
        if lines <= max {
            let text = format!("{path} keeps the limit now: remove its exception");
            findings.push(Finding::new(FILE, 1, text));
        } else if lines + SLACK_LINES < allowed {
            let text = format!("{path} has {lines} lines now: lower its exception to that");
            findings.push(Finding::new(FILE, 1, text));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn findings(lines: usize, exception: Option<usize>) -> usize {
        let path = "crates/a/src/lib.rs";
        let list = exception.map_or(String::new(), |n| format!("[files]\n\"{path}\" = {n}\n"));
        let exceptions = Exceptions::read(&[source(FILE, &list)]).unwrap();
        check(&[source(path, &"x\n".repeat(lines))], &exceptions).len()
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(findings(500, None), 0);
        assert_eq!(findings(501, None), 1);
    }

    #[test]
    fn an_exception_only_goes_down() {
        assert_eq!(findings(600, Some(600)), 0);
        assert_eq!(findings(601, Some(600)), 1);
        assert_eq!(findings(560, Some(600)), 1);
        assert_eq!(findings(400, Some(600)), 1);
    }

    #[test]
    fn a_long_crate_is_found() {
        let file = |n: usize| source(&format!("crates/a/src/f{n}.rs"), &"x\n".repeat(500));
        let files: Vec<_> = (0..11).map(file).collect();
        assert_eq!(check(&files[..10], &Exceptions::default()).len(), 0);
        assert_eq!(check(&files, &Exceptions::default()).len(), 1);
    }
}
