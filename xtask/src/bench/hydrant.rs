//! A server that is measured, and the load that measures it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Bench, sleep};
use crate::process::{now, told};

const READY_MAX: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(2);

/// A folder that is removed again.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("hydrant-bench-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed when it is dropped.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("cannot run {command:?}"))?))
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    fn status(&self, what: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// Bytes resident.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        self.status("VmRSS:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server on a data directory.
pub(super) struct Server<'a> {
    bench: &'a Bench,
    data: PathBuf,
    process: Process,
    /// From the start of the process until it was ready.
    pub(super) started_in: Duration,
}

impl<'a> Server<'a> {
    /// Starts one and waits until it is ready.
    pub(super) fn start(bench: &'a Bench, folder: &Folder, arguments: &[&str]) -> Result<Self> {
        let data = folder.path().join("data");
        let described = data.join("endpoints.json");
        let _ = fs::remove_file(&described);
        let log =
            File::options().create(true).append(true).open(folder.path().join("server.log"))?;
        let anywhere = "127.0.0.1:0";
        let mut command = Command::new(&bench.hydrant);
        command
            .args(["serve", "--listen", anywhere, "--pg-listen", anywhere])
            .args(["--admin-listen", anywhere, "--data-dir"])
            .arg(&data)
            .args(arguments)
            .stdout(log.try_clone()?)
            .stderr(log);
        let began = now();
        let mut process = Process::start(&mut command)?;
        while began.elapsed() < READY_MAX {
            if let Some(status) = process.0.try_wait()? {
                let said = fs::read_to_string(folder.path().join("server.log"))?;
                bail!("the server ended with {status}\n{said}");
            }
            let told = fs::read(&described).ok().and_then(|t| serde_json::from_slice(&t).ok());
            if told.is_some_and(|told: Value| is_ready(&told)) {
                return Ok(Self { bench, data, process, started_in: began.elapsed() });
            }
            sleep(LOOK);
        }
        bail!("the server was not ready in {READY_MAX:?}")
    }

    /// Its process.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Its data directory.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Runs `hydrant bench` on it with these words, and gives its report.
    pub(super) fn load(&self, arguments: &[&str]) -> Result<Value> {
        load(self.bench, &[arguments, &["--data-dir", &self.data.to_string_lossy()]].concat())
    }

    /// Asks it to stop, as an init system does, and waits.
    pub(super) fn stop(mut self) -> Result<()> {
        let id = self.process.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "kill -TERM {id}");
        let status = self.process.0.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    /// Ends it at once, as `kill -9` does.
    pub(super) fn kill(self) {
        drop(self);
    }
}

/// Runs `hydrant bench` with these words, and gives its report.
pub(super) fn load(bench: &Bench, arguments: &[&str]) -> Result<Value> {
    told(Command::new(&bench.hydrant).arg("bench").args(arguments).arg("--json"))
}

fn is_ready(told: &Value) -> bool {
    let ask = || -> Option<bool> {
        let address = told["admin"].as_str()?.strip_prefix("http://")?;
        let mut socket = TcpStream::connect(address).ok()?;
        write!(socket, "GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer.split(' ').nth(1) == Some("200"))
    };
    ask().unwrap_or(false)
}

/// A number of a report.
pub(super) fn number(report: &Value, path: &str) -> Result<f64> {
    report.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {report}"))
}
