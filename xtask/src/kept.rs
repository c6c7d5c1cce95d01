//! The part of a document that a command keeps, between two marks, and how numbers look there.

use std::fmt::Display;

use anyhow::{Context, Result};

/// The mark behind what is kept; that before it is each command's own.
pub(crate) const END: &str = "<!-- to here -->";

/// The text before the mark `begin`, that between the marks, and that behind them.
pub(crate) fn split<'t>(text: &'t str, begin: &str) -> Result<(&'t str, &'t str, &'t str)> {
    let (head, rest) = text.split_once(begin).with_context(|| format!("no `{begin}`"))?;
    let (kept, tail) = rest.split_once(END).with_context(|| format!("no `{END}`"))?;
    Ok((head, kept, tail))
}

/// The text with `table` between the marks.
pub(crate) fn with(text: &str, begin: &str, table: &str) -> Result<String> {
    let (head, _, tail) = split(text, begin)?;
    Ok(format!("{head}{begin}\n\n{table}\n{END}{tail}"))
}

/// A whole number with commas.
pub(crate) fn thousands(number: impl Display) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        let shown = [0.0, 999.4, 1_000.0, 1_234_567.0].map(thousands);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
