//! Small pieces of syntax trees.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, JsonPath, JsonPathElem, ObjectName, Value,
};

use super::types;
use crate::error::{SqlResult, syntax};

pub(crate) fn value(value: Value) -> Expr {
    Expr::Value(value.into())
}

pub(crate) fn text(text: impl Into<String>) -> Expr {
    value(Value::SingleQuotedString(text.into()))
}

pub(crate) fn int(n: i64) -> Expr {
    value(Value::Number(n.to_string(), false))
}

pub(crate) fn null() -> Expr {
    value(Value::Null)
}

pub(crate) fn list(args: Vec<Expr>) -> FunctionArguments {
    let args = args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect();
    FunctionArguments::List(FunctionArgumentList {
        duplicate_treatment: None,
        args,
        clauses: Vec::new(),
    })
}

pub(crate) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// A call of a function of the engine; its name is in lower case there.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: list(args),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

pub(crate) fn cast_call(inner: Expr, written: &str, lenient: bool) -> Expr {
    let written = types::parse(written)
        .map_or_else(|_| written.to_owned(), |w| types::name(w.kind, w.length));
    call("cast$", vec![inner, text(written), text(if lenient { "try" } else { "" })])
}

/// `v:a.b[0]` as a call.
pub(crate) fn path(inner: Expr, path: &JsonPath) -> SqlResult<Expr> {
    let mut value = inner;
    let mut constant = String::new();
    let flush = |value: Expr, constant: &mut String| match constant.is_empty() {
        true => value,
        false => call("get_path", vec![value, text(std::mem::take(constant))]),
    };
    for step in &path.path {
        match step {
            JsonPathElem::Dot { key, .. } => push_key(&mut constant, key)?,
            JsonPathElem::Bracket { key } | JsonPathElem::ColonBracket { key } => match key {
                Expr::Value(v) => match &v.value {
                    Value::Number(n, _) => constant.push_str(&format!("[{n}]")),
                    Value::SingleQuotedString(key) => push_key(&mut constant, key)?,
                    other => return Err(syntax(format!("{other} is no step of a path"))),
                },
                other => {
                    value = flush(value, &mut constant);
                    value = call("get", vec![value, other.clone()]);
                }
            },
        }
    }
    Ok(flush(value, &mut constant))
}

fn push_key(path: &mut String, key: &str) -> SqlResult<()> {
    if !key.contains('"') {
        path.push_str(&format!("[\"{key}\"]"));
    } else if !key.contains('\'') {
        path.push_str(&format!("['{key}']"));
    } else {
        return Err(syntax(format!("a path's key with both kinds of quotes: {key}")));
    }
    Ok(())
}
