//! Snowflake's error numbers and words, in one place.
//!
//! The numbers are what drivers switch on; the wording is Snowflake's where it is documented or
//! widely quoted, and plain English in the same form where it is not.

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use hydrant_core::control::ControlError;

use crate::session::SqlError;

/// The result of almost everything in this crate.
pub(crate) type SqlResult<T> = Result<T, SqlError>;

pub(crate) fn error(code: u32, sqlstate: &'static str, message: impl Into<String>) -> SqlError {
    SqlError { code, sqlstate, message: message.into() }
}

/// 001003: the text is not a statement.
pub(crate) fn syntax(what: impl std::fmt::Display) -> SqlError {
    error(1003, "42000", format!("SQL compilation error:\n{what}"))
}

/// 000002: valid in Snowflake, not here. `feature` names it and may say what to do.
pub(crate) fn unsupported(feature: impl std::fmt::Display) -> SqlError {
    error(2, "0A000", format!("Unsupported feature '{feature}'."))
}

/// 001008: an option's value is not one of those it takes.
pub(crate) fn invalid_value(value: &str, property: &str) -> SqlError {
    let text =
        format!("SQL compilation error:\ninvalid value [{value}] for parameter '{property}'");
    error(1008, "22023", text)
}

/// 002003: the object does not exist, or the user may not see it.
pub(crate) fn no_such(kind: &str, name: &str) -> SqlError {
    let text = format!("SQL compilation error:\n{kind} '{name}' does not exist or not authorized.");
    error(2003, "02000", text)
}

/// 002002: the name is taken.
pub(crate) fn already_exists(name: &str) -> SqlError {
    error(2002, "42710", format!("SQL compilation error:\nObject '{name}' already exists."))
}

/// 000904: no such column.
pub(crate) fn invalid_identifier(name: &str) -> SqlError {
    error(904, "42000", format!("SQL compilation error:\ninvalid identifier '{name}'"))
}

/// 002140: no such function.
pub(crate) fn unknown_function(name: &str) -> SqlError {
    let name = name.to_uppercase();
    error(2140, "42601", format!("SQL compilation error:\nUnknown function {name}"))
}

/// 090105 and 090106: a name needs a current database or schema, and the session has none.
pub(crate) fn no_current(kind: &str, command: &str) -> SqlError {
    let code = if kind == "database" { 90105 } else { 90106 };
    let text = format!(
        "Cannot perform {command}. This session does not have a current {kind}. \
         Call 'USE {}', or use a qualified name.",
        kind.to_uppercase()
    );
    error(code, "22000", text)
}

/// 100069: a text is not JSON.
pub(crate) fn bad_json(why: impl std::fmt::Display) -> SqlError {
    error(100_069, "22P02", format!("Error parsing JSON: {why}"))
}

/// 300005: hydrant could not do it, through no fault of the statement.
pub(crate) fn internal(why: impl std::fmt::Display) -> SqlError {
    error(300_005, "XX000", format!("Processing aborted by error 300005: {why}"))
}

/// Number of the error that says another statement came first: decide again.
pub(crate) const CONFLICT: u32 = 625;

/// What a control store failure means to whoever sent the statement.
pub(crate) fn control(e: ControlError) -> SqlError {
    match e {
        ControlError::Conflict { key } => error(
            CONFLICT,
            "57014",
            format!("Statement aborted: {key} was changed by another statement. Run it again."),
        ),
        ControlError::TooLarge(what) => error(3, "54000", format!("Too large: {what}")),
        ControlError::Full => error(300_005, "53100", "The disk is full. Nothing was changed."),
        other => internal(other),
    }
}

/// What a planning or execution failure means: the innermost error of ours, or the nearest of
/// Snowflake's numbers.
pub(crate) fn datafusion(e: DataFusionError) -> SqlError {
    match e.find_root() {
        DataFusionError::External(inner) => {
            if let Some(ours) = inner.downcast_ref::<SqlError>() {
                return ours.clone();
            }
            internal(inner)
        }
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => {
                let column = match &field.relation {
                    Some(table) => format!("{}.{}", table.table(), field.name),
                    None => field.name.clone(),
                };
                invalid_identifier(&column)
            }
            SchemaError::AmbiguousReference { field } => error(
                2028,
                "42601",
                format!("SQL compilation error:\nambiguous column name '{}'", field.name),
            ),
            other => syntax(other),
        },
        DataFusionError::ArrowError(arrow, _) => from_arrow(arrow),
        DataFusionError::ResourcesExhausted(why) => error(
            300_002,
            "53200",
            format!("The statement needs more memory than one statement may take: {why}"),
        ),
        DataFusionError::Plan(why) => plan(why),
        DataFusionError::NotImplemented(why) => unsupported(why),
        DataFusionError::SQL(why, _) => syntax(why),
        DataFusionError::Execution(why) => error(100_000, "22000", why.clone()),
        other => internal(other.strip_backtrace()),
    }
}

fn plan(why: &str) -> SqlError {
    let first = why.lines().next().unwrap_or_default();
    if let Some(rest) = first.strip_prefix("Invalid function '") {
        return unknown_function(rest.split('\'').next().unwrap_or_default());
    }
    error(2000, "42601", format!("SQL compilation error:\n{first}"))
}

fn from_arrow(e: &ArrowError) -> SqlError {
    match e {
        ArrowError::DivideByZero => error(100_051, "22012", "Division by zero"),
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<SqlError>() {
            Some(ours) => ours.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(DataFusionError::External(e)) => {
                    e.downcast_ref::<SqlError>().cloned().unwrap_or_else(|| internal(e))
                }
                _ => internal(inner),
            },
        },
        ArrowError::ArithmeticOverflow(why) => {
            error(100_039, "22003", format!("Number out of representable range: {why}"))
        }
        ArrowError::CastError(why) | ArrowError::ParseError(why) => {
            error(100_000, "22000", why.clone())
        }
        other => internal(other),
    }
}

/// An error of ours, for DataFusion to carry.
pub(crate) fn carried(e: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}
