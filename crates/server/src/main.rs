//! The `hydrant` binary: settings, log, and the life of one server.

mod admin;
mod archive;
mod config;
mod declared;
mod demo;
mod endpoints;
mod listener;
mod log_tools;
mod master_key;
mod patience;
mod router;
mod stores;
mod telemetry;
mod tls;
mod wiring;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use hydrant_bench::Measurement;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use config::{Cli, Command, Settings};

/// Stack of a thread that serves requests.
const STACK_BYTES: usize = 4 << 20;
/// Stack of a thread that runs SQL, whose planner recurses. Only what is used of it is memory.
const SQL_STACK_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    start().unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

fn start() -> Result<ExitCode> {
    let cli: Cli = config::parse()?;
    let (settings, demo) = match cli.command {
        Command::Serve(settings) => (settings, None),
        Command::Demo(demo) => (demo.settings, Some(demo.exit)),
        Command::Log(tool) => {
            return Ok(log_tools::run(&tool).unwrap_or_else(|error| {
                complain(&error);
                log_tools::failed()
            }));
        }
        Command::Bench(measurement) => return bench(&measurement).map(|()| ExitCode::SUCCESS),
        Command::Backup(settings) => {
            let runtime = build("hydrant-backup", STACK_BYTES)?;
            return runtime.block_on(archive::backup(&settings)).map(|()| ExitCode::SUCCESS);
        }
        Command::Restore(settings) => {
            let runtime = build("hydrant-restore", STACK_BYTES)?;
            return runtime.block_on(archive::restore(&settings)).map(|()| ExitCode::SUCCESS);
        }
    };
    settings.check()?;
    telemetry::start(&settings, demo.is_some())?;
    raise_descriptors();
    let runtime = build("hydrant", STACK_BYTES)?;
    // A heavy statement may hold every thread of its runtime: records and objects have another.
    let sql = build("hydrant-sql", SQL_STACK_BYTES)?;
    let outcome = runtime.block_on(run(settings, demo, sql.handle().clone()));
    // Whatever still runs holds nothing that was acknowledged: the log and the stores are closed.
    sql.shutdown_background();
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Allows as many files and connections as this process may have: the usual soft limit is low, and a
/// log that cannot open its files stops.
fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays low; raise it with ulimit -n");
    }
}

/// Loads a server, of this program or another, and prints what it took.
fn bench(measurement: &Measurement) -> Result<()> {
    let runtime = build("hydrant-bench", STACK_BYTES)?;
    let report = runtime.block_on(hydrant_bench::run(measurement))?;
    let mut out = std::io::stdout().lock();
    if measurement.json() {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{report}")?;
    }
    if report.missing > 0 {
        bail!("{} records were acknowledged and not delivered", report.missing);
    }
    Ok(())
}

fn build(name: &str, stack_bytes: usize) -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .thread_stack_size(stack_bytes)
        .build()
        .context("cannot start the runtime")
}

async fn run(settings: Settings, demo: Option<bool>, sql: Handle) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stop = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    // Nothing is acknowledged before every endpoint answers: a start may be left where it is.
    let server = tokio::select! {
        server = wiring::start(&settings, &sql) => server?,
        () = stop() => return Ok(()),
    };
    let played = match demo {
        None => {
            server.greet();
            Ok(false)
        }
        Some(exit) => tokio::select! {
            played = demo::run(&server) => played.map(|()| exit),
            // A script must not take half a demo for a whole one.
            () = stop() => match exit {
                true => Err(anyhow!("stopped before the demo was through")),
                false => Ok(true),
            },
        },
    };
    if let Ok(false) = played {
        stop().await;
    }
    tokio::select! {
        () = server.stop() => {}
        () = stop() => tracing::warn!("stopped at once; what was acknowledged is on disk"),
    }
    played.map(|_| ())
}

#[allow(clippy::print_stderr, reason = "the last word of a command that failed")]
fn complain(error: &anyhow::Error) {
    eprintln!("hydrant: {error:#}");
}
