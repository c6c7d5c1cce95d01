//! The SQL engine: opens sessions, runs pipes, takes files from others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hydrant_core::control::{ControlError, ControlStore};
use hydrant_core::encryption::Seal;
use hydrant_core::names::Scope;
use hydrant_core::notify::Doorbell;
use hydrant_core::warehouse::{CopyOptions, FileLoad, LoadError, StagedFile, TableName, Warehouse};
use hydrant_core::{Clock, Random};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Names, ObjectName, Pipe, Stage, Table, split_url};
use crate::error::SqlResult;
use crate::load::{Failed, Load, RowSource};
use crate::pipe::{Trouble, Worker};
use crate::query::QueryEngine;
use crate::session::{Login, Session, Sessions, SqlError};
use crate::sql::functions::Context;
use crate::sql::scan;
use crate::stage::{Listed, OpenBucket, Place, Resolved};
use crate::state::{self, Follow, Following, StateOptions};
use crate::statement::SqlSession;
use crate::table::{Tables, sweep_rows};

/// Memory that all running statements may hold when nothing else is said.
pub const QUERY_MEMORY_BYTES: usize = 1 << 30;

/// What the engine is opened with.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Directory of the tables' files; made if it is not there. No other process may use it.
    pub dir: PathBuf,
    /// Users and their passwords. Without any, everyone is let in.
    pub users: Vec<(String, String)>,
    /// Memory that all running statements may hold together; what does not fit is spilled to disk.
    pub query_memory_bytes: usize,
    /// Sizes by which they are kept.
    pub state: StateOptions,
    /// Change data capture. Without it, statements about it and current-state tables are refused.
    pub follow: Option<Follow>,
    /// Account and region of a stream that a source names; without it, sources name streams by ARN.
    pub stream_scope: Option<Scope>,
}

impl EngineOptions {
    /// The defaults, over a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            users: Vec::new(),
            query_memory_bytes: QUERY_MEMORY_BYTES,
            follow: None,
            state: StateOptions::default(),
            stream_scope: None,
        }
    }
}

/// Why the engine did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or read.
    #[error("cannot use {dir}: {error}")]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The catalog cannot be read.
    #[error("cannot read the catalog: {0}")]
    Control(#[from] ControlError),
    /// A table's state or files are not as they were written.
    #[error("{0}")]
    Damaged(SqlError),
}

/// The warehouse of one installation.
///
/// Guarantee: what a statement acknowledged is durable; a staged file is in a table once, whatever
/// crashes or repeats.
pub struct Engine {
    pub(crate) catalog: Catalog,
    pub(crate) tables: Tables,
    pub(crate) queries: QueryEngine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) open_bucket: OpenBucket,
    pub(crate) doorbell: Doorbell,
    pub(crate) pipe_trouble: Mutex<HashMap<String, Trouble>>,
    pub(crate) following: Following,
    pub(crate) stream_scope: Option<Scope>,
    users: BTreeMap<String, String>,
}

impl Engine {
    /// Opens the warehouse and removes what a crash left over. `doorbell` is rung by whoever writes
    /// notifications; [`Engine::run_pipes`] waits on it. `seal` is what the keys of stages are kept
    /// with. Fails if the directory or the control store cannot be read.
    pub async fn open(
        options: EngineOptions,
        control_store: Arc<dyn ControlStore>,
        seal: Arc<dyn Seal>,
        clock: Arc<dyn Clock>,
        random: Arc<Random>,
        open_bucket: OpenBucket,
        doorbell: Doorbell,
    ) -> Result<Arc<Self>, OpenError> {
        let dir = options.dir.clone();
        let unusable = |error| OpenError::Dir { dir: dir.clone(), error };
        let tables_dir = options.dir.join("tables");
        let spill = options.dir.join("spill");
        tokio::fs::create_dir_all(&tables_dir).await.map_err(unusable)?;
        match tokio::fs::remove_dir_all(&spill).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(unusable(e)),
            _ => {}
        }
        tokio::fs::create_dir_all(&spill).await.map_err(unusable)?;
        let tables_dir = tokio::fs::canonicalize(&tables_dir).await.map_err(unusable)?;
        let queries =
            QueryEngine::new(options.query_memory_bytes, spill).map_err(OpenError::Damaged)?;
        let engine = Self {
            catalog: Catalog { control: Arc::clone(&control_store), random, seal },
            tables: Tables::new(control_store, tables_dir),
            queries,
            clock,
            open_bucket,
            doorbell,
            pipe_trouble: Mutex::new(HashMap::new()),
            following: Following::new(options.follow, options.state),
            stream_scope: options.stream_scope,
            users: options.users.into_iter().map(|(u, p)| (u.to_uppercase(), p)).collect(),
        };
        engine.catalog.seal_again().await.map_err(OpenError::Damaged)?;
        engine.sweep().await.map_err(OpenError::Damaged)?;
        Ok(Arc::new(engine))
    }

    /// Removes what no object of the catalog has.
    async fn sweep(&self) -> SqlResult<()> {
        let tables: BTreeSet<String> =
            self.catalog.all::<Table>().await?.into_iter().map(|t| t.row.uid).collect();
        self.tables.sweep(&tables).await?;
        let pipes: BTreeSet<String> =
            self.catalog.all::<Pipe>().await?.into_iter().map(|p| p.row.uid).collect();
        for prefix in ["warehouse/queue/", "warehouse/pipe-load/", "warehouse/pipe-state/"] {
            sweep_rows(self.catalog.control.as_ref(), prefix, &pipes).await?;
        }
        Ok(())
    }

    /// Runs the pipes until `shutdown`. The caller's duty: one such task, and to await its end
    /// before the control store is closed. A load that has not committed by then is repeated after
    /// the next start.
    pub async fn run_pipes(self: Arc<Self>, shutdown: CancellationToken) {
        Worker::new(self).run(shutdown).await;
    }

    /// Looks once at all notifications and queues, as [`Engine::run_pipes`] does after a ring. True
    /// if there may be more to do at once.
    pub async fn run_pipes_once(self: &Arc<Self>) -> bool {
        Worker::new(Arc::clone(self)).pass().await
    }

    /// Keeps the current-state tables at their sources' cuts until `shutdown`. The caller's duty: one
    /// such task, and to await its end before the log and the control store are closed.
    pub async fn run_state(self: Arc<Self>, shutdown: CancellationToken) {
        state::run(self, shutdown).await;
    }

    /// Brings every current-state table as far as it can be brought now, as [`Engine::run_state`] does
    /// when a source has a new cut. True if one of them changed; an error passes.
    pub async fn run_state_once(self: &Arc<Self>) -> Result<bool, SqlError> {
        state::run_once(self).await
    }

    pub(crate) fn context(&self, names: &Names, user: &str) -> Context {
        Context {
            names: names.clone(),
            user: user.to_owned(),
            now_ms: self.clock.now().as_millis(),
            pipe_status: BTreeMap::new(),
        }
    }

    /// How to reach a bucket for files that came without a stage: as a stage over it does.
    async fn place_of(&self, bucket: &str) -> SqlResult<Place> {
        let stages = self.catalog.all::<Stage>().await?;
        let over = |stage: &Stage| split_url(&stage.url).is_some_and(|(of, _)| of == bucket);
        let known = stages.into_iter().map(|held| held.row).find(over);
        let (bucket, format) = match known {
            Some(stage) => (stage.place(self.catalog.seal.as_ref())?.0, stage.format),
            None => {
                let reference = hydrant_core::bucket::BucketRef {
                    bucket: bucket.to_owned(),
                    region: None,
                    endpoint: None,
                    credentials: None,
                };
                (reference, crate::catalog::FormatOptions::default())
            }
        };
        Ok(Place { bucket, stage_prefix: String::new(), prefix: String::new(), format })
    }

    async fn copy_files(
        &self,
        name: &ObjectName,
        files: &[StagedFile],
        options: &CopyOptions,
    ) -> Result<Vec<FileLoad>, LoadError> {
        let retry = |e: SqlError| LoadError::Retry(e.to_string());
        let table = self.catalog.get::<Table>(name).await.map_err(retry)?;
        let table = table.ok_or_else(|| LoadError::NoTable(name.to_string()))?.row;
        crate::state::refuse(&table, "COPY").map_err(|e| LoadError::Aborted(e.to_string()))?;
        let rows =
            RowSource::documents(&table, None).map_err(|e| LoadError::Aborted(e.to_string()))?;
        let mut done = Vec::new();
        let mut rest = files;
        while let Some(first) = rest.first() {
            let bucket = |url: &str| split_url(url).map(|(b, k)| (b.to_owned(), k.to_owned()));
            let (name_of_bucket, _) = bucket(&first.url)
                .ok_or_else(|| LoadError::Aborted(format!("{} is no s3:// URL", first.url)))?;
            let same: Vec<Listed> = rest
                .iter()
                .map_while(|f| {
                    let (b, key) = bucket(&f.url)?;
                    (b == name_of_bucket).then(|| Listed {
                        file: f.clone(),
                        key,
                        modified: self.clock.now(),
                    })
                })
                .collect();
            rest = &rest[same.len()..];
            let place = self.place_of(&name_of_bucket).await.map_err(retry)?;
            let store = (self.open_bucket)(&place.bucket).map_err(LoadError::Retry)?;
            let load = Load {
                tables: &self.tables,
                name,
                table: &table,
                bucket: &place.bucket.bucket,
                store,
                format: Resolved {
                    compression: place
                        .format
                        .compression
                        .unwrap_or(crate::catalog::Compression::Auto),
                    strip_outer_array: place.format.strip_outer_array.unwrap_or(false),
                },
                rows: &rows,
                on_error: options.on_error,
                force: options.force,
                clock: self.clock.as_ref(),
                random: &self.catalog.random,
                pipe: None,
            };
            let rows = load.files(&same).await.map_err(|e| match e {
                Failed::Aborted(..) => LoadError::Aborted(e.into_error(name).to_string()),
                Failed::Error(e) => retry(e),
            })?;
            done.extend(rows.into_iter().map(FileLoad::from));
        }
        Ok(done)
    }
}

#[async_trait]
impl Warehouse for Engine {
    async fn copy_into(
        &self,
        table: &TableName,
        files: &[StagedFile],
        options: &CopyOptions,
    ) -> Result<Vec<FileLoad>, LoadError> {
        let name = ObjectName {
            database: table.database.clone(),
            schema: table.schema.clone(),
            name: table.table.clone(),
        };
        self.copy_files(&name, files, options).await
    }
}

/// The engine as the endpoints see it.
pub struct EngineSessions(pub Arc<Engine>);

impl Sessions for EngineSessions {
    fn open(&self, user: &str, names: Names) -> Box<dyn Session> {
        Box::new(SqlSession::new(Arc::clone(&self.0), user, names))
    }

    fn login(&self, user: &str) -> Login {
        if self.0.users.is_empty() {
            return Login::Anyone;
        }
        match self.0.users.get(&user.to_uppercase()) {
            Some(password) => Login::Password(password.clone()),
            None => Login::Unknown,
        }
    }

    fn split(&self, sql: &str) -> Result<Vec<String>, SqlError> {
        scan::split(sql)
    }
}
