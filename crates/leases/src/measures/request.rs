//! `PutMetricData`, read and checked, in any of its three protocols.

use std::fmt;

use hydrant_wire::shape::{List, Structure, Text};
use hydrant_wire::{ApiError, Call};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, Visitor};

/// Most measurements of one request (AWS).
const DATA_MAX: usize = 1_000;
/// Most dimensions of one (AWS).
const DIMENSIONS_MAX: usize = 30;
/// Most values of one (AWS).
const VALUES_MAX: usize = 150;
/// Longest names and values, in characters (AWS).
const NAME_CHARS_MAX: usize = 255;
const DIMENSION_VALUE_CHARS_MAX: usize = 1_024;
/// Values beyond 2^360 are refused (AWS).
const VALUE_EXPONENT_MAX: i32 = 360;
const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];

/// Measurements of one namespace.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) namespace: String,
    pub(super) measured: Vec<Measured>,
}

/// What one metric was since it was last reported.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) dimensions: Vec<(String, String)>,
    pub(super) samples: f64,
    pub(super) sum: f64,
    pub(super) maximum: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    metric_data: Option<List<Structure<Datum<'a>>>>,
    #[serde(borrow)]
    entity_metric_data: Option<List<Structure<EntityData<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntityData<'a> {
    #[serde(borrow)]
    metric_data: Option<List<Structure<Datum<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Datum<'a> {
    #[serde(borrow)]
    metric_name: Option<Text<'a>>,
    #[serde(borrow)]
    dimensions: Option<List<Structure<Dimension<'a>>>>,
    value: Option<Amount>,
    statistic_values: Option<Structure<Statistics>>,
    values: Option<List<Amount>>,
    counts: Option<List<Amount>>,
    #[serde(borrow)]
    unit: Option<Text<'a>>,
    storage_resolution: Option<Amount>,
    // When it was measured changes nothing: /metrics shows what was reported last.
    #[serde(rename = "Timestamp")]
    _timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dimension<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statistics {
    sample_count: Option<Amount>,
    sum: Option<Amount>,
    minimum: Option<Amount>,
    maximum: Option<Amount>,
}

/// A number, which a form has as a text.
#[derive(Clone, Copy, Debug)]
struct Amount(f64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = f64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_f64<E: Error>(self, n: f64) -> Result<f64, E> {
                Ok(n)
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<f64, E> {
                Ok(n as f64)
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<f64, E> {
                Ok(n as f64)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
                text.parse().map_err(|_| E::custom("not a number"))
            }
        }
        d.deserialize_any(V).map(Amount)
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::new("MissingRequiredParameterException", format!("The parameter {name} is required."))
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValueException", text)
}

fn both(at: &str, one: &str, two: &str) -> ApiError {
    ApiError::new(
        "InvalidParameterCombinationException",
        format!(
            "The parameters {at}.{one} and {at}.{two} are mutually exclusive and you have specified \
             both."
        ),
    )
}

/// Reads and checks a request, whole: either all of it counts or nothing.
pub(super) fn read(call: &Call) -> Result<Data, ApiError> {
    let request: Request<'_> = call.read()?;
    let namespace = text(request.namespace.as_ref(), "Namespace", NAME_CHARS_MAX)?;
    if namespace.starts_with(':') {
        return Err(invalid(format!("The value {namespace} for parameter Namespace is invalid.")));
    }
    if namespace.starts_with("AWS/") {
        return Err(invalid("The value AWS/ for parameter Namespace is invalid."));
    }
    let entities = request.entity_metric_data.iter().flat_map(|list| &list.0);
    let entities: Vec<_> = entities.filter_map(|one| one.0.metric_data.as_ref()).collect();
    if request.metric_data.is_none() && entities.is_empty() {
        return Err(missing("MetricData"));
    }
    let all = request.metric_data.iter().chain(entities).flat_map(|list| &list.0);
    let all: Vec<_> = all.collect();
    if all.len() > DATA_MAX {
        return Err(invalid(format!(
            "The collection MetricData must not have a size greater than {DATA_MAX}."
        )));
    }
    let measured = all.into_iter().enumerate();
    let measured =
        measured.map(|(n, datum)| one(&datum.0, &format!("MetricData.member.{}", n + 1)));
    Ok(Data { namespace, measured: measured.collect::<Result<_, _>>()? })
}

fn one(datum: &Datum<'_>, at: &str) -> Result<Measured, ApiError> {
    let name = text(datum.metric_name.as_ref(), &format!("{at}.MetricName"), NAME_CHARS_MAX)?;
    if datum.unit.as_ref().is_some_and(|unit| !UNITS.contains(&&**unit)) {
        return Err(invalid(format!(
            "The parameter {at}.Unit must be a value in the set [ {} ].",
            UNITS.join(", ")
        )));
    }
    if datum.storage_resolution.is_some_and(|seconds| seconds.0 < 1.0) {
        return Err(invalid(format!("The parameter {at}.StorageResolution must be at least 1.")));
    }
    let (samples, sum, maximum) = amounts(datum, at)?;
    Ok(Measured { name, dimensions: dimensions(datum, at)?, samples, sum, maximum })
}

fn dimensions(datum: &Datum<'_>, at: &str) -> Result<Vec<(String, String)>, ApiError> {
    let given = datum.dimensions.as_ref().map(|list| list.0.as_slice()).unwrap_or_default();
    if given.len() > DIMENSIONS_MAX {
        return Err(invalid(format!(
            "The collection {at}.Dimensions must not have a size greater than {DIMENSIONS_MAX}."
        )));
    }
    let mut dimensions = Vec::new();
    for (n, one) in given.iter().enumerate() {
        let at = format!("{at}.Dimensions.member.{}", n + 1);
        let name = text(one.0.name.as_ref(), &format!("{at}.Name"), NAME_CHARS_MAX)?;
        let value = text(one.0.value.as_ref(), &format!("{at}.Value"), DIMENSION_VALUE_CHARS_MAX)?;
        if dimensions.iter().any(|(other, _)| *other == name) {
            return Err(invalid(format!("No Metric may specify the same dimension twice: {name}")));
        }
        dimensions.push((name, value));
    }
    dimensions.sort();
    Ok(dimensions)
}

/// Samples, sum and maximum, of whichever way they were given in.
fn amounts(datum: &Datum<'_>, at: &str) -> Result<(f64, f64, f64), ApiError> {
    match (datum.value, &datum.statistic_values, &datum.values) {
        (Some(_), Some(_), _) => Err(both(at, "Value", "StatisticValues")),
        (Some(_), _, Some(_)) => Err(both(at, "Value", "Values")),
        (_, Some(_), Some(_)) => Err(both(at, "StatisticValues", "Values")),
        (Some(value), None, None) => {
            let value = number(value, &format!("{at}.Value"))?;
            Ok((1.0, value, value))
        }
        (None, Some(statistics), None) => {
            statistic(&statistics.0, &format!("{at}.StatisticValues"))
        }
        (None, None, Some(values)) => several(&values.0, datum.counts.as_ref(), at),
        (None, None, None) => Err(ApiError::new(
            "MissingRequiredParameterException",
            format!(
                "At least one of the parameters {at}.Value, {at}.Values or {at}.StatisticValues must be \
                 specified."
            ),
        )),
    }
}

fn statistic(statistics: &Statistics, at: &str) -> Result<(f64, f64, f64), ApiError> {
    let member = |value: Option<Amount>, name: &str| {
        let at = format!("{at}.{name}");
        number(value.ok_or_else(|| missing(&at))?, &at)
    };
    let samples = member(statistics.sample_count, "SampleCount")?;
    let sum = member(statistics.sum, "Sum")?;
    let minimum = member(statistics.minimum, "Minimum")?;
    let maximum = member(statistics.maximum, "Maximum")?;
    if samples <= 0.0 {
        return Err(invalid(format!(
            "The value for parameter {at}.SampleCount must be greater than 0."
        )));
    }
    if minimum > maximum {
        return Err(invalid(format!(
            "The value for parameter {at}.Minimum must not be greater than {at}.Maximum."
        )));
    }
    Ok((samples, sum, maximum))
}

fn several(
    values: &[Amount],
    counts: Option<&List<Amount>>,
    at: &str,
) -> Result<(f64, f64, f64), ApiError> {
    if values.is_empty() || values.len() > VALUES_MAX {
        return Err(invalid(format!(
            "The collection {at}.Values must have a size between 1 and {VALUES_MAX}."
        )));
    }
    if counts.is_some_and(|counts| counts.0.len() != values.len()) {
        return Err(invalid(format!(
            "The parameters {at}.Values and {at}.Counts must be of the same size."
        )));
    }
    let (mut samples, mut sum, mut maximum) = (0.0, 0.0, f64::NEG_INFINITY);
    for (n, value) in values.iter().enumerate() {
        let value = number(*value, &format!("{at}.Values.member.{}", n + 1))?;
        let count = counts
            .and_then(|counts| counts.0.get(n))
            .map_or(Ok(1.0), |count| number(*count, &format!("{at}.Counts.member.{}", n + 1)))?;
        if count < 0.0 {
            return Err(invalid(format!("The parameter {at}.Counts must not be negative.")));
        }
        samples += count;
        sum += count * value;
        maximum = maximum.max(value);
    }
    Ok((samples, sum, maximum))
}

fn number(Amount(n): Amount, at: &str) -> Result<f64, ApiError> {
    if n.is_finite() && n.abs() <= 2f64.powi(VALUE_EXPONENT_MAX) {
        return Ok(n);
    }
    Err(invalid(format!("The value {n} for parameter {at} is invalid.")))
}

fn text(value: Option<&Text<'_>>, at: &str, chars_max: usize) -> Result<String, ApiError> {
    let text = value.ok_or_else(|| missing(at))?;
    let count = text.chars().count();
    if count == 0 {
        return Err(missing(at));
    }
    if count > chars_max {
        return Err(invalid(format!(
            "The parameter {at} must be shorter than {} characters.",
            chars_max + 1
        )));
    }
    Ok(text.0.clone().into_owned())
}
