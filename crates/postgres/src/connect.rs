//! How a source reaches its server: who it is, and an ordinary connection for questions.

use std::sync::Arc;
use std::time::Duration;

use hydrant_core::capture::{Connection, Failure, Secret, SecretText};
use hydrant_core::clock::Clock;
use rustls::ClientConfig;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::error::During;
use super::wire::{Purpose, Row, Wire};
use super::{ServerError, tls};

/// Longest time that a question to the catalogs takes. One that waits longer waits for a lock.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// The oldest server whose protocol and catalogs are known here, as `server_version_num`.
pub(super) const VERSION_MIN: u32 = 140_000;
/// Longest `application_name` that a server keeps, in bytes (PostgreSQL: `NAMEDATALEN` - 1).
const APPLICATION_BYTES_MAX: usize = 63;

/// Who a source is to its server: address, role, password, encryption, and the name it goes by.
/// Cheap to clone. Never shows the password.
#[derive(Clone)]
pub struct Access {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) role: String,
    pub(super) password: Option<SecretText>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) application: String,
    pub(super) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, database, role, application, .. } = self;
        write!(f, "Access({role}@{host}:{port}/{database} as {application})")
    }
}

impl Access {
    /// Puts a connection and its secret together. Fails with [`Failure::Tls`] when no authority can
    /// be used and with [`Failure::Authentication`] when nobody says who the user is. Nothing is
    /// connected yet. The caller's duty: make a new one after the connection or secret has changed.
    pub async fn new(
        connection: &Connection,
        secret: Option<&Secret>,
        source: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServerError> {
        let role = connection.user.clone().or_else(|| secret.and_then(|s| s.user.clone()));
        let role = role.ok_or_else(|| {
            let text = format!(
                "connection '{}' has no USER, and its secret names none: give it one",
                connection.name
            );
            ServerError::failed(Failure::Authentication, text)
        })?;
        if connection.host.starts_with('/') {
            let text = format!(
                "HOST '{}' is a socket's folder; a source connects by TCP: give a name or address",
                connection.host
            );
            return Err(ServerError::failed(Failure::Other, text));
        }
        Ok(Self {
            host: connection.host.clone(),
            port: connection.port,
            database: connection.database.clone(),
            role,
            password: secret.map(|secret| secret.password.clone()),
            tls: tls::client(connection, clock.clone()).await?,
            application: application(source),
            clock,
        })
    }

    /// The `application_name` of every connection of the source, by which the server's views tell
    /// them from those of others.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The role that logs in.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }
}

/// `hydrant/<source>`; a source whose name the server would cut or rewrite gets a digest instead of
/// its end, so that two sources never share one.
fn application(source: &str) -> String {
    let whole = format!("hydrant/{source}");
    let kept = |c: &char| (' '..='~').contains(c);
    if whole.len() <= APPLICATION_BYTES_MAX && whole.chars().all(|c| kept(&c)) {
        return whole;
    }
    let digest = hex::encode(&Sha256::digest(source.as_bytes())[..8]);
    let start: String = whole.chars().filter(kept).take(APPLICATION_BYTES_MAX - 17).collect();
    format!("{start}~{digest}")
}

/// An ordinary connection with a pinned session: ISO dates, UTC, hex bytea, no timeouts, an empty
/// `search_path`, and `row_security` off, so that a policy is an error and never a missing row.
///
/// One question at a time. A question that is given up half-way leaves the connection useless, and
/// every later one says so.
#[derive(Debug)]
pub struct Server {
    pub(super) wire: Wire,
}

impl Server {
    /// Connects and logs in.
    pub async fn connect(access: &Access) -> Result<Self, ServerError> {
        let wire = Wire::open(access, Purpose::Queries).await?;
        Ok(Self { wire })
    }

    /// The server's version as `server_version_num` has it: 150018 is 15.18.
    pub fn version(&self) -> u32 {
        self.wire.version
    }

    /// Runs a statement and reads every row of its answer, of bounded size and within a
    /// minute. The caller's duty: quote with the functions of `quote`.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, ServerError> {
        self.ask(sql, During::Query).await
    }

    pub(super) async fn ask(&mut self, sql: &str, during: During) -> Result<Vec<Row>, ServerError> {
        match timeout(QUERY_TIMEOUT, self.wire.simple(sql, during)).await {
            Ok(answer) => answer,
            Err(_) => Err(ServerError::Transient(format!(
                "the server has not answered for {} seconds: a lock may be held on its catalogs",
                QUERY_TIMEOUT.as_secs()
            ))),
        }
    }

    /// Ends the session as a client should. Dropping it just closes the socket.
    pub async fn close(self) {
        self.wire.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sources_never_share_an_application_name() {
        assert_eq!(application("mz_source"), "hydrant/mz_source");
        let long = "s".repeat(200);
        let (one, two) = (application(&format!("{long}1")), application(&format!("{long}2")));
        assert_ne!(one, two);
        assert_eq!(one.len(), APPLICATION_BYTES_MAX);
        assert_ne!(application("größe"), application("gröse"));
        assert!(application("größe").is_ascii());
    }
}
