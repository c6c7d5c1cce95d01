//! What operators mean between VARIANT, text and numbers.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::error::{carried, internal};
use crate::functions;
use crate::sql::types;

/// Digits of the largest integer of 64 bits.
const INTEGER_DIGITS: u8 = 20;

/// Casts the sides of an operator as Snowflake does before DataFusion sees it.
#[derive(Debug)]
pub(super) struct Operators;

/// A call of one of our functions.
pub(super) fn call(name: &str, args: Vec<Expr>) -> DfResult<Expr> {
    let function =
        functions::named(name).ok_or_else(|| carried(internal(format!("no function {name}"))))?;
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
}

pub(super) fn constant(text: impl Into<String>) -> Expr {
    Expr::Literal(ScalarValue::Utf8(Some(text.into())), None)
}

fn cast(expr: Expr, to: &str) -> DfResult<Expr> {
    call("cast$", vec![expr, constant(to), constant("")])
}

/// An integer of 64 bits as a number of as many digits.
fn wide(expr: Expr) -> Expr {
    datafusion::logical_expr::cast(expr, DataType::Decimal128(INTEGER_DIGITS, 0))
}

fn is_variant(t: &DataType) -> bool {
    t == &DataType::LargeUtf8
}

/// Whether a type's numbers have all their digits.
fn is_exact(t: &DataType) -> bool {
    t.is_integer() || matches!(t, DataType::Decimal128(..))
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::Utf8View)
}

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let left = expr.left.get_type(schema)?;
        let right = expr.right.get_type(schema)?;
        let RawBinaryExpr { op, left: l, right: r } = expr;
        match op {
            BinaryOperator::Divide => Ok(PlannerResult::Planned(call("div$", vec![l, r])?)),
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Modulo => {
                let number = |e: Expr, t: &DataType, other: &DataType| -> DfResult<Expr> {
                    let temporal = other.is_temporal();
                    match is_variant(t) || (is_text(t) && !temporal) {
                        true => call("number$", vec![e]),
                        false => Ok(e),
                    }
                };
                let (l, r) = (number(l, &left, &right)?, number(r, &right, &left)?);
                // DATE + 1 is the next day.
                if left == DataType::Date32 && right.is_integer() {
                    let r = match op {
                        BinaryOperator::Minus => Expr::Negative(Box::new(r)),
                        _ => r,
                    };
                    let moved = call("dateadd", vec![constant("day"), r, l])?;
                    return Ok(PlannerResult::Planned(moved));
                }
                // 64 bits wrap around; a NUMBER has 38 digits.
                let wraps = left.is_integer() && right.is_integer() && op != BinaryOperator::Modulo;
                let (l, r) = if wraps { (wide(l), wide(r)) } else { (l, r) };
                Ok(PlannerResult::Original(RawBinaryExpr { op, left: l, right: r }))
            }
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => {
                let (left, right) = compared(l, &left, r, &right)?;
                Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
            }
            op => Ok(PlannerResult::Original(RawBinaryExpr { op, left: l, right: r })),
        }
    }
}

/// The sides of a comparison in a type that both have.
fn compared(l: Expr, left: &DataType, r: Expr, right: &DataType) -> DfResult<(Expr, Expr)> {
    if is_variant(left) && is_variant(right) {
        return Ok((call("order$", vec![l])?, call("order$", vec![r])?));
    }
    if is_variant(left) && is_exact(right) || is_exact(left) && is_variant(right) {
        return Ok((call("exact$", vec![l])?, call("exact$", vec![r])?));
    }
    if is_variant(left) || (is_text(left) && !is_text(right) && !is_variant(right)) {
        return Ok((like(l, right)?, r));
    }
    if is_variant(right) || (is_text(right) && !is_text(left)) {
        return Ok((l, like(r, left)?));
    }
    Ok((l, r))
}

/// Casts a VARIANT or a text to what it is compared with.
fn like(expr: Expr, to: &DataType) -> DfResult<Expr> {
    let Some(kind) = types::of_arrow(to) else { return Ok(expr) };
    if to == &DataType::Null {
        return Ok(expr);
    }
    if to.is_numeric() {
        return call("number$", vec![expr]);
    }
    cast(expr, &types::name(kind, None))
}
