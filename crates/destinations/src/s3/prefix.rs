//! Prefixes with expressions: `!{namespace:value}`, as "Understand custom prefixes for Amazon S3
//! objects" in the Firehose developer guide has them.

use std::fmt::Write;
use std::str::FromStr;

use jiff::Zoned;
use sha2::{Digest, Sha256};

/// Characters of a `!{firehose:random-string}` (AWS).
const RANDOM_STRING_CHARS: usize = 11;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A piece of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// As it is.
    Text(String),
    /// A field of a Java `DateTimeFormatter` pattern: its letter, and how often it stands there.
    Time(char, usize),
    /// `!{firehose:random-string}`.
    RandomString,
    /// `!{firehose:error-output-type}`.
    ErrorOutputType,
}

/// A parsed prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    parts: Vec<Part>,
    expressions: usize,
}

impl Prefix {
    /// Whether there is this part in it.
    pub(super) fn has(&self, part: &Part) -> bool {
        self.parts.contains(part)
    }

    /// Whether there is any expression in it.
    pub(super) fn has_expressions(&self) -> bool {
        self.expressions > 0
    }

    /// The prefix of a batch. Every expression is made from the batch's id or its time, so the same
    /// batch always gets the same prefix; two random strings in one prefix differ.
    pub(super) fn evaluate(&self, at: &Zoned, id: &[u8; 16]) -> String {
        let mut out = String::new();
        for (nth, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Time(letter, count) => push_field(&mut out, at, *letter, *count),
                Part::RandomString => push_random(&mut out, id, nth),
                // Only of use for records that failed; a destination's own prefix never has it.
                Part::ErrorOutputType => {}
            }
        }
        out
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut prefix = Self { parts: Vec::new(), expressions: 0 };
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("!{") {
            push_text(&mut prefix.parts, before);
            let (expression, after) =
                behind.split_once('}').ok_or("contains an expression without a closing brace.")?;
            parse_expression(&mut prefix.parts, expression)?;
            prefix.expressions += 1;
            rest = after;
        }
        push_text(&mut prefix.parts, rest);
        Ok(prefix)
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

fn parse_expression(parts: &mut Vec<Part>, expression: &str) -> Result<(), String> {
    let shown: String = expression.chars().take(100).collect();
    let (namespace, value) = expression.split_once(':').ok_or_else(|| {
        format!("contains !{{{shown}}}, which is not of the form !{{namespace:value}}.")
    })?;
    match (namespace, value) {
        ("timestamp", pattern) => parse_pattern(parts, pattern),
        ("firehose", "random-string") => {
            parts.push(Part::RandomString);
            Ok(())
        }
        ("firehose", "error-output-type") => {
            parts.push(Part::ErrorOutputType);
            Ok(())
        }
        ("partitionKeyFromQuery" | "partitionKeyFromLambda", _) => Err(format!(
            "contains !{{{shown}}}: hydrant does not support dynamic partitioning. Use !{{timestamp:}} \
             and !{{firehose:random-string}}."
        )),
        _ => Err(format!("contains !{{{shown}}}, which is not a known expression.")),
    }
}

/// Reads a `DateTimeFormatter` pattern: runs of letters are fields, quotes hold text.
fn parse_pattern(parts: &mut Vec<Part>, pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("contains a !{timestamp:} without a pattern.".to_owned());
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.next_if_eq(&'\'').is_some() => push_text(parts, "'"),
            '\'' => {
                let mut text = String::new();
                loop {
                    match chars.next() {
                        Some('\'') if chars.next_if_eq(&'\'').is_some() => text.push('\''),
                        Some('\'') => break,
                        Some(c) => text.push(c),
                        None => {
                            return Err(format!(
                                "has an open quote in the time pattern {pattern}."
                            ));
                        }
                    }
                }
                push_text(parts, &text);
            }
            c if c.is_ascii_alphabetic() => {
                let mut count = 1;
                while chars.next_if_eq(&c).is_some() {
                    count += 1;
                }
                if !is_field(c, count) {
                    let field = c.to_string().repeat(count.min(10));
                    return Err(format!(
                        "has {field} in a time pattern. hydrant has y, yy, yyyy, M, MM, MMM, MMMM, d, \
                         dd, D, DDD, H, HH, h, hh, m, mm, s, ss, SSS, a, E and EEEE, and quoted text."
                    ));
                }
                parts.push(Part::Time(c, count));
            }
            '[' | ']' | '{' | '}' | '#' => {
                return Err(format!("has {c} in a time pattern, where Java reserves it."));
            }
            c => push_text(parts, c.encode_utf8(&mut [0; 4])),
        }
    }
    Ok(())
}

fn is_field(letter: char, count: usize) -> bool {
    match letter {
        'y' | 'u' => matches!(count, 1 | 2 | 4),
        'M' | 'L' => count <= 4,
        'd' | 'H' | 'h' | 'm' | 's' => count <= 2,
        'D' | 'S' => matches!(count, 1 | 3),
        'E' => count <= 4,
        'a' => count == 1,
        _ => false,
    }
}

fn push_field(out: &mut String, at: &Zoned, letter: char, count: usize) {
    let number = match letter {
        'y' | 'u' if count == 2 => i64::from(at.year() % 100),
        'y' | 'u' => i64::from(at.year()),
        'M' | 'L' if count > 2 => return push_name(out, at, if count == 3 { "%b" } else { "%B" }),
        'M' | 'L' => i64::from(at.month()),
        'd' => i64::from(at.day()),
        'D' => i64::from(at.day_of_year()),
        'H' => i64::from(at.hour()),
        'h' => i64::from((at.hour() + 11) % 12 + 1),
        'm' => i64::from(at.minute()),
        's' => i64::from(at.second()),
        // Java's S is a fraction, cut to as many digits.
        'S' if count == 1 => i64::from(at.millisecond() / 100),
        'S' => i64::from(at.millisecond()),
        'a' => return push_name(out, at, "%p"),
        _ => return push_name(out, at, if count == 4 { "%A" } else { "%a" }),
    };
    // Writing to a string cannot fail.
    let _ = write!(out, "{number:0count$}");
}

fn push_name(out: &mut String, at: &Zoned, format: &str) {
    let _ = write!(out, "{}", at.strftime(format));
}

fn push_random(out: &mut String, id: &[u8; 16], nth: usize) {
    let mut hash = Sha256::new();
    hash.update(id);
    hash.update((nth as u64).to_be_bytes());
    let digest = hash.finalize();
    for byte in digest.iter().take(RANDOM_STRING_CHARS) {
        out.push(char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
    }
}
