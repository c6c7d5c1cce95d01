//! Reads SQL as text, before any parser: where statements end, and where `@stage/path` is.
//!
//! A stage's path is not SQL (`//` in it would be a comment), so it is cut out and stands in the
//! text as a quoted name until the parser has found its place.

use crate::error::{SqlResult, error};

/// Longest text of statements taken at once (Snowflake: 1 MB).
pub(crate) const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// What begins at a place in the text.
enum Piece {
    /// White space or a comment.
    Blank,
    /// `;`
    End,
    /// `@stage/path`
    Stage,
    /// `s3://bucket/path` without quotes.
    Url,
    /// Anything else: a string, a quoted name, a word, a sign.
    Other,
}

/// Splits a text into its statements, without their semicolons; empty ones are left out.
pub(crate) fn split(sql: &str) -> SqlResult<Vec<String>> {
    check_size(sql)?;
    let mut statements = Vec::new();
    let (mut from, mut at, mut seen) = (0, 0, false);
    while at < sql.len() {
        let (piece, end) = next(sql, at);
        match piece {
            Piece::End => {
                if seen {
                    statements.push(sql[from..at].trim().to_owned());
                }
                (from, seen) = (end, false);
            }
            Piece::Blank => {}
            _ => seen = true,
        }
        at = end;
    }
    if seen {
        statements.push(sql[from..].trim().to_owned());
    }
    Ok(statements)
}

pub(crate) fn check_size(sql: &str) -> SqlResult<()> {
    if sql.len() <= STATEMENT_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "SQL compilation error:\nThe text has {} bytes; the longest allowed has \
         {STATEMENT_BYTES_MAX}.",
        sql.len()
    );
    Err(error(1003, "54000", text))
}

/// A statement with its stage names cut out.
#[derive(Clone)]
pub(crate) struct Prepared {
    /// The text, with `"@0"`, `"@1"` … for the stages.
    pub(crate) text: String,
    /// The stages as written, with the `@`.
    pub(crate) stages: Vec<String>,
}

impl Prepared {
    pub(crate) fn new(sql: &str) -> SqlResult<Self> {
        check_size(sql)?;
        let mut text = String::with_capacity(sql.len());
        let mut stages = Vec::new();
        let mut at = 0;
        while at < sql.len() {
            let (piece, end) = next(sql, at);
            match piece {
                Piece::Stage => {
                    text.push_str(&format!("\"@{}\"", stages.len()));
                    stages.push(sql[at..end].to_owned());
                }
                Piece::Url => {
                    text.push('\'');
                    text.push_str(&sql[at..end]);
                    text.push('\'');
                }
                _ => text.push_str(&sql[at..end]),
            }
            at = end;
        }
        Ok(Self { text, stages })
    }

    /// The stage that a quoted name stands for.
    pub(crate) fn stage(&self, name: &str) -> Option<&str> {
        let number: usize = name.strip_prefix('@')?.parse().ok()?;
        self.stages.get(number).map(String::as_str)
    }

    /// A part of [`Prepared::text`] as it was written.
    pub(crate) fn original(&self, part: &str) -> String {
        let mut out = part.to_owned();
        for (number, stage) in self.stages.iter().enumerate().rev() {
            out = out.replace(&format!("\"@{number}\""), stage);
        }
        out
    }
}

fn next(sql: &str, at: usize) -> (Piece, usize) {
    let rest = &sql[at..];
    let bytes = rest.as_bytes();
    let two = bytes.get(..2).unwrap_or_default();
    let end = |n: usize| at + n;
    match bytes[0] {
        b';' => (Piece::End, at + 1),
        b' ' | b'\t' | b'\n' | b'\r' => (Piece::Blank, at + 1),
        b'-' if two == b"--" => (Piece::Blank, end(rest.find('\n').unwrap_or(rest.len()))),
        b'/' if two == b"//" => (Piece::Blank, end(rest.find('\n').unwrap_or(rest.len()))),
        b'/' if two == b"/*" => (Piece::Blank, end(rest.find("*/").map_or(rest.len(), |n| n + 2))),
        b'\'' => (Piece::Other, end(quoted(bytes, b'\'', true))),
        b'"' => (Piece::Other, end(quoted(bytes, b'"', false))),
        b'$' if two == b"$$" => {
            (Piece::Other, end(rest[2..].find("$$").map_or(rest.len(), |n| n + 4)))
        }
        b'@' => match stage_length(bytes) {
            1 => (Piece::Other, at + 1),
            n => (Piece::Stage, end(n)),
        },
        b's' | b'S' if is_url(bytes) => (Piece::Url, end(path_length(bytes, 0))),
        b if is_word(b) => (Piece::Other, end(word_length(bytes))),
        _ => (Piece::Other, end(rest.chars().next().map_or(1, char::len_utf8))),
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !is_word(*b)).unwrap_or(bytes.len())
}

fn is_url(bytes: &[u8]) -> bool {
    let head = bytes.get(..12).unwrap_or(bytes).to_ascii_lowercase();
    head.starts_with(b"s3://") || head.starts_with(b"s3compat://")
}

/// Length of a quoted piece, both quotes included; an unfinished one goes to the end.
fn quoted(bytes: &[u8], quote: u8, backslash: bool) -> usize {
    let mut i = 1;
    while i < bytes.len() {
        if backslash && bytes[i] == b'\\' {
            i += 2;
        } else if bytes[i] == quote {
            if bytes.get(i + 1) != Some(&quote) {
                return i + 1;
            }
            i += 2;
        } else {
            i += 1;
        }
    }
    bytes.len()
}

/// Length of `@name.name/path`, 1 when no name follows the `@`.
fn stage_length(bytes: &[u8]) -> usize {
    let mut i = 1;
    if matches!(bytes.get(1), Some(b'~' | b'%')) {
        i = 2;
    }
    while let Some(&b) = bytes.get(i) {
        match b {
            b'"' => i += quoted(&bytes[i..], b'"', false),
            b'/' => return path_length(bytes, i),
            b'.' => i += 1,
            _ if is_word(b) => i += 1,
            _ => break,
        }
    }
    i.min(bytes.len())
}

/// End of a path that begins at `from`: blanks, brackets, commas and semicolons end it.
fn path_length(bytes: &[u8], from: usize) -> usize {
    let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'(' | b')' | b',' | b';' | b'\'');
    bytes[from..].iter().position(ends).map_or(bytes.len(), |n| from + n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_text() {
        let sql =
            "select ';' as \"a;b\"; -- x;\n ; /* ; */ select $$;$$, 'it''s; \\'; ok' ; ls @s/a//b;";
        let found = split(sql).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], "select ';' as \"a;b\"");
        assert_eq!(found[2], "ls @s/a//b");
    }

    #[test]
    fn stages_are_cut_out_and_put_back() {
        let sql = "copy into t from @db.\"S c\".st/a//b-c/ file_format=(type='JSON') -- @x";
        let p = Prepared::new(sql).unwrap();
        assert_eq!(p.stages, ["@db.\"S c\".st/a//b-c/"]);
        assert_eq!(p.original(&p.text), sql);
        assert_eq!(p.stage("@0"), Some("@db.\"S c\".st/a//b-c/"));
        let p = Prepared::new("select * from @s (pattern=>'x') t, 'a@b'").unwrap();
        assert_eq!(p.stages, ["@s"]);
        assert_eq!(
            Prepared::new("copy into t from s3://b/k/ x").unwrap().text.matches('\'').count(),
            2
        );
    }
}
