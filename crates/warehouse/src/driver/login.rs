//! Logging in, and renewing the session token.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Shared;
use super::body::Parameters;
use super::reply::{Failure, Reply};
use super::store::Issued;
use crate::session::{Login, Names, Session};

/// Longest name, of a user or an object, that is looked at (Snowflake: 255 characters).
const NAME_BYTES_MAX: usize = 1_024;
/// Most session parameters of a login.
const PARAMETERS_MAX: usize = 128;
/// Beginnings of the names of parameters that a driver keeps for itself.
const CLIENT_PARAMETERS: [&str; 7] =
    ["CLIENT_", "PYTHON_", "JDBC_", "ODBC_", "JS_", "GO_", "ENABLE_STAGE_S3_PRIVATELINK"];

#[derive(Deserialize)]
pub(super) struct LoginRequest {
    data: LoginData,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct LoginData {
    #[serde(rename = "LOGIN_NAME")]
    login_name: Option<String>,
    password: Option<String>,
    authenticator: Option<String>,
    #[serde(rename = "SESSION_PARAMETERS", default)]
    session_parameters: Option<Map<String, Value>>,
}

/// `POST /session/v1/login-request`.
pub(super) async fn login(
    shared: &Shared,
    parameters: &Parameters,
    request: LoginRequest,
) -> Result<Reply, Failure> {
    let data = request.data;
    let authenticator = data.authenticator.as_deref().unwrap_or_default();
    if !matches!(authenticator.to_ascii_uppercase().as_str(), "" | "SNOWFLAKE") {
        let text = format!(
            "The authenticator {authenticator} is not supported: log in with a user and a password."
        );
        return Err(Failure::unsupported(text));
    }
    let user = data.login_name.unwrap_or_default();
    if user.len() > NAME_BYTES_MAX {
        return Err(Failure::wrong_password());
    }
    prove(shared, &user, data.password.as_deref().unwrap_or_default())?;
    let now = shared.clock.now();
    shared.store.room(now)?;
    let name =
        |key: &str| parameters.get(key).filter(|name| name.len() <= NAME_BYTES_MAX).map(fold);
    let names = Names {
        database: name("databaseName"),
        schema: name("schemaName"),
        warehouse: name("warehouse"),
        role: name("roleName"),
    };
    let mut engine = shared.sessions.open(&user, names);
    let given = data.session_parameters.unwrap_or_default();
    let told = session_parameters(engine.as_mut(), &given).await?;
    let names = engine.names();
    let (session, issued) = shared.store.enter(&user, engine, &shared.random, &shared.options, now);
    let data = json!({
        "token": issued.token,
        "masterToken": issued.master,
        "validityInSeconds": shared.options.session_token_life.as_secs(),
        "masterValidityInSeconds": shared.options.session_idle.as_secs(),
        "displayUserName": user,
        "serverVersion": env!("CARGO_PKG_VERSION"),
        "firstLogin": false,
        "remMeToken": null,
        "remMeValidityInSeconds": 0,
        "healthCheckInterval": 45,
        "newClientForUpgrade": null,
        "sessionId": session.id,
        "parameters": told,
        "sessionInfo": {
            "databaseName": names.database,
            "schemaName": names.schema,
            "warehouseName": names.warehouse,
            "roleName": names.role,
        },
        "idToken": null,
        "idTokenValidityInSeconds": 0,
        "responseData": null,
        "mfaToken": null,
        "mfaTokenValidityInSeconds": 0,
    });
    Ok(Reply::success(&data))
}

/// Checks the password, with the same work whether there is such a user or not.
fn prove(shared: &Shared, user: &str, password: &str) -> Result<(), Failure> {
    let given = Sha256::digest(password);
    let (wanted, known) = match shared.sessions.login(user) {
        Login::Anyone => return Ok(()),
        Login::Password(wanted) => (Sha256::digest(wanted), true),
        Login::Unknown => (Sha256::digest(shared.random.bytes::<32>()), false),
    };
    if bool::from(given.as_slice().ct_eq(wanted.as_slice())) && known {
        Ok(())
    } else {
        Err(Failure::wrong_password())
    }
}

/// A name as Snowflake reads it: upper case, unless in double quotes.
fn fold(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_uppercase(),
    }
}

/// The parameters a driver is told: ours, and those it has set. What is not the driver's own affair
/// the engine must take, or the login fails with what it says.
async fn session_parameters(
    engine: &mut dyn Session,
    given: &Map<String, Value>,
) -> Result<Vec<Value>, Failure> {
    if given.len() > PARAMETERS_MAX {
        return Err(Failure::malformed("too many session parameters"));
    }
    let mut all = defaults();
    for (name, value) in given {
        let name = name.to_ascii_uppercase();
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Failure::malformed("malformed name of a session parameter"));
        }
        if !is_default(&name, value) && !is_the_drivers(&name) {
            let sql = format!("ALTER SESSION SET {name} = {}", literal(value)?);
            engine.execute(&sql, &[]).await.map_err(Failure::refused)?;
        }
        // How results come is ours to say.
        if !name.ends_with("_RESULT_FORMAT") {
            all.retain(|(key, _)| *key != name);
            all.push((name, value.clone()));
        }
    }
    Ok(all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect())
}

/// Whether a parameter of a statement leaves what is done as it is: a tag, the driver's own affair,
/// or what holds anyway.
pub(super) fn is_harmless(name: &str, value: &Value) -> bool {
    name == "QUERY_TAG" || is_the_drivers(name) || is_default(name, value)
}

fn is_the_drivers(name: &str) -> bool {
    CLIENT_PARAMETERS.iter().any(|prefix| name.starts_with(prefix))
}

fn is_default(name: &str, value: &Value) -> bool {
    defaults()
        .iter()
        .any(|(key, default)| key == name && plain(default).eq_ignore_ascii_case(&plain(value)))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn literal(value: &Value) -> Result<String, Failure> {
    match value {
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::String(text) => Ok(format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))),
        _ => Err(Failure::malformed("malformed value of a session parameter")),
    }
}

/// The parameters that tell drivers how to write values out; some read them with every result.
pub(super) fn formats() -> [(&'static str, Value); 9] {
    [
        ("TIMEZONE", json!("UTC")),
        ("DATE_OUTPUT_FORMAT", json!("YYYY-MM-DD")),
        ("TIME_OUTPUT_FORMAT", json!("HH24:MI:SS")),
        ("TIMESTAMP_OUTPUT_FORMAT", json!("YYYY-MM-DD HH24:MI:SS.FF3 TZHTZM")),
        ("TIMESTAMP_NTZ_OUTPUT_FORMAT", json!("YYYY-MM-DD HH24:MI:SS.FF3")),
        ("TIMESTAMP_LTZ_OUTPUT_FORMAT", json!("")),
        ("TIMESTAMP_TZ_OUTPUT_FORMAT", json!("")),
        ("TIMESTAMP_TYPE_MAPPING", json!("TIMESTAMP_NTZ")),
        ("BINARY_OUTPUT_FORMAT", json!("HEX")),
    ]
}

/// The parameters drivers read: how values look, and what not to try.
fn defaults() -> Vec<(String, Value)> {
    let all = [
        ("AUTOCOMMIT", json!(true)),
        ("CLIENT_TELEMETRY_ENABLED", json!(false)),
        ("CLIENT_SESSION_KEEP_ALIVE", json!(false)),
        ("CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY", json!(3_600)),
        ("CLIENT_STAGE_ARRAY_BINDING_THRESHOLD", json!(0)),
        ("CLIENT_PREFETCH_THREADS", json!(4)),
        ("CLIENT_RESULT_CHUNK_SIZE", json!(160)),
        ("PYTHON_CONNECTOR_QUERY_RESULT_FORMAT", json!("JSON")),
        ("JDBC_QUERY_RESULT_FORMAT", json!("JSON")),
        ("ODBC_QUERY_RESULT_FORMAT", json!("JSON")),
        ("GO_QUERY_RESULT_FORMAT", json!("JSON")),
    ];
    formats().into_iter().chain(all).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RenewRequest {
    request_type: Option<String>,
}

/// `POST /session/token-request`, with the master token.
pub(super) fn renew(
    shared: &Shared,
    master: &str,
    request: &RenewRequest,
) -> Result<Reply, Failure> {
    if request.request_type.as_deref() != Some("RENEW") {
        return Err(Failure::unsupported("Only the request type RENEW is supported."));
    }
    let now = shared.clock.now();
    let options = &shared.options;
    let (session, Issued { token, .. }) =
        shared.store.renew(master, &shared.random, options, now)?;
    let data = json!({
        "sessionToken": token,
        "validityInSecondsST": options.session_token_life.as_secs(),
        "masterToken": master,
        "validityInSecondsMT": options.session_idle.as_secs(),
        "masterValidityInSeconds": options.session_idle.as_secs(),
        "sessionId": session.id,
    });
    Ok(Reply::success(&data))
}
