//! Names and texts inside SQL. Every statement of ours is written with these, and with nothing else.

use hydrant_core::capture::PgTable;

/// A name as an identifier, always in quotes, so that case, spaces and keywords stay as they are.
pub(super) fn identifier(name: &str) -> String {
    doubled(name, '"')
}

/// A text as a literal. It counts on `standard_conforming_strings`, which every session here pins.
pub(super) fn literal(text: &str) -> String {
    doubled(text, '\'')
}

/// A table with its schema.
pub(super) fn table(table: &PgTable) -> String {
    format!("{}.{}", identifier(&table.schema), identifier(&table.table))
}

/// Texts as the literals of a list, for `= ANY (ARRAY[…]::text[])`.
pub(super) fn text_array<S: AsRef<str>>(texts: &[S]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| literal(text.as_ref())).collect();
    format!("ARRAY[{}]::text[]", texts.join(","))
}

fn doubled(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        if c == quote {
            out.push(quote);
        }
        out.push(c);
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(identifier(r#"Odd "name"; --"#), r#""Odd ""name""; --""#);
        assert_eq!(literal(r"it's \ here"), r"'it''s \ here'");
        let name = PgTable { schema: "twitch".into(), table: "Xxx".into() };
        assert_eq!(table(&name), r#""twitch"."Xxx""#);
        assert_eq!(text_array(&["a'b", ""]), "ARRAY['a''b','']::text[]");
    }
}
