//! Which of our crates may import which, and what every manifest has to say.

use toml::{Table, Value};

use super::{Finding, Source};

/// The import table: the crate's folder, and the folders of those it may import.
const TABLE: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("wire", &["core"]),
    ("storage", &["core"]),
    ("kinesis", &["core", "wire", "vault"]),
    ("delivery", &["core", "wire"]),
    ("destinations", &["core"]),
    ("bucket", &["core", "wire"]),
    ("leases", &["core", "wire"]),
    ("warehouse", &["core"]),
    ("postgres", &["core"]),
    ("cdc", &["core", "postgres"]),
    ("vault", &["core"]),
    ("archive", &["core", "storage"]),
    ("bench", &["core", "wire"]),
    (
        "server",
        &[
            "core",
            "wire",
            "storage",
            "kinesis",
            "delivery",
            "destinations",
            "bucket",
            "leases",
            "warehouse",
            "postgres",
            "cdc",
            "vault",
            "bench",
            "archive",
        ],
    ),
    ("testkit", &["core"]),
];
/// What the tests of any crate may import besides.
const TESTS_ONLY: &str = "testkit";
const OURS: &str = "hydrant-";

pub(super) fn check(files: &[Source]) -> Vec<Finding> {
    // A package of the tests' own is outside the workspace.
    let manifests =
        files.iter().filter(|file| file.path.ends_with("/Cargo.toml") && !file.is_test());
    manifests.flat_map(manifest).collect()
}

fn manifest(file: &Source) -> Vec<Finding> {
    let at = |needle: &str| {
        let line = file.text.lines().position(|line| line.trim_start().starts_with(needle));
        line.map_or(1, |line| line + 1)
    };
    let table: Table = match file.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(&file.path, 1, format!("not TOML: {error}"))],
    };
    let mut findings = Vec::new();
    if value(&table, &["lints", "workspace"]) != Some(&Value::Boolean(true)) {
        findings.push(Finding::new(&file.path, 1, "no `[lints] workspace = true`"));
    }
    let Some(folder) = file.path.strip_prefix("crates/").and_then(|rest| rest.split('/').next())
    else {
        return findings;
    };
    let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == folder) else {
        findings.push(Finding::new(&file.path, 1, "the crate is not in tidy's import table"));
        return findings;
    };
    for (kind, name, dependency) in dependencies(&table) {
        let line = at(name);
        if value(dependency, &["workspace"]) != Some(&Value::Boolean(true)) {
            let text = format!("{name}: take it from the workspace (`{name}.workspace = true`)");
            findings.push(Finding::new(&file.path, line, text));
        }
        let Some(import) = name.strip_prefix(OURS) else { continue };
        let for_tests = kind == "dev-dependencies" && import == TESTS_ONLY;
        if !allowed.contains(&import) && !for_tests {
            let text = format!("{folder} may not import {import} in {kind}");
            findings.push(Finding::new(&file.path, line, text));
        }
    }
    findings
}

/// Every dependency: the kind, its name, and what it says, also under `[target.….]`.
fn dependencies(table: &Table) -> Vec<(&'static str, &str, &Table)> {
    let mut found = Vec::new();
    let targets = table.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(|all| all.values().filter_map(Value::as_table));
    for part in std::iter::once(table).chain(targets) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(list) = part.get(kind).and_then(Value::as_table) else { continue };
            for (name, says) in list {
                static NOTHING: std::sync::LazyLock<Table> = std::sync::LazyLock::new(Table::new);
                found.push((kind, name.as_str(), says.as_table().unwrap_or(&NOTHING)));
            }
        }
    }
    found
}

fn value<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (last, folders) = path.split_last()?;
    let mut here = table;
    for name in folders {
        here = here.get(*name)?.as_table()?;
    }
    here.get(*last)
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn texts(path: &str, text: &str) -> Vec<String> {
        let text = format!("[lints]\nworkspace = true\n{text}");
        check(&[source(path, &text)]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_may_not_import_another() {
        let found = texts(
            "crates/kinesis/Cargo.toml",
            "[dependencies]\nhydrant-core.workspace = true\nhydrant-delivery.workspace = true\n",
        );
        let want = "crates/kinesis/Cargo.toml:5: kinesis may not import delivery in dependencies";
        assert_eq!(found, [want]);
    }

    #[test]
    fn testkit_is_for_tests() {
        let use_it = "hydrant-testkit.workspace = true\n";
        let path = "crates/delivery/Cargo.toml";
        assert_eq!(texts(path, &format!("[dev-dependencies]\n{use_it}")).len(), 0);
        assert_eq!(texts(path, &format!("[dependencies]\n{use_it}")).len(), 1);
        let by_target = format!("[target.'cfg(unix)'.dependencies]\n{use_it}");
        assert_eq!(texts(path, &by_target).len(), 1);
    }

    #[test]
    fn versions_stand_in_one_place() {
        assert_eq!(texts("crates/core/Cargo.toml", "[dependencies]\nbytes = \"1\"\n").len(), 1);
        assert_eq!(
            texts("crates/core/Cargo.toml", "[dependencies.bytes]\nworkspace = true").len(),
            0
        );
    }

    #[test]
    fn every_crate_is_in_the_table_and_under_the_lints() {
        assert_eq!(texts("crates/utils/Cargo.toml", "").len(), 1);
        assert_eq!(check(&[source("xtask/Cargo.toml", "[package]\n")]).len(), 1);
    }
}
