//! The model's constraints, refused in AWS's words, up to ten at once.

use hydrant_core::limits::{STREAM_ID_BYTES, STREAM_NAME_BYTES_MAX};
use hydrant_wire::shape::{Integer, Text};

use crate::error::Error;
use crate::streams::Named;

/// Most violations one error tells of (AWS).
const VIOLATIONS_MAX: usize = 10;
/// Longest part of a value that an error repeats.
const VALUE_BYTES_MAX: usize = 4_096;

/// A regular expression as AWS prints it, and whether a text matches it.
type Pattern = (&'static str, fn(&str) -> bool);

/// What a string member may look like.
pub(crate) struct Rule {
    pattern: Option<Pattern>,
    min: usize,
    max: usize,
}

impl Rule {
    /// Whether the text is as long as the rule has it.
    pub(crate) fn fits(&self, text: &str) -> bool {
        (self.min..=self.max).contains(&text.chars().count())
    }

    /// The lengths, as AWS tells them of all members of a list at once.
    pub(crate) fn lengths(&self) -> String {
        let Self { min, max, .. } = self;
        format!(
            "[Member must have length less than or equal to {max}, Member must have length greater \
             than or equal to {min}]"
        )
    }

    /// Whether the text has the rule's pattern.
    pub(crate) fn accepts(&self, text: &str) -> bool {
        self.pattern.is_none_or(|(_, matches)| matches(text))
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_stream_id(text: &str) -> bool {
    let word = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split_once('-').is_some_and(|(a, b)| a.len() == 20 && b.len() == 3 && word(a) && word(b))
}

fn is_number(text: &str, digits_max: usize) -> bool {
    let digits = (1..=digits_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0'))
}

fn is_stream_arn(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("arn:aws") else { return false };
    let Some((_, rest)) = rest.split_once(":kinesis:") else { return false };
    let Some((before, name)) = rest.split_once(":stream/") else { return false };
    let account = before.rsplit(':').next().unwrap_or("");
    let twelve = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    twelve && before.contains(':') && !name.is_empty() && !name.contains(char::is_whitespace)
}

fn is_consumer_arn(text: &str) -> bool {
    let Some((stream, consumer)) = text.rsplit_once("/consumer/") else { return false };
    let Some((rest, name)) = stream.rsplit_once("stream/") else { return false };
    let Some((consumer, created)) = consumer.split_once(':') else { return false };
    let Some((_, rest)) = rest.strip_prefix("arn:aws").and_then(|r| r.split_once(":kinesis:"))
    else {
        return false;
    };
    let account = rest.split(':').nth(1).unwrap_or("");
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    account.len() == 12 && digits(account) && digits(created) && is_name(name) && is_name(consumer)
}

fn is_resource_arn(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("arn:aws") else { return false };
    let Some((_, rest)) = rest.split_once(":kinesis:") else { return false };
    let account = |at: usize| {
        let digits =
            rest.get(at + 1..at + 13).is_some_and(|t| t.bytes().all(|b| b.is_ascii_digit()));
        (digits && rest[at + 13..].starts_with(':')).then(|| &rest[at + 14..])
    };
    let Some(resource) = rest.match_indices(':').find_map(|(at, _)| account(at)) else {
        return false;
    };
    ["stream/", "channel/", "queue/"].into_iter().any(|kind| {
        let name = resource.rsplit_once(kind).map(|(_, name)| name);
        name.is_some_and(|name| !name.is_empty() && !name.contains(char::is_whitespace))
    })
}

/// `StreamName`.
pub(crate) const STREAM_NAME: Rule =
    Rule { pattern: Some(("[a-zA-Z0-9_.-]+", is_name)), min: 1, max: STREAM_NAME_BYTES_MAX };
/// `StreamARN`.
pub(crate) const STREAM_ARN: Rule = Rule {
    pattern: Some(("arn:aws.*:kinesis:.*:\\d{12}:stream/\\S+", is_stream_arn)),
    min: 1,
    max: 2_048,
};
/// `ConsumerARN`.
pub(crate) const CONSUMER_ARN: Rule = Rule {
    pattern: Some((
        "^(arn):aws.*:kinesis:.*:\\d{12}:.*stream\\/[a-zA-Z0-9_.-]+\\/consumer\\/[a-zA-Z0-9_.-]+:[0-9]+",
        is_consumer_arn,
    )),
    min: 1,
    max: 2_048,
};
/// `ConsumerName`.
pub(crate) const CONSUMER_NAME: Rule =
    Rule { pattern: Some(("[a-zA-Z0-9_.-]+", is_name)), min: 1, max: 128 };
/// `ResourceARN`.
pub(crate) const RESOURCE_ARN: Rule = Rule {
    pattern: Some(("arn:aws.*:kinesis:.*:\\d{12}:.*(stream|channel|queue)/\\S+", is_resource_arn)),
    min: 1,
    max: 2_048,
};
/// `StreamId`.
pub(crate) const STREAM_ID: Rule = Rule {
    pattern: Some(("[a-z0-9]{20}-[a-z0-9]{3}", is_stream_id)),
    min: 1,
    max: STREAM_ID_BYTES,
};
/// `ShardId`.
pub(crate) const SHARD_ID: Rule =
    Rule { pattern: Some(("[a-zA-Z0-9_.-]+", is_name)), min: 1, max: 128 };
/// `SequenceNumber`; its pattern bounds its length.
pub(crate) const SEQUENCE_NUMBER: Rule =
    Rule { pattern: Some(("0|([1-9]\\d{0,128})", |t| is_number(t, 129))), min: 0, max: usize::MAX };
/// `HashKey`; its pattern bounds its length.
pub(crate) const HASH_KEY: Rule =
    Rule { pattern: Some(("0|([1-9]\\d{0,38})", |t| is_number(t, 39))), min: 0, max: usize::MAX };
/// `PartitionKey`, in characters.
pub(crate) const PARTITION_KEY: Rule =
    Rule { pattern: None, min: 1, max: hydrant_core::limits::PARTITION_KEY_CHARS_MAX };
/// `ShardIterator`.
pub(crate) const SHARD_ITERATOR: Rule = Rule { pattern: None, min: 1, max: 512 };
/// `NextToken`.
pub(crate) const NEXT_TOKEN: Rule = Rule { pattern: None, min: 1, max: 1_048_576 };
/// `KeyId`.
pub(crate) const KEY_ID: Rule = Rule { pattern: None, min: 1, max: 2_048 };
/// `TagKey`.
pub(crate) const TAG_KEY: Rule = Rule { pattern: None, min: 1, max: 128 };
/// `TagValue`.
pub(crate) const TAG_VALUE: Rule = Rule { pattern: None, min: 0, max: 256 };

/// The violations found so far.
#[derive(Default)]
pub(crate) struct Checks {
    violations: Vec<String>,
}

impl Checks {
    /// Nothing found yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Notes that the value at a place breaks a constraint. `shown` is how AWS prints the value; with
    /// `None` it prints none.
    pub(crate) fn violated(&mut self, at: &str, shown: Option<&str>, constraint: &str) {
        if self.violations.len() < VIOLATIONS_MAX {
            let shown = shown.map_or(String::new(), |value| format!(" '{}'", cut(value)));
            self.violations
                .push(format!("Value{shown} at '{at}' failed to satisfy constraint: {constraint}"));
        }
    }

    /// The member has to be there.
    pub(crate) fn required<T>(&mut self, at: &str, value: Option<&T>) {
        if value.is_none() && self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(format!(
                "Value null at '{at}' failed to satisfy constraint: Member must not be null"
            ));
        }
    }

    /// The string, if there, has to follow the rule.
    pub(crate) fn text(&mut self, at: &str, value: Option<&Text<'_>>, rule: &Rule) {
        let Some(text) = value else { return };
        if let Some((pattern, matches)) = rule.pattern
            && !matches(text)
        {
            let constraint = format!("Member must satisfy regular expression pattern: {pattern}");
            self.violated(at, Some(text), &constraint);
        }
        self.length(at, text, text, rule);
    }

    fn length(&mut self, at: &str, text: &str, shown: &str, rule: &Rule) {
        // A string has at most as many characters as bytes; most need no counting.
        let chars = if text.len() <= rule.max { text.len() } else { text.chars().count() };
        if chars < rule.min {
            let min = rule.min;
            let constraint = format!("Member must have length greater than or equal to {min}");
            self.violated(at, Some(shown), &constraint);
        }
        if chars > rule.max {
            let max = rule.max;
            let constraint = format!("Member must have length less than or equal to {max}");
            self.violated(at, Some(shown), &constraint);
        }
    }

    /// The list or map, if it has too few or too many entries. `shown` makes what AWS prints of it.
    pub(crate) fn entries(
        &mut self,
        at: &str,
        entries: usize,
        (min, max): (usize, usize),
        shown: impl Fn() -> String,
    ) {
        if entries < min {
            let constraint = format!("Member must have length greater than or equal to {min}");
            self.violated(at, Some(&shown()), &constraint);
        }
        if entries > max {
            let constraint = format!("Member must have length less than or equal to {max}");
            self.violated(at, Some(&shown()), &constraint);
        }
    }

    /// The number, if there, has to be in the range.
    pub(crate) fn number(&mut self, at: &str, value: Option<Integer>, min: i64, max: i64) {
        let Some(Integer(n)) = value else { return };
        if n < min {
            let constraint = format!("Member must have value greater than or equal to {min}");
            self.violated(at, Some(&n.to_string()), &constraint);
        }
        if n > max {
            let constraint = format!("Member must have value less than or equal to {max}");
            self.violated(at, Some(&n.to_string()), &constraint);
        }
    }

    /// The string, if there, has to be one of `words`.
    pub(crate) fn one_of(&mut self, at: &str, value: Option<&Text<'_>>, words: &[&str]) {
        let Some(text) = value else { return };
        if !words.contains(&&**text) {
            let set = words.join(", ");
            self.violated(at, Some(text), &format!("Member must satisfy enum value set: [{set}]"));
        }
    }

    /// The ways of naming a stream; one of them has to be there.
    pub(crate) fn stream(&mut self, named: &Named<'_, '_>) {
        if !named.is_given() {
            self.required("streamName", named.name);
        }
        self.stream_if_given(named);
    }

    /// The ways of naming a stream, where the request need not.
    pub(crate) fn stream_if_given(&mut self, named: &Named<'_, '_>) {
        self.text("streamName", named.name, &STREAM_NAME);
        self.text("streamARN", named.arn, &STREAM_ARN);
        self.text("streamId", named.id, &STREAM_ID);
    }

    /// All of them as one exception, if there is any.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let n = self.violations.len();
        if n == 0 {
            return Ok(());
        }
        let plural = if n == 1 { "" } else { "s" };
        let all = self.violations.join("; ");
        Err(Error::Validation(format!("{n} validation error{plural} detected: {all}")))
    }
}

fn cut(value: &str) -> &str {
    let mut end = value.len().min(VALUE_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}
