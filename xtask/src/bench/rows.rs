//! The rows of the table, and how each is measured.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::hydrant::{Folder, Server, number};
use super::table::Told;
use super::{Bench, peers, redis, s2, sleep, starts};
use crate::kept::thousands;
use crate::process::{is_root, told};

/// What the server verifies signatures with, and the load signs with.
const KEY: &str = "AKIDEXAMPLE:secret";
/// More than the tail cache that the server is then given holds.
const DISK_RECORDS: &str = "1000000";
/// How often the page cache is emptied while the disk is measured.
const COOL: Duration = Duration::from_millis(500);

/// A row of the table.
pub(super) struct Row {
    /// What `--only` calls it.
    pub(super) name: &'static str,
    /// What is measured.
    pub(super) what: &'static str,
    /// What it is to reach.
    pub(super) target: &'static str,
    /// Measures it.
    pub(super) measure: fn(&Bench) -> Result<Told>,
}

/// All rows, in the order of the table.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "put-1kib-signed",
        what: "PutRecords 500 × 1 KiB, signatures verified",
        target: "350 k records/s a core",
        measure: |bench| puts(bench, true, &["--record-bytes", "1024"]),
    },
    Row {
        name: "put-1kib",
        what: "the same, verification off",
        target: "650 k",
        measure: |bench| puts(bench, false, &["--record-bytes", "1024"]),
    },
    Row {
        name: "put-100b-signed",
        what: "PutRecords 500 × 100 B, signatures verified",
        target: "1.4 M",
        measure: |bench| puts(bench, true, &["--record-bytes", "100"]),
    },
    Row {
        name: "put-100b",
        what: "the same, verification off",
        target: "2.5 M",
        measure: |bench| puts(bench, false, &["--record-bytes", "100"]),
    },
    Row {
        name: "put-record",
        what: "PutRecord 1 × 100 B, 64 connections",
        target: "60 k requests/s",
        measure: |bench| {
            puts(bench, false, &["--record-bytes", "100", "--batch", "1", "--connections", "64"])
        },
    },
    Row {
        name: "put-lone",
        what: "a lone PutRecord, 100 B",
        target: "p50 0.5 ms",
        measure: |bench| {
            puts(bench, false, &["--record-bytes", "100", "--batch", "1", "--connections", "1"])
        },
    },
    Row {
        name: "get-cache",
        what: "GetRecords of 1 KiB from the tail cache",
        target: "2 GB/s a core",
        measure: get_cached,
    },
    Row {
        name: "get-disk",
        what: "GetRecords of 1 KiB from the disk, its cache emptied twice a second",
        target: "the disk's own speed",
        measure: get_from_disk,
    },
    Row {
        name: "fan-out-20",
        what: "20 fan-out consumers of a 50 MB/s stream",
        target: "one core",
        measure: fan_out_20,
    },
    Row {
        name: "fan-out-delay",
        what: "put → SubscribeToShard at half load",
        target: "one fsync + 1 ms / + 5 ms (p50 / p99)",
        measure: fan_out_delay,
    },
    Row {
        name: "idle-streams",
        what: "1 M idle streams",
        target: "< 1 GiB resident, start < 5 s",
        measure: starts::idle_streams,
    },
    Row {
        name: "start",
        what: "start with 10,000 shards and 100 GiB, after a clean stop and after kill -9",
        target: "< 1 s, < 3 s",
        measure: starts::much_data,
    },
    Row {
        name: "one-of-thousands",
        what: "reading one shard of 2,000 after a day of mixed traffic, against reading it alone",
        target: "at most 2 × slower",
        measure: one_of_thousands,
    },
    Row {
        name: "redis",
        what: "Redis XADD of 100 B, `appendfsync always`, 500 in a pipeline",
        target: "to beat",
        measure: redis::xadd,
    },
    Row {
        name: "s2-lite",
        what: "s2-lite on a local directory, 500 × 100 B in a request",
        target: "to beat",
        measure: s2::appends,
    },
    Row {
        name: "ferrokinesis",
        what: "ferrokinesis, PutRecords 500 × 100 B",
        target: "to beat",
        measure: peers::ferrokinesis,
    },
    Row {
        name: "kinesis-local",
        what: "kinesis-local, PutRecords 500 × 100 B",
        target: "to beat",
        measure: peers::kinesis_local,
    },
];

/// The words of a command as one types them.
fn typed(words: &[&str]) -> String {
    format!("hydrant bench {}", words.join(" "))
}

fn puts(bench: &Bench, signed: bool, load: &[&str]) -> Result<Told> {
    let folder = Folder::new()?;
    let key = ["--access-key", KEY];
    let server = Server::start(bench, &folder, if signed { &key } else { &[] })?;
    let seconds = bench.seconds.to_string();
    let mut words = [&["put"], load, &["--seconds", &seconds]].concat();
    if signed {
        words.extend(key);
    }
    let report = server.load(&words)?;
    server.stop()?;
    let measured = format!(
        "{} records/s ({:.0} MiB/s), **{}** a second of the server's processor time; p50 {:.2} ms, \
         p99 {:.2} ms",
        thousands(number(&report, "/records_a_second")?),
        number(&report, "/mib_a_second")?,
        thousands(number(&report, "/records_a_server_cpu_second")?),
        number(&report, "/milliseconds/p50")?,
        number(&report, "/milliseconds/p99")?,
    );
    Ok(Told { measured, command: typed(&words), reports: report })
}

fn got(report: &Value) -> Result<String> {
    let each = number(report, "/records_a_server_cpu_second")?;
    let bytes = number(report, "/bytes")? / number(report, "/records")?;
    Ok(format!(
        "{:.0} MiB/s, **{:.2} GB/s** a second of the server's processor time",
        number(report, "/mib_a_second")?,
        each * bytes / 1e9,
    ))
}

fn get_cached(bench: &Bench) -> Result<Told> {
    let folder = Folder::new()?;
    let server = Server::start(bench, &folder, &[])?;
    let seconds = bench.seconds.to_string();
    let words = ["get", "--records", "150000", "--seconds", &seconds];
    let report = server.load(&words)?;
    server.stop()?;
    Ok(Told { measured: got(&report)?, command: typed(&words), reports: report })
}

/// With next to no tail cache, while the kernel's cache is emptied again and again.
fn get_from_disk(bench: &Bench) -> Result<Told> {
    ensure!(is_root(), "only root empties the kernel's cache");
    let folder = Folder::new()?;
    let server = Server::start(bench, &folder, &["--tail-cache-mib", "1"])?;
    let seconds = bench.seconds.to_string();
    let words = ["get", "--records", DISK_RECORDS, "--seconds", &seconds];
    let over = AtomicBool::new(false);
    let report = std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let _ = fs::write("/proc/sys/vm/drop_caches", "1");
                sleep(COOL);
            }
        });
        let report = server.load(&words);
        over.store(true, Ordering::SeqCst);
        report
    })?;
    server.stop()?;
    let command = format!("{} (server: --tail-cache-mib 1)", typed(&words));
    Ok(Told { measured: got(&report)?, command, reports: report })
}

fn fan_out(bench: &Bench, load: &[&str]) -> Result<(Value, String)> {
    let folder = Folder::new()?;
    let server = Server::start(bench, &folder, &[])?;
    let seconds = bench.seconds.to_string();
    let words = [&["fan-out"], load, &["--seconds", &seconds]].concat();
    let report = server.load(&words)?;
    server.stop()?;
    Ok((report, typed(&words)))
}

fn fan_out_20(bench: &Bench) -> Result<Told> {
    let load = ["--consumers", "20", "--rate", "50000", "--record-bytes", "1000"];
    let (report, command) = fan_out(bench, &load)?;
    let measured = format!(
        "{:.0} MB/s delivered with **{:.2} cores**; p50 {:.1} ms, p99 {:.1} ms",
        number(&report, "/bytes")? / number(&report, "/seconds")? / 1e6,
        number(&report, "/server/cpu_seconds")? / number(&report, "/seconds")?,
        number(&report, "/milliseconds/p50")?,
        number(&report, "/milliseconds/p99")?,
    );
    Ok(Told { measured, command, reports: report })
}

/// At half of what the server takes when it is not held back.
fn fan_out_delay(bench: &Bench) -> Result<Told> {
    let full = puts(bench, false, &["--record-bytes", "100"])?;
    let rate = (number(&full.reports, "/records_a_second")? / 2.0) as u64;
    let rate = rate.to_string();
    let (half, command) = fan_out(bench, &["--rate", &rate, "--record-bytes", "100"])?;
    let (calm, _) = fan_out(bench, &["--rate", "1000", "--record-bytes", "100"])?;
    let quantiles = |report: &Value| -> Result<String> {
        let at = |path| number(report, path);
        Ok(format!("{:.2} ms / {:.2} ms", at("/milliseconds/p50")?, at("/milliseconds/p99")?))
    };
    let measured = format!(
        "**{}** at {} records/s of 100 B; {} at 1,000",
        quantiles(&half)?,
        thousands(number(&half, "/records_a_second")?),
        quantiles(&calm)?,
    );
    Ok(Told { measured, command, reports: json!([half, calm]) })
}

fn one_of_thousands(bench: &Bench) -> Result<Told> {
    let mut command = Command::new(bench.program("mixed"));
    let report = told(command.args(["--shards", "2000", "--mib", "4096"]))?;
    let measured = format!(
        "{:.0} MiB/s, alone {:.0} MiB/s: **{:.2} ×** as long",
        number(&report, "/mixed_mib_a_second")?,
        number(&report, "/alone_mib_a_second")?,
        number(&report, "/times_slower")?,
    );
    let command = "cargo run --release -p hydrant-measure --bin mixed -- --shards 2000 --mib 4096";
    Ok(Told { measured, command: command.to_owned(), reports: report })
}
