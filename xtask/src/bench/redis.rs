//! Redis, as a measure of what a durable append costs elsewhere.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Bench;
use super::hydrant::{Folder, Process};
use super::peers::{BATCH, RECORD_BYTES, appended, connect, free_port};
use super::table::Told;
use crate::kept::thousands;
use crate::process::{apt_install, present};

/// XADD in pipelines over some connections, each to a stream of its own.
pub(super) fn xadd(bench: &Bench) -> Result<Told> {
    if !present("redis-server") {
        apt_install("redis-server")?;
    }
    let folder = Folder::new()?;
    let port = free_port()?;
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always", "--port", &port.to_string(), "--dir"])
        .arg(folder.path())
        .stdout(Stdio::null());
    let server = Process::start(&mut command)?;
    let (counts, seconds) = appended(bench, |number| {
        let (mut connection, pipeline) = (Connection::open(port)?, pipeline(number));
        Ok(move || connection.send(&pipeline))
    })?;
    drop(server);
    let rate = counts as f64 / seconds;
    let measured = format!("{} records/s", thousands(rate));
    let command = "cargo xtask bench --only redis".to_owned();
    Ok(Told { measured, command, reports: json!({"records": counts, "seconds": seconds}) })
}

/// The commands of a pipeline, in Redis' protocol (RESP).
fn pipeline(number: usize) -> Vec<u8> {
    let (key, data) = (format!("s{number}"), "x".repeat(RECORD_BYTES));
    let mut one = String::from("*5\r\n");
    for word in ["XADD", &key, "*", "d", &data] {
        one.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    one.repeat(BATCH).into_bytes()
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Result<Self> {
        connect(port).map(Self)
    }

    /// Sends a pipeline and waits until all of it is answered: each answer has two lines.
    fn send(&mut self, pipeline: &[u8]) -> Result<()> {
        self.0.get_mut().write_all(pipeline)?;
        let (mut lines, mut last, mut bytes) = (0, b'\n', [0; 16 << 10]);
        while lines < 2 * BATCH {
            let length = self.0.read(&mut bytes).context("Redis answers no more")?;
            ensure!(length > 0, "Redis closed the connection");
            for &byte in &bytes[..length] {
                ensure!(last != b'\n' || byte != b'-', "Redis refused a command");
                lines += usize::from(byte == b'\n');
                last = byte;
            }
        }
        Ok(())
    }
}
