//! The log of the process: human on a terminal, JSON otherwise.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings};

/// Starts logging to standard error. `quiet` lowers the default of a command that talks itself.
pub(crate) fn start(settings: &Settings, quiet: bool) -> Result<()> {
    let filter = if quiet && settings.log == "info" { "warn" } else { settings.log.as_str() };
    // s3s logs refused requests as errors, and whole requests with their headers.
    let filter = EnvFilter::try_new(format!("{filter},s3s=off"))
        .with_context(|| format!("--log {:?} is not a filter", settings.log))?;
    let human = match settings.log_format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Told on standard error, which is what is broken, and then with a panic.
        .log_internal_errors(false);
    if human {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        log.with_ansi(colour).with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
    Ok(())
}
