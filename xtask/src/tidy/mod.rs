//! `cargo xtask tidy`: the rules of this repository that no compiler checks.
//!
//! Each rule is a function from the files to findings, so that its tests need no files.

mod budgets;
mod imports;
mod shown;
mod text;
mod words;

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{quietly, root};

/// A tracked text file.
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the whole file is tests.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.contains("/benches/")
    }

    /// The lines outside `#[cfg(test)]` items, with their numbers. Leans on rustfmt: an item at the
    /// left margin ends with a line that is `}` or ends in `;`.
    fn lines_of_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_test = self.is_test();
        let whole = in_test;
        let mut depth_known = false;
        self.text.lines().enumerate().filter_map(move |(number, line)| {
            if !in_test && line == "#[cfg(test)]" {
                in_test = true;
                depth_known = false;
                return None;
            }
            if in_test && !whole {
                depth_known |= line.ends_with('{');
                if line == "}" || (!depth_known && line.ends_with(';')) {
                    in_test = false;
                }
                return None;
            }
            (!in_test).then_some((number + 1, line))
        })
    }
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Makes again what is made of other files.
pub(crate) fn write() -> Result<bool> {
    if let Some((path, text)) = shown::page(&tracked()?)? {
        fs::write(root().join(path), text).with_context(|| path.to_owned())?;
    }
    Ok(true)
}

/// Checks everything; true if there is nothing to say.
pub(crate) fn run() -> Result<bool> {
    println!("\n$ cargo xtask tidy");
    let files = tracked()?;
    let mut findings = Vec::new();
    findings.extend(imports::check(&files));
    findings.extend(text::check(&files));
    findings.extend(shown::check(&files)?);
    findings.extend(words::check(&files, &words::Allowed::read(&files)?));
    findings.extend(budgets::check(&files, &budgets::Exceptions::read(&files)?));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", files.len(), findings.len());
    Ok(findings.is_empty())
}

/// Tracked files and those that would be, if they are text.
fn tracked() -> Result<Vec<Source>> {
    let root = root();
    let mut git = Command::new("git");
    git.current_dir(&root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]);
    let names = quietly(&mut git)?;
    let mut files = Vec::new();
    for path in names.split('\0').filter(|name| !name.is_empty()) {
        let full = root.join(path);
        if !full.is_file() {
            continue;
        }
        let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(Source { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

#[cfg(test)]
fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests_do_not_count() {
        let file = source(
            "crates/a/src/lib.rs",
            "//! A.\nfn one() {}\n\n#[cfg(test)]\nmod tests;\n\n#[cfg(test)]\nfn helps() {\n    x;\n}\n\
             fn two() {}\n#[cfg(test)]\nmod more {\n    fn x() {\n    }\n}\n",
        );
        let lines: Vec<_> = file.lines_of_code().filter(|(_, line)| !line.is_empty()).collect();
        assert_eq!(lines, [(1, "//! A."), (2, "fn one() {}"), (11, "fn two() {}")]);
        assert_eq!(source("crates/a/src/b/tests.rs", "fn x() {}").lines_of_code().count(), 0);
    }

    #[test]
    fn a_finding_names_the_place() {
        let finding = Finding::new("crates/a/src/lib.rs", 7, "too long");
        assert_eq!(finding.to_string(), "crates/a/src/lib.rs:7: too long");
    }
}
