//! s2-lite, a durable log of many streams on files, as a measure of what an append costs elsewhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Bench;
use super::hydrant::{Folder, Process};
use super::peers::{BATCH, RECORD_BYTES, appended, connect, free_port, installed_by_cargo};
use super::table::Told;
use crate::kept::thousands;

const S2_LITE: &str = "s2-lite@0.43.4";
const BASIN: &str = "hydrant-bench";

/// Appends over some connections, each to a stream of its own, small records and such of 1 KiB. An answer
/// comes once it is on the disk.
pub(super) fn appends(bench: &Bench) -> Result<Told> {
    let program = installed_by_cargo("server", S2_LITE)?;
    let folder = Folder::new()?;
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .args(["--port", &port.to_string(), "--local-root"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let server = Process::start(&mut command)?;
    Connection::open(port)?.post("/v1/basins", &json!({"basin": BASIN}).to_string())?;
    let small = rate(bench, port, RECORD_BYTES)?;
    let kib = rate(bench, port, 1024)?;
    drop(server);
    let measured = format!("{} records/s; of 1 KiB {}", thousands(small), thousands(kib));
    let command = "cargo xtask bench --only s2-lite".to_owned();
    Ok(Told { measured, command, reports: json!({"small": small, "kib": kib}) })
}

/// Records a second.
fn rate(bench: &Bench, port: u16, record_bytes: usize) -> Result<f64> {
    let record = json!({"body": "x".repeat(record_bytes)});
    let batch = json!({"records": vec![record; BATCH]}).to_string();
    let (records, seconds) = appended(bench, |number| {
        let mut connection = Connection::open(port)?;
        let stream = format!("s{number}-{record_bytes}");
        connection.post("/v1/streams", &json!({"stream": stream}).to_string())?;
        let (path, batch) = (format!("/v1/streams/{stream}/records"), &batch);
        Ok(move || connection.post(&path, batch))
    })?;
    Ok(records as f64 / seconds)
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Result<Self> {
        connect(port).map(Self)
    }

    /// Sends a request and waits for its answer, which has a length.
    fn post(&mut self, path: &str, body: &str) -> Result<()> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\ns2-basin: {BASIN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut lines, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "s2-lite closed the connection");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            lines.push(line);
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).context("s2-lite answers no more")?;
        let well = lines.first().is_some_and(|line| line.split(' ').nth(1).is_some_and(is_success));
        ensure!(well, "s2-lite answers {path} with {lines:?} {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

fn is_success(status: &str) -> bool {
    status.starts_with('2')
}
