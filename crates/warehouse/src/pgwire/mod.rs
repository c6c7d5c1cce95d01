//! The PostgreSQL wire protocol, so that psql, JDBC and BI tools reach the warehouse.
//!
//! One connection is one session; its statements run one after the other, and each commits by
//! itself. What a client says about the session only is answered here (`settings`); all other SQL
//! is Snowflake's and goes to the engine as it was written.
//! <https://www.postgresql.org/docs/current/protocol.html>

mod auth;
mod connection;
mod extended;
mod lex;
mod query;
mod settings;
mod start;
#[cfg(test)]
mod tests;
mod value;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hydrant_core::Random;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::session::Sessions;

/// Most connections at once; a further one is told `53300` and closed.
pub const CONNECTIONS_MAX: usize = 256;
/// Most connections beyond those that are being told so; a further one is closed untold.
const REFUSALS_MAX: usize = 64;
/// Longest time such a connection may take to be told.
const REFUSAL_TIME: Duration = Duration::from_secs(5);
/// Longest time from connecting to being authenticated (PostgreSQL's `authentication_timeout`).
pub const STARTUP_TIME: Duration = Duration::from_secs(60);
/// Longest time a connection may neither send nor take anything (Snowflake's session idle time).
pub const IDLE_TIME: Duration = Duration::from_secs(4 * 3600);
/// How long accepting rests after the system refused a connection, such as for want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves PostgreSQL clients until `shutdown`.
///
/// Returns when the last connection is closed: at `shutdown` each is told `57P01`, a statement that
/// is running is dropped. An error or a panic in one connection ends that connection only. There is
/// no TLS: a client that asks for it is told so, and one that insists leaves. The caller's duty: to
/// bind elsewhere than on loopback only where [`Sessions::login`] wants passwords.
pub async fn serve(
    listener: TcpListener,
    sessions: Arc<dyn Sessions>,
    random: Arc<Random>,
    shutdown: CancellationToken,
) {
    let server = Arc::new(Server {
        sessions,
        random,
        shutdown: shutdown.clone(),
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        running: Mutex::new(HashMap::new()),
        next_process: AtomicU32::new(1),
    });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                tracing::debug!(%peer, "postgresql connection");
                connections.spawn(start::serve(Arc::clone(&server), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "postgresql connection not accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "postgresql connection ended by a panic");
    }
}

/// What the connections share.
struct Server {
    sessions: Arc<dyn Sessions>,
    random: Arc<Random>,
    shutdown: CancellationToken,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    running: Mutex<HashMap<u32, Cancel>>,
    next_process: AtomicU32,
}

/// How another connection stops this one's statement.
struct Cancel {
    secret: u32,
    wake: Arc<Notify>,
}

impl Server {
    /// Enters a connection among those whose statements can be cancelled, until the guard drops.
    fn enter(self: &Arc<Self>) -> Entered {
        let process = self.next_process.fetch_add(1, Ordering::Relaxed);
        let secret = u32::from_be_bytes(self.random.bytes());
        let wake = Arc::new(Notify::new());
        self.running.lock().insert(process, Cancel { secret, wake: Arc::clone(&wake) });
        Entered { server: Arc::clone(self), process, secret, wake }
    }

    /// Stops the statement that connection `process` is running, if the secret is its own.
    fn cancel(&self, process: u32, secret: u32) {
        if let Some(cancel) = self.running.lock().get(&process)
            && cancel.secret == secret
        {
            cancel.wake.notify_waiters();
        }
    }
}

/// A connection's place in [`Server::running`].
struct Entered {
    server: Arc<Server>,
    process: u32,
    secret: u32,
    wake: Arc<Notify>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.server.running.lock().remove(&self.process);
    }
}
