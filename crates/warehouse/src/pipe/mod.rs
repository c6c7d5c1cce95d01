//! Pipes: a durable queue of files each, filled by notifications and REFRESH, emptied into tables.
//!
//! | row | content |
//! |---|---|
//! | `warehouse/queue/P/<url>` | [`Queued`]: a file that the pipe with uid P has to load |
//! | `warehouse/pipe-state/P` | [`PipeState`]: what SYSTEM$PIPE_STATUS says of it |

mod worker;

use hydrant_core::Timestamp;
use hydrant_core::control::Write;
use serde::{Deserialize, Serialize};

use crate::catalog::{Names, ObjectName, Pipe, Stage, Table};
use crate::engine::Engine;
use crate::error::{SqlResult, control, unsupported};
use crate::session::SqlError;
use crate::sql::ast::{Copy, Kind, Location, Statement};
use crate::sql::front;
use crate::stage::{self, Listed};

pub(crate) use worker::Worker;

/// How far back REFRESH looks (Snowflake: 7 days).
pub(crate) const REFRESH_LIFE: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);

/// A file that waits for its pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queued {
    pub(crate) key: String,
    pub(crate) size_bytes: u64,
    pub(crate) etag: String,
    /// When the object was written.
    pub(crate) modified: Timestamp,
    /// When it was queued.
    pub(crate) queued: Timestamp,
}

/// What a pipe has done last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PipeState {
    #[serde(default)]
    pub(crate) last_received: Option<Timestamp>,
    #[serde(default)]
    pub(crate) last_forwarded: Option<Timestamp>,
    #[serde(default)]
    pub(crate) last_forwarded_path: Option<String>,
    #[serde(default)]
    pub(crate) last_ingested: Option<Timestamp>,
    #[serde(default)]
    pub(crate) last_ingested_path: Option<String>,
    /// The last file that could not be loaded, and why.
    #[serde(default)]
    pub(crate) last_error: Option<String>,
}

pub(crate) fn queue_prefix(uid: &str) -> String {
    format!("warehouse/queue/{uid}/")
}

pub(crate) fn queue_key(uid: &str, url: &str) -> String {
    format!("{}{url}", queue_prefix(uid))
}

pub(crate) fn state_key(uid: &str) -> String {
    format!("warehouse/pipe-state/{uid}")
}

impl Pipe {
    pub(crate) fn full_name(&self) -> ObjectName {
        ObjectName {
            database: self.database.clone(),
            schema: self.schema.clone(),
            name: self.name.clone(),
        }
    }

    /// The names that the pipe's statement is resolved with: its own database and schema.
    pub(crate) fn names(&self) -> Names {
        Names {
            database: Some(self.database.clone()),
            schema: Some(self.schema.clone()),
            ..Names::default()
        }
    }

    /// The ARN that SHOW PIPES prints for the queue of an auto-ingest pipe.
    pub(crate) fn channel(&self) -> Option<String> {
        let id = self.uid.get(..20).unwrap_or(&self.uid);
        self.auto_ingest.then(|| format!("arn:aws:sqs:us-east-1:000000000000:sf-snowpipe-{id}"))
    }

    /// The pipe's COPY, parsed.
    pub(crate) fn copy(&self) -> SqlResult<(Copy, crate::sql::scan::Prepared)> {
        let parsed = front::parse(&self.definition, &[])?;
        match parsed.statement {
            Statement::Copy(copy) => Ok((*copy, parsed.prepared)),
            _ => Err(crate::error::internal("a pipe's definition is not a COPY")),
        }
    }
}

/// Refuses what a pipe's COPY cannot have (Snowflake).
pub(crate) fn check_copy(copy: &Copy) -> SqlResult<()> {
    use hydrant_core::warehouse::OnError;
    let refused = if !copy.files.is_empty() {
        Some("FILES")
    } else if copy.force {
        Some("FORCE")
    } else if copy.on_error == Some(OnError::AbortStatement) {
        Some("ON_ERROR = ABORT_STATEMENT")
    } else {
        None
    };
    if let Some(option) = refused {
        return Err(unsupported(format!("{option} in the COPY of a pipe")));
    }
    if let Location::Url(_) = copy.from {
        return Err(unsupported("a pipe from a URL; create a stage and copy from it"));
    }
    Ok(())
}

/// SYSTEM$PIPE_STATUS, in Snowflake's order of fields; those with nothing to say are left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PipeStatus {
    execution_state: &'static str,
    pending_file_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_pending_file_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_file_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ingested_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ingested_file_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification_channel_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_outstanding_messages_on_channel: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_received_message_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_forwarded_message_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_forwarded_file_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// Most queue entries that a status counts.
const STATUS_QUEUE_MAX: usize = 10_000;

impl Engine {
    /// What stops a pipe, in Snowflake's words; `None` if it can run.
    pub(crate) async fn pipe_fault(
        &self,
        pipe: &Pipe,
    ) -> SqlResult<Option<(&'static str, String)>> {
        let (copy, _) = match pipe.copy() {
            Ok(copy) => copy,
            Err(e) => return Ok(Some(("STALLED_COMPILATION_ERROR", e.message))),
        };
        let names = pipe.names();
        let table = self.catalog.resolve(&copy.table, &names, "COPY")?;
        if self.catalog.get::<Table>(&table).await?.is_none() {
            return Ok(Some(("STOPPED_MISSING_TABLE", format!("Table {table} does not exist"))));
        }
        if let Location::Stage { name, .. } = &copy.from {
            let stage = self.catalog.resolve(name, &names, "COPY")?;
            if self.catalog.get::<Stage>(&stage).await?.is_none() {
                return Ok(Some((
                    "STOPPED_STAGE_DROPPED",
                    format!("Stage {stage} does not exist"),
                )));
            }
        }
        Ok(None)
    }

    /// SYSTEM$PIPE_STATUS.
    pub(crate) async fn pipe_status(&self, name: &ObjectName) -> SqlResult<String> {
        let pipe: Pipe = self.catalog.expect(Kind::Pipe, name).await?.row;
        let waiting = self
            .catalog
            .control
            .scan(&queue_prefix(&pipe.uid), None, STATUS_QUEUE_MAX)
            .await
            .map_err(control)?;
        let mut oldest: Option<Queued> = None;
        for (key, entry) in &waiting {
            let queued: Queued = entry.json(key).map_err(control)?;
            if oldest.as_ref().is_none_or(|o| queued.modified < o.modified) {
                oldest = Some(queued);
            }
        }
        let state = self.pipe_state(&pipe.uid).await?;
        let fault = self.pipe_fault(&pipe).await?;
        let trouble = self.pipe_trouble.lock().get(&pipe.uid).cloned();
        let time = |t: Option<Timestamp>| t.map(|t| t.to_string());
        let execution_state = match &fault {
            Some((state, _)) => state,
            None if pipe.paused => "PAUSED",
            None => "RUNNING",
        };
        let channel = pipe.channel();
        let status = PipeStatus {
            execution_state,
            pending_file_count: waiting.len(),
            oldest_pending_file_path: oldest.as_ref().map(|o| o.key.clone()),
            oldest_file_timestamp: time(oldest.map(|o| o.modified)),
            last_ingested_timestamp: time(state.last_ingested),
            last_ingested_file_path: state.last_ingested_path,
            num_outstanding_messages_on_channel: channel.as_ref().map(|_| 0),
            notification_channel_name: channel,
            last_received_message_timestamp: time(state.last_received),
            last_forwarded_message_timestamp: time(state.last_forwarded),
            last_forwarded_file_path: state.last_forwarded_path,
            error: fault.map(|(_, why)| why).or(state.last_error),
            fault: trouble.map(|t| t.why),
        };
        serde_json::to_string(&status).map_err(crate::error::internal)
    }

    pub(crate) async fn pipe_state(&self, uid: &str) -> SqlResult<PipeState> {
        let key = state_key(uid);
        match self.catalog.control.get(&key).await.map_err(control)? {
            Some(entry) => entry.json(&key).map_err(control),
            None => Ok(PipeState::default()),
        }
    }

    /// ALTER PIPE … REFRESH: the stage's files of the last week into the queue. What became of each:
    /// its path and whether it was queued.
    pub(crate) async fn refresh(
        &self,
        pipe: &Pipe,
        prefix: &str,
        modified_after: Option<Timestamp>,
    ) -> SqlResult<Vec<(String, bool)>> {
        let (copy, _) = pipe.copy()?;
        let mut place =
            stage::place(&self.catalog, &copy.from, &pipe.names(), "ALTER PIPE").await?;
        place.prefix.push_str(prefix);
        let pattern = copy.pattern.as_deref().map(stage::pattern).transpose()?;
        let since = modified_after.unwrap_or(self.clock.now().minus(REFRESH_LIFE));
        let listed = stage::list(&self.open_bucket, &place, None).await?;
        let wanted = listed.into_iter().filter(|l| {
            let rest = l.key.strip_prefix(&place.stage_prefix).unwrap_or(&l.key);
            l.modified >= since && pattern.as_ref().is_none_or(|p| p.is_match(rest))
        });
        let mut answer = Vec::new();
        for listed in wanted {
            let sent = self.enqueue(&pipe.uid, &listed).await?;
            answer.push((listed.key.clone(), sent));
        }
        self.doorbell.ring();
        Ok(answer)
    }

    async fn enqueue(&self, uid: &str, listed: &Listed) -> SqlResult<bool> {
        let write = self.queue_write(uid, listed).await?;
        let Some(write) = write else { return Ok(false) };
        match self.catalog.control.commit(vec![write]).await {
            Ok(_) => Ok(true),
            // Somebody else queued it.
            Err(hydrant_core::control::ControlError::Conflict { .. }) => Ok(false),
            Err(e) => Err(control(e)),
        }
    }

    /// The write that queues a file, unless the pipe has had that name or has it queued.
    pub(crate) async fn queue_write(&self, uid: &str, listed: &Listed) -> SqlResult<Option<Write>> {
        let store = &self.catalog.control;
        let done = crate::history::pipe_load_key(uid, &listed.file.url);
        let key = queue_key(uid, &listed.file.url);
        for key in [&done, &key] {
            if store.get(key).await.map_err(control)?.is_some() {
                return Ok(None);
            }
        }
        let queued = Queued {
            key: listed.key.clone(),
            size_bytes: listed.file.size_bytes,
            etag: listed.file.etag.clone(),
            modified: listed.modified,
            queued: self.clock.now(),
        };
        Ok(Some(Write::insert(key, &queued)))
    }
}

/// Why a pipe does not get on, and when it is tried again.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) why: String,
    pub(crate) tries: u32,
    pub(crate) until: Timestamp,
}

impl Trouble {
    /// The first pause; each later one is twice as long, up to the longest.
    const PAUSE_MS: u64 = 500;
    const PAUSE_MS_MAX: u64 = 60_000;

    pub(crate) fn after(previous: Option<&Self>, e: &SqlError, now: Timestamp) -> Self {
        let tries = previous.map_or(1, |p| p.tries.saturating_add(1));
        let pause = Self::PAUSE_MS.saturating_mul(1 << (tries - 1).min(10)).min(Self::PAUSE_MS_MAX);
        let until = now.plus(std::time::Duration::from_millis(pause));
        Self { why: e.message.clone(), tries, until }
    }
}
