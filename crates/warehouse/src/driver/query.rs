//! Requests about statements: run, fetch the result, abort, look at the state.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Shared;
use super::binding::{Binding, values};
use super::body::Parameters;
use super::login::is_harmless;
use super::reply::{Failure, Reply};
use super::run::{Ran, Work, run, several};
use super::store::{Connected, Outcome, QUERIES_RUNNING_MAX, Query};
use crate::session::SqlError;

/// Bytes of a statement's text kept to be shown.
const TEXT_BYTES_MAX: usize = 1_024;
/// Most statements in one request: their answers are all kept to be fetched.
const STATEMENTS_MAX: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryRequest {
    sql_text: String,
    #[serde(default)]
    async_exec: bool,
    #[serde(default)]
    describe_only: Option<bool>,
    bindings: Option<HashMap<String, Binding>>,
    bind_stage: Option<String>,
    parameters: Option<Map<String, Value>>,
}

/// `POST /queries/v1/query-request`.
pub(super) async fn request(
    shared: &Arc<Shared>,
    session: &Arc<Connected>,
    parameters: &Parameters,
    wanted: QueryRequest,
) -> Result<Reply, Failure> {
    let request = parameters.get("requestId").unwrap_or_default();
    if !request.is_empty()
        && let Some(query) = session.by_request(request)
    {
        return Ok(wait(shared, session, &query).await);
    }
    if let Some(id) = result_scan(&wanted.sql_text)
        && let Some(query) = session.by_id(id)
    {
        return Ok(wait(shared, session, &query).await);
    }
    let id = uuid::Builder::from_random_bytes(shared.random.bytes()).into_uuid().to_string();
    let text = beginning(&wanted.sql_text).to_owned();
    let is_async = wanted.async_exec;
    let work = match work(shared, wanted) {
        Ok(work) => work,
        Err(e) => return Ok(Reply::error(&id, &e)),
    };
    let (sender, outcome) = watch::channel(None);
    let query = Arc::new(Query {
        id,
        request: request.to_owned(),
        text,
        started: shared.clock.now(),
        outcome,
        task: Mutex::new(None),
        stopped: AtomicBool::new(false),
    });
    if !session.keep(Arc::clone(&query)) {
        let text =
            format!("more than {QUERIES_RUNNING_MAX} statements of this session are running");
        return Err(Failure::crowded(text));
    }
    let running = tokio::spawn(execute(
        Arc::clone(shared),
        Arc::clone(session),
        Arc::clone(&query),
        work,
        sender,
    ));
    *query.task.lock() = Some(running.abort_handle());
    if is_async {
        return Ok(in_progress(&query, "333334"));
    }
    Ok(wait(shared, session, &query).await)
}

/// What a request asks for, once it is known to be something that can be run.
fn work(shared: &Shared, wanted: QueryRequest) -> Result<Work, SqlError> {
    let refused = |code, sqlstate, message: String| Err(SqlError { code, sqlstate, message });
    if wanted.bind_stage.is_some() {
        let text = "Unsupported feature 'values bound through a stage'.".to_owned();
        return refused(2, "0A000", text);
    }
    let values = values(wanted.bindings)?;
    let statements = shared.sessions.split(&wanted.sql_text)?;
    let Limits { count, limit } = limits(wanted.parameters.unwrap_or_default())?;
    match statements.len() {
        0 => {
            let text =
                "SQL compilation error:\nsyntax error line 1 at position 0 unexpected '<EOF>'.";
            refused(1_003, "42000", text.to_owned())
        }
        found if count != 0 && found as u64 != count => {
            let text = format!(
                "Actual statement count {found} did not match the desired statement count {count}."
            );
            refused(8, "0A000", text)
        }
        found if found > STATEMENTS_MAX => {
            refused(8, "0A000", format!("more than {STATEMENTS_MAX} statements in one request"))
        }
        found if found > 1 && !values.is_empty() => {
            refused(2, "0A000", "Unsupported feature 'values bound to several statements'.".into())
        }
        _ => Ok(Work {
            statements,
            values,
            describe: wanted.describe_only.unwrap_or_default(),
            limit,
        }),
    }
}

/// What a request's parameters say of its statements.
struct Limits {
    /// How many there are; 0 for any number.
    count: u64,
    /// How long each may take.
    limit: Option<Duration>,
}

/// Reads a request's parameters. One that would change what is done, and is not offered, is refused.
fn limits(parameters: Map<String, Value>) -> Result<Limits, SqlError> {
    let mut limits = Limits { count: 1, limit: None };
    for (name, value) in parameters {
        let name = name.to_ascii_uppercase();
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        match (name.as_str(), number) {
            ("MULTI_STATEMENT_COUNT", Some(count)) => limits.count = count,
            ("STATEMENT_TIMEOUT_IN_SECONDS", Some(seconds)) => {
                limits.limit = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            _ if value.is_null() || is_harmless(&name, &value) => {}
            _ => {
                let message =
                    format!("Unsupported feature 'statement parameter {name} = {value}'.");
                return Err(SqlError { code: 2, sqlstate: "0A000", message });
            }
        }
    }
    Ok(limits)
}

/// Runs a request's statements to their end and keeps the answer. Nothing waits for it here, so it
/// outlives the connection that asked.
async fn execute(
    shared: Arc<Shared>,
    session: Arc<Connected>,
    query: Arc<Query>,
    work: Work,
    sender: watch::Sender<Option<Outcome>>,
) {
    let mut engine = session.engine.lock().await;
    let mut done: Vec<(String, u32)> = Vec::new();
    let mut last = Err(SqlError { code: 603, sqlstate: "XX000", message: String::new() });
    for statement in &work.statements {
        let alone = work.statements.len() == 1;
        let id = if alone { query.id.clone() } else { child(&shared) };
        last = in_time(work.limit, run(engine.as_mut(), &id, &work, statement)).await;
        match &last {
            Ok(ran) if !alone => {
                keep_child(&shared, &session, &id, statement, ran);
                done.push((id, ran.kind));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let reply = match &last {
        Ok(_) if work.statements.len() > 1 => Ok(several(engine.as_ref(), &query.id, &done)),
        Ok(ran) => Ok(ran.reply.clone()),
        Err(e) => Err(e),
    };
    drop(engine);
    let outcome = outcome(&shared, &query.id, reply);
    sender.send_replace(Some(outcome));
}

/// Snowflake's STATEMENT_TIMEOUT_IN_SECONDS: a statement that takes longer is dropped.
async fn in_time(
    limit: Option<Duration>,
    running: impl Future<Output = Result<Ran, SqlError>>,
) -> Result<Ran, SqlError> {
    let Some(limit) = limit else { return running.await };
    timeout(limit, running).await.unwrap_or_else(|_| {
        let message = format!(
            "Statement reached its statement or warehouse timeout of {} second(s) and was canceled.",
            limit.as_secs()
        );
        Err(SqlError { code: 630, sqlstate: "57014", message })
    })
}

fn child(shared: &Shared) -> String {
    uuid::Builder::from_random_bytes(shared.random.bytes()).into_uuid().to_string()
}

/// Keeps the answer to one of several statements under its own id.
fn keep_child(shared: &Shared, session: &Connected, id: &str, statement: &str, ran: &Ran) {
    let (_, outcome) = watch::channel(Some(outcome(shared, id, Ok(ran.reply.clone()))));
    session.keep(Arc::new(Query {
        id: id.to_owned(),
        request: String::new(),
        text: beginning(statement).to_owned(),
        started: shared.clock.now(),
        outcome,
        task: Mutex::new(None),
        stopped: AtomicBool::new(false),
    }));
}

fn outcome(shared: &Shared, id: &str, reply: Result<Reply, &SqlError>) -> Outcome {
    let ended = shared.clock.now();
    let failed = |e: &SqlError| Outcome {
        reply: Reply::error(id, e),
        error: Some((format!("{:06}", e.code), e.message.clone())),
        ended,
        _waiting: None,
    };
    let reply = match reply {
        Ok(reply) => reply,
        Err(e) => return failed(e),
    };
    match shared.store.wait_room(reply.0.len()) {
        Some(waiting) => Outcome { reply, error: None, ended, _waiting: Some(Arc::new(waiting)) },
        None => failed(&SqlError {
            code: 607,
            sqlstate: "53200",
            message: "Too many large results wait to be fetched: try again.".into(),
        }),
    }
}

/// The answer to a statement, if it comes in time; else where to ask for it again.
async fn wait(shared: &Shared, session: &Connected, query: &Query) -> Reply {
    let mut outcome = query.outcome.clone();
    let ended = outcome.wait_for(Option::is_some);
    match timeout(shared.options.statement_wait, ended).await {
        Err(_) => in_progress(query, "333333"),
        Ok(Ok(found)) => match found.as_ref() {
            Some(outcome) => {
                session.handed_over(query, &outcome.reply);
                outcome.reply.clone()
            }
            None => lost(query),
        },
        Ok(Err(_)) => lost(query),
    }
}

/// A statement that ended without an answer: it was stopped, or it panicked.
fn lost(query: &Query) -> Reply {
    let (code, sqlstate, message) = if query.stopped.load(Ordering::Relaxed) {
        (604, "57014", "SQL execution canceled".to_owned())
    } else {
        (603, "XX000", format!("SQL execution internal error: query {}", query.id))
    };
    Reply::error(&query.id, &SqlError { code, sqlstate, message })
}

fn in_progress(query: &Query, code: &str) -> Reply {
    let data = json!({
        "queryId": query.id,
        "getResultUrl": format!("/queries/{}/result", query.id),
        "queryAbortsAfterSecs": 300,
        "progressDesc": null,
    });
    let message = json!("Query execution in progress.");
    Reply::envelope(&data, json!(code), message, true)
}

/// `GET /queries/{id}/result`.
pub(super) async fn result(
    shared: &Shared,
    session: &Connected,
    id: &str,
) -> Result<Reply, Failure> {
    match session.by_id(id) {
        Some(query) => Ok(wait(shared, session, &query).await),
        None => {
            let message = format!("Statement {id} not found");
            Ok(Reply::error(id, &SqlError { code: 709, sqlstate: "02000", message }))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AbortRequest {
    request_id: Option<String>,
}

/// `POST /queries/v1/abort-request`: stops the statement of another request.
pub(super) fn abort_request(session: &Connected, wanted: &AbortRequest) -> Result<Reply, Failure> {
    let request = wanted.request_id.as_deref().unwrap_or_default();
    Ok(stop(session.by_request(request).filter(|_| !request.is_empty())))
}

/// `POST /queries/{id}/abort-request`.
pub(super) fn abort(session: &Connected, id: &str) -> Result<Reply, Failure> {
    Ok(stop(session.by_id(id)))
}

fn stop(query: Option<Arc<Query>>) -> Reply {
    match query.filter(|query| query.is_running()) {
        Some(query) => {
            query.stop();
            Reply::success(&Value::Null)
        }
        None => {
            let message = "Identified SQL statement is not currently executing.".to_owned();
            Reply::error("", &SqlError { code: 605, sqlstate: "57014", message })
        }
    }
}

/// `GET /monitoring/queries/{id}`.
pub(super) fn monitor(session: &Connected, id: &str) -> Reply {
    let queries: Vec<Value> = session.by_id(id).iter().map(|query| state(session, query)).collect();
    Reply::success(&json!({"queries": queries}))
}

fn state(session: &Connected, query: &Query) -> Value {
    let ended = query.outcome.borrow().as_ref().map(|o| (o.ended, o.error.clone()));
    let (end, error) = match &ended {
        Some((end, error)) => (Some(*end), error.clone()),
        None => (None, None),
    };
    let status = match (&ended, &error) {
        (Some(_), None) => "SUCCESS",
        (Some(_), Some(_)) => "FAILED_WITH_ERROR",
        (None, _) if query.is_running() => "RUNNING",
        (None, _) if query.stopped.load(Ordering::Relaxed) => "ABORTED",
        (None, _) => "FAILED_WITH_INCIDENT",
    };
    let (code, message) = error.unzip();
    json!({
        "id": query.id,
        "status": status,
        "state": status,
        "sqlText": query.text,
        "sessionId": session.id,
        "userName": session.user,
        "startTime": query.started.as_millis(),
        "endTime": end.map_or(0, |end| end.as_millis()),
        "totalDuration": end.map_or(0, |end| end.since(query.started).as_millis() as u64),
        "errorCode": code,
        "errorMessage": message,
    })
}

/// The id in `select * from table(result_scan('…'))`, by which the Python driver fetches the result
/// of a statement it did not wait for.
fn result_scan(sql: &str) -> Option<&str> {
    let rest = strip_prefix(sql.trim(), "select * from table(result_scan('")?;
    rest.trim_end_matches(';').strip_suffix("'))")
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// What is shown of a statement: nothing of one that may hold a secret.
fn beginning(text: &str) -> &str {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    let holds = |word: &str| {
        text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    if holds("SECRET") || holds("PASSWORD") {
        return "(not shown: it may hold a secret)";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits_of(parameters: Value) -> Result<(u64, Option<u64>), SqlError> {
        let Value::Object(parameters) = parameters else { return Ok((0, None)) };
        limits(parameters).map(|l| (l.count, l.limit.map(|limit| limit.as_secs())))
    }

    #[test]
    fn a_statements_parameters_are_done_or_refused() {
        assert_eq!(limits_of(json!({})), Ok((1, None)));
        let given = json!({"multi_statement_count": "0", "STATEMENT_TIMEOUT_IN_SECONDS": 7});
        assert_eq!(limits_of(given), Ok((0, Some(7))));
        let given =
            json!({"QUERY_TAG": "a", "CLIENT_X": 1, "timezone": "utc", "AUTOCOMMIT": "true"});
        assert_eq!(limits_of(given), Ok((1, None)));
        for wrong in [
            json!({"ROWS_PER_RESULTSET": 1}),
            json!({"MULTI_STATEMENT_COUNT": "x"}),
            json!({"STATEMENT_TIMEOUT_IN_SECONDS": -1}),
            json!({"AUTOCOMMIT": false}),
            json!({"TIMEZONE": "Europe/Paris"}),
        ] {
            assert_eq!(limits_of(wrong).map_err(|e| e.code), Err(2));
        }
    }
}
