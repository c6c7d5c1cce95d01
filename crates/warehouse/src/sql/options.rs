//! `KEY = VALUE` lists, which stages, formats, pipes and COPY all have, and what they mean.

use hydrant_core::warehouse::OnError;

use crate::catalog::{Compression, FormatOptions};
use crate::error::{SqlResult, invalid_value, syntax, unsupported};

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A word or a number, folded.
    Word(String),
    /// A quoted text.
    Text(String),
    /// A name with dots.
    Name(Vec<String>),
    /// `( … )` with options in it.
    Options(Options),
    /// `( … )` with values in it.
    List(Vec<Value>),
}

impl Value {
    pub(crate) fn text(self, key: &str) -> SqlResult<String> {
        match self {
            Self::Word(t) | Self::Text(t) => Ok(t),
            Self::Name(parts) => Ok(parts.join(".")),
            _ => Err(syntax(format!("parameter '{key}' takes one value, not a list"))),
        }
    }

    pub(crate) fn flag(self, key: &str) -> SqlResult<bool> {
        let text = self.text(key)?;
        match text.to_uppercase().as_str() {
            "TRUE" => Ok(true),
            "FALSE" => Ok(false),
            _ => Err(invalid_value(&text, key)),
        }
    }

    pub(crate) fn options(self, key: &str) -> SqlResult<Options> {
        match self {
            Self::Options(options) => Ok(options),
            Self::List(list) if list.is_empty() => Ok(Options::default()),
            _ => Err(syntax(format!("parameter '{key}' takes a list of options in parentheses"))),
        }
    }

    pub(crate) fn texts(self, key: &str) -> SqlResult<Vec<String>> {
        match self {
            Self::List(list) => list.into_iter().map(|v| v.text(key)).collect(),
            other => Ok(vec![other.text(key)?]),
        }
    }
}

/// Options in the order written; keys folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options(pub(crate) Vec<(String, Value)>);

impl Options {
    /// Takes an option out; the last one wins.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().rposition(|(k, _)| k == key)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn text(&mut self, key: &str) -> SqlResult<Option<String>> {
        self.take(key).map(|v| v.text(key)).transpose()
    }

    pub(crate) fn flag(&mut self, key: &str) -> SqlResult<Option<bool>> {
        self.take(key).map(|v| v.flag(key)).transpose()
    }

    /// Refuses by name whatever nobody took. `known` are options that Snowflake has there.
    pub(crate) fn finish(self, place: &str, known: &[&str]) -> SqlResult<()> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) if known.contains(&key.as_str()) => {
                Err(unsupported(format!("{key} of {place}")))
            }
            Some((key, _)) => Err(syntax(format!("invalid property '{key}' for '{place}'"))),
        }
    }
}

const FORMAT_KNOWN: &[&str] = &[
    "DATE_FORMAT",
    "TIME_FORMAT",
    "TIMESTAMP_FORMAT",
    "BINARY_FORMAT",
    "TRIM_SPACE",
    "NULL_IF",
    "FILE_EXTENSION",
    "ENABLE_OCTAL",
    "STRIP_NULL_VALUES",
    "REPLACE_INVALID_CHARACTERS",
    "IGNORE_UTF8_ERRORS",
    "SKIP_BYTE_ORDER_MARK",
    "MULTI_LINE",
];

/// FILE_FORMAT: its options, or the name of one.
pub(crate) fn format(value: Value) -> SqlResult<FormatOptions> {
    match value {
        Value::Options(options) => format_options(options),
        Value::List(list) if list.is_empty() => Ok(FormatOptions::default()),
        other => {
            let name = name_of(other, "FILE_FORMAT")?;
            Ok(FormatOptions { named: Some(name), ..FormatOptions::default() })
        }
    }
}

fn name_of(value: Value, key: &str) -> SqlResult<Vec<String>> {
    match value {
        Value::Name(parts) => Ok(parts),
        Value::Word(word) => Ok(vec![word]),
        Value::Text(text) => Ok(text.split('.').map(fold).collect()),
        _ => Err(syntax(format!("parameter '{key}' takes a name"))),
    }
}

/// A name given as text: unquoted parts fold to upper case.
pub(crate) fn fold(part: &str) -> String {
    match part.strip_prefix('"').and_then(|p| p.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => part.to_uppercase(),
    }
}

pub(crate) fn format_options(mut o: Options) -> SqlResult<FormatOptions> {
    let mut format = FormatOptions::default();
    if let Some(name) = o.take("FORMAT_NAME") {
        format.named = Some(name_of(name, "FORMAT_NAME")?);
    }
    if let Some(kind) = o.text("TYPE")? {
        match kind.to_uppercase().as_str() {
            "JSON" => format.json = Some(true),
            kind @ ("CSV" | "AVRO" | "ORC" | "PARQUET" | "XML" | "CUSTOM") => {
                return Err(unsupported(format!("FILE_FORMAT TYPE = {kind}; JSON is supported")));
            }
            _ => return Err(invalid_value(&kind, "TYPE")),
        }
    }
    if let Some(text) = o.text("COMPRESSION")? {
        format.compression = Some(match text.to_uppercase().as_str() {
            "AUTO" => Compression::Auto,
            "GZIP" => Compression::Gzip,
            "NONE" => Compression::None,
            name @ ("BZ2" | "BROTLI" | "ZSTD" | "DEFLATE" | "RAW_DEFLATE") => {
                return Err(unsupported(format!(
                    "COMPRESSION = {name}; AUTO, GZIP and NONE are supported"
                )));
            }
            _ => return Err(invalid_value(&text, "COMPRESSION")),
        });
    }
    format.strip_outer_array = o.flag("STRIP_OUTER_ARRAY")?;
    // Duplicate keys are taken and the last one counts, which is what TRUE says.
    if o.flag("ALLOW_DUPLICATE")? == Some(false) {
        return Err(unsupported("ALLOW_DUPLICATE = FALSE; the last of the duplicates counts"));
    }
    o.finish("FILE_FORMAT", FORMAT_KNOWN)?;
    Ok(format)
}

/// ON_ERROR.
pub(crate) fn on_error(value: Value) -> SqlResult<OnError> {
    let text = value.text("ON_ERROR")?.to_uppercase();
    let bad = || invalid_value(&text, "ON_ERROR");
    match text.as_str() {
        "ABORT_STATEMENT" => Ok(OnError::AbortStatement),
        "CONTINUE" => Ok(OnError::Continue),
        "SKIP_FILE" => Ok(OnError::SkipFile),
        _ => {
            let number = text.strip_prefix("SKIP_FILE_").ok_or_else(bad)?;
            match number.strip_suffix('%') {
                Some(percent) => match percent.parse() {
                    Ok(p @ 0..=100) => Ok(OnError::SkipFilePercent(p)),
                    _ => Err(bad()),
                },
                None => match number.parse() {
                    Ok(n @ 1..) => Ok(OnError::SkipFileCount(n)),
                    _ => Err(bad()),
                },
            }
        }
    }
}
