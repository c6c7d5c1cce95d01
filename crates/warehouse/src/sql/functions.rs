//! Snowflake's function names and arguments, as the engine's.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, ObjectName, Value,
};

use super::build::{binary, call, cast_call, int, null, text};
use super::texts::{matches_whole, substring};
use super::types;
use crate::catalog::Names;
use crate::error::{SqlResult, syntax, unsupported};
use crate::functions::moment;

/// What the session and the moment make of CURRENT_USER() and the like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) names: Names,
    pub(crate) user: String,
    /// Milliseconds since the epoch, the same through a statement.
    pub(crate) now_ms: u64,
    /// Answers of SYSTEM$PIPE_STATUS, by the text of its argument; asked for before the rewrite.
    pub(crate) pipe_status: std::collections::BTreeMap<String, String>,
}

/// Version that CURRENT_VERSION() answers: drivers look at its form only.
pub(crate) const VERSION: &str = concat!("10.0.0-hydrant-", env!("CARGO_PKG_VERSION"));

/// Longest text of an expression that a call of ours is rewritten to.
const EXPANSION_BYTES_MAX: usize = 64 << 10;

/// Functions of VARIANT, which take it as it is.
const TAKES_VARIANT: &[&str] = &[
    "cast$",
    "text$",
    "number$",
    "exact$",
    "order$",
    "comparable$",
    "moment$",
    "div$",
    "flatten$",
    "flatten_input$",
    "format$",
    "get_path",
    "get",
    "get_ignore_case",
    "parse_json",
    "try_parse_json",
    "to_variant",
    "to_json",
    "typeof",
    "object_construct",
    "object_construct_keep_null",
    "array_construct",
    "object_keys",
    "array_size",
    "is_null_value",
    "dateadd",
    "datediff",
    "count",
    "coalesce",
    "nullif",
    "first_value",
    "last_value",
    "lag",
    "lead",
    "nth_value",
    "row_number",
    "rank",
    "dense_rank",
    "ntile",
    "percent_rank",
    "cume_dist",
    "approx_distinct",
];
/// Functions that want numbers.
const TAKES_NUMBERS: &[&str] = &[
    "sum",
    "avg",
    "median",
    "stddev",
    "stddev_pop",
    "var_sample",
    "var_pop",
    "corr",
    "abs",
    "round",
    "trunc",
    "sqrt",
    "power",
    "exp",
    "ln",
    "log",
    "log10",
    "log2",
    "signum",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "radians",
    "degrees",
    "approx_percentile_cont",
];
/// Functions that want a date or a time last, and the name of its part first.
const TAKES_PART: &[&str] = &["date_trunc", "date_part", "dateadd", "datediff", "last_day"];

fn renamed(name: &str) -> &str {
    match name {
        "timestampadd" | "timeadd" | "date_add" => "dateadd",
        "timestampdiff" | "timediff" => "datediff",
        "len" | "length" => "character_length",
        "startswith" => "starts_with",
        "endswith" => "ends_with",
        "ceiling" => "ceil",
        "pow" => "power",
        "sign" => "signum",
        "any_value" => "first_value",
        "approx_count_distinct" | "hll" => "approx_distinct",
        "listagg" => "string_agg",
        "variance" | "var_samp" => "var_sample",
        "charindex" => "strpos_reversed",
        "truncate" => "trunc",
        "mean" => "avg",
        "regexp_substr" => "regexp_match",
        "as_varchar" | "as_char" => "to_varchar",
        other => other,
    }
}

/// What a call becomes; `None` if it was changed in place.
pub(super) fn rewrite(function: &mut Function, context: &Context) -> SqlResult<Option<Expr>> {
    let written = function.name.to_string();
    let lower = written.trim_matches('"').to_lowercase();
    let name = renamed(&lower).to_owned();
    if let Some(constant) = constant(&name, function, context)? {
        return Ok(Some(constant));
    }
    let args = arguments(function);
    if let Some(args) = &args
        && function.over.is_none()
        && let Some(other) = special(&name, args)?
    {
        // Some of them repeat an argument, so calls within calls would grow without bound.
        if other.to_string().len() > EXPANSION_BYTES_MAX {
            return Err(unsupported(format!("{name} over an expression this long")));
        }
        return Ok(Some(other));
    }
    function.name = ObjectName::from(vec![Ident::new(name.clone())]);
    let FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
    let count = list.args.len();
    for (nth, arg) in list.args.iter_mut().enumerate() {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else { continue };
        if TAKES_PART.contains(&name.as_str()) && nth == 0 && count > 1 {
            if let Expr::Identifier(unit) = expr {
                *expr = text(unit.value.to_lowercase());
            }
            continue;
        }
        let wrapper = match name.as_str() {
            "min" | "max" => "comparable$",
            "date_trunc" | "date_part" | "last_day" => "moment$",
            n if TAKES_VARIANT.contains(&n) => continue,
            n if TAKES_NUMBERS.contains(&n) => "number$",
            _ if matches!(expr, Expr::Value(_)) => continue,
            _ => "text$",
        };
        let inner = std::mem::replace(expr, int(0));
        *expr = call(wrapper, vec![inner]);
    }
    Ok(None)
}

fn arguments(function: &Function) -> Option<Vec<Expr>> {
    match &function.args {
        FunctionArguments::None => Some(Vec::new()),
        FunctionArguments::Subquery(_) => None,
        FunctionArguments::List(list) => list
            .args
            .iter()
            .map(|a| match a {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
                _ => None,
            })
            .collect(),
    }
}

/// Functions of the session.
fn constant(name: &str, function: &Function, context: &Context) -> SqlResult<Option<Expr>> {
    let name_or_null = |name: &Option<String>| name.clone().map_or_else(null, text);
    let nanos = i64::try_from(context.now_ms).unwrap_or_default().saturating_mul(1_000_000);
    Ok(Some(match name {
        "current_database" => name_or_null(&context.names.database),
        "current_schema" => name_or_null(&context.names.schema),
        "current_warehouse" => name_or_null(&context.names.warehouse),
        "current_role" => name_or_null(&context.names.role),
        "current_user" => text(context.user.to_uppercase()),
        "current_account" | "current_account_name" => text("HYDRANT"),
        "current_region" => text("LOCAL"),
        "current_version" => text(VERSION),
        "current_timestamp" | "getdate" | "localtimestamp" | "systimestamp" => {
            cast_call(text(moment::format_timestamp(nanos, true)), "TIMESTAMP_LTZ", false)
        }
        "sysdate" => {
            cast_call(text(moment::format_timestamp(nanos, false)), "TIMESTAMP_NTZ", false)
        }
        "current_date" => cast_call(text(moment::civil(nanos).date().to_string()), "DATE", false),
        "current_time" | "localtime" => {
            cast_call(text(moment::civil(nanos).time().to_string()), "TIME", false)
        }
        "system$pipe_status" => {
            let argument = arguments(function).unwrap_or_default();
            match argument.as_slice() {
                [Expr::Value(v)] => {
                    let key = v.to_string();
                    let status = context.pipe_status.get(&key).cloned();
                    text(status.ok_or_else(|| unsupported("SYSTEM$PIPE_STATUS here"))?)
                }
                _ => return Err(syntax("SYSTEM$PIPE_STATUS takes the name of a pipe, quoted")),
            }
        }
        _ => return Ok(None),
    }))
}

pub(super) fn case(condition: Expr, then: Expr, or_else: Option<Expr>) -> Expr {
    Expr::Case {
        case_token: ast_token(),
        end_token: ast_token(),
        operand: None,
        conditions: vec![CaseWhen { condition, result: then }],
        else_result: or_else.map(Box::new),
    }
}

fn ast_token() -> datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken {
    datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty()
}

fn condition(expr: &Expr) -> Expr {
    match super::rewrite::is_path(expr) {
        true => cast_call(expr.clone(), "BOOLEAN", false),
        false => expr.clone(),
    }
}

/// Calls that become something else than a call of one function.
fn special(name: &str, args: &[Expr]) -> SqlResult<Option<Expr>> {
    let is_null = |e: &Expr| Expr::IsNull(Box::new(e.clone()));
    let part = |unit: &str, e: &Expr| {
        call("date_part", vec![text(unit), call("moment$", vec![e.clone()])])
    };
    Ok(Some(match (name, args) {
        ("iff", [c, a, b]) => case(condition(c), a.clone(), Some(b.clone())),
        ("nvl" | "ifnull", [a, b]) => call("coalesce", vec![a.clone(), b.clone()]),
        ("nvl2", [a, b, c]) => case(is_null(a), c.clone(), Some(b.clone())),
        ("zeroifnull", [a]) => call("coalesce", vec![call("number$", vec![a.clone()]), int(0)]),
        ("nullifzero", [a]) => call("nullif", vec![call("number$", vec![a.clone()]), int(0)]),
        ("equal_null", [a, b]) => Expr::IsNotDistinctFrom(Box::new(a.clone()), Box::new(b.clone())),
        // Snowflake's are NULL where one is NULL; the engine's skip it.
        ("greatest" | "least", args) if !args.is_empty() => {
            let either = |a, b| binary(a, BinaryOperator::Or, b);
            let any = args.iter().map(is_null).reduce(either);
            let values = args.iter().map(|a| call("comparable$", vec![a.clone()])).collect();
            case(any.unwrap_or_else(null), null(), Some(call(name, values)))
        }
        ("substr" | "substring", [e, from]) => substring(e, from, None),
        ("substr" | "substring", [e, from, length]) => substring(e, from, Some(length)),
        ("regexp_like" | "rlike", [e, pattern]) => matches_whole(e, pattern, None),
        ("regexp_like" | "rlike", [e, pattern, flags]) => matches_whole(e, pattern, Some(flags)),
        ("div0", [a, b]) => {
            let zero = binary(b.clone(), BinaryOperator::Eq, int(0));
            case(zero, int(0), Some(call("div$", vec![a.clone(), b.clone()])))
        }
        ("count_if", [c]) => call("count", vec![case(condition(c), int(1), None)]),
        ("square", [a]) => call("power", vec![cast_call(a.clone(), "FLOAT", false), int(2)]),
        ("mod", [a, b]) => {
            let number = |e: &Expr| call("number$", vec![e.clone()]);
            binary(number(a), BinaryOperator::Modulo, number(b))
        }
        ("charindex" | "strpos_reversed", [needle, text]) => {
            call("strpos", vec![call("text$", vec![text.clone()]), needle.clone()])
        }
        ("year" | "quarter" | "month" | "week" | "day" | "hour" | "minute" | "second", [e]) => {
            part(name, e)
        }
        ("dayofmonth", [e]) => part("day", e),
        ("dayofweek", [e]) => part("dow", e),
        ("dayofyear", [e]) => part("doy", e),
        ("weekofyear" | "weekiso", [e]) => part("week", e),
        ("to_varchar" | "to_char" | "to_text", [e]) => cast_call(e.clone(), "VARCHAR", false),
        ("to_varchar" | "to_char", [e, format]) => call("format$", vec![e.clone(), format.clone()]),
        _ => return conversion(name, args),
    }))
}

/// TO_NUMBER, TRY_TO_TIMESTAMP and their like.
fn conversion(name: &str, args: &[Expr]) -> SqlResult<Option<Expr>> {
    let (base, lenient) = match name.strip_prefix("try_") {
        Some(base) => (base, true),
        None => (name, false),
    };
    let written = match base {
        "to_number" | "to_decimal" | "to_numeric" => "NUMBER",
        "to_double" | "as_double" | "as_real" => "FLOAT",
        "to_boolean" | "as_boolean" => "BOOLEAN",
        "to_date" | "date" | "as_date" => "DATE",
        "to_time" | "time" => "TIME",
        "to_timestamp" | "to_timestamp_ntz" | "as_timestamp_ntz" => "TIMESTAMP_NTZ",
        "to_timestamp_ltz" | "to_timestamp_tz" => "TIMESTAMP_LTZ",
        "to_object" | "as_object" => "OBJECT",
        "to_array" | "as_array" => "ARRAY",
        "to_binary" => "BINARY",
        "as_integer" | "as_number" => "NUMBER",
        _ => return Ok(None),
    };
    let whole = |e: &Expr| match e {
        Expr::Value(v) => match &v.value {
            Value::Number(n, _) => n.parse::<u32>().ok(),
            _ => None,
        },
        _ => None,
    };
    match args {
        [e] => Ok(Some(cast_call(e.clone(), written, lenient))),
        [e, p] if written == "NUMBER" && whole(p).is_some() => {
            let written = format!("NUMBER({},0)", whole(p).unwrap_or_default());
            types::parse(&written)?;
            Ok(Some(cast_call(e.clone(), &written, lenient)))
        }
        [e, p, s] if written == "NUMBER" && whole(p).is_some() && whole(s).is_some() => {
            let (p, s) = (whole(p).unwrap_or_default(), whole(s).unwrap_or_default());
            let written = format!("NUMBER({p},{s})");
            types::parse(&written)?;
            Ok(Some(cast_call(e.clone(), &written, lenient)))
        }
        // TO_TIMESTAMP(n, scale): n counts 10^-scale seconds.
        [e, scale] if written.starts_with("TIMESTAMP") && whole(scale).is_some() => {
            let unit = match whole(scale) {
                Some(0) => "second",
                Some(3) => "millisecond",
                Some(6) => "microsecond",
                Some(9) => "nanosecond",
                _ => return Err(unsupported("TO_TIMESTAMP with a scale other than 0, 3, 6 or 9")),
            };
            let epoch = cast_call(text("1970-01-01"), written, false);
            Ok(Some(call("dateadd", vec![text(unit), e.clone(), epoch])))
        }
        _ => Err(unsupported(format!("{} with a format", name.to_uppercase()))),
    }
}
