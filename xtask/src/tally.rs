//! What passed, failed and was skipped, over everything that ran.

use std::fmt;

/// The sum of a run, and the names of its parts that failed or were skipped as a whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    failed: u64,
    pub(crate) skipped: u64,
    notes: Vec<String>,
}

impl Tally {
    /// The counts of a test runner that told them.
    pub(crate) fn counted(passed: u64, failed: u64, skipped: u64) -> Self {
        Self { passed, failed, skipped, notes: Vec::new() }
    }

    /// One part that failed as a whole.
    pub(crate) fn failure(note: impl Into<String>) -> Self {
        Self { failed: 1, notes: vec![format!("failed: {}", note.into())], ..Self::default() }
    }

    /// One part that did not run, and why.
    pub(crate) fn skip(note: impl Into<String>) -> Self {
        Self { skipped: 1, notes: vec![format!("skipped: {}", note.into())], ..Self::default() }
    }

    /// One part without counts of its own.
    pub(crate) fn step(name: &str, ok: bool) -> Self {
        if ok { Self::default() } else { Self::failure(name) }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.notes.extend(other.notes);
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        writeln!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads a closing line of cargo test, such as
/// `test result: ok. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
pub(crate) fn of_cargo_test(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut numbers = counts.split("; ").map(|part| part.split_once(' ')?.0.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    Some(Tally::counted(next()?, next()?, next()?))
}

/// Reads what tests/conftest.py leaves behind: `passed failed skipped`.
pub(crate) fn of_acceptance(text: &str) -> Option<Tally> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    Some(Tally::counted(next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_cargo_test_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 2 ignored; 0 measured; \
                    7 filtered out; finished in 1.23s";
        assert_eq!(of_cargo_test(line), Some(Tally::counted(12, 3, 2)));
        assert_eq!(of_cargo_test("test a::b ... ok"), None);
        assert_eq!(of_cargo_test("test result: ok."), None);
    }

    #[test]
    fn counts_of_the_acceptance_suite_are_read() {
        assert_eq!(of_acceptance("40 1 2\n"), Some(Tally::counted(40, 1, 2)));
        assert_eq!(of_acceptance("40 1"), None);
        assert_eq!(of_acceptance(""), None);
    }

    #[test]
    fn the_last_line_sums_everything() {
        let mut sum = Tally::counted(1, 0, 0);
        sum.add(Tally::counted(2, 0, 1));
        sum.add(Tally::failure("clippy"));
        sum.add(Tally::skip("cargo deny: not installed"));
        sum.add(Tally::step("fmt", true));
        let text = sum.to_string();
        assert!(text.ends_with(
            "failed: clippy\nskipped: cargo deny: not installed\n3 passed, 1 failed, 2 skipped\n"
        ));
    }
}
