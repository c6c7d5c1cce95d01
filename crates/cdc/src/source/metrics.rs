//! What `/metrics` shows of sources. A series is there as long as its source is.

use std::fmt::Write as _;
use std::sync::Arc;

use hydrant_core::capture::TableState;

use crate::source::board::{Board, OPS, RETAINED_PART_URGENT, RETAINED_PART_WARNED, Shown};

/// Appends a value as a label's: a backslash before what would end it.
fn label(name: &str, value: &str, out: &mut String) {
    let _ = write!(out, "{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

type Gauge = fn(&Shown) -> Option<f64>;

/// Name, help, type, and the value of one source.
const OF_SOURCE: &[(&str, &str, &str, Gauge)] = &[
    (
        "lag_bytes",
        "Write-ahead log between what is confirmed and the server's end.",
        "gauge",
        |s| Some(s.lag_bytes() as f64),
    ),
    ("retained_wal_bytes", "Write-ahead log that the slot holds on the server.", "gauge", |s| {
        s.retained.map(|n| n as f64)
    }),
    (
        "safe_wal_size_bytes",
        "What may still be written before the slot is in danger.",
        "gauge",
        |s| s.safe_wal.map(|n| n as f64),
    ),
    (
        "retained_wal_warning",
        "Part of what a slot may hold that it holds: 0 below a half, 1 from 50 %, 2 from 80 %.",
        "gauge",
        |s| {
            let part = s.retained_part()?;
            let grade = |from: f64| u8::from(part >= from);
            Some(f64::from(grade(RETAINED_PART_WARNED) + grade(RETAINED_PART_URGENT)))
        },
    ),
    ("records_total", "Records written since the process began.", "counter", |s| {
        Some(s.records as f64)
    }),
    ("reconnects_total", "Connections lost since the process began.", "counter", |s| {
        Some(s.reconnects as f64)
    }),
    ("epoch", "Which snapshot the records follow from.", "gauge", |s| Some(s.cut.epoch as f64)),
    ("tables_errored", "Tables that are stopped.", "gauge", |s| {
        let errored = s.tables.values().filter(|t| t.captured.state == TableState::Errored);
        Some(errored.count() as f64)
    }),
    ("snapshot_rows", "Rows read by the snapshot.", "gauge", |s| {
        Some(s.tables.values().map(|t| t.captured.snapshot_rows).sum::<u64>() as f64)
    }),
    ("snapshot_rows_estimated", "Rows that the server expected to have.", "gauge", |s| {
        let known = s.tables.values().filter_map(|t| t.captured.snapshot_rows_estimated);
        Some(known.sum::<u64>() as f64)
    }),
];

pub(crate) fn write(boards: &[Arc<Board>], out: &mut String) {
    let shown: Vec<(Shown, f64, f64)> = boards
        .iter()
        .map(|board| {
            let now = board.now();
            board.read(|shown| {
                let age = shown.unconfirmed_since.map_or(0.0, |at| now.since(at).as_secs_f64());
                (shown.clone(), shown.lag_seconds(now), age)
            })
        })
        .collect();
    if shown.is_empty() {
        return;
    }
    let head = |out: &mut String, name: &str, help: &str, kind: &str| {
        let _ = writeln!(out, "# HELP hydrant_source_{name} {help}");
        let _ = writeln!(out, "# TYPE hydrant_source_{name} {kind}");
    };
    let sample =
        |out: &mut String, name: &str, shown: &Shown, more: &[(&str, &str)], value: f64| {
            let _ = write!(out, "hydrant_source_{name}{{");
            label("source", &shown.settings.name, out);
            for (name, value) in more {
                out.push(',');
                label(name, value, out);
            }
            let _ = writeln!(out, "}} {value}");
        };
    head(out, "state", "1 for the state that the source is in.", "gauge");
    for (shown, ..) in &shown {
        sample(out, "state", shown, &[("state", &shown.state.name())], 1.0);
    }
    for (name, help, kind, value) in OF_SOURCE {
        head(out, name, help, kind);
        for (shown, ..) in &shown {
            if let Some(value) = value(shown) {
                sample(out, name, shown, &[], value);
            }
        }
    }
    head(out, "lag_seconds", "Age of the oldest change that is not in the stream yet.", "gauge");
    for (shown, lag, _) in &shown {
        sample(out, "lag_seconds", shown, &[], *lag);
    }
    let help = "Age of the oldest change that was not confirmed to the server.";
    head(out, "oldest_unconfirmed_seconds", help, "gauge");
    for (shown, _, age) in &shown {
        sample(out, "oldest_unconfirmed_seconds", shown, &[], *age);
    }
    for (name, help, bytes) in [
        ("table_records_total", "Records by table and operation since the process began.", false),
        ("table_bytes_total", "Bytes of records by table and operation.", true),
    ] {
        head(out, name, help, "counter");
        for (shown, ..) in &shown {
            for (table, counts) in &shown.counts {
                let table = table.to_string();
                for ((_, op), count) in OPS.iter().zip(counts).filter(|(_, c)| c.records > 0) {
                    let value = if bytes { count.bytes } else { count.records };
                    let labels = [("table", table.as_str()), ("op", op)];
                    sample(out, name, shown, &labels, value as f64);
                }
            }
        }
    }
}
