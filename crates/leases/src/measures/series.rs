//! What was reported, by metric and dimensions, bounded in number.

use std::collections::HashMap;
use std::fmt::Write as _;

use hydrant_core::names::Scope;

use super::request::{Data, Measured};

/// Most series that are kept.
const SERIES_MAX: usize = 10_000;
/// How many are forgotten at least, the least recent first, when there are as many.
const FORGOTTEN_AT_ONCE: usize = SERIES_MAX / 16;

/// What tells one series from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Name {
    scope: Scope,
    namespace: String,
    metric: String,
    dimensions: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Series {
    samples: f64,
    sum: f64,
    /// The greatest sample of the last report.
    maximum: f64,
    reported: u64,
}

/// Every series.
#[derive(Debug, Default)]
pub(super) struct All {
    series: HashMap<Name, Series>,
    reports: u64,
}

impl All {
    /// Adds a report.
    pub(super) fn add(&mut self, scope: &Scope, data: Data) {
        self.reports += 1;
        for Measured { name, dimensions, samples, sum, maximum } in data.measured {
            let name = Name {
                scope: scope.clone(),
                namespace: data.namespace.clone(),
                metric: name,
                dimensions,
            };
            if !self.series.contains_key(&name) && self.series.len() >= SERIES_MAX {
                self.forget();
            }
            let series = self.series.entry(name).or_default();
            series.samples += samples;
            series.sum += sum;
            series.maximum = maximum;
            series.reported = self.reports;
        }
    }

    /// Forgets what was last reported in the oldest reports.
    fn forget(&mut self) {
        let mut reported: Vec<u64> = self.series.values().map(|series| series.reported).collect();
        reported.sort_unstable();
        let until = reported.get(FORGOTTEN_AT_ONCE - 1).copied().unwrap_or(u64::MAX);
        self.series.retain(|_, series| series.reported > until);
    }

    /// All of it, as Prometheus reads it.
    pub(super) fn exposition(&self) -> String {
        let mut all: Vec<_> = self.series.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, show: fn(&Series) -> f64| {
            if all.is_empty() {
                return;
            }
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (of, series) in &all {
                let _ = writeln!(out, "{name}{{{}}} {}", labels(of), show(series));
            }
        };
        family(
            "hydrant_reported_samples_total",
            "counter",
            "Samples that clients reported with PutMetricData.",
            |series| series.samples,
        );
        family(
            "hydrant_reported_sum_total",
            "counter",
            "Sum of the samples that clients reported with PutMetricData.",
            |series| series.sum,
        );
        family(
            "hydrant_reported_maximum",
            "gauge",
            "Greatest sample of the last report with PutMetricData.",
            |series| series.maximum,
        );
        self.lag(&all, &mut out);
        out
    }

    /// How far behind KCL says it is.
    fn lag(&self, all: &[(&Name, &Series)], out: &mut String) {
        let mut behind: HashMap<[String; 5], &Series> = HashMap::new();
        for (name, series) in all.iter().filter(|(name, _)| name.metric == "MillisBehindLatest") {
            let dimension = |wanted: &str| {
                let found = name.dimensions.iter().find(|(name, _)| name == wanted);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            let shard = dimension("ShardId");
            if shard.is_empty() {
                continue;
            }
            let [account, region] = [name.scope.account.to_string(), name.scope.region.to_string()];
            let key = [account, region, name.namespace.clone(), dimension("StreamId"), shard];
            // Several workers and operations may have reported it: the last one counts.
            let latest = behind.entry(key).or_insert(series);
            if series.reported >= latest.reported {
                *latest = series;
            }
        }
        if behind.is_empty() {
            return;
        }
        let mut behind: Vec<_> = behind.into_iter().collect();
        behind.sort_by(|(a, _), (b, _)| a.cmp(b));
        out.push_str(
            "# HELP hydrant_kcl_millis_behind_latest How far behind a KCL application says it is.\n\
             # TYPE hydrant_kcl_millis_behind_latest gauge\n",
        );
        for ([account, region, application, stream, shard], series) in behind {
            let mut labels = vec![
                ("account", account),
                ("region", region),
                ("application", application),
                ("shard", shard),
            ];
            if !stream.is_empty() {
                labels.push(("stream", stream));
            }
            let labels: Vec<_> = labels.iter().map(|(name, value)| label(name, value)).collect();
            let (labels, value) = (labels.join(","), series.maximum);
            let _ = writeln!(out, "hydrant_kcl_millis_behind_latest{{{labels}}} {value}");
        }
    }
}

fn labels(name: &Name) -> String {
    let mut labels = vec![
        ("account".to_owned(), name.scope.account.to_string()),
        ("region".to_owned(), name.scope.region.to_string()),
        ("namespace".to_owned(), name.namespace.clone()),
        ("metric".to_owned(), name.metric.clone()),
    ];
    for (dimension, value) in &name.dimensions {
        let mut of = snake(dimension);
        while labels.iter().any(|(taken, _)| *taken == of) {
            of.push('_');
        }
        labels.push((of, value.clone()));
    }
    let labels: Vec<_> = labels.iter().map(|(name, value)| label(name, value)).collect();
    labels.join(",")
}

/// `WorkerIdentifier` as `worker_identifier`: a label's name has letters, digits and `_` only.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) || out.starts_with("__") {
        out.insert_str(0, "d_");
    }
    out
}

/// A label as Prometheus reads it.
pub(crate) fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}
