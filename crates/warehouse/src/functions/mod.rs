//! The functions DataFusion does not have, or has with another meaning.
//!
//! Names that end in `$` are ours alone: the rewriter puts them into a statement, nobody writes them.

pub(crate) mod cast;
mod dates;
pub(crate) mod moment;
pub(crate) mod number;
mod variant;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::error::{SqlResult, carried, syntax};

/// What a function knows of its arguments when it is planned.
pub(crate) struct Planned<'a> {
    pub(crate) types: &'a [DataType],
    pub(crate) constants: &'a [Option<&'a ScalarValue>],
}

impl Planned<'_> {
    /// The text of an argument that is a constant.
    pub(crate) fn text(&self, nth: usize) -> SqlResult<&str> {
        let constant = self.constants.get(nth).copied().flatten();
        match constant.and_then(|c| c.try_as_str()).flatten() {
            Some(text) => Ok(text),
            None => Err(syntax(format!("argument {} has to be a constant text", nth + 1))),
        }
    }
}

type Returns = fn(&Planned<'_>) -> SqlResult<DataType>;
type Body = fn(&[ArrayRef], &DataType) -> SqlResult<ArrayRef>;

/// A function of ours: a name, the type of its answer, and what it does to whole arrays.
pub(crate) struct Function {
    name: &'static str,
    arguments: std::ops::RangeInclusive<usize>,
    signature: Signature,
    returns: Returns,
    body: Body,
}

impl Function {
    fn new(
        name: &'static str,
        arguments: std::ops::RangeInclusive<usize>,
        returns: Returns,
        body: Body,
    ) -> Self {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Self { name, arguments, signature, returns, body }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let constants = vec![None; types.len()];
        (self.returns)(&Planned { types, constants: &constants }).map_err(carried)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        if !self.arguments.contains(&args.arg_fields.len()) {
            let name = self.name.trim_end_matches('$').to_uppercase();
            let text = format!(
                "error line 1: not the right number of arguments for function [{name}], \
                 expected {}, got {}",
                self.arguments.start(),
                args.arg_fields.len()
            );
            return Err(carried(crate::error::error(
                938,
                "22023",
                format!("SQL compilation error: {text}"),
            )));
        }
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let planned = Planned { types: &types, constants: args.scalar_arguments };
        let returned = (self.returns)(&planned).map_err(carried)?;
        Ok(Arc::new(Field::new(self.name, returned, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays: Vec<ArrayRef> =
            args.args.iter().map(|a| a.to_array(rows)).collect::<DfResult<_>>()?;
        let answer = (self.body)(&arrays, args.return_field.data_type()).map_err(carried)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answer, 0)?));
        }
        Ok(ColumnarValue::Array(answer))
    }
}

/// Every function of ours.
pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    let mut functions = variant::functions();
    functions.extend(dates::functions());
    functions.into_iter().map(|f| Arc::new(ScalarUDF::new_from_impl(f))).collect()
}

/// The function of ours with this name. Only called with names of this module.
pub(crate) fn named(name: &str) -> Option<Arc<ScalarUDF>> {
    all().into_iter().find(|f| f.name() == name)
}

/// The text of a row of a text or VARIANT array, unquoted.
pub(crate) fn row_text(array: &ArrayRef, row: usize) -> Option<std::borrow::Cow<'_, str>> {
    use std::borrow::Cow;
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(Cow::Borrowed(array.as_string::<i32>().value(row))),
        DataType::Utf8View => Some(Cow::Borrowed(array.as_string_view().value(row))),
        DataType::LargeUtf8 => Some(cast::text_of(array.as_string::<i64>().value(row))),
        _ => None,
    }
}
