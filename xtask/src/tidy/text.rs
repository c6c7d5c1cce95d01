//! Rules about single lines.

use super::{Finding, Source};

/// Hosts that packages come from: what a file says must hold on every machine.
const HOSTS: [&[&str]; 5] = [
    &["registry", "npmjs", "org"],
    &["pypi", "org"],
    &["files", "pythonhosted", "org"],
    &["index", "crates", "io"],
    &["static", "crates", "io"],
];
/// Folders of one machine.
const FOLDERS: [&[&str]; 5] = [
    &["", "root", ""],
    &["", "home", ""],
    &["", "Users", ""],
    &["", "work", ""],
    &["", "opt", "wheels"],
];

pub(super) fn check(files: &[Source]) -> Vec<Finding> {
    let hosts = HOSTS.map(|parts| parts.join("."));
    let folders = FOLDERS.map(|parts| parts.join("/"));
    let mut findings = Vec::new();
    for file in files {
        findings.extend(machine(file, &hosts, &folders));
        if file.is_rust() {
            findings.extend(module_line(file));
            findings.extend(keywords(file));
            findings.extend(proofs(file));
        }
    }
    findings
}

fn machine(file: &Source, hosts: &[String], folders: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let found = hosts.iter().find(|host| line.contains(host.as_str()));
        let found = found.or_else(|| folders.iter().find(|folder| stands_alone(line, folder)));
        if let Some(found) = found {
            let text = format!("{found}: names one machine or one registry");
            findings.push(Finding::new(&file.path, number + 1, text));
        }
    }
    findings
}

/// Whether `folder` begins an absolute path in the line, not the middle of a longer one.
fn stands_alone(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_.-/}$".contains(c))
    })
}

fn module_line(file: &Source) -> Option<Finding> {
    let first = file.text.lines().next().unwrap_or_default();
    let said = first.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty());
    (!said).then(|| Finding::new(&file.path, 1, "begin the file with a `//!` line: what it is for"))
}

fn keywords(file: &Source) -> Vec<Finding> {
    let forbidden = ["un", "safe"].concat();
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut tokens = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        if tokens.any(|token| token == forbidden) {
            findings.push(Finding::new(&file.path, number + 1, format!("{forbidden} code")));
        }
        if line.trim() == "#[ignore]" {
            let text = "an ignored test without a reason: `#[ignore = \"…\"]`";
            findings.push(Finding::new(&file.path, number + 1, text));
        }
    }
    findings
}

/// Values that prove something may be made only where that thing happens.
fn proofs(file: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let engine = ["crates/storage/", "crates/testkit/", "crates/core/src/log.rs", "xtask/"];
    if !engine.iter().any(|place| file.path.starts_with(place)) {
        for (number, line) in file.text.lines().enumerate() {
            if line.contains("by_completed_sync") {
                let text = "only an engine may say that a sync has completed";
                findings.push(Finding::new(&file.path, number + 1, text));
            }
        }
    }
    if !["xtask/", "fuzz/", "measure/"].iter().any(|place| file.path.starts_with(place)) {
        for (number, line) in file.lines_of_code() {
            // A call for tests is made of a principal for tests.
            let within = file.path == "crates/wire/src/api.rs" && line.contains("principal:");
            let made = line.contains("Principal::for_tests") || line.contains("Call::for_tests");
            if made && !within {
                let text = "outside tests only the verifier makes a Principal or a Call";
                findings.push(Finding::new(&file.path, number, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn texts(path: &str, text: &str) -> Vec<String> {
        check(&[source(path, text)]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_begins_with_what_it_is_for() {
        assert_eq!(texts("crates/a/src/lib.rs", "//! Streams.\nfn a() {}\n").len(), 0);
        for text in ["fn a() {}\n", "//!\nfn a() {}\n", "// Streams.\n", ""] {
            assert_eq!(texts("crates/a/src/lib.rs", text).len(), 1, "{text:?}");
        }
    }

    #[test]
    fn machine_paths_and_registries_are_found() {
        let host = ["registry", "npmjs", "org"].join(".");
        let home = ["", "home", "me/x"].join("/");
        for text in [format!("see https://{host}/x"), home.clone(), format!("a=\"{home}\"")] {
            assert_eq!(texts("README.md", &text).len(), 1, "{text}");
        }
        for text in ["~/.cache", "$HOME/x", "s3://lake/home/x", "/tmp/x", "$BASE/home/x"] {
            assert_eq!(texts("README.md", text).len(), 0, "{text}");
        }
    }

    #[test]
    fn ignored_tests_say_why() {
        let text = "//! A.\n#[ignore]\nfn a() {}\n#[ignore = \"slow\"]\nfn b() {}\n";
        assert_eq!(texts("crates/a/src/tests.rs", text).len(), 1);
    }

    #[test]
    fn no_code_is_outside_the_compilers_care() {
        let word = ["un", "safe"].concat();
        assert_eq!(texts("crates/a/src/lib.rs", &format!("//! A.\n{word} {{}}\n")).len(), 1);
        assert_eq!(texts("crates/a/src/lib.rs", &format!("//! A.\n// {word} is out\n")).len(), 0);
        assert_eq!(
            texts("crates/a/src/lib.rs", &format!("//! A.\n#![deny({word}_code)]\n")).len(),
            0
        );
    }

    #[test]
    fn proofs_are_made_where_they_are_true() {
        let sync = "//! A.\nlet s = Synced::by_completed_sync();\n";
        assert_eq!(texts("crates/kinesis/src/lib.rs", sync).len(), 1);
        assert_eq!(texts("crates/storage/src/writer.rs", sync).len(), 0);
        let caller = "//! A.\nlet p = Principal::for_tests(scope);\n";
        assert_eq!(texts("crates/kinesis/src/lib.rs", caller).len(), 1);
        assert_eq!(texts("crates/kinesis/src/ops/tests.rs", caller).len(), 0);
        let call = "//! A.\nlet c = Call::for_tests(scope, name, body);\n";
        assert_eq!(texts("crates/kinesis/src/lib.rs", call).len(), 1);
        let tested = "//! A.\n#[cfg(test)]\nmod tests {\n    Principal::for_tests(scope);\n}\n";
        assert_eq!(texts("crates/kinesis/src/lib.rs", tested).len(), 0);
    }
}
