//! Turns a Snowflake query into one that DataFusion plans: paths, casts, functions, FLATTEN, `$1`.
//!
//! What depends on a value's type is not decided here: the functions put in here (`text$`,
//! `number$`, …) and the expression planner decide it once the types are known.

mod tables;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CaseWhen, Distinct, Expr, Ident, LimitClause, ObjectName, Query, Select,
    SelectItem, TableFactor, UnaryOperator, Value, VisitMut, VisitorMut,
};

use super::build::{call, cast_call, int};
use super::comparison::{between, in_list, not};
use super::functions::Context;
use super::scan::Prepared;
use super::types;
use crate::error::{SqlResult, unsupported};
use crate::query::deep;
use crate::session::SqlError;

/// What tells two result columns of one name apart inside the engine; cut off again in the answer.
pub(crate) const TWIN: char = '\u{1}';

/// A stage that a query reads, with the options given in the query.
pub(crate) struct StageUse {
    /// The table name it has in the query, `@0`.
    pub(crate) table: String,
    /// As written, `@db.schema.stage/path`.
    pub(crate) stage: String,
    /// `FILE_FORMAT => 'name'`.
    pub(crate) format: Option<String>,
    /// `PATTERN => 'regex'`.
    pub(crate) pattern: Option<String>,
}

/// A table function that a query reads, other than FLATTEN.
pub(crate) struct FunctionUse {
    /// The table name it has in the query, `f$0`.
    pub(crate) table: String,
    /// Its name, the last part.
    pub(crate) name: String,
    /// Its named arguments.
    pub(crate) arguments: Vec<(String, Expr)>,
}

/// What a query reads.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) tables: Vec<ObjectName>,
    pub(crate) stages: Vec<StageUse>,
    pub(crate) functions: Vec<FunctionUse>,
    pub(crate) flattens: bool,
    pub(crate) one: bool,
}

/// Rewrites a query, on a stack that bears its depth.
pub(crate) async fn rewrite_query(
    mut query: Query,
    prepared: &Prepared,
    context: &Context,
) -> SqlResult<(Query, Sources)> {
    let (prepared, context) = (prepared.clone(), context.clone());
    deep(async move {
        let sources = rewrite(&mut query, &prepared, &context)?;
        Ok((query, sources))
    })
    .await?
}

fn rewrite(query: &mut Query, prepared: &Prepared, context: &Context) -> SqlResult<Sources> {
    let mut rewriter =
        Rewriter { prepared, context, sources: Sources::default(), ctes: BTreeSet::new() };
    match query.visit(&mut rewriter) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(rewriter.sources),
    }
}

/// Rewrites one expression that is not in a query.
pub(crate) fn rewrite_expr(expr: &mut Expr, context: &Context) -> SqlResult<()> {
    let prepared = Prepared { text: String::new(), stages: Vec::new() };
    let mut rewriter = Rewriter {
        prepared: &prepared,
        context,
        sources: Sources::default(),
        ctes: BTreeSet::new(),
    };
    match expr.visit(&mut rewriter) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter<'a> {
    prepared: &'a Prepared,
    context: &'a Context,
    sources: Sources,
    ctes: BTreeSet<String>,
}

fn flow(result: SqlResult<()>) -> ControlFlow<SqlError> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(e),
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        if let Some(with) = &query.with {
            if with.recursive {
                return ControlFlow::Break(unsupported("WITH RECURSIVE"));
            }
            self.ctes.extend(with.cte_tables.iter().map(|c| c.alias.name.value.clone()));
        }
        if !query.locks.is_empty() || query.for_clause.is_some() {
            return ControlFlow::Break(unsupported("FOR after a query: hydrant locks no rows"));
        }
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            limit.iter_mut().for_each(number_of_text);
            offset.iter_mut().for_each(|o| number_of_text(&mut o.value));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        if matches!(select.distinct, Some(Distinct::On(_))) {
            return ControlFlow::Break(unsupported(
                "DISTINCT ON: use QUALIFY ROW_NUMBER() OVER (…) = 1",
            ));
        }
        name_columns(select);
        flow(self.flatten_from(select))
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        for condition in [&mut select.selection, &mut select.having, &mut select.qualify] {
            condition.iter_mut().for_each(as_boolean);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        flow(self.table(factor))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        flow(self.expr(expr))
    }
}

fn number_of_text(expr: &mut Expr) {
    if let Expr::Value(value) = expr
        && let Value::SingleQuotedString(t) = &value.value
        && t.bytes().all(|b| b.is_ascii_digit())
    {
        value.value = Value::Number(t.clone(), false);
    }
}

/// Gives every expression of the list the name that Snowflake shows: its text, in upper case.
fn name_columns(select: &mut Select) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)) => {}
            SelectItem::UnnamedExpr(expr) => {
                let name = expr.to_string().to_uppercase().replace(TWIN, " ");
                let alias = Ident::with_quote('"', unique(name, &mut seen));
                let expr = std::mem::replace(expr, int(0));
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
            SelectItem::ExprWithAlias { alias, .. } => {
                let name = std::mem::take(&mut alias.value);
                alias.value = unique(name, &mut seen);
            }
            _ => {}
        }
    }
    let plain = select.projection.iter_mut().filter_map(|item| match item {
        SelectItem::UnnamedExpr(e @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) => {
            let name = match e {
                Expr::CompoundIdentifier(parts) => parts.last().map(|i| i.value.clone()),
                other => Some(other.to_string().trim_matches('"').to_owned()),
            };
            name.map(|name| (item, name))
        }
        _ => None,
    });
    for (item, name) in plain {
        let given = unique(name.clone(), &mut seen);
        if given != name
            && let SelectItem::UnnamedExpr(expr) = item
        {
            let expr = std::mem::replace(expr, int(0));
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', given) };
        }
    }
}

fn unique(name: String, seen: &mut BTreeSet<String>) -> String {
    let mut given = name.clone();
    let mut n = 1;
    while !seen.insert(given.clone()) {
        n += 1;
        given = format!("{name}{TWIN}{n}");
    }
    given
}

/// A VARIANT where a condition stands is cast, as Snowflake does it.
fn as_boolean(expr: &mut Expr) {
    if is_path(expr) {
        let inner = std::mem::replace(expr, int(0));
        *expr = cast_call(inner, "BOOLEAN", false);
    }
}

pub(super) fn is_path(expr: &Expr) -> bool {
    match expr {
        Expr::Function(f) => matches!(f.name.to_string().as_str(), "get_path" | "get"),
        Expr::Nested(inner) => is_path(inner),
        _ => false,
    }
}

fn wrap(expr: &mut Expr, function: &str) {
    let inner = std::mem::replace(expr, int(0));
    *expr = call(function, vec![inner]);
}

impl Rewriter<'_> {
    fn expr(&mut self, expr: &mut Expr) -> SqlResult<()> {
        match expr {
            Expr::Value(value) => {
                if let Value::Placeholder(name) = &value.value {
                    *expr = Expr::Identifier(Ident::with_quote('"', name.clone()));
                }
            }
            Expr::JsonAccess { value, path } => {
                let inner = std::mem::replace(value.as_mut(), int(0));
                *expr = super::build::path(inner, path)?;
            }
            Expr::Cast { kind, expr: inner, data_type, .. } => {
                let lenient = matches!(kind, ast::CastKind::TryCast | ast::CastKind::SafeCast);
                let written = data_type.to_string();
                types::parse(&written)?;
                let inner = std::mem::replace(inner.as_mut(), int(0));
                *expr = cast_call(inner, &written, lenient);
            }
            Expr::TypedString(typed) => {
                let written = typed.data_type.to_string();
                types::parse(&written)?;
                let inner = Expr::Value(typed.value.clone());
                *expr = cast_call(inner, &written, false);
            }
            Expr::RLike { negated, expr: inner, pattern, .. } => {
                let matches = super::texts::matches_whole(inner, pattern, None);
                *expr = if *negated { not(matches) } else { matches };
            }
            Expr::BinaryOp { left, op, right } => match op {
                BinaryOperator::And | BinaryOperator::Or => {
                    as_boolean(left);
                    as_boolean(right);
                }
                BinaryOperator::StringConcat => {
                    for side in [left, right] {
                        // What is joined already is a text; a chain stays flat.
                        if matches!(
                            side.as_ref(),
                            Expr::BinaryOp { op: BinaryOperator::StringConcat, .. }
                        ) {
                            continue;
                        }
                        let inner = std::mem::replace(side.as_mut(), int(0));
                        **side = cast_call(inner, "VARCHAR", false);
                    }
                }
                _ => {}
            },
            Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } => as_boolean(inner),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } if is_path(inner) => {
                wrap(inner, "number$");
            }
            Expr::Substring { expr: inner, substring_from: Some(from), substring_for, .. } => {
                let length = substring_for.as_deref();
                *expr = super::texts::substring(inner, from, length);
            }
            Expr::Like { expr: inner, .. }
            | Expr::ILike { expr: inner, .. }
            | Expr::Trim { expr: inner, .. } => wrap(inner, "text$"),
            Expr::Position { r#in, .. } => wrap(r#in, "text$"),
            Expr::Extract { expr: inner, .. } => wrap(inner, "moment$"),
            Expr::Ceil { expr: inner, .. } | Expr::Floor { expr: inner, .. } => {
                wrap(inner, "number$");
            }
            Expr::Between { expr: inner, negated, low, high } => {
                let between = between(inner, low, high);
                *expr = if *negated { not(between) } else { between };
            }
            Expr::InList { expr: inner, list, negated } => {
                if let Some(written) = in_list(inner, list) {
                    *expr = if *negated { not(written) } else { written };
                }
            }
            Expr::Case { conditions, operand: None, .. } => {
                for CaseWhen { condition, .. } in conditions {
                    as_boolean(condition);
                }
            }
            Expr::Function(function) => {
                if let Some(other) = super::functions::rewrite(function, self.context)? {
                    *expr = other;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
