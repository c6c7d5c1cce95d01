//! `cargo xtask ci`: every check, to the end, whatever an earlier one says.

use anyhow::Result;

use crate::process::{cargo, quietly, succeeds};
use crate::tally::Tally;
use crate::{test, tidy};

/// Runs all of it.
pub(crate) fn run() -> Result<Tally> {
    let mut sum = Tally::default();
    sum.add(Tally::step("cargo fmt", succeeds(&mut cargo(&["fmt", "--all", "--check"]))?));
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    sum.add(Tally::step("cargo clippy", succeeds(&mut cargo(&clippy))?));
    sum.add(Tally::step("cargo xtask tidy", tidy::run()?));
    sum.add(deny()?);
    sum.add(test::all()?);
    Ok(sum)
}

/// The licences, bans and sources of `deny.toml`. Advisories need a database from the network, so
/// they are not part of this.
fn deny() -> Result<Tally> {
    if quietly(&mut cargo(&["deny", "--version"])).is_err() {
        return Ok(Tally::skip(
            "cargo deny: not installed here (`cargo install cargo-deny --locked` takes ten minutes)",
        ));
    }
    let check = ["deny", "--all-features", "check", "bans", "licenses", "sources"];
    Ok(Tally::step("cargo deny", succeeds(&mut cargo(&check))?))
}
