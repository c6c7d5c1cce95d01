//! A connection's start: encryption refused, a cancel request served, the user authenticated, the
//! session opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::auth::{MECHANISM, Scram};
use super::connection::{Connection, Reader};
use super::settings::Settings;
use super::wire::{
    Backend, Frontend, Opening, Report, STARTUP_BYTES_MAX, Severity, WireError, read_message,
    read_opening, sasl_initial,
};
use super::{REFUSAL_TIME, STARTUP_TIME, Server};
use crate::session::{Login, Names};

/// How often a client may ask for encryption, TLS or GSS, before it starts.
const ENCRYPTION_REQUESTS_MAX: usize = 2;

/// Why a connection ends before it has a session.
enum Refusal {
    Gone,
    Told(Report),
}

impl From<WireError> for Refusal {
    fn from(e: WireError) -> Self {
        match e {
            WireError::Io(_) => Self::Gone,
            other => Self::Told(Report::new("08P01", other.to_string())),
        }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// Serves one connection from its first byte to its last.
pub(super) async fn serve(server: Arc<Server>, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let place = Arc::clone(&server.places).try_acquire_owned();
    let is_crowded = place.is_err();
    // One that finds no place is told so when it asks for a session, which is where clients expect
    // it, and may still cancel a statement.
    let Ok(_place) = place.or_else(|_| Arc::clone(&server.refusals).try_acquire_owned()) else {
        return;
    };
    let patience = if is_crowded { REFUSAL_TIME } else { STARTUP_TIME };
    let starting = timeout(patience, start(&server, &mut stream, is_crowded));
    let started = tokio::select! {
        () = server.shutdown.cancelled() => return,
        started = starting => started,
    };
    let parameters = match started {
        Ok(Ok(Some(parameters))) => parameters,
        Ok(Ok(None) | Err(Refusal::Gone)) => return,
        Ok(Err(Refusal::Told(report))) => return refuse(&mut stream, report).await,
        Err(_) => {
            let report = Report::new("08006", "canceling authentication due to timeout");
            return refuse(&mut stream, report).await;
        }
    };
    open(server, stream, parameters).await;
}

/// Tells the client why, without waiting for one that does not listen.
async fn refuse(stream: &mut TcpStream, report: Report) {
    let mut out = Backend::default();
    out.diagnostic(Severity::Fatal, &report);
    let _ = timeout(STARTUP_TIME, stream.write_all(&out.buffer)).await;
}

/// Up to a user who has proved who they are; `None` where the client wanted no session.
async fn start(
    server: &Arc<Server>,
    stream: &mut TcpStream,
    is_crowded: bool,
) -> Result<Option<BTreeMap<String, String>>, Refusal> {
    for _ in 0..=ENCRYPTION_REQUESTS_MAX {
        match read_opening(stream).await? {
            None => return Ok(None),
            Some(Opening::Encryption) => stream.write_all(b"N").await?,
            Some(Opening::Cancel { process, secret }) => {
                server.cancel(process, secret);
                return Ok(None);
            }
            Some(Opening::Startup { .. }) if is_crowded => {
                let report = Report::new("53300", "sorry, too many clients already");
                return Err(Refusal::Told(report));
            }
            Some(Opening::Startup { minor, parameters }) => {
                negotiate(stream, minor, &parameters).await?;
                authenticate(server, stream, &parameters).await?;
                return Ok(Some(parameters));
            }
        }
    }
    Err(Refusal::Told(Report::new("08P01", "too many encryption requests")))
}

/// Tells a client of a newer protocol that this is 3.0, without its options.
async fn negotiate(
    stream: &mut TcpStream,
    minor: u16,
    parameters: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let options: Vec<&str> =
        parameters.keys().filter(|name| name.starts_with("_pq_.")).map(String::as_str).collect();
    if minor > 0 || !options.is_empty() {
        let mut out = Backend::default();
        out.negotiate_version(&options);
        stream.write_all(&out.buffer).await?;
    }
    Ok(())
}

async fn authenticate(
    server: &Server,
    stream: &mut TcpStream,
    parameters: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let Some(user) = parameters.get("user").filter(|user| !user.is_empty()) else {
        let text = "no PostgreSQL user name specified in startup packet";
        return Err(Refusal::Told(Report::new("28000", text)));
    };
    let login = server.sessions.login(user);
    if login == Login::Anyone {
        return Ok(());
    }
    let failed = || {
        let text = format!("password authentication failed for user \"{user}\"");
        Refusal::Told(Report::new("28P01", text))
    };
    let mut out = Backend::default();
    out.authentication(10, format!("{MECHANISM}\0\0").as_bytes());
    stream.write_all(&out.buffer).await?;
    let (mechanism, first) = sasl_initial(password(stream).await?)?;
    if mechanism != MECHANISM {
        let text = "client selected an invalid SASL authentication mechanism";
        return Err(Refusal::Told(Report::new("08P01", text)));
    }
    // Thousands of hashes: not on a thread that serves others.
    let random = Arc::clone(&server.random);
    let begun = tokio::task::spawn_blocking(move || Scram::begin(&login, &first, &random)).await;
    let Some(scram) = begun.ok().flatten() else {
        return Err(Refusal::Told(Report::new("08P01", "malformed SCRAM message")));
    };
    let mut out = Backend::default();
    out.authentication(11, scram.challenge().as_bytes());
    stream.write_all(&out.buffer).await?;
    let last = password(stream).await?;
    let proved = scram.finish(&last).ok_or_else(failed)?;
    let mut out = Backend::default();
    out.authentication(12, proved.as_bytes());
    stream.write_all(&out.buffer).await?;
    Ok(())
}

async fn password(stream: &mut TcpStream) -> Result<bytes::Bytes, Refusal> {
    match read_message(stream, STARTUP_BYTES_MAX).await? {
        Some(Frontend::Password(body)) => Ok(body),
        None | Some(Frontend::Terminate) => Err(Refusal::Gone),
        Some(_) => Err(Refusal::Told(Report::new("08P01", "expected password response"))),
    }
}

/// Opens the session and serves it.
async fn open(server: Arc<Server>, mut stream: TcpStream, parameters: BTreeMap<String, String>) {
    let mut settings = Settings::default();
    for (name, value) in &parameters {
        let name = name.to_ascii_lowercase();
        // A zone this machine does not know leaves UTC, which the client is told.
        if settings.get(&name).is_some()
            && let Err(report) = settings.set(&name, value)
            && name != "timezone"
        {
            return refuse(&mut stream, report).await;
        }
    }
    for name in ["options", "replication"] {
        if let Some(value) = parameters.get(name).filter(|value| !value.is_empty()) {
            let text = format!("startup parameter \"{name}\" is not supported: \"{value}\"");
            return refuse(&mut stream, Report::new("0A000", text)).await;
        }
    }
    let user = parameters.get("user").map(String::as_str).unwrap_or_default();
    let names = Names {
        database: parameters.get("database").filter(|name| !name.is_empty()).map(|name| fold(name)),
        schema: parameters
            .get("search_path")
            .and_then(|path| path.split(',').next())
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(fold),
        ..Names::default()
    };
    let session = server.sessions.open(user, names);
    let entered = server.enter();
    let mut out = Backend::default();
    out.authentication(0, &[]);
    for (name, value) in settings.reported(user) {
        out.parameter(name, &value);
    }
    out.key(entered.process, entered.secret);
    out.ready(false);
    let (reader, writer) = stream.into_split();
    let reader: Reader = BufReader::new(reader);
    Connection::new(entered, session, settings, out, writer).serve(reader).await;
}

/// A name as Snowflake reads it: upper case, unless in double quotes.
fn fold(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_uppercase(),
    }
}
