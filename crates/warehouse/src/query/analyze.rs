//! Changes plans before types are made to fit: ORDER BY of a VARIANT, and FLATTEN.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Sort};
use datafusion::optimizer::AnalyzerRule;

use super::operators::{call, constant};

/// The rule of both.
#[derive(Debug)]
pub(super) struct Variants;

impl AnalyzerRule for Variants {
    fn name(&self) -> &str {
        "variants"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DfResult<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) => flatten(join),
            LogicalPlan::Sort(sort) => order(sort),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(plan.data)
    }
}

fn order(mut sort: Sort) -> DfResult<Transformed<LogicalPlan>> {
    let mut changed = false;
    for key in &mut sort.expr {
        if key.expr.get_type(sort.input.schema())? == DataType::LargeUtf8 {
            key.expr = call("order$", vec![key.expr.clone()])?;
            changed = true;
        }
    }
    let plan = LogicalPlan::Sort(sort);
    Ok(if changed { Transformed::yes(plan) } else { Transformed::no(plan) })
}

/// The join with the marker of a FLATTEN becomes an unnesting of its input.
fn flatten(join: Join) -> DfResult<Transformed<LogicalPlan>> {
    let args = match &join.filter {
        Some(Expr::ScalarFunction(f)) if f.name() == "flatten_input$" => f.args.clone(),
        _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
    };
    let mut args = args.into_iter();
    let (Some(input), Some(outer)) = (args.next(), args.next()) else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    const ROWS: &str = "flatten$rows";
    const THIS: &str = "flatten$this";
    let right = join.right.schema();
    let left: Vec<Expr> = join
        .left
        .schema()
        .iter()
        .map(|(relation, field)| Expr::Column(Column::new(relation.cloned(), field.name())))
        .collect();
    let mut wide = left.clone();
    wide.push(call("flatten$", vec![input.clone(), outer])?.alias(ROWS));
    wide.push(call("to_variant", vec![input])?.alias(THIS));
    let rows = Expr::Column(Column::from_name(ROWS));
    let part = |key: &str| call("get_path", vec![rows.clone(), constant(key)]);
    let cast = |e: Expr, to: &str| call("cast$", vec![e, constant(to), constant("")]);
    let mut narrow = left;
    for (relation, field) in right.iter() {
        let value = match field.name().as_str() {
            "KEY" => cast(part("KEY")?, "VARCHAR")?,
            "PATH" => cast(part("PATH")?, "VARCHAR")?,
            "INDEX" => cast(part("INDEX")?, "NUMBER(18,0)")?,
            "VALUE" => part("VALUE")?,
            _ => Expr::Column(Column::from_name(THIS)),
        };
        narrow.push(value.alias_qualified(relation.cloned(), field.name()));
    }
    let plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(join.left))
        .project(wide)?
        .unnest_column(Column::from_name(ROWS))?
        .project(narrow)?
        .build()?;
    Ok(Transformed::yes(plan))
}
