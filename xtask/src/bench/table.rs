//! What was measured, as JSON and as the table of the document.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::{ROWS, Row};
use crate::kept::with;
use crate::process::root;

const DOCUMENT: &str = "docs/performance.md";
/// The line before the table.
const BEGIN: &str = "<!-- kept by `cargo xtask bench --write` from here on -->";

/// What a row measured.
pub(super) struct Told {
    /// For people.
    pub(super) measured: String,
    /// How it is measured by hand.
    pub(super) command: String,
    /// The reports behind it.
    pub(super) reports: Value,
}

/// A line of the table.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    what: String,
    target: String,
    measured: String,
    command: String,
    reports: Value,
}

impl Line {
    pub(super) fn new(row: &Row, told: Told) -> Self {
        let Told { measured, command, reports } = told;
        let (what, target) = (row.what.to_owned(), row.target.to_owned());
        Self { what, target, measured, command, reports }
    }
}

/// Lines by the names of their rows.
pub(super) type Lines = BTreeMap<String, Line>;

/// What was kept earlier.
pub(super) fn read(path: &Path) -> Result<Lines> {
    if !path.exists() {
        return Ok(Lines::new());
    }
    let text = fs::read_to_string(path)?;
    serde_json::from_str(&text).with_context(|| format!("{}: delete it", path.display()))
}

/// Keeps them for later.
pub(super) fn keep(path: &Path, lines: &Lines) -> Result<()> {
    fs::write(path, serde_json::to_string_pretty(lines)?)?;
    Ok(())
}

/// The table, in the order of the rows; of what was not measured it says so.
pub(super) fn markdown(lines: &Lines) -> String {
    let mut out =
        String::from("| row | what | target | measured | by hand |\n|---|---|---|---|---|\n");
    for row in ROWS {
        let (measured, command) = match lines.get(row.name) {
            Some(line) => (line.measured.as_str(), format!("`{}`", line.command)),
            None => ("not measured yet", String::new()),
        };
        let Row { name, what, target, .. } = row;
        out.push_str(&format!("| `{name}` | {what} | {target} | {measured} | {command} |\n"));
    }
    out
}

/// Puts the table into the document.
pub(super) fn write(lines: &Lines) -> Result<()> {
    let path = root().join(DOCUMENT);
    let text = fs::read_to_string(&path)?;
    fs::write(path, with(&text, BEGIN, &markdown(lines))?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::END;

    #[test]
    fn the_table_is_put_between_its_marks() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nbehind\n");
        let row = &ROWS[0];
        let told = Told {
            measured: "1,234".to_owned(),
            command: "hydrant bench put".to_owned(),
            reports: Value::Null,
        };
        let lines = Lines::from([(row.name.to_owned(), Line::new(row, told))]);
        let written = with(&text, BEGIN, &markdown(&lines)).unwrap();
        assert!(written.starts_with("before\n") && written.ends_with("\nbehind\n"), "{written}");
        assert!(written.contains("| 1,234 | `hydrant bench put` |"), "{written}");
        assert!(written.contains("not measured yet"), "{written}");
        assert_eq!(with(&written, BEGIN, &markdown(&lines)).unwrap(), written);
    }

    #[test]
    fn the_document_has_a_place_for_it() {
        with(&fs::read_to_string(root().join(DOCUMENT)).unwrap(), BEGIN, "").unwrap();
    }
}
