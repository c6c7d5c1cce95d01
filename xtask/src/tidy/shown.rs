//! Every operation and every documented limit of Data Streams has a test that shows it.
//!
//! A test says so in a comment above it, `// shows: PutRecords, limit:records-per-call` (in Python
//! with `#`). `docs/kinesis-limits.toml` has what there is to show; the table at the end of
//! `docs/kinesis.md` is made of the two by `cargo xtask tidy --write`. A test of `tests/` that has
//! every operation as a parameter says `shows: each operation`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use super::{Finding, Source};

const LIST: &str = "docs/kinesis-limits.toml";
const PAGE: &str = "docs/kinesis.md";
const BEGIN: &str = "<!-- made by `cargo xtask tidy --write` from here on -->\n";
const EACH: &str = "each operation";
const LIMIT: &str = "limit:";

/// What has to be shown.
struct Wanted {
    operations: Vec<String>,
    limits: Vec<Limit>,
}

struct Limit {
    name: String,
    says: String,
    page: String,
}

impl Wanted {
    fn read(text: &str) -> Result<Self> {
        let table: Table = text.parse().with_context(|| LIST.to_owned())?;
        let list = |name: &str| {
            table.get(name).and_then(Value::as_array).with_context(|| format!("{LIST}: no {name}"))
        };
        let operations = list("operations")?.iter().filter_map(Value::as_str);
        let mut limits = Vec::new();
        for entry in list("limit")? {
            let text = |key: &str| {
                let text = entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
                text.map(str::to_owned).with_context(|| format!("{LIST}: {entry}: no {key}"))
            };
            limits.push(Limit { name: text("name")?, says: text("says")?, page: text("page")? });
        }
        let names: BTreeSet<_> = limits.iter().map(|limit| &limit.name).collect();
        ensure!(names.len() == limits.len(), "{LIST}: a limit is there twice");
        Ok(Self { operations: operations.map(str::to_owned).collect(), limits })
    }
}

/// Checks the table, and the marks it is made of.
pub(super) fn check(files: &[Source]) -> Result<Vec<Finding>> {
    let Some((page, list)) = find(files) else { return Ok(Vec::new()) };
    let wanted = Wanted::read(&list.text)?;
    let (shown, mut findings) = marks(files, &wanted);
    for name in wanted.operations.iter().cloned().chain(limit_marks(&wanted)) {
        if !shown.contains_key(&name) {
            findings.push(Finding::new(LIST, 1, format!("no test shows {name}")));
        }
    }
    if page.text != written(&page.text, &wanted, &shown) {
        let text = "the table is not what the tests say: `cargo xtask tidy --write`";
        findings.push(Finding::new(PAGE, 1, text));
    }
    Ok(findings)
}

/// The page with its table made again; `None` where there is neither.
pub(super) fn page(files: &[Source]) -> Result<Option<(&'static str, String)>> {
    let Some((page, list)) = find(files) else { return Ok(None) };
    let wanted = Wanted::read(&list.text)?;
    let (shown, _) = marks(files, &wanted);
    Ok(Some((PAGE, written(&page.text, &wanted, &shown))))
}

fn find(files: &[Source]) -> Option<(&Source, &Source)> {
    let file = |path: &str| files.iter().find(|file| file.path == path);
    Some((file(PAGE)?, file(LIST)?))
}

fn limit_marks(wanted: &Wanted) -> impl Iterator<Item = String> + '_ {
    wanted.limits.iter().map(|limit| format!("{LIMIT}{}", limit.name))
}

/// What is shown, and by which tests.
type Shown = BTreeMap<String, BTreeSet<String>>;

fn marks(files: &[Source], wanted: &Wanted) -> (Shown, Vec<Finding>) {
    let known: BTreeSet<_> = wanted.operations.iter().cloned().chain(limit_marks(wanted)).collect();
    let (mut shown, mut findings) = (Shown::new(), Vec::new());
    for file in files {
        let comment = match file.path.rsplit_once('.') {
            _ if file.path.starts_with("xtask/") => continue,
            Some((_, "rs")) => "// shows: ",
            Some((path, "py")) if path.starts_with("tests/") => "# shows: ",
            _ => continue,
        };
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(names) = line.trim_start().strip_prefix(comment) else { continue };
            let Some(test) = test_below(&lines[number + 1..]) else {
                findings.push(Finding::new(&file.path, number + 1, "no test below this mark"));
                continue;
            };
            for name in names.split(", ").map(str::trim) {
                let mut show = |name: &str, by: String| {
                    shown.entry(name.to_owned()).or_default().insert(by);
                };
                if name == EACH {
                    for one in &wanted.operations {
                        show(one, format!("{}::{test}[{one}]", file.path));
                    }
                } else if known.contains(name) {
                    show(name, format!("{}::{test}", file.path));
                } else {
                    let text = format!("{name} is not in {LIST}");
                    findings.push(Finding::new(&file.path, number + 1, text));
                }
            }
        }
    }
    (shown, findings)
}

/// The name of the test that the next lines begin, behind its attributes and other comments.
fn test_below<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let mut marked = false;
    for line in lines.iter().map(|line| line.trim_start()) {
        let name = |rest: &'a str| rest.split('(').next();
        if let Some(rest) = line.strip_prefix("def test_") {
            return line["def ".len()..].get(..rest.find('(')? + "test_".len());
        }
        if let Some(rest) = line.strip_prefix("async fn ").or(line.strip_prefix("fn ")) {
            return name(rest).filter(|_| marked);
        }
        marked |= line.starts_with("#[") && line.contains("test");
        if !["#", "//", "@"].iter().any(|start| line.starts_with(start)) {
            return None;
        }
    }
    None
}

/// The page up to its table, and the table.
fn written(page: &str, wanted: &Wanted, shown: &Shown) -> String {
    let own = page.split_once(BEGIN).map_or(page, |(own, _)| own);
    let mut out = format!("{}\n\n{BEGIN}", own.trim_end());
    let tests = |name: &str| {
        let by = shown.get(name).into_iter().flatten();
        by.map(|test| format!("`{test}`")).collect::<Vec<_>>().join("<br>")
    };
    out.push_str(
        "\n## Every operation, and the tests that show it\n\n| operation | tests |\n|---|---|\n",
    );
    for name in &wanted.operations {
        let _ = writeln!(out, "| {name} | {} |", tests(name));
    }
    out.push_str(
        "\n## Every documented limit, and the tests that show it\n\n| limit | AWS | tests |\n|---|---|---|\n",
    );
    for Limit { name, says, page } in &wanted.limits {
        let _ = writeln!(out, "| {says} | {page} | {} |", tests(&format!("{LIMIT}{name}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    const LISTED: &str = "operations = [\"PutRecord\", \"GetRecords\"]\n[[limit]]\nname = \"key\"\n\
                          says = \"256 characters\"\npage = \"API_PutRecord\"\n";

    fn repository(rust: &str, python: &str) -> Vec<Source> {
        let mut files = vec![
            source(PAGE, "# Streams\n"),
            source(LIST, LISTED),
            source("crates/a/src/tests.rs", rust),
            source("tests/test_a.py", python),
        ];
        let (path, text) = page(&files).unwrap().unwrap();
        files[0] = source(path, &text);
        files
    }

    #[test]
    fn what_has_its_tests_is_a_table_without_findings() {
        let files = repository(
            "// shows: PutRecord, limit:key\n#[tokio::test]\nasync fn puts() {}\n",
            "# shows: each operation\n@parametrized\ndef test_all(operation):\n    pass\n",
        );
        assert_eq!(check(&files).unwrap(), []);
        let row = "| PutRecord | `crates/a/src/tests.rs::puts`<br>`tests/test_a.py::test_all[PutRecord]` |";
        assert!(files[0].text.contains(row), "{}", files[0].text);
        assert!(files[0].text.starts_with("# Streams\n\n<!--"), "{}", files[0].text);
        assert!(files[0].text.contains("| 256 characters | API_PutRecord | `crates/a"));
    }

    #[test]
    fn an_empty_row_an_old_table_and_a_wrong_mark_are_found() {
        let found = |rust: &str| {
            let files = repository(rust, "");
            let found = check(&files).unwrap();
            found.iter().map(|finding| finding.text.clone()).collect::<Vec<_>>()
        };
        let some = "// shows: PutRecord, GetRecords\n#[test]\nfn a() {}\n";
        assert_eq!(found(some), ["no test shows limit:key"]);
        let all = "// shows: PutRecord, GetRecords, limit:key\n";
        assert_eq!(found(&format!("{all}#[test]\nfn a() {{}}\n")).len(), 0);
        assert!(found(&format!("{all}fn a() {{}}\n")).contains(&"no test below this mark".into()));
        assert_eq!(
            found(&format!("{all}#[test]\nfn a() {{}}\n// shows: X\n#[test]\nfn b() {{}}\n")).len(),
            1
        );

        let mut files = repository(&format!("{all}#[test]\nfn a() {{}}\n"), "");
        files[0].text.push_str("| more |\n");
        assert_eq!(check(&files).unwrap().len(), 1);
    }
}
