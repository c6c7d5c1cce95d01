//! How a server starts on much, and what idle streams cost.

use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::Bench;
use super::hydrant::{Folder, Server, number};
use super::table::Told;
use crate::kept::thousands;
use crate::process::told;

const SHARDS: &str = "10000";
const GIB: &str = "100";
const MIB: f64 = 1_048_576.0;

/// Streams that are made through the API and never used, and a start with all of them.
pub(super) fn idle_streams(bench: &Bench) -> Result<Told> {
    let folder = Folder::new()?;
    let count = bench.streams.to_string();
    let limit = (bench.streams + 1).to_string();
    let arguments = ["--shard-limit", &limit];
    let server = Server::start(bench, &folder, &arguments)?;
    let empty = server.process().resident_bytes()?;
    let report = server.load(&["streams", "--count", &count, "--connections", "256"])?;
    let made = server.process().resident_bytes()?;
    server.stop()?;
    let server = Server::start(bench, &folder, &arguments)?;
    let started_in = server.started_in.as_secs_f64();
    let resident = server.process().resident_bytes()?;
    server.stop()?;
    let each = (resident as f64 - empty as f64) / bench.streams as f64;
    let measured = format!(
        "{} streams: **{:.0} MiB** resident after a start of **{started_in:.2} s**, {each:.0} bytes \
         each (1 M at as much each: {:.0} MiB); {:.0} MiB when they were just made, in {:.0} s \
         ({} a second)",
        thousands(bench.streams as f64),
        resident as f64 / MIB,
        (empty as f64 + each * 1e6) / MIB,
        made as f64 / MIB,
        number(&report, "/seconds")?,
        thousands(number(&report, "/requests")? / number(&report, "/seconds")?),
    );
    let command = format!("hydrant bench streams --count {count} --connections 256");
    let reports = json!({"made": report, "empty_bytes": empty, "made_bytes": made,
        "resident_bytes": resident, "start_seconds": started_in});
    Ok(Told { measured, command, reports })
}

/// A start after a clean stop, and one after a kill in the middle of a load.
pub(super) fn much_data(bench: &Bench) -> Result<Told> {
    let folder = Folder::new()?;
    let arguments = ["--shard-limit", "20000"];
    let server = Server::start(bench, &folder, &arguments)?;
    server.load(&["streams", "--count", SHARDS, "--connections", "64"])?;
    let data = server.data().to_owned();
    server.stop()?;
    let mut sparse = Command::new(bench.program("sparse"));
    let filled = told(sparse.arg(&data).args(["--gib", GIB]))?;
    // The one that stops cleanly is the server.
    Server::start(bench, &folder, &arguments)?.stop()?;
    let server = Server::start(bench, &folder, &arguments)?;
    let clean = server.started_in.as_secs_f64();
    // Leaves a segment that is half written.
    server.load(&["put", "--seconds", "2"])?;
    server.kill();
    let server = Server::start(bench, &folder, &arguments)?;
    let killed = server.started_in.as_secs_f64();
    server.stop()?;
    let measured = format!("**{clean:.2} s** after a clean stop, **{killed:.2} s** after kill -9");
    let command = format!("sparse DATA --gib {GIB}, then hydrant serve --data-dir DATA");
    let reports = json!({"filled": filled, "clean_seconds": clean, "killed_seconds": killed});
    Ok(Told { measured, command, reports })
}
