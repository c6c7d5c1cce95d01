//! What a query reads: tables, stages, FLATTEN and other table functions.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, ObjectName, Select, TableAlias, TableFactor, TableWithJoins, Value,
};

use super::{FunctionUse, Rewriter, StageUse, rewrite_expr};
use crate::error::{SqlResult, syntax, unsupported};
use crate::sql::build::{call, text};
use crate::sql::front::name_of;

impl Rewriter<'_> {
    /// `FROM t, LATERAL FLATTEN(input => t.v) f` as `FROM t JOIN flatten$ f ON flatten_input$(t.v)`.
    pub(super) fn flatten_from(&mut self, select: &mut Select) -> SqlResult<()> {
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

    pub(super) fn table(&mut self, factor: &mut TableFactor) -> SqlResult<()> {
        match factor {
            TableFactor::Table { name, alias, args, sample, version, with_hints, .. } => {
                if sample.is_some() {
                    return Err(unsupported("SAMPLE"));
                }
                if version.is_some() {
                    return Err(unsupported("AT and BEFORE of a table"));
                }
                with_hints.clear();
                let last = name_of(name)?.pop().unwrap_or_default();
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
        let name = name_of(name)?.pop().unwrap_or_default();
        let mut arguments = named_arguments(args)?;
        for (_, value) in &mut arguments {
            rewrite_expr(value, self.context)?;
        }
        let table = format!("f${}", self.sources.functions.len());
        let alias = alias.unwrap_or_else(|| table_alias(&name));
        self.sources.functions.push(FunctionUse { table: table.clone(), name, arguments });
        Ok(table_factor(&table, Some(alias)))
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
