//! Other servers of Kinesis's API, under the same load as hydrant in the same run.

use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::hydrant::{Folder, Process, load, number};
use super::table::Told;
use super::{Bench, now, sleep};
use crate::kept::thousands;
use crate::process::{cargo, quietly, root, succeeds};

const FERROKINESIS: &str = "ferrokinesis@0.7.0";
const KINESIS_LOCAL: &str = "kinesis-local@0.6.2";
/// They want a signature, and verify none.
const KEY: &str = "AKIDEXAMPLE:secret";
/// Records of a request.
pub(super) const BATCH: usize = 500;
/// Bytes of each.
pub(super) const RECORD_BYTES: usize = 100;
const CONNECTIONS: usize = 4;
const LISTENS_MAX: u32 = 500;
const ANSWER_MAX: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// ferrokinesis, in memory and with its state on the disk, which is what it has that is durable.
pub(super) fn ferrokinesis(bench: &Bench) -> Result<Told> {
    let program = installed_by_cargo("ferrokinesis", FERROKINESIS)?;
    let start = |folder: &Folder, durable: bool| -> Result<(Process, u16)> {
        let port = free_port()?;
        let mut command = Command::new(&program);
        command.args(["--port", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        if durable {
            command.arg("--state-dir").arg(folder.path());
        }
        Ok((Process::start(&mut command)?, port))
    };
    let memory = puts(bench, |folder| start(folder, false))?;
    let disk = puts(bench, |folder| start(folder, true))?;
    let measured = format!("in memory {}; with `--state-dir` {}", told(&memory)?, told(&disk)?);
    let command = "cargo xtask bench --only ferrokinesis".to_owned();
    Ok(Told { measured, command, reports: json!([memory, disk]) })
}

/// kinesis-local, which has nothing durable.
pub(super) fn kinesis_local(bench: &Bench) -> Result<Told> {
    let package = installed_by_npm()?;
    let report = puts(bench, |_| {
        let (port, tls_port) = (free_port()?, free_port()?);
        let mut command = Command::new("node");
        // It reads the certificate that comes with it from where it is started.
        command
            .arg("main.js")
            .current_dir(&package)
            .env("KINESIS_MOCK_PLAIN_PORT", port.to_string())
            .env("KINESIS_MOCK_TLS_PORT", tls_port.to_string())
            .env("SHARD_LIMIT", "100")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok((Process::start(&mut command)?, port))
    })?;
    let measured = format!("in memory {}", told(&report)?);
    let command = "cargo xtask bench --only kinesis-local".to_owned();
    Ok(Told { measured, command, reports: report })
}

/// The report of puts of 500 × 100 B at a server that `start` starts.
fn puts(bench: &Bench, start: impl Fn(&Folder) -> Result<(Process, u16)>) -> Result<Value> {
    let folder = Folder::new()?;
    let (server, port) = start(&folder)?;
    connect(port)?;
    let (endpoint, id) = (format!("http://127.0.0.1:{port}"), server.id().to_string());
    let server_is = ["--endpoint", &endpoint, "--server-pid", &id, "--access-key", KEY];
    let seconds = bench.seconds.to_string();
    load(
        bench,
        &[&["put", "--record-bytes", "100", "--seconds", &seconds], &server_is[..]].concat(),
    )
}

/// The records that some connections append, [`BATCH`] at a time each, and the seconds it took. `open`
/// opens a connection, with a stream of its own, and gives what sends a batch and waits for its answer.
pub(super) fn appended<Send>(
    bench: &Bench,
    open: impl Fn(usize) -> Result<Send> + Sync,
) -> Result<(u64, f64)>
where
    Send: FnMut() -> Result<()>,
{
    let (began, duration) = (now(), Duration::from_secs(bench.seconds));
    let write = |number| -> Result<u64> {
        let (mut send, mut records) = (open(number)?, 0);
        while began.elapsed() < duration {
            send()?;
            records += BATCH as u64;
        }
        Ok(records)
    };
    let records = std::thread::scope(|threads| {
        let writers: Vec<_> =
            (0..CONNECTIONS).map(|number| threads.spawn(move || write(number))).collect();
        let joined =
            writers.into_iter().map(|writer| writer.join().ok().context("a writer broke")?);
        joined.sum::<Result<u64>>()
    })?;
    Ok((records, began.elapsed().as_secs_f64()))
}

fn told(report: &Value) -> Result<String> {
    Ok(format!(
        "{} records/s, **{}** a second of its processor time",
        thousands(number(report, "/records_a_second")?),
        thousands(number(report, "/records_a_server_cpu_second")?),
    ))
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A connection to a server, once it listens. Who waits for an answer does not wait for ever.
pub(super) fn connect(port: u16) -> Result<BufReader<TcpStream>> {
    for _ in 0..LISTENS_MAX {
        if let Ok(socket) = TcpStream::connect(("127.0.0.1", port)) {
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(ANSWER_MAX))?;
            return Ok(BufReader::new(socket));
        }
        sleep(LOOK);
    }
    bail!("nothing listens on port {port}")
}

/// Where what is installed for this alone lies.
fn folder() -> PathBuf {
    root().join("target/peers")
}

pub(super) fn installed_by_cargo(name: &str, version: &str) -> Result<PathBuf> {
    let program = folder().join("bin").join(name);
    if !program.is_file() {
        let place = folder();
        let words = ["install", "--locked", "--root", &place.to_string_lossy(), version];
        ensure!(succeeds(&mut cargo(&words))?, "{version} does not install");
    }
    Ok(program)
}

/// The folder of the package.
fn installed_by_npm() -> Result<PathBuf> {
    let package = folder().join("node_modules/kinesis-local");
    if !package.join("main.js").is_file() {
        let mut command = Command::new("npm");
        command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(folder());
        quietly(command.arg(KINESIS_LOCAL))?;
    }
    Ok(package)
}
