//! The `hydrant` binary: settings, log, and the life of one server.

mod admin;
mod config;
mod demo;
mod listener;
mod router;
mod stores;
mod telemetry;
mod wiring;

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use config::{Cli, Command, Settings};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let cli: Cli = config::parse()?;
    let (settings, demo) = match cli.command {
        Command::Serve(settings) => (settings, None),
        Command::Demo(demo) => (demo.settings, Some(demo.exit)),
    };
    settings.check()?;
    telemetry::start(&settings, demo.is_some())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(run(settings, demo));
    // Whatever still runs holds nothing that was acknowledged: the log and the stores are closed.
    runtime.shutdown_background();
    outcome
}

async fn run(settings: Settings, demo: Option<bool>) -> Result<()> {
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
        server = wiring::start(&settings) => server?,
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
