//! The sessions, their tokens, and the statements each has lately run.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hydrant_core::{Random, Timestamp};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::reply::{Failure, Reply};
use super::{Options, SESSIONS_MAX};
use crate::session::Session;

/// Most statements of a session whose answers are kept to be fetched, or fetched again.
const QUERIES_KEPT_MAX: usize = 16;
/// Most statements of a session that run or wait for their turn.
pub(super) const QUERIES_RUNNING_MAX: usize = 16;
/// Largest answer that is kept after it was handed over, for a driver that asks again.
const ANSWER_KEPT_BYTES_MAX: usize = 64 << 10;
/// Most bytes of larger answers, of all sessions, that wait to be fetched.
const ANSWERS_WAITING_BYTES_MAX: usize = 256 << 20;

/// A token's digest: looking one up tells nothing about the others.
type TokenDigest = [u8; 32];

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token).into()
}

/// All sessions.
pub(super) struct Store {
    by_token: Mutex<HashMap<TokenDigest, Arc<Connected>>>,
    by_master: Mutex<HashMap<TokenDigest, Arc<Connected>>>,
    waiting: Arc<AtomicUsize>,
}

/// One session.
pub(super) struct Connected {
    pub(super) id: u64,
    pub(super) user: String,
    /// The engine's session; a statement holds it from beginning to end.
    pub(super) engine: Arc<tokio::sync::Mutex<Box<dyn Session>>>,
    tokens: Mutex<Tokens>,
    queries: Mutex<VecDeque<Arc<Query>>>,
}

struct Tokens {
    token: TokenDigest,
    token_until: Timestamp,
    master: TokenDigest,
    until: Timestamp,
}

/// The tokens of a login or a renewal, to be told to the driver once.
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) master: Option<String>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { by_token: Mutex::default(), by_master: Mutex::default(), waiting: Arc::default() }
    }

    /// Refuses when there are too many sessions, after those that have expired are gone.
    pub(super) fn room(&self, now: Timestamp) -> Result<(), Failure> {
        let mut by_master = self.by_master.lock();
        if by_master.len() < SESSIONS_MAX {
            return Ok(());
        }
        by_master.retain(|_, session| session.tokens.lock().until > now);
        self.by_token.lock().retain(|_, session| session.tokens.lock().until > now);
        if by_master.len() < SESSIONS_MAX {
            return Ok(());
        }
        let text = format!("more than {SESSIONS_MAX} sessions are open: close some");
        Err(Failure::crowded(text))
    }

    /// Enters a session.
    pub(super) fn enter(
        &self,
        user: &str,
        engine: Box<dyn Session>,
        random: &Random,
        options: &Options,
        now: Timestamp,
    ) -> (Arc<Connected>, Issued) {
        let (token, master) = (fresh(random), fresh(random));
        let tokens = Tokens {
            token: digest(&token),
            token_until: now.plus(options.session_token_life),
            master: digest(&master),
            until: now.plus(options.session_idle),
        };
        let keys = (tokens.token, tokens.master);
        let session = Arc::new(Connected {
            // Some drivers read it as a double: 53 bits.
            id: random.next_u64() >> 11,
            user: user.to_owned(),
            engine: Arc::new(tokio::sync::Mutex::new(engine)),
            tokens: Mutex::new(tokens),
            queries: Mutex::default(),
        });
        self.by_master.lock().insert(keys.1, Arc::clone(&session));
        self.by_token.lock().insert(keys.0, Arc::clone(&session));
        (session, Issued { token, master: Some(master) })
    }

    /// The session of a session token, which lives on for `idle` from now.
    pub(super) fn session(
        &self,
        token: &str,
        idle: Duration,
        now: Timestamp,
    ) -> Result<Arc<Connected>, Failure> {
        let found = self.by_token.lock().get(&digest(token)).map(Arc::clone);
        let session = found.ok_or_else(Failure::gone)?;
        let gone = {
            let mut tokens = session.tokens.lock();
            let gone = tokens.until <= now;
            if !gone && tokens.token_until <= now {
                return Err(Failure::expired());
            }
            if !gone {
                tokens.until = now.plus(idle);
            }
            gone
        };
        if gone {
            self.remove(&session);
            return Err(Failure::gone());
        }
        Ok(session)
    }

    /// Gives a session a new session token for its master token. The old one is void.
    pub(super) fn renew(
        &self,
        master: &str,
        random: &Random,
        options: &Options,
        now: Timestamp,
    ) -> Result<(Arc<Connected>, Issued), Failure> {
        let found = self.by_master.lock().get(&digest(master)).map(Arc::clone);
        let session = found.ok_or_else(Failure::master_expired)?;
        if session.tokens.lock().until <= now {
            self.remove(&session);
            return Err(Failure::master_expired());
        }
        let token = fresh(random);
        let (old, new) = {
            let mut tokens = session.tokens.lock();
            let old = tokens.token;
            tokens.token = digest(&token);
            tokens.token_until = now.plus(options.session_token_life);
            tokens.until = now.plus(options.session_idle);
            (old, tokens.token)
        };
        let mut by_token = self.by_token.lock();
        by_token.remove(&old);
        by_token.insert(new, Arc::clone(&session));
        drop(by_token);
        Ok((session, Issued { token, master: None }))
    }

    /// Ends a session; what it is running is stopped.
    pub(super) fn remove(&self, session: &Connected) {
        let (token, master) = {
            let tokens = session.tokens.lock();
            (tokens.token, tokens.master)
        };
        self.by_master.lock().remove(&master);
        self.by_token.lock().remove(&token);
        for query in session.queries.lock().drain(..) {
            query.stop();
        }
    }

    /// Room for an answer of `bytes` that waits to be fetched; `None` where there is none.
    pub(super) fn wait_room(&self, bytes: usize) -> Option<Waiting> {
        if bytes <= ANSWER_KEPT_BYTES_MAX {
            return Some(Waiting { bytes: 0, all: Arc::clone(&self.waiting) });
        }
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Waiting { bytes, all: Arc::clone(&self.waiting) };
        (before + bytes <= ANSWERS_WAITING_BYTES_MAX).then_some(waiting)
    }
}

/// 256 random bits.
fn fresh(random: &Random) -> String {
    hex::encode(random.bytes::<32>())
}

/// Bytes counted among those that wait to be fetched.
#[derive(Debug)]
pub(super) struct Waiting {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// How a statement has ended.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) reply: Reply,
    /// The error's code and text; `None` for success.
    pub(super) error: Option<(String, String)>,
    pub(super) ended: Timestamp,
    /// Held for its count as long as the answer is kept.
    pub(super) _waiting: Option<Arc<Waiting>>,
}

/// One statement of a session: running, or ended with its answer.
pub(super) struct Query {
    pub(super) id: String,
    /// The driver's id of the request: the same again is a repetition.
    pub(super) request: String,
    /// The beginning of the text, to be shown.
    pub(super) text: String,
    pub(super) started: Timestamp,
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
    pub(super) task: Mutex<Option<AbortHandle>>,
    pub(super) stopped: AtomicBool,
}

impl Query {
    /// Stops the statement if it has not ended.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }

    /// Whether the statement has neither ended nor been stopped.
    pub(super) fn is_running(&self) -> bool {
        self.outcome.borrow().is_none() && self.outcome.has_changed().is_ok()
    }
}

impl Connected {
    /// Keeps a statement, unless too many are running.
    pub(super) fn keep(&self, query: Arc<Query>) -> bool {
        let mut queries = self.queries.lock();
        if queries.iter().filter(|query| query.is_running()).count() >= QUERIES_RUNNING_MAX {
            return false;
        }
        while queries.len() >= QUERIES_KEPT_MAX + QUERIES_RUNNING_MAX {
            let Some(oldest) = queries.iter().position(|query| !query.is_running()) else { break };
            queries.remove(oldest);
        }
        queries.push_back(query);
        true
    }

    /// Forgets a large answer that has been handed over: a statement of that size only reads, and
    /// may be run again.
    pub(super) fn handed_over(&self, query: &Query, reply: &Reply) {
        if reply.0.len() > ANSWER_KEPT_BYTES_MAX {
            self.queries.lock().retain(|kept| kept.id != query.id);
        }
    }

    pub(super) fn by_id(&self, id: &str) -> Option<Arc<Query>> {
        self.queries.lock().iter().find(|query| query.id == id).map(Arc::clone)
    }

    pub(super) fn by_request(&self, request: &str) -> Option<Arc<Query>> {
        self.queries.lock().iter().rev().find(|query| query.request == request).map(Arc::clone)
    }
}
