//! Just enough of SQL's surface to find what lies outside of quotes and comments.

use std::borrow::Cow;

/// Calls `each` with every byte of `sql` that is in no string, quoted name or comment, and with the
/// opening quote of each string.
fn walk(sql: &str, mut each: impl FnMut(usize, u8)) {
    let bytes = sql.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &sql.as_bytes()[at..];
        match bytes[at] {
            b'\'' => {
                each(at, b'\'');
                at += quoted(rest, b'\'', true);
            }
            b'"' => at += quoted(rest, b'"', false),
            b'$' if rest.starts_with(b"$$") => at += after(rest, 2, b"$$"),
            b'-' if rest.starts_with(b"--") => at += after(rest, 2, b"\n"),
            b'/' if rest.starts_with(b"//") => at += after(rest, 2, b"\n"),
            b'/' if rest.starts_with(b"/*") => at += after(rest, 2, b"*/"),
            byte => {
                each(at, byte);
                at += 1;
            }
        }
    }
}

/// The length of the quoted text `rest` begins with; a doubled quote is part of it, and in a string
/// of Snowflake's a backslash takes the next byte along.
fn quoted(rest: &[u8], quote: u8, backslash: bool) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' if backslash => at += 2,
            byte if byte == quote && rest.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn after(rest: &[u8], from: usize, end: &[u8]) -> usize {
    rest[from..]
        .windows(end.len())
        .position(|window| window == end)
        .map_or(rest.len(), |at| from + at + end.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

/// How many parameters a statement has that a client wants described: the highest `$n`, unless it
/// reads a stage, where `$n` is a column of a file.
pub(super) fn parameters(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let (mut highest, mut stage) = (0, false);
    walk(sql, |at, byte| match byte {
        b'@' => stage = true,
        b'$' if at == 0 || !is_word(bytes[at - 1]) => {
            let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
            highest = sql[at + 1..at + 1 + digits].parse().unwrap_or(0).max(highest);
        }
        _ => {}
    });
    if stage { 0 } else { highest }
}

/// `E'…'` as `'…'`: PostgreSQL's escapes are those of every string of Snowflake's, and libpq quotes
/// a text with a backslash so.
pub(super) fn plain_strings(sql: &str) -> Cow<'_, str> {
    let bytes = sql.as_bytes();
    let mut escapes = Vec::new();
    walk(sql, |at, byte| {
        let marked = at > 0 && matches!(bytes[at - 1], b'E' | b'e');
        if byte == b'\'' && marked && (at == 1 || !is_word(bytes[at - 2])) {
            escapes.push(at - 1);
        }
    });
    if escapes.is_empty() {
        return Cow::Borrowed(sql);
    }
    let mut plain = String::with_capacity(sql.len());
    let mut from = 0;
    for at in escapes {
        plain.push_str(&sql[from..at]);
        from = at + 1;
    }
    plain.push_str(&sql[from..]);
    Cow::Owned(plain)
}

/// The statement without the comments and the blanks before it, and without the semicolon after it.
pub(super) fn bare(sql: &str) -> &str {
    let mut rest = sql.trim();
    loop {
        let skip = if rest.starts_with("--") || rest.starts_with("//") {
            after(rest.as_bytes(), 2, b"\n")
        } else if rest.starts_with("/*") {
            after(rest.as_bytes(), 2, b"*/")
        } else {
            return rest.trim_end_matches(|c: char| c == ';' || c.is_whitespace());
        };
        rest = rest[skip..].trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_outside_of_quotes() {
        assert_eq!(parameters("select $2, '$9', \"$8\", a$7, $$ $6 $$ -- $5\n, $1"), 2);
        assert_eq!(parameters("select $1:a from @stage"), 0);
        assert_eq!(parameters("select 'a\\'$3' /* $4 */"), 0);
        assert_eq!(parameters("$"), 0);
    }

    #[test]
    fn escape_strings_become_plain() {
        assert_eq!(plain_strings("select E'a\\\\b', 'E', e'c'"), "select 'a\\\\b', 'E', 'c'");
        assert_eq!(plain_strings("select se'x', 'it''s E'"), "select se'x', 'it''s E'");
        assert_eq!(plain_strings("'\\"), "'\\");
    }

    #[test]
    fn bare_statements() {
        assert_eq!(bare("/* hi */ -- x\n select 1 ; ;"), "select 1");
        assert_eq!(bare(" -- nothing"), "");
        assert_eq!(bare(";"), "");
    }
}
