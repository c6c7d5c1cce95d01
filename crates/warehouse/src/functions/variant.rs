//! Functions of VARIANT.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Decimal128Array, Int64Builder, LargeStringArray,
    LargeStringBuilder, ListBuilder, StringArray, StringBuilder,
};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type};

use super::cast::{self, text_of};
use super::number::order_key;
use super::{Function, row_text};
use crate::error::{SqlResult, error, internal, syntax, unsupported};
use crate::json::path::{self, Step};
use crate::json::raw::{Kind, element, elements, field, field_any_case, kind, members};
use crate::json::{check, write};
use crate::session::ColumnType;
use crate::sql::types::{self, Written};

const VARIANT: DataType = DataType::LargeUtf8;

pub(super) fn functions() -> Vec<Function> {
    vec![
        // cast$(value, 'TYPE', 'try' or '')
        Function::new(
            "cast$",
            3..=3,
            |p| Ok(types::arrow(types::parse(p.text(1)?)?.kind)),
            |args, _| {
                let to = types::parse(&row_text(&args[1], 0).unwrap_or_default())?;
                let lenient = row_text(&args[2], 0).is_some_and(|t| t == "try");
                cast::cast(&args[0], to, lenient)
            },
        ),
        // What a text function gets for a VARIANT; anything else stays as it is.
        Function::new(
            "text$",
            1..=1,
            |p| Ok(if p.types[0] == VARIANT { DataType::Utf8 } else { p.types[0].clone() }),
            |args, _| unless_variant(&args[0], ColumnType::Text),
        ),
        // What a numeric function or SUM gets for a VARIANT or a text.
        Function::new(
            "number$",
            1..=1,
            |p| Ok(if is_text(&p.types[0]) { DataType::Float64 } else { p.types[0].clone() }),
            |args, _| match is_text(args[0].data_type()) {
                true => cast::cast(&args[0], plain(ColumnType::Real), false),
                false => Ok(Arc::clone(&args[0])),
            },
        ),
        // A key that compares a VARIANT with a NUMBER to the last digit, the same for both.
        Function::new(
            "exact$",
            1..=1,
            |_| Ok(DataType::Utf8),
            |args, _| cast::exact_keys(&args[0]),
        ),
        // A key that sorts VARIANTs: numbers by value, texts by text.
        Function::new("order$", 1..=1, |_| Ok(DataType::Utf8), |args, _| order_keys(&args[0])),
        Function::new(
            "comparable$",
            1..=1,
            |p| match p.types[0] == VARIANT {
                true => {
                    Err(unsupported("MIN or MAX of a VARIANT; cast it, as in MAX(v:a::number)"))
                }
                false => Ok(p.types[0].clone()),
            },
            |args, _| Ok(Arc::clone(&args[0])),
        ),
        // `/`: exact for numbers, six more digits than the dividend has (Snowflake).
        Function::new("div$", 2..=2, |p| Ok(quotient(p.types)), divide),
        Function::new("get_path", 2..=2, |_| Ok(VARIANT), get_path),
        Function::new("get", 2..=2, |_| Ok(VARIANT), |args, _| get(args, false)),
        Function::new("get_ignore_case", 2..=2, |_| Ok(VARIANT), |args, _| get(args, true)),
        Function::new("parse_json", 1..=1, |_| Ok(VARIANT), |args, _| parse(&args[0], false)),
        Function::new("try_parse_json", 1..=1, |_| Ok(VARIANT), |args, _| parse(&args[0], true)),
        Function::new("to_variant", 1..=1, |_| Ok(VARIANT), |args, _| to_variant(&args[0])),
        Function::new(
            "to_json",
            1..=1,
            |_| Ok(DataType::Utf8),
            |args, _| {
                map_text(&to_variant(&args[0])?, |json| Some(Cow::Owned(write::compact(json))))
            },
        ),
        Function::new(
            "typeof",
            1..=1,
            |_| Ok(DataType::Utf8),
            |args, _| map_text(&to_variant(&args[0])?, |json| Some(Cow::Borrowed(type_of(json)))),
        ),
        Function::new("object_construct", 0..=1_000, |_| Ok(VARIANT), |a, _| object(a, false)),
        Function::new(
            "object_construct_keep_null",
            0..=1_000,
            |_| Ok(VARIANT),
            |a, _| object(a, true),
        ),
        Function::new("array_construct", 0..=1_000, |_| Ok(VARIANT), array),
        Function::new(
            "object_keys",
            1..=1,
            |_| Ok(VARIANT),
            |args, _| {
                map_variant(&args[0], |json| {
                    let keys: Vec<String> = members(json).map(|(k, _)| write::quote(&k)).collect();
                    (kind(json) == Some(Kind::Object)).then(|| format!("[{}]", keys.join(",")))
                })
            },
        ),
        Function::new(
            "array_size",
            1..=1,
            |_| Ok(DataType::Int64),
            |args, _| {
                let values = variant(&args[0])?;
                let mut out = Int64Builder::with_capacity(values.len());
                for json in values {
                    let size = json.filter(|j| kind(j) == Some(Kind::Array));
                    out.append_option(size.map(|j| elements(j).count() as i64));
                }
                Ok(Arc::new(out.finish()))
            },
        ),
        Function::new(
            "is_null_value",
            1..=1,
            |_| Ok(DataType::Boolean),
            |args, _| {
                let mut out = BooleanBuilder::new();
                for json in variant(&args[0])? {
                    out.append_option(json.map(|j| kind(j) == Some(Kind::Null)));
                }
                Ok(Arc::new(out.finish()))
            },
        ),
        // Marks a join with the rows of a FLATTEN; the analyzer replaces the join.
        Function::new(
            "flatten_input$",
            2..=2,
            |_| Ok(DataType::Boolean),
            |_, _| Err(internal("FLATTEN was not planned")),
        ),
        // flatten$(value, 'outer' or '', path): the rows as a list of `[seq]key,path,index,value`.
        Function::new(
            "flatten$",
            2..=2,
            |_| Ok(DataType::List(Arc::new(Field::new_list_field(VARIANT, true)))),
            flatten,
        ),
    ]
}

fn plain(kind: ColumnType) -> Written {
    Written { kind, length: None }
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::LargeUtf8 | DataType::Utf8 | DataType::Utf8View)
}

fn unless_variant(array: &ArrayRef, to: ColumnType) -> SqlResult<ArrayRef> {
    match array.data_type() {
        DataType::LargeUtf8 => cast::cast(array, plain(to), false),
        _ => Ok(Arc::clone(array)),
    }
}

/// The rows of a VARIANT.
fn variant(array: &ArrayRef) -> SqlResult<&LargeStringArray> {
    array.as_string_opt::<i64>().ok_or_else(|| {
        syntax(format!("Invalid argument types: expected VARIANT, got {}", type_name(array)))
    })
}

fn type_name(array: &ArrayRef) -> String {
    types::of_arrow(array.data_type())
        .map_or_else(|| array.data_type().to_string(), |k| types::name(k, None))
}

fn map_variant(array: &ArrayRef, f: impl Fn(&str) -> Option<String>) -> SqlResult<ArrayRef> {
    if array.data_type() == &DataType::Null {
        return Ok(Arc::new(LargeStringArray::new_null(array.len())));
    }
    let values: LargeStringArray = variant(array)?.iter().map(|v| v.and_then(&f)).collect();
    Ok(Arc::new(values))
}

fn map_text(array: &ArrayRef, f: impl Fn(&str) -> Option<Cow<'_, str>>) -> SqlResult<ArrayRef> {
    let values: StringArray = variant(array)?.iter().map(|v| v.and_then(&f)).collect();
    Ok(Arc::new(values))
}

/// A path out of each row. A missing step is NULL; a JSON null stays one, and casts to NULL.
fn get_path(args: &[ArrayRef], _: &DataType) -> SqlResult<ArrayRef> {
    let paths = &args[1];
    if args[0].data_type() == &DataType::Null {
        return Ok(Arc::new(LargeStringArray::new_null(args[0].len())));
    }
    let values = variant(&args[0])?;
    let mut out = LargeStringBuilder::with_capacity(values.len(), values.len() * 16);
    let mut last: Option<(String, Vec<Step>)> = None;
    for row in 0..values.len() {
        let Some(text) = row_text(paths, row).filter(|_| values.is_valid(row)) else {
            out.append_null();
            continue;
        };
        if last.as_ref().is_none_or(|(t, _)| *t != text) {
            last = Some((text.to_string(), path::parse(&text)?));
        }
        let steps = last.as_ref().map_or(&[][..], |(_, s)| s);
        out.append_option(path::get(values.value(row), steps));
    }
    Ok(Arc::new(out.finish()))
}

fn get(args: &[ArrayRef], any_case: bool) -> SqlResult<ArrayRef> {
    if args[0].data_type() == &DataType::Null {
        return Ok(Arc::new(LargeStringArray::new_null(args[0].len())));
    }
    let values = variant(&args[0])?;
    let by_place = args[1].data_type().is_numeric();
    let places = match by_place {
        true => {
            Some(datafusion::arrow::compute::cast(&args[1], &DataType::Int64).map_err(internal)?)
        }
        false => None,
    };
    let mut out = LargeStringBuilder::new();
    for row in 0..values.len() {
        let json = values.is_valid(row).then(|| values.value(row));
        let found = match (&places, json) {
            (_, None) => None,
            (Some(places), Some(json)) if places.is_valid(row) => {
                let place = places.as_primitive::<Int64Type>().value(row);
                usize::try_from(place).ok().and_then(|p| element(json, p))
            }
            (None, Some(json)) => row_text(&args[1], row).and_then(|key| {
                if any_case { field_any_case(json, &key) } else { field(json, &key) }
            }),
            _ => None,
        };
        out.append_option(found);
    }
    Ok(Arc::new(out.finish()))
}

fn parse(array: &ArrayRef, lenient: bool) -> SqlResult<ArrayRef> {
    let mut out = LargeStringBuilder::new();
    for row in 0..array.len() {
        match row_text(array, row) {
            None => out.append_null(),
            Some(text) if text.trim().is_empty() => out.append_null(),
            Some(text) => match check(&text) {
                Ok(()) => out.append_value(text.trim()),
                Err(_) if lenient => out.append_null(),
                Err(e) => return Err(e),
            },
        }
    }
    Ok(Arc::new(out.finish()))
}

pub(super) fn to_variant(array: &ArrayRef) -> SqlResult<ArrayRef> {
    cast::cast(array, plain(ColumnType::Variant), false)
}

fn type_of(json: &str) -> &'static str {
    match kind(json) {
        Some(Kind::Object) => "OBJECT",
        Some(Kind::Array) => "ARRAY",
        Some(Kind::Text) | None => "VARCHAR",
        Some(Kind::True | Kind::False) => "BOOLEAN",
        Some(Kind::Null) => "NULL_VALUE",
        Some(Kind::Number) if json.contains(['e', 'E']) => "DOUBLE",
        Some(Kind::Number) if json.contains('.') => "DECIMAL",
        Some(Kind::Number) => "INTEGER",
    }
}

fn object(args: &[ArrayRef], keep_null: bool) -> SqlResult<ArrayRef> {
    if !args.len().is_multiple_of(2) {
        return Err(syntax("OBJECT_CONSTRUCT takes keys and values in pairs"));
    }
    let rows = args.first().map_or(1, |a| a.len());
    let mut pairs = Vec::new();
    for pair in args.chunks_exact(2) {
        pairs.push((&pair[0], to_variant(&pair[1])?));
    }
    let mut out = LargeStringBuilder::new();
    for row in 0..rows {
        let mut fields = Vec::new();
        for (keys, values) in &pairs {
            let value = values.as_string::<i64>();
            let Some(key) = row_text(keys, row) else { continue };
            match value.is_valid(row) {
                true => fields.push(format!("{}:{}", write::quote(&key), json(value.value(row)))),
                false if keep_null => fields.push(format!("{}:null", write::quote(&key))),
                false => {}
            }
        }
        out.append_value(format!("{{{}}}", fields.join(",")));
    }
    Ok(Arc::new(out.finish()))
}

/// A VARIANT's text as JSON, whatever way it came.
fn json(text: &str) -> Cow<'_, str> {
    if kind(text).is_some() { Cow::Borrowed(text) } else { Cow::Owned(write::quote(text)) }
}

fn array(args: &[ArrayRef], _: &DataType) -> SqlResult<ArrayRef> {
    let rows = args.first().map_or(1, |a| a.len());
    let values: Vec<ArrayRef> = args.iter().map(to_variant).collect::<SqlResult<_>>()?;
    let mut out = LargeStringBuilder::new();
    for row in 0..rows {
        let cells: Vec<Cow<'_, str>> = values
            .iter()
            .map(|v| v.as_string::<i64>())
            .map(|v| if v.is_valid(row) { json(v.value(row)) } else { Cow::Borrowed("null") })
            .collect();
        out.append_value(format!("[{}]", cells.join(",")));
    }
    Ok(Arc::new(out.finish()))
}

fn order_keys(array: &ArrayRef) -> SqlResult<ArrayRef> {
    let values = variant(array)?;
    let mut out = StringBuilder::new();
    for value in values {
        let key = value.filter(|j| kind(j) != Some(Kind::Null)).map(|json| match kind(json) {
            Some(Kind::Number) => format!("1{}", order_key(json).unwrap_or_default()),
            Some(Kind::False) => "20".to_owned(),
            Some(Kind::True) => "21".to_owned(),
            Some(Kind::Array) => format!("4{}", write::compact(json)),
            Some(Kind::Object) => format!("5{}", write::compact(json)),
            _ => format!("3{}", text_of(json)),
        });
        out.append_option(key);
    }
    Ok(Arc::new(out.finish()))
}

fn scale_of(t: &DataType) -> Option<i8> {
    match t {
        DataType::Decimal128(_, s) => Some(*s),
        t if t.is_integer() => Some(0),
        _ => None,
    }
}

fn quotient(types: &[DataType]) -> DataType {
    match (scale_of(&types[0]), scale_of(&types[1])) {
        (Some(s), Some(_)) => DataType::Decimal128(38, s.max((s + 6).min(12))),
        _ => DataType::Float64,
    }
}

fn divide(args: &[ArrayRef], to: &DataType) -> SqlResult<ArrayRef> {
    let zero = || error(100_051, "22012", "Division by zero");
    let DataType::Decimal128(precision, scale) = *to else {
        let float = |a: &ArrayRef| cast::cast(a, plain(ColumnType::Real), false);
        let (a, b) = (float(&args[0])?, float(&args[1])?);
        let (a, b) = (
            a.as_primitive::<datafusion::arrow::datatypes::Float64Type>(),
            b.as_primitive::<datafusion::arrow::datatypes::Float64Type>(),
        );
        let divided: Result<datafusion::arrow::array::Float64Array, _> = a
            .iter()
            .zip(b)
            .map(|pair| match pair {
                (Some(_), Some(0.0)) => Err(zero()),
                (Some(a), Some(b)) => Ok(Some(a / b)),
                _ => Ok(None),
            })
            .collect();
        return Ok(Arc::new(divided?));
    };
    let wide = |a: &ArrayRef| {
        let s = scale_of(a.data_type()).unwrap_or_default();
        datafusion::arrow::compute::cast(a, &DataType::Decimal128(38, s)).map_err(internal)
    };
    let (s1, s2) = (scale_of(args[0].data_type()), scale_of(args[1].data_type()));
    let shift = u32::try_from(scale - s1.unwrap_or_default() + s2.unwrap_or_default());
    let factor = 10_i128
        .checked_pow(shift.unwrap_or_default())
        .ok_or_else(|| super::number::out_of_range(precision, scale as u8, "a quotient"))?;
    let (a, b) = (wide(&args[0])?, wide(&args[1])?);
    let (a, b) = (a.as_primitive::<Decimal128Type>(), b.as_primitive::<Decimal128Type>());
    let divided: SqlResult<Decimal128Array> = a
        .iter()
        .zip(b)
        .map(|pair| match pair {
            (Some(_), Some(0)) => Err(zero()),
            (Some(a), Some(b)) => {
                let a = a.checked_mul(factor).ok_or_else(|| {
                    super::number::out_of_range(precision, scale as u8, &a.to_string())
                })?;
                let (whole, rest) = (a / b, a % b);
                let up = rest.unsigned_abs() >= b.unsigned_abs() - rest.unsigned_abs();
                let step = if (a < 0) == (b < 0) { 1 } else { -1 };
                Ok(Some(if up && rest != 0 { whole + step } else { whole }))
            }
            _ => Ok(None),
        })
        .collect();
    let divided = divided?.with_precision_and_scale(precision, scale).map_err(internal)?;
    Ok(Arc::new(divided))
}

/// One object a row of the FLATTEN: its columns as members.
fn flatten(args: &[ArrayRef], _: &DataType) -> SqlResult<ArrayRef> {
    let outer = row_text(&args[1], 0).is_some_and(|t| t == "outer");
    let values = to_variant(&args[0])?;
    let values = values.as_string::<i64>();
    let mut out = ListBuilder::new(LargeStringBuilder::new());
    for row in 0..values.len() {
        let mut any = false;
        if values.is_valid(row) {
            let json = values.value(row);
            for (key, value) in members(json) {
                any = true;
                let key = write::quote(&key);
                out.values().append_value(format!(
                    "{{\"KEY\":{key},\"PATH\":{key},\"VALUE\":{value},\"THIS\":{json}}}"
                ));
            }
            for (index, value) in elements(json).enumerate() {
                any = true;
                out.values().append_value(format!(
                    "{{\"INDEX\":{index},\"PATH\":\"[{index}]\",\"VALUE\":{value},\"THIS\":{json}}}"
                ));
            }
        }
        if outer && !any {
            out.values().append_value("{}");
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}
