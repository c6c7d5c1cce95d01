//! Lines of COPY's text format (PostgreSQL: "COPY", "Text Format").
//!
//! Values are separated by tabs, NULL is `\N`, and a backslash may stand before any byte: `\b \f \n
//! \r \t \v` are control characters, one to three octal digits or `x` and one or two hexadecimal
//! digits are a byte, and everything else is itself.

use std::borrow::Cow;

/// A line has not as many values as the table has columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("COPY: a line of {found} values, where {wanted} columns were asked for")]
pub struct WrongColumns {
    /// Values in the line.
    pub found: usize,
    /// Columns.
    pub wanted: usize,
}

/// A row of a table, as a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    columns: usize,
    bytes: &'a [u8],
}

impl<'a> Line<'a> {
    /// Takes a line, without its end, of a table with so many columns.
    pub fn new(bytes: &'a [u8], columns: usize) -> Result<Self, WrongColumns> {
        // A tab within a value is always escaped, so each one separates. A table without columns has
        // empty lines.
        let found = match (columns, bytes.len()) {
            (0, 0) => 0,
            _ => memchr::memchr_iter(b'\t', bytes).count() + 1,
        };
        match found == columns {
            true => Ok(Self { columns, bytes }),
            false => Err(WrongColumns { found, wanted: columns }),
        }
    }

    /// Number of its columns.
    pub fn len(&self) -> usize {
        self.columns
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// Its values; `None` is NULL. Only a value with a backslash in it is copied.
    pub fn values(&self) -> Values<'a> {
        Values { left: self.columns, rest: self.bytes }
    }
}

/// The lines of a piece of COPY's output that ends with a line.
pub fn lines(piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = piece.is_empty();
    let piece = piece.strip_suffix(b"\n").unwrap_or(piece);
    let ends = memchr::memchr_iter(b'\n', piece).chain((!empty).then_some(piece.len()));
    ends.scan(0, move |start, end| {
        let line = &piece[*start..end];
        *start = end + 1;
        Some(line)
    })
}

/// Walks the values of a line.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Option<Cow<'a, [u8]>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let value = match memchr::memchr(b'\t', self.rest) {
            Some(end) => {
                let value = &self.rest[..end];
                self.rest = &self.rest[end + 1..];
                value
            }
            None => std::mem::take(&mut self.rest),
        };
        Some(match value {
            b"\\N" => None,
            value => Some(match memchr::memchr(b'\\', value) {
                None => Cow::Borrowed(value),
                Some(first) => Cow::Owned(unescaped(value, first)),
            }),
        })
    }
}

fn unescaped(value: &[u8], first: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    let mut next = Some(first);
    while let Some(at) = next {
        out.extend_from_slice(&rest[..at]);
        let (byte, used) = escape(&rest[at + 1..]);
        out.push(byte);
        rest = &rest[at + 1 + used..];
        next = memchr::memchr(b'\\', rest);
    }
    out.extend_from_slice(rest);
    out
}

/// The byte that stands behind a backslash, and how many bytes tell it.
fn escape(rest: &[u8]) -> (u8, usize) {
    let digits = |digits: &[u8], radix: u32, max: usize| {
        let known = digits.iter().take(max).map_while(|digit| char::from(*digit).to_digit(radix));
        // Three octal digits can say more than a byte holds; the server keeps the low bits.
        known.fold((0_u32, 0), |(value, used), digit| ((value * radix + digit) & 0xff, used + 1))
    };
    let byte = match rest.first() {
        // The end of the line: the backslash is itself.
        None => return (b'\\', 0),
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'v') => 0x0b,
        Some(b'0'..=b'7') => {
            let (value, used) = digits(rest, 8, 3);
            return (value as u8, used);
        }
        Some(b'x') => match digits(&rest[1..], 16, 2) {
            (_, 0) => b'x',
            (value, used) => return (value as u8, used + 1),
        },
        Some(other) => *other,
    };
    (byte, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(line: &str, columns: usize) -> Vec<Option<Vec<u8>>> {
        let line = Line::new(line.as_bytes(), columns).unwrap();
        line.values().map(|value| value.map(Cow::into_owned)).collect()
    }

    fn one(value: &str) -> Vec<u8> {
        values(value, 1).remove(0).unwrap()
    }

    #[test]
    fn escapes_are_those_of_the_manual() {
        assert_eq!(one(r"a\\b\tc\nd\re\bf\fg\vh"), b"a\\b\tc\nd\re\x08f\x0cg\x0bh");
        assert_eq!(one(r"\101\60\7x\x41\x4x\xg\q"), b"A0\x07xA\x04xxgq");
        assert_eq!(one(r"\400"), b"\0");
        assert_eq!(one("a\\"), b"a\\");
        assert_eq!(one(r"\\N"), b"\\N");
        assert_eq!(values("\\N\t\t1", 3), [None, Some(vec![]), Some(b"1".to_vec())]);
    }

    #[test]
    fn the_number_of_values_is_the_number_of_columns() {
        assert_eq!(Line::new(b"", 0).unwrap().values().count(), 0);
        assert_eq!(Line::new(b"", 1).unwrap().values().count(), 1);
        assert_eq!(Line::new(b"a\tb", 1), Err(WrongColumns { found: 2, wanted: 1 }));
        assert_eq!(Line::new(b"a", 0), Err(WrongColumns { found: 1, wanted: 0 }));
    }

    #[test]
    fn a_piece_is_its_lines() {
        let found = |piece: &'static str| lines(piece.as_bytes()).collect::<Vec<_>>();
        assert_eq!(found("a\nb\n"), [b"a", b"b"]);
        assert_eq!(found("a\n\nb\n"), [&b"a"[..], b"", b"b"]);
        assert_eq!((found("\n"), found("").len()), (vec![&b""[..]], 0));
    }

    /// As `CopyAttributeOutText` writes.
    fn written(value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in value {
            match byte {
                0x08 => out.extend(b"\\b"),
                0x0c => out.extend(b"\\f"),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                0x0b => out.extend(b"\\v"),
                b'\\' => out.extend(b"\\\\"),
                other => out.push(*other),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn what_the_server_writes_is_read(
            row in proptest::collection::vec(
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)), 1..6),
        ) {
            let texts = row.iter().map(|v| v.as_ref().map_or(b"\\N".to_vec(), |v| written(v)));
            let line = texts.collect::<Vec<_>>().join(&b'\t');
            let read = Line::new(&line, row.len()).unwrap();
            let read: Vec<_> = read.values().map(|value| value.map(Cow::into_owned)).collect();
            prop_assert_eq!(read, row);
        }

        #[test]
        fn any_bytes_are_a_line_or_an_error(line: Vec<u8>, columns in 0..5_usize) {
            if let Ok(line) = Line::new(&line, columns) {
                prop_assert_eq!(line.values().count(), columns);
            }
        }
    }
}
