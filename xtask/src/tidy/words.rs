//! Words that our code does without: they mark unfinished work, name nothing, or are another
//! system's noun for one of ours.

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::{Finding, Source};

const FILE: &str = "xtask/words.toml";

/// A word and why it is out. Matched against each word of an identifier, a comment or a text,
/// whatever the case: `TopicArn` and `topic_arn` have the word `topic`.
const WORDS: [(&str, &str); 7] = [
    ("manager", "name what it does"),
    ("helper", "name what it does"),
    ("helpers", "name what it does"),
    ("utils", "name what it does"),
    ("topic", "our noun is stream"),
    ("topics", "our noun is stream"),
    ("sink", "our noun is destination"),
];
/// Marks of unfinished work, as they are written.
const MARKS: [&str; 6] = ["TODO", "FIXME", "XXX", "todo!", "unimplemented!", "for now"];
const UNFINISHED: &str = "finish it, or refuse it by name with an error";

/// Names of others that have such a word in them, from `xtask/words.toml`.
#[derive(Debug, Default)]
pub(super) struct Allowed(Vec<String>);

impl Allowed {
    /// Reads the list; each entry has a reason.
    pub(super) fn read(files: &[Source]) -> Result<Self> {
        let Some(file) = files.iter().find(|file| file.path == FILE) else {
            return Ok(Self::default());
        };
        let table: Table = file.text.parse().with_context(|| FILE.to_owned())?;
        let entries = table.get("allow").and_then(Value::as_array).context("no `allow` list")?;
        let mut names = Vec::new();
        for entry in entries {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
            text("reason").with_context(|| format!("{FILE}: {entry}: no reason"))?;
            names.push(
                text("name").with_context(|| format!("{FILE}: {entry}: no name"))?.to_owned(),
            );
        }
        // Longer names first, so that one inside another does not leave a part behind.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Ok(Self(names))
    }
}

pub(super) fn check(files: &[Source], allowed: &Allowed) -> Vec<Finding> {
    let ours = |file: &&Source| file.path.starts_with("crates/") && file.is_rust();
    let mut findings = Vec::new();
    for file in files.iter().filter(ours) {
        for (number, line) in file.text.lines().enumerate() {
            for (found, reason) in in_line(line, allowed) {
                let text = format!("`{found}`: {reason}");
                findings.push(Finding::new(&file.path, number + 1, text));
            }
        }
    }
    findings
}

fn in_line(line: &str, allowed: &Allowed) -> Vec<(&'static str, &'static str)> {
    let mut line = line.to_owned();
    for name in &allowed.0 {
        if line.contains(name.as_str()) {
            line = line.replace(name.as_str(), " ");
        }
    }
    let words = words(&line);
    let mut found: Vec<_> =
        WORDS.iter().filter(|(word, _)| words.iter().any(|w| w == word)).copied().collect();
    found.extend(MARKS.iter().filter(|mark| line.contains(*mark)).map(|mark| (*mark, UNFINISHED)));
    found
}

/// The words of a line, in lower case: `HTTPHelperUtils` has three.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for run in line.split(|c: char| !c.is_alphabetic()) {
        let chars: Vec<char> = run.chars().collect();
        let mut start = 0;
        for at in 1..chars.len() {
            let lower_upper = chars[at - 1].is_lowercase() && chars[at].is_uppercase();
            let upper_word = chars[at].is_uppercase()
                && chars[at - 1].is_uppercase()
                && chars.get(at + 1).is_some_and(|next| next.is_lowercase());
            if lower_upper || upper_word {
                words.push(chars[start..at].iter().collect::<String>().to_lowercase());
                start = at;
            }
        }
        if !chars.is_empty() {
            words.push(chars[start..].iter().collect::<String>().to_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn identifiers_fall_into_words() {
        assert_eq!(
            words("SnsTopicArn sns_topic HTTPUtils"),
            ["sns", "topic", "arn", "sns", "topic", "http", "utils"]
        );
    }

    #[test]
    fn forbidden_words_are_found_inside_names_only_as_words() {
        let none = Allowed::default();
        for line in ["struct StreamManager;", "// TODO later", "todo!()", "let topic_arn = 1;"] {
            assert_eq!(in_line(line, &none).len(), 1, "{line}");
        }
        assert_eq!(in_line("// good enough for now", &none).len(), 1);
        for line in ["use tokio_util::io;", "// topical, sinking, managers", "let todo = 1;"] {
            assert_eq!(in_line(line, &none).len(), 0, "{line}");
        }
    }

    #[test]
    fn names_of_others_are_allowed_with_a_reason() {
        let list = "allow = [{ name = \"AWS_SNS_TOPIC\", reason = \"an option of CREATE PIPE\" }]";
        let allowed = Allowed::read(&[source(FILE, list)]).unwrap();
        assert_eq!(in_line("\"AWS_SNS_TOPIC\" =>", &allowed).len(), 0);
        assert_eq!(in_line("\"AWS_SNS_TOPIC\" => topic", &allowed).len(), 1);
        assert!(Allowed::read(&[source(FILE, "allow = [{ name = \"Sink\" }]")]).is_err());
    }

    #[test]
    fn only_the_product_is_looked_at() {
        let none = Allowed::default();
        assert_eq!(check(&[source("crates/a/src/lib.rs", "// FIXME\n")], &none).len(), 1);
        assert_eq!(check(&[source("xtask/src/main.rs", "// FIXME\n")], &none).len(), 0);
    }
}
