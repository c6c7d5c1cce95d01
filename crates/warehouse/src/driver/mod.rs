//! Snowflake's own driver protocol, so that its stock drivers connect unchanged.
//!
//! HTTP with JSON bodies; a client needs `host`, `port` and `protocol=http`. It is not published:
//! what is here is what `snowflake-connector-python`, the Node.js driver and the JDBC driver send
//! and read. Results are JSON row sets; Arrow results and result chunks are not offered.

mod binding;
mod body;
mod login;
mod query;
mod reply;
mod rowset;
mod run;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hydrant_core::{Clock, Random};

use crate::session::Sessions;
use body::Parameters;
use reply::{Failure, Reply};
use store::Store;

/// Largest request body, as sent. The caller's duty: to read no more of one.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Most sessions at once; a further login is answered with 429, which drivers try again.
pub const SESSIONS_MAX: usize = 1_000;
/// Most bytes of one result's rows, as JSON. A larger one is error 000607, and says so.
pub const RESULT_BYTES_MAX: usize = 64 << 20;

/// How long sessions and their statements are waited for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a session token is good for before its driver renews it (Snowflake: an hour).
    pub session_token_life: Duration,
    /// How long a session lives without a request (Snowflake: four hours), and its master token.
    pub session_idle: Duration,
    /// How long a request waits for its statement before the driver is told to ask again for the
    /// result (Snowflake: 45 seconds).
    pub statement_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            session_token_life: Duration::from_secs(3_600),
            session_idle: Duration::from_secs(4 * 3_600),
            statement_wait: Duration::from_secs(45),
        }
    }
}

/// The endpoint. Cheap to clone; its clones share the sessions.
#[derive(Clone)]
pub struct DriverEndpoint {
    shared: Arc<Shared>,
}

struct Shared {
    sessions: Arc<dyn Sessions>,
    clock: Arc<dyn Clock>,
    random: Arc<Random>,
    options: Options,
    store: Store,
}

/// Whose answer a path is.
enum Route<'a> {
    Login,
    Renew,
    Heartbeat,
    Close,
    Telemetry,
    Query,
    AbortRequest,
    Abort(&'a str),
    Result(&'a str),
    Monitor(&'a str),
}

fn route(path: &str) -> Option<Route<'_>> {
    let query = |rest: &'static str| {
        path.strip_prefix("/queries/")
            .and_then(|path| path.strip_suffix(rest))
            .filter(|id| uuid::Uuid::try_parse(id).is_ok())
    };
    Some(match path {
        "/session/v1/login-request" => Route::Login,
        "/session/token-request" => Route::Renew,
        "/session/heartbeat" => Route::Heartbeat,
        "/session" => Route::Close,
        "/telemetry/send" | "/telemetry/send/sessionless" => Route::Telemetry,
        "/queries/v1/query-request" => Route::Query,
        "/queries/v1/abort-request" => Route::AbortRequest,
        _ => {
            if let Some(id) = query("/result") {
                Route::Result(id)
            } else if let Some(id) = query("/abort-request") {
                Route::Abort(id)
            } else {
                // The newest Python driver writes the last slash twice.
                let id = path.strip_prefix("/monitoring/queries/")?;
                let id = id.strip_prefix('/').unwrap_or(id);
                uuid::Uuid::try_parse(id).ok()?;
                Route::Monitor(id)
            }
        }
    })
}

impl DriverEndpoint {
    /// An endpoint without sessions. Nothing runs but what requests start.
    pub fn new(
        sessions: Arc<dyn Sessions>,
        clock: Arc<dyn Clock>,
        random: Arc<Random>,
        options: Options,
    ) -> Self {
        let store = Store::new();
        Self { shared: Arc::new(Shared { sessions, clock, random, options, store }) }
    }

    /// Whether a request to `path` (without its query) is for this endpoint.
    ///
    /// A bucket named `session` shares the path `/session` with a driver's farewell; the driver's
    /// carries an `Authorization` that begins with `Snowflake`.
    pub fn owns(path: &str) -> bool {
        route(path).is_some()
    }

    /// Answers one request, whose body is at most [`REQUEST_BYTES_MAX`].
    ///
    /// Errors are answers too: those of the protocol are JSON with status 200, as drivers expect
    /// them. A statement runs on when the caller drops this future; the driver asks for its result
    /// again with the same request id, and it is not run twice.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (parts, body) = request.into_parts();
        let Some(route) = route(parts.uri.path()) else {
            return reply::bare(StatusCode::NOT_FOUND);
        };
        let wanted = match route {
            Route::Result(_) | Route::Monitor(_) => Method::GET,
            _ => Method::POST,
        };
        if parts.method != wanted {
            return reply::bare(StatusCode::METHOD_NOT_ALLOWED);
        }
        match self.answer(route, &parts, body).await {
            Ok(Reply(body)) => reply::json(StatusCode::OK, body),
            Err(failure) => failure.into_response(),
        }
    }

    async fn answer(
        &self,
        route: Route<'_>,
        parts: &http::request::Parts,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let shared = &self.shared;
        let parameters = Parameters::of(&parts.uri);
        if let Route::Login = route {
            return login::login(shared, &parameters, body::json(parts, &body)?).await;
        }
        let Some(token) = body::token(parts) else { return Err(Failure::no_token()) };
        if let Route::Renew = route {
            return login::renew(shared, token, &body::json(parts, &body)?);
        }
        let idle = shared.options.session_idle;
        let session = shared.store.session(token, idle, shared.clock.now())?;
        match route {
            Route::Heartbeat => Ok(Reply::success(&serde_json::Value::Null)),
            Route::Close => {
                shared.store.remove(&session);
                Ok(Reply::success(&serde_json::Value::Null))
            }
            // Drivers report about themselves; nothing here keeps it.
            Route::Telemetry => Ok(Reply::success(&serde_json::json!("Log Received"))),
            Route::Query => {
                let wanted = body::json(parts, &body)?;
                query::request(shared, &session, &parameters, wanted).await
            }
            Route::AbortRequest => query::abort_request(&session, &body::json(parts, &body)?),
            Route::Abort(id) => query::abort(&session, id),
            Route::Result(id) => query::result(shared, &session, id).await,
            Route::Monitor(id) => Ok(query::monitor(&session, id)),
            Route::Login | Route::Renew => Err(Failure::no_token()),
        }
    }
}
