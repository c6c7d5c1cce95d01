//! Cuts a stream of bytes into JSON documents, however they are joined.
//!
//! Snowflake takes documents one after another with or without white space, newlines or commas
//! between them, so neither a newline nor its absence means anything here.

use super::VARIANT_BYTES_MAX;

/// Where a document begins, counted as COPY reports it: lines and characters from 1, bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) character: u64,
    pub(crate) byte: u64,
}

/// What came out of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    /// A document, not yet checked.
    Document(Place, Vec<u8>),
    /// The stream cannot be cut any further; nothing follows.
    Broken(Place, String),
}

/// Cuts documents out of what is fed to it. Holds at most one document.
pub(crate) struct Framer {
    strip_outer_array: bool,
    buffer: Vec<u8>,
    start: Place,
    now: Place,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Inside a bare word or number, which a blank or comma ends.
    in_scalar: bool,
    in_outer_array: bool,
    broken: bool,
}

impl Framer {
    pub(crate) fn new(strip_outer_array: bool) -> Self {
        let place = Place { line: 1, character: 1, byte: 0 };
        Self {
            strip_outer_array,
            buffer: Vec::new(),
            start: place,
            now: place,
            depth: 0,
            in_string: false,
            escaped: false,
            in_scalar: false,
            in_outer_array: false,
            broken: false,
        }
    }

    /// How far the bytes were read.
    pub(crate) fn place(&self) -> Place {
        self.now
    }

    /// Takes the next bytes and hands every finished document to `out`.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut Vec<Framed>) {
        for &b in bytes {
            if self.broken {
                return;
            }
            self.byte(b, out);
            self.now.byte += 1;
            if b == b'\n' {
                self.now.line += 1;
                self.now.character = 1;
            } else if b & 0xC0 != 0x80 {
                self.now.character += 1;
            }
        }
    }

    /// The stream is over.
    pub(crate) fn finish(&mut self, out: &mut Vec<Framed>) {
        if self.broken {
            return;
        }
        if self.in_scalar {
            self.cut(out);
        } else if self.depth > 0 || self.in_string {
            let what = if self.buffer.first() == Some(&b'[') { "array" } else { "object" };
            let what = if self.depth == 0 { "string" } else { what };
            self.fail(format!("incomplete {what} value, pos {}", self.buffer.len()), out);
        } else if self.in_outer_array {
            self.start = self.now;
            self.fail(format!("incomplete array value, pos {}", self.now.byte), out);
        }
    }

    fn byte(&mut self, b: u8, out: &mut Vec<Framed>) {
        let idle = self.depth == 0 && !self.in_string && !self.in_scalar;
        if idle {
            return self.begin(b, out);
        }
        if self.in_string {
            self.buffer.push(b);
            match b {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    if self.depth == 0 {
                        self.cut(out);
                    }
                }
                _ => {}
            }
        } else if self.in_scalar {
            match b {
                b' ' | b'\t' | b'\r' | b'\n' | b',' | b'{' | b'[' | b'"' | b']' => {
                    self.cut(out);
                    self.begin(b, out);
                }
                _ => self.buffer.push(b),
            }
        } else {
            self.buffer.push(b);
            match b {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.cut(out);
                    }
                }
                _ => {}
            }
        }
        if self.buffer.len() > VARIANT_BYTES_MAX {
            self.fail(format!("document is too large, max size {VARIANT_BYTES_MAX} bytes"), out);
        }
    }

    fn begin(&mut self, b: u8, out: &mut Vec<Framed>) {
        match b {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => return,
            // A byte order mark at the very start.
            0xEF | 0xBB | 0xBF if self.now.byte < 3 => return,
            b'[' if self.strip_outer_array && !self.in_outer_array => {
                self.in_outer_array = true;
                return;
            }
            b']' if self.in_outer_array => {
                self.in_outer_array = false;
                return;
            }
            _ => {}
        }
        self.start = self.now;
        match b {
            b'{' | b'[' => self.depth = 1,
            b'"' => self.in_string = true,
            b'}' | b']' => {
                let text = format!("unexpected '{}', pos {}", b as char, self.now.byte);
                return self.fail(text, out);
            }
            _ => self.in_scalar = true,
        }
        self.buffer.push(b);
    }

    fn cut(&mut self, out: &mut Vec<Framed>) {
        self.in_scalar = false;
        out.push(Framed::Document(self.start, std::mem::take(&mut self.buffer)));
    }

    fn fail(&mut self, why: String, out: &mut Vec<Framed>) {
        self.broken = true;
        self.buffer = Vec::new();
        out.push(Framed::Broken(self.start, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(text: &str, strip: bool) -> Vec<String> {
        let mut out = Vec::new();
        let mut framer = Framer::new(strip);
        framer.feed(text.as_bytes(), &mut out);
        framer.finish(&mut out);
        out.into_iter()
            .map(|f| match f {
                Framed::Document(_, d) => String::from_utf8(d).unwrap(),
                Framed::Broken(p, why) => format!("{}:{} {why}", p.line, p.character),
            })
            .collect()
    }

    #[test]
    fn documents_need_nothing_between_them() {
        assert_eq!(
            frame("{\"a\":\"}\\\"{\"}{\"b\":[1,2]}\n [3],4 \"x\"5\ntrue", false),
            ["{\"a\":\"}\\\"{\"}", "{\"b\":[1,2]}", "[3]", "4", "\"x\"", "5", "true"]
        );
        assert_eq!(frame("[{\"a\":1},\n[2], 3]", true), ["{\"a\":1}", "[2]", "3"]);
        assert_eq!(frame("", false), Vec::<String>::new());
        assert_eq!(frame("\u{feff}{}", false), ["{}"]);
    }

    #[test]
    fn what_does_not_end_is_an_error_with_its_place() {
        assert_eq!(frame("{}\n {\"a\":1", false), ["{}", "2:2 incomplete object value, pos 6"]);
        assert_eq!(frame("{}}{}", false), ["{}", "1:3 unexpected '}', pos 2"]);
    }

    proptest! {
        #[test]
        fn feeding_in_pieces_changes_nothing(text in r#"[\[\]{}",:\\a0 \né]{0,60}"#, at in 0usize..60) {
            let whole = {
                let mut out = Vec::new();
                let mut framer = Framer::new(false);
                framer.feed(text.as_bytes(), &mut out);
                framer.finish(&mut out);
                out
            };
            let at = at.min(text.len());
            let mut out = Vec::new();
            let mut framer = Framer::new(false);
            framer.feed(&text.as_bytes()[..at], &mut out);
            framer.feed(&text.as_bytes()[at..], &mut out);
            framer.finish(&mut out);
            prop_assert_eq!(whole, out);
        }
    }
}
