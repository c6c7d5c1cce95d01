//! Turns a Snowflake query into one that DataFusion plans: paths, casts, functions, FLATTEN, `$1`.
//!
//! What depends on a value's type is not decided here: the functions put in here (`text$`,
//! `number$`, …) and the expression planner decide it once the types are known.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CaseWhen, Distinct, Expr, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, Join, JoinConstraint, JoinOperator, LimitClause, ObjectName, Query,
    Select, SelectItem, TableAlias, TableFactor, TableWithJoins, UnaryOperator, Value, VisitMut,
    VisitorMut,
};

use super::build::{call, cast_call, int, text};
use super::comparison::{between, in_list, not};
use super::functions::Context;
use super::scan::Prepared;
use super::types;
use crate::error::{SqlResult, syntax, unsupported};
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
    /// `FROM t, LATERAL FLATTEN(input => t.v) f` as `FROM t JOIN flatten$ f ON flatten_input$(t.v)`.
    fn flatten_from(&mut self, select: &mut Select) -> SqlResult<()> {
        let mut from: Vec<TableWithJoins> = Vec::new();
        for mut item in std::mem::take(&mut select.from) {
            for join in &mut item.joins {
                if let Some((marker, condition)) = self.flatten(&join.relation)? {
                    join.relation = marker;
                    join.join_operator = JoinOperator::Inner(JoinConstraint::On(condition));
                }
            }
            let Some((marker, condition)) = self.flatten(&item.relation)? else {
                from.push(item);
                continue;
            };
            let join = Join {
                relation: marker,
                global: false,
                join_operator: JoinOperator::Inner(JoinConstraint::On(condition)),
            };
            if from.is_empty() {
                self.sources.one = true;
                let relation = table_factor("one$", None);
                from.push(TableWithJoins { relation, joins: Vec::new() });
            }
            if let Some(left) = from.last_mut() {
                left.joins.push(join);
                left.joins.extend(item.joins);
            }
        }
        select.from = from;
        Ok(())
    }

    fn flatten(&mut self, factor: &TableFactor) -> SqlResult<Option<(TableFactor, Expr)>> {
        let (name, args, alias) = match factor {
            TableFactor::Function { name, args, alias, .. } => (name, args, alias),
            TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
            TableFactor::TableFunction { expr: Expr::Function(f), alias } => match &f.args {
                FunctionArguments::List(list) => (&f.name, &list.args, alias),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        if !name.to_string().eq_ignore_ascii_case("FLATTEN") {
            return Ok(None);
        }
        let (mut input, mut outer, mut path) = (None, "", None);
        for (name, value) in named_arguments(args)? {
            match name.as_str() {
                "" | "INPUT" => input = Some(value),
                "OUTER" => outer = if is_true(&value) { "outer" } else { "" },
                "PATH" => path = Some(value),
                "RECURSIVE" if !is_true(&value) => {}
                "MODE" if value.to_string().eq_ignore_ascii_case("'BOTH'") => {}
                other => return Err(unsupported(format!("{other} of FLATTEN"))),
            }
        }
        let mut input = input.ok_or_else(|| syntax("FLATTEN needs INPUT => …"))?;
        if let Some(path) = path {
            input = call("get_path", vec![input, path]);
        }
        self.sources.flattens = true;
        let alias = alias.clone().unwrap_or_else(|| table_alias("FLATTEN"));
        let condition = call("flatten_input$", vec![input, text(outer)]);
        Ok(Some((table_factor("flatten$", Some(alias)), condition)))
    }

    fn table(&mut self, factor: &mut TableFactor) -> SqlResult<()> {
        match factor {
            TableFactor::Table { name, alias, args, sample, version, with_hints, .. } => {
                if sample.is_some() {
                    return Err(unsupported("SAMPLE"));
                }
                if version.is_some() {
                    return Err(unsupported("AT and BEFORE of a table"));
                }
                with_hints.clear();
                let last = super::front::name_of(name)?.pop().unwrap_or_default();
                if let Some(stage) = self.prepared.stage(&last) {
                    let mut used = StageUse {
                        table: last.clone(),
                        stage: stage.to_owned(),
                        format: None,
                        pattern: None,
                    };
                    let given = args.take().map(|a| a.args).unwrap_or_default();
                    for (key, value) in named_arguments(&given)? {
                        let value = value.to_string().trim_matches('\'').to_owned();
                        match key.as_str() {
                            "FILE_FORMAT" => used.format = Some(value),
                            "PATTERN" => used.pattern = Some(value.replace("\\\\", "\\")),
                            other => return Err(unsupported(format!("{other} of a stage"))),
                        }
                    }
                    self.sources.stages.push(used);
                } else if let Some(args) = args.take() {
                    let (name, alias) = (name.clone(), alias.clone());
                    *factor = self.function(&name, &args.args, alias)?;
                } else if !matches!(last.as_str(), "flatten$" | "one$") {
                    let single = name.0.len() == 1;
                    if !(single && self.ctes.contains(&last)) {
                        self.sources.tables.push(name.clone());
                    }
                }
                Ok(())
            }
            TableFactor::TableFunction { expr: Expr::Function(f), alias } => {
                let FunctionArguments::List(list) = &f.args else {
                    return Err(unsupported("this form of TABLE()"));
                };
                *factor = self.function(&f.name.clone(), &list.args.clone(), alias.clone())?;
                Ok(())
            }
            TableFactor::Function { name, args, alias, .. } => {
                *factor = self.function(&name.clone(), &args.clone(), alias.clone())?;
                Ok(())
            }
            TableFactor::Derived { sample: Some(_), .. } => Err(unsupported("SAMPLE")),
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => Ok(()),
            TableFactor::Pivot { .. } => Err(unsupported("PIVOT")),
            TableFactor::Unpivot { .. } => Err(unsupported("UNPIVOT")),
            TableFactor::MatchRecognize { .. } => Err(unsupported("MATCH_RECOGNIZE")),
            other => Err(unsupported(format!("{other} as a table"))),
        }
    }

    fn function(
        &mut self,
        name: &ObjectName,
        args: &[FunctionArg],
        alias: Option<TableAlias>,
    ) -> SqlResult<TableFactor> {
        let name = super::front::name_of(name)?.pop().unwrap_or_default();
        let mut arguments = named_arguments(args)?;
        for (_, value) in &mut arguments {
            rewrite_expr(value, self.context)?;
        }
        let table = format!("f${}", self.sources.functions.len());
        let alias = alias.unwrap_or_else(|| table_alias(&name));
        self.sources.functions.push(FunctionUse { table: table.clone(), name, arguments });
        Ok(table_factor(&table, Some(alias)))
    }

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

fn is_true(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(v) if v.value == Value::Boolean(true))
}

/// Named arguments by folded name; those without a name have an empty one.
fn named_arguments(args: &[FunctionArg]) -> SqlResult<Vec<(String, Expr)>> {
    args.iter()
        .map(|arg| {
            let (name, value) = match arg {
                FunctionArg::Named { name, arg, .. } => (name.value.to_uppercase(), arg),
                FunctionArg::ExprNamed { name, arg, .. } => (name.to_string().to_uppercase(), arg),
                FunctionArg::Unnamed(arg) => (String::new(), arg),
            };
            match value {
                FunctionArgExpr::Expr(value) => Ok((name, value.clone())),
                _ => Err(syntax("* is no argument of this function")),
            }
        })
        .collect()
}

fn table_alias(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::with_quote('"', name), columns: Vec::new(), at: None }
}

fn table_factor(name: &str, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![Ident::with_quote('"', name)]),
        alias,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}
