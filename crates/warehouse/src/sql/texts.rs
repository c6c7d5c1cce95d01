//! Functions of texts that count or match otherwise than the engine's.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value};

use super::build::{binary, call, cast_call, int, text};
use super::functions::case;

/// SUBSTR as Snowflake counts: a place below zero is counted from the end, and zero is the first.
pub(super) fn substring(e: &Expr, from: &Expr, length: Option<&Expr>) -> Expr {
    let whole = call("text$", vec![e.clone()]);
    let positive = match from {
        Expr::Value(v) => {
            matches!(&v.value, Value::Number(n, _) if n.parse::<u64>().is_ok_and(|n| n > 0))
        }
        _ => false,
    };
    let start = if positive {
        from.clone()
    } else {
        let from = Expr::Nested(Box::new(cast_call(from.clone(), "NUMBER(18,0)", false)));
        let chars = call("character_length", vec![whole.clone()]);
        let end = binary(chars, BinaryOperator::Plus, int(1));
        let back = binary(end.clone(), BinaryOperator::Plus, from.clone());
        let before_all = binary(back.clone(), BinaryOperator::Lt, int(1));
        let negative = binary(from.clone(), BinaryOperator::Lt, int(0));
        // Further back than the text reaches there is nothing.
        let back = case(before_all, end, Some(back));
        let zero = binary(from.clone(), BinaryOperator::Eq, int(0));
        case(negative, back, Some(case(zero, int(1), Some(from))))
    };
    let start = cast_call(start, "NUMBER(18,0)", false);
    let mut args = vec![whole, start];
    if let Some(length) = length {
        let length = cast_call(length.clone(), "NUMBER(18,0)", false);
        let negative = binary(length.clone(), BinaryOperator::Lt, int(0));
        args.push(case(negative, int(0), Some(length)));
    }
    call("substr", args)
}

/// REGEXP_LIKE and RLIKE match the whole text; the engine's looks for a part.
pub(super) fn matches_whole(e: &Expr, pattern: &Expr, flags: Option<&Expr>) -> Expr {
    let join = |left: Expr, right: Expr| binary(left, BinaryOperator::StringConcat, right);
    let pattern = cast_call(pattern.clone(), "VARCHAR", false);
    let pattern = join(join(text("^(?:"), pattern), text(")$"));
    let mut args = vec![call("text$", vec![e.clone()]), pattern];
    args.extend(flags.cloned());
    call("regexp_like", args)
}
