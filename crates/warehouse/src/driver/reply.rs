//! The envelope of every answer: `data`, `code`, `message`, `success`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::session::SqlError;

/// An answer's JSON.
#[derive(Clone, Debug)]
pub(super) struct Reply(pub(super) Bytes);

impl Reply {
    pub(super) fn success(data: &Value) -> Self {
        Self::envelope(data, Value::Null, Value::Null, true)
    }

    pub(super) fn envelope(data: &Value, code: Value, message: Value, success: bool) -> Self {
        let reply = json!({"data": data, "code": code, "message": message, "success": success});
        Self(reply.to_string().into())
    }

    /// A statement's error, as drivers show it.
    pub(super) fn error(id: &str, e: &SqlError) -> Self {
        let code = format!("{:06}", e.code);
        let data = json!({
            "internalError": false,
            "unredactedFromSecureObject": false,
            "errorCode": code,
            "age": 0,
            "sqlState": e.sqlstate,
            "queryId": id,
            "line": -1,
            "pos": -1,
            "type": "COMPILATION",
        });
        Self::envelope(&data, json!(code), json!(e.message), false)
    }
}

/// A request that comes to no statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    sqlstate: &'static str,
    message: String,
}

impl Failure {
    fn new(code: &'static str, sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, code, sqlstate, message: message.into() }
    }

    /// A body that is not what the protocol has.
    pub(super) fn malformed(message: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, ..Self::new("390400", "08P01", message) }
    }

    pub(super) fn no_token() -> Self {
        Self::new("390101", "08001", "Authorization header not found in the request data.")
    }

    /// A session that never was, or is no more: the driver must log in.
    pub(super) fn gone() -> Self {
        let text = "Session no longer exists.  New login required to access the service.";
        Self::new("390111", "08003", text)
    }

    /// The driver renews the session token with its master token.
    pub(super) fn expired() -> Self {
        let text = "Session token has expired.  The session must be renewed.";
        Self::new("390112", "08001", text)
    }

    /// The master token is of no use: the driver must log in.
    pub(super) fn master_expired() -> Self {
        let text = "Authentication token has expired.  The user must authenticate again.";
        Self::new("390114", "08001", text)
    }

    pub(super) fn wrong_password() -> Self {
        Self::new("390100", "08001", "Incorrect username or password was specified.")
    }

    /// A way to log in, or to renew, that is not offered.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new("390190", "0A000", message)
    }

    pub(super) fn crowded(message: impl Into<String>) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self { status, ..Self::new("390429", "53300", message) }
    }

    /// A session parameter the engine does not take.
    pub(super) fn refused(e: SqlError) -> Self {
        Self::new("390190", e.sqlstate, e.message)
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let data = json!({"errorCode": self.code, "sqlState": self.sqlstate});
        let reply = Reply::envelope(&data, json!(self.code), json!(self.message), false);
        json_response(self.status, reply.0)
    }
}

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response<Bytes> {
    json_response(status, body)
}

fn json_response(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An answer without a body.
pub(super) fn bare(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
