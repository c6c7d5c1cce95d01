//! What PostgreSQL's drivers say and ask about the session itself, which is no business of the SQL
//! engine: SET and SHOW of PostgreSQL's parameters, BEGIN and COMMIT, DEALLOCATE, `version()`.
//!
//! A parameter is taken where its value is what this server does, and refused by name otherwise.
//! <https://www.postgresql.org/docs/current/runtime-config-client.html>

use std::time::Duration;

use jiff::tz::TimeZone;

use super::lex::bare;
use super::wire::Report;

/// The PostgreSQL version this endpoint behaves like.
const VERSION: &str = concat!("14.0 (hydrant ", env!("CARGO_PKG_VERSION"), ")");
/// Longest statement looked at here.
const STATEMENT_BYTES_MAX: usize = 512;
/// Longest value of a parameter a client may leave with the server.
const VALUE_BYTES_MAX: usize = 256;

/// A statement about the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Local {
    /// The transaction's modes, in lower case.
    Begin(String),
    Commit,
    Rollback,
    Set(String, String),
    Schema(String),
    Reset(String),
    Show(String),
    /// A prepared statement's name, or all of them.
    Deallocate(Option<String>),
    Discard,
    Version,
    /// Of no effect here even in PostgreSQL, as there is nothing to close; its tag.
    Nothing(&'static str),
}

/// The statement, if it is about the session only.
pub(super) fn recognise(sql: &str) -> Option<Local> {
    let text = bare(sql);
    if text.len() > STATEMENT_BYTES_MAX {
        return None;
    }
    let spaced = text.replace('=', " = ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        ["begin" | "start", rest @ ..] => begin(lower[0], rest),
        ["commit" | "end"] | ["commit" | "end", "work" | "transaction"] => Some(Local::Commit),
        ["rollback" | "abort"] | ["rollback" | "abort", "work" | "transaction"] => {
            Some(Local::Rollback)
        }
        ["set", "session", "characteristics", "as", "transaction", modes @ ..]
        | ["set", "transaction", modes @ ..] => {
            Some(Local::Set("transaction".into(), modes.join(" ")))
        }
        ["set", "time", "zone", ..] => set("timezone", &words[3..]),
        ["set", "names", ..] => set("client_encoding", &words[2..]),
        ["set", "session", name, "=" | "to", ..] => set(name, &words[4..]),
        ["set", name, "=" | "to", ..] => set(name, &words[3..]),
        ["reset", name] if is_parameter(name) || *name == "all" => {
            Some(Local::Reset((*name).to_owned()))
        }
        ["show", "transaction", "isolation", "level"] => {
            Some(Local::Show("transaction_isolation".into()))
        }
        ["show", "time", "zone"] => Some(Local::Show("timezone".into())),
        ["show", name] if is_parameter(name) || fixed(name).is_some() => {
            Some(Local::Show((*name).to_owned()))
        }
        ["deallocate", rest @ ..] => match rest {
            ["all"] | ["prepare", "all"] => Some(Local::Deallocate(None)),
            [_] | ["prepare", _] => words.last().map(|name| Local::Deallocate(Some(folded(name)))),
            _ => None,
        },
        ["discard", "all"] => Some(Local::Discard),
        ["close", "all"] => Some(Local::Nothing("CLOSE CURSOR ALL")),
        ["unlisten", "*"] => Some(Local::Nothing("UNLISTEN")),
        ["select", "version()" | "pg_catalog.version()"] => Some(Local::Version),
        _ => None,
    }
}

/// BEGIN with PostgreSQL's modes; Snowflake's BEGIN … END block is not one.
fn begin(first: &str, rest: &[&str]) -> Option<Local> {
    let modes = match (first, rest) {
        (_, ["transaction", modes @ ..]) | ("begin", ["work", modes @ ..]) => modes,
        ("begin", modes @ ([] | ["isolation" | "read" | "not" | "deferrable", ..])) => modes,
        _ => return None,
    };
    Some(Local::Begin(modes.join(" ")))
}

fn set(name: &str, value: &[&str]) -> Option<Local> {
    let value = value.join(" ");
    let value = match value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')) {
        Some(inside) => inside.replace("''", "'"),
        None => value,
    };
    if name == "search_path" {
        let first = value.split(',').next().unwrap_or_default().trim().trim_matches('\'');
        return Some(Local::Schema(first.to_owned()));
    }
    is_parameter(name).then(|| Local::Set(name.to_owned(), value))
}

/// A name of PostgreSQL's: in lower case unless quoted.
fn folded(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_ascii_lowercase(),
    }
}

/// The parameters a client may set.
fn is_parameter(name: &str) -> bool {
    Settings::default().get(name).is_some()
}

/// The parameters a client may only look at.
fn fixed(name: &str) -> Option<&'static str> {
    Some(match name {
        "server_version" => VERSION,
        "server_version_num" => "140000",
        "server_encoding" => "UTF8",
        "integer_datetimes" => "on",
        "in_hot_standby" | "is_superuser" | "transaction_read_only" => "off",
        "max_identifier_length" => "255",
        _ => return None,
    })
}

/// What a client has set.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    application_name: String,
    client_min_messages: String,
    date_style: String,
    extra_float_digits: String,
    interval_style: String,
    zone_name: String,
    pub(super) zone: TimeZone,
    pub(super) statement_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            application_name: String::new(),
            client_min_messages: "notice".into(),
            date_style: "ISO, MDY".into(),
            extra_float_digits: "1".into(),
            interval_style: "postgres".into(),
            zone_name: "UTC".into(),
            zone: TimeZone::UTC,
            statement_timeout: Duration::ZERO,
        }
    }
}

impl Settings {
    /// The parameters of a session that drivers follow, and how they are spelt to them.
    pub(super) const REPORTED: [(&'static str, &'static str); 7] = [
        ("application_name", "application_name"),
        ("client_encoding", "client_encoding"),
        ("datestyle", "DateStyle"),
        ("default_transaction_read_only", "default_transaction_read_only"),
        ("intervalstyle", "IntervalStyle"),
        ("standard_conforming_strings", "standard_conforming_strings"),
        ("timezone", "TimeZone"),
    ];

    /// What every driver is told at the start.
    pub(super) fn reported(&self, user: &str) -> Vec<(&'static str, String)> {
        let mut all: Vec<(&'static str, String)> = [
            ("in_hot_standby", "in_hot_standby"),
            ("integer_datetimes", "integer_datetimes"),
            ("is_superuser", "is_superuser"),
            ("server_encoding", "server_encoding"),
            ("server_version", "server_version"),
        ]
        .into_iter()
        .filter_map(|(name, key)| Some((name, fixed(key)?.to_owned())))
        .collect();
        all.push(("session_authorization", user.to_owned()));
        let told = Self::REPORTED.iter();
        all.extend(told.filter_map(|(key, name)| Some((*name, self.get(key)?))));
        all
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        Some(match name {
            "application_name" => self.application_name.clone(),
            "bytea_output" => "hex".into(),
            "client_encoding" => "UTF8".into(),
            "client_min_messages" => self.client_min_messages.clone(),
            "datestyle" => self.date_style.clone(),
            "default_transaction_isolation" | "transaction_isolation" => "read committed".into(),
            "default_transaction_read_only" => "off".into(),
            "extra_float_digits" => self.extra_float_digits.clone(),
            "intervalstyle" => self.interval_style.clone(),
            "standard_conforming_strings" => "off".into(),
            "statement_timeout" => match self.statement_timeout.as_millis() {
                0 => "0".into(),
                ms => format!("{ms}ms"),
            },
            "timezone" => self.zone_name.clone(),
            other => return fixed(other).map(str::to_owned),
        })
    }

    /// Sets a parameter, and returns the name to report it under if drivers follow it.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<Option<&'static str>, Report> {
        let invalid = || {
            let text = format!("invalid value for parameter \"{name}\": \"{value}\"");
            Report::new("22023", text)
        };
        if fixed(name).is_some() {
            let text = format!("parameter \"{name}\" cannot be changed");
            return Err(Report::new("55P02", text));
        }
        if value.eq_ignore_ascii_case("default") {
            self.reset(name);
            return Ok(reported_name(name));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(invalid());
        }
        let lower = value.to_ascii_lowercase();
        match name {
            "application_name" => self.application_name = value.to_owned(),
            "client_min_messages" => match lower.as_str() {
                "debug" | "debug5" | "debug4" | "debug3" | "debug2" | "debug1" | "log"
                | "notice" | "warning" | "error" => self.client_min_messages = lower,
                _ => return Err(invalid()),
            },
            "datestyle" if lower.starts_with("iso") => self.date_style = value.to_owned(),
            "extra_float_digits" if matches!(lower.as_str(), "1" | "2" | "3") => {
                self.extra_float_digits = lower;
            }
            "intervalstyle"
                if matches!(
                    lower.as_str(),
                    "postgres" | "postgres_verbose" | "sql_standard" | "iso_8601"
                ) =>
            {
                self.interval_style = lower;
            }
            "statement_timeout" => {
                self.statement_timeout = duration(&lower).ok_or_else(invalid)?;
            }
            "timezone" => {
                self.zone = zone(value).ok_or_else(invalid)?;
                self.zone_name = value.to_owned();
            }
            "transaction" => modes(&lower)?,
            "default_transaction_isolation" | "transaction_isolation" => {
                modes(&format!("isolation level {lower}"))?;
            }
            "bytea_output" if lower == "hex" => {}
            "client_encoding" if matches!(lower.as_str(), "utf8" | "utf-8" | "unicode") => {}
            "default_transaction_read_only" if matches!(lower.as_str(), "off" | "false" | "0") => {}
            "standard_conforming_strings" if lower == "off" => {}
            _ => {
                let text = format!("parameter \"{name}\" cannot be set to \"{value}\" here");
                return Err(Report::new("0A000", text));
            }
        }
        Ok(reported_name(name))
    }

    /// Puts a parameter, or `all`, back to what it was at first.
    pub(super) fn reset(&mut self, name: &str) {
        let fresh = Self::default();
        match name {
            "all" => *self = fresh,
            "application_name" => self.application_name = fresh.application_name,
            "client_min_messages" => self.client_min_messages = fresh.client_min_messages,
            "datestyle" => self.date_style = fresh.date_style,
            "extra_float_digits" => self.extra_float_digits = fresh.extra_float_digits,
            "intervalstyle" => self.interval_style = fresh.interval_style,
            "statement_timeout" => self.statement_timeout = fresh.statement_timeout,
            "timezone" => (self.zone, self.zone_name) = (fresh.zone, fresh.zone_name),
            _ => {}
        }
    }

    /// Whether notices, or only warnings if `warning`, are wanted.
    pub(super) fn wants(&self, warning: bool) -> bool {
        match self.client_min_messages.as_str() {
            "error" => false,
            "warning" => warning,
            _ => true,
        }
    }
}

/// PostgreSQL's version text.
pub(super) fn version() -> String {
    format!("PostgreSQL {VERSION}")
}

/// The name under which drivers expect to be told of a change.
fn reported_name(name: &str) -> Option<&'static str> {
    Settings::REPORTED.iter().find(|(key, _)| *key == name).map(|(_, reported)| *reported)
}

/// Every statement sees what was committed before it, and commits by itself: the modes for which
/// that is right are taken.
pub(super) fn modes(modes: &str) -> Result<(), Report> {
    const TAKEN: [&str; 4] = [
        "isolation level read committed",
        "isolation level read uncommitted",
        "read write",
        "not deferrable",
    ];
    let mut rest = modes.trim();
    while !rest.is_empty() {
        let Some(after) = TAKEN.iter().find_map(|mode| rest.strip_prefix(mode)) else {
            let text = format!(
                "transaction mode \"{rest}\" is not supported: each statement commits by itself"
            );
            return Err(Report::new("0A000", text));
        };
        rest = after.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
    }
    Ok(())
}

/// PostgreSQL's durations: milliseconds, or a number with a unit.
fn duration(value: &str) -> Option<Duration> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // PostgreSQL keeps it in 31 bits.
    number.checked_mul(ms).filter(|&ms| ms <= i32::MAX as u64).map(Duration::from_millis)
}

fn zone(value: &str) -> Option<TimeZone> {
    match value.to_ascii_lowercase().as_str() {
        "utc" | "gmt" | "z" | "etc/utc" | "zulu" | "local" => Some(TimeZone::UTC),
        _ => TimeZone::get(value).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_postgresqls_is_taken() {
        let set = |name: &str, value: &str| Some(Local::Set(name.into(), value.into()));
        assert_eq!(recognise("SET extra_float_digits = 3"), set("extra_float_digits", "3"));
        assert_eq!(recognise("set application_name='a b';"), set("application_name", "a b"));
        assert_eq!(recognise("SET SESSION timezone TO 'UTC'"), set("timezone", "UTC"));
        assert_eq!(recognise("set my_variable = 3"), None);
        assert_eq!(recognise("SHOW TABLES"), None);
        assert_eq!(recognise("show pipes"), None);
        assert_eq!(recognise("BEGIN let x := 1; END"), None);
        assert_eq!(recognise("begin"), Some(Local::Begin(String::new())));
        assert_eq!(
            recognise("START TRANSACTION ISOLATION LEVEL READ COMMITTED"),
            Some(Local::Begin("isolation level read committed".into()))
        );
        assert_eq!(recognise("select version()"), Some(Local::Version));
        assert_eq!(recognise("DEALLOCATE \"A b\""), None);
        assert_eq!(recognise("deallocate \"Ab\""), Some(Local::Deallocate(Some("Ab".into()))));
    }

    #[test]
    fn a_value_without_effect_is_refused() {
        let mut settings = Settings::default();
        assert!(settings.set("standard_conforming_strings", "on").is_err());
        assert!(settings.set("client_encoding", "LATIN1").is_err());
        assert!(settings.set("default_transaction_read_only", "on").is_err());
        assert!(settings.set("server_version", "15").is_err());
        assert_eq!(settings.set("statement_timeout", "2s"), Ok(None));
        assert_eq!(settings.statement_timeout, Duration::from_secs(2));
        assert!(modes("isolation level serializable").is_err());
        assert!(modes("isolation level read committed, read write").is_ok());
        assert!(modes("isolation level read committed read write").is_ok());
        assert!(modes("read only").is_err());
    }
}
