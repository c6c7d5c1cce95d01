//! Comparisons that are written out, so that the planner sees each side with its type.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

use super::build::{binary, call};
use super::rewrite::is_path;

/// Most values of an IN list whose comparison is written out.
const IN_LIST_MAX: usize = 1_000;

pub(super) fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(expr))) }
}

/// The comparisons BETWEEN stands for, so that the planner sees each with its types.
pub(super) fn between(expr: &Expr, low: &Expr, high: &Expr) -> Expr {
    let from = binary(expr.clone(), BinaryOperator::GtEq, low.clone());
    let to = binary(expr.clone(), BinaryOperator::LtEq, high.clone());
    Expr::Nested(Box::new(binary(from, BinaryOperator::And, to)))
}

/// What to compare with a list of constants when the value is a path into VARIANT.
pub(super) fn in_list(expr: &Expr, list: &[Expr]) -> Option<Expr> {
    if !is_path(expr) || list.len() > IN_LIST_MAX {
        return None;
    }
    let all = |wanted: fn(&Value) -> bool| {
        list.iter().all(|e| matches!(e, Expr::Value(v) if wanted(&v.value)))
    };
    let function = if all(|v| matches!(v, Value::SingleQuotedString(_))) {
        "text$"
    } else if all(|v| matches!(v, Value::Number(..))) {
        "exact$"
    } else {
        return None;
    };
    let keyed = |e: &Expr| call(function, vec![e.clone()]);
    let list = list.iter().map(keyed).collect();
    Some(Expr::InList { expr: Box::new(keyed(expr)), list, negated: false })
}
