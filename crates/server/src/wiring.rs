//! Puts the parts together, in the order they depend on each other, and takes them apart again.

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use hydrant_bucket::{Bucket, BucketOptions};
use hydrant_cdc::Sources;
use hydrant_core::catalog::StreamCatalog;
use hydrant_core::control::ControlStore;
use hydrant_core::destination::{Destination, DestinationSettings, MakeDestination};
use hydrant_core::encryption::Seal;
use hydrant_core::log::LogEngine;
use hydrant_core::names::{Region, Scope};
use hydrant_core::notify::Doorbell;
use hydrant_core::{Clock, Random, SystemClock};
use hydrant_delivery::{Delivery, Ports};
use hydrant_destinations::s3::{OpenBucket, S3Destination};
use hydrant_kinesis::Kinesis;
use hydrant_leases::{Leases, Measures};
use hydrant_storage::{Control, DataDir, Log, LogOptions};
use hydrant_vault::{EncryptedLog, TextSeal, Vault};
use hydrant_warehouse::driver::{self, DriverEndpoint};
use hydrant_warehouse::session::Sessions;
use hydrant_warehouse::{Engine, EngineOptions, EngineSessions, Follow, pgwire};
use hydrant_wire::JsonService;
use hydrant_wire::json::JsonFront;
use hydrant_wire::origin::AllowedHosts;
use hydrant_wire::rpc::RpcFront;
use hydrant_wire::sigv4::{AccessKey, Credentials, Verifier};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::archive::{self, Archiving};
use crate::config::{NamedSecret, Secret, Settings};
use crate::declared;
use crate::endpoints::{self, Endpoints};
use crate::router::{self, Router};
use crate::stores::{Elsewhere, Stores};
use crate::tls::{self, Tls};
use crate::{listener, master_key};

/// How long one part may take to stop before the process ends without it.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A server that answers.
pub(crate) struct Running {
    /// Where it answers.
    pub(crate) endpoints: Endpoints,
    /// What the demo signs with: a configured key, or any.
    pub(crate) own_key: NamedSecret,
    /// Whom the demo logs in as; `None` where everybody may.
    pub(crate) own_user: Option<NamedSecret>,
    /// Whether every signature is taken.
    pub(crate) open: bool,
    data_dir: PathBuf,
    region: Region,
    parts: Parts,
}

/// What has to be stopped, in the order of stopping.
struct Parts {
    admin: Arc<Admin>,
    kinesis: Arc<Kinesis>,
    delivery: Arc<Delivery>,
    sources: Arc<Sources>,
    /// Ends what runs beside requests: pipes and streams under way.
    workers: CancellationToken,
    worker_tasks: Vec<JoinHandle<()>>,
    /// Ends the endpoints.
    endpoints: CancellationToken,
    endpoint_tasks: Vec<JoinHandle<()>>,
    log: Arc<Log>,
    control: Arc<Control>,
    archive: Option<Arc<Archiving>>,
}

struct Listeners {
    http: TcpListener,
    sql: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    async fn bind(settings: &Settings) -> Result<Self> {
        Ok(Self {
            http: listener::bind("--listen", settings.listen).await?,
            sql: listener::bind("--pg-listen", settings.pg_listen).await?,
            admin: listener::bind("--admin-listen", settings.admin_listen).await?,
        })
    }

    fn endpoints(&self) -> Result<Endpoints> {
        Ok(Endpoints {
            aws: format!("http://{}", self.http.local_addr()?),
            aws_tls: format!("https://{}", self.http.local_addr()?),
            ca: None,
            sql: self.sql.local_addr()?.to_string(),
            admin: format!("http://{}", self.admin.local_addr()?),
            pid: std::process::id(),
        })
    }
}

/// What every part is made with.
struct Base {
    clock: Arc<dyn Clock>,
    random: Arc<Random>,
    control: Arc<Control>,
    /// What everybody reads and writes; encrypts on its way to `disk_log`.
    log: Arc<dyn LogEngine>,
    disk_log: Arc<Log>,
    vault: Arc<Vault>,
    seal: Arc<dyn Seal>,
    catalog: Arc<StreamCatalog>,
    doorbell: Doorbell,
    verifier: Arc<Verifier>,
    stores: Stores,
    archive: Option<Arc<Archiving>>,
}

impl Base {
    async fn open(settings: &Settings, endpoints: &Endpoints) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context("the system gives no randomness")?;
        let random = Arc::new(Random::from_entropy(seed));

        let dir = DataDir::open(&settings.data_dir)?;
        archive::refuse_half_restored(dir.path())?;
        let control = Control::open(&dir)?;
        let options = LogOptions {
            segment_bytes: settings.segment_mib << 20,
            cache_bytes: (settings.tail_cache_mib << 20) as usize,
            ..LogOptions::default()
        };
        let store: Arc<dyn ControlStore> = control.clone();
        let master = master_key::read(settings)?;
        let own = master_key::own(dir.path(), master.is_none(), &random)?;
        let seal = TextSeal::new(master.as_ref(), own.as_ref(), Arc::clone(&random));
        let vault = Arc::new(Vault::new(master, settings.kms_keys.clone(), Arc::clone(&random)));
        let disk_log = Log::open(&dir, options, Arc::clone(&store), Arc::clone(&clock), &random)?;
        let log: Arc<dyn LogEngine> =
            Arc::new(EncryptedLog::new(disk_log.clone(), Arc::clone(&vault)));
        let (ticks, draws) = (Arc::clone(&clock), Arc::clone(&random));
        let archive =
            Archiving::open(&settings.archive, &settings.data_dir, &endpoints.aws, ticks, draws)?
                .map(Arc::new);
        Archiving::of_log(&disk_log, &settings.archive, archive.as_deref())?;
        let catalog = Arc::new(StreamCatalog::open(store).await?);

        let own_key = own_key(&random);
        let open = settings.access_keys.is_empty();
        let keys = settings.access_keys.iter().chain([&own_key]).map(access_key).collect();
        let credentials = if open { Credentials::Any } else { Credentials::Keys(keys) };
        let account = settings.account_id.clone();
        let verifier = Arc::new(Verifier::new(credentials, account, Arc::clone(&clock)));
        let stores = Stores {
            own_endpoint: endpoints.aws.clone(),
            own_key,
            open,
            elsewhere: Elsewhere::of(settings),
        };
        let doorbell = Doorbell::new();
        Ok(Self {
            clock,
            random,
            control,
            log,
            disk_log,
            vault,
            seal: Arc::new(seal),
            catalog,
            doorbell,
            verifier,
            stores,
            archive,
        })
    }

    fn store(&self) -> Arc<dyn ControlStore> {
        self.control.clone()
    }

    async fn kinesis(&self, settings: &Settings) -> Result<Arc<Kinesis>> {
        let delay = Duration::from_millis(settings.stream_state_delay_ms);
        let kinesis = Kinesis::open(
            self.log.clone(),
            self.store(),
            Arc::clone(&self.catalog),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
            Arc::clone(&self.vault),
            hydrant_kinesis::Options {
                consumer_create_delay: delay,
                consumer_delete_delay: delay,
                subscription_life: Duration::from_secs(settings.subscription_seconds),
                create_delay: delay,
                update_delay: delay,
                delete_delay: delay,
                shards_max: settings.shard_limit,
                limits: settings.limits.into(),
                ..hydrant_kinesis::Options::default()
            },
        );
        Ok(Arc::new(kinesis.await?))
    }

    fn leases(&self) -> Arc<Leases> {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        Arc::new(Leases::new(self.store(), clock, random, hydrant_leases::Options::default()))
    }

    async fn sources(&self, kinesis: &Arc<Kinesis>) -> Result<Arc<Sources>> {
        let ports = hydrant_cdc::Ports {
            log: Arc::clone(&self.log),
            control: self.store(),
            seal: Arc::clone(&self.seal),
            streams: Arc::clone(&self.catalog),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            make_stream: Arc::clone(kinesis) as _,
        };
        Ok(Sources::start(ports, hydrant_cdc::Options::default()).await?)
    }

    async fn delivery(&self, sources: &Arc<Sources>) -> Result<Arc<Delivery>> {
        let ports = Ports {
            log: Arc::clone(&self.log),
            control: self.store(),
            streams: Arc::clone(&self.catalog),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            make_destination: destinations(self.stores.clone()),
            capture: Some(Arc::clone(sources) as _),
        };
        Ok(Delivery::start(ports, hydrant_delivery::Options::default()).await?)
    }

    fn bucket(&self, settings: &Settings) -> Result<Arc<Bucket>> {
        let dir = settings.data_dir.join("bucket");
        let mut options = BucketOptions::new(dir, settings.account_id.clone());
        options.domains.extend(settings.allow_hosts.iter().cloned());
        if !self.stores.open {
            let keys = settings.access_keys.clone();
            let own = self.stores.own_key.clone();
            options.secrets = Some(Arc::new(move |id: &str| {
                let key = keys.iter().chain([&own]).find(|k| k.name == id);
                key.map(|k| k.secret.0.clone())
            }));
        }
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        Ok(Bucket::open(options, self.store(), clock, random, self.doorbell.clone())?)
    }

    async fn warehouse(&self, settings: &Settings, sources: &Arc<Sources>) -> Result<Arc<Engine>> {
        let follow = Follow { log: Arc::clone(&self.log), capture: Arc::clone(sources) as _ };
        let scope = Scope { account: settings.account_id.clone(), region: settings.region.clone() };
        let users = settings.sql_users.iter();
        let options = EngineOptions {
            users: users.map(|u| (u.name.clone(), u.secret.0.clone())).collect(),
            query_memory_bytes: (settings.sql_memory_mib << 20) as usize,
            follow: Some(follow),
            stream_scope: Some(scope),
            ..EngineOptions::new(settings.data_dir.join("warehouse"))
        };
        let stores = self.stores.clone();
        let engine = Engine::open(
            options,
            self.store(),
            Arc::clone(&self.seal),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
            Arc::new(move |bucket| stores.stage(bucket)),
            self.doorbell.clone(),
        );
        Ok(engine.await?)
    }
}

/// The key that hydrant's own parts sign with, for the life of this process.
fn own_key(random: &Random) -> NamedSecret {
    let [id, low, high] = std::array::from_fn(|_| random.next_u64());
    NamedSecret { name: format!("HYDR{id:016X}"), secret: Secret(format!("{low:016x}{high:016x}")) }
}

fn access_key(key: &NamedSecret) -> AccessKey {
    AccessKey { id: key.name.clone(), secret: key.secret.0.clone(), account: None }
}

fn destinations(stores: Stores) -> MakeDestination {
    let open: OpenBucket = Arc::new(move |bucket| stores.destination(bucket));
    Arc::new(move |settings| match settings {
        DestinationSettings::S3(settings) => S3Destination::open(settings, &open)
            .map(|d| Arc::new(d) as Arc<dyn Destination>)
            .map_err(|e| e.to_string()),
    })
}

/// Starts everything; on return every endpoint answers. SQL runs on the runtime of `sql`. The error
/// says what to do.
pub(crate) async fn start(settings: &Settings, sql: &Handle) -> Result<Running> {
    let metrics = admin::install_metrics()?;
    let (ready, more_metrics, leases) = Default::default();
    let admin = Arc::new(Admin { ready, metrics, more_metrics, leases });
    // Addresses first: a second server must fail before it touches anything.
    let listeners = Listeners::bind(settings).await?;
    let mut endpoints = listeners.endpoints()?;
    let base = Base::open(settings, &endpoints).await?;

    let bucket = base.bucket(settings)?;
    let kinesis = base.kinesis(settings).await?;
    let sources = base.sources(&kinesis).await?;
    let (control, now) = (base.control.as_ref(), base.clock.now());
    declared::apply(settings, sources.as_ref(), control, now).await?;
    let warehouse = base.warehouse(settings, &sources).await?;
    let delivery = base.delivery(&sources).await?;
    let (leases, measures) = (base.leases(), Arc::new(Measures::new()));
    let (streams, reported) = (Arc::clone(&kinesis), Arc::clone(&measures));
    let captured = Arc::clone(&sources);
    let _ = admin.more_metrics.set(vec![
        Box::new(move |out| streams.write_metrics(out)),
        Box::new(move |out: &mut String| out.push_str(&reported.exposition())),
        Box::new(move |out| captured.write_metrics(out)),
    ]);
    let _ = admin.leases.set(Arc::clone(&leases));

    let tls =
        Arc::new(Tls::open(tls::Source::of(settings), Arc::clone(&base.clock)).context("TLS")?);
    endpoints.ca = tls.own_authority().map(std::path::absolute).transpose()?;

    let (workers, ending) = (CancellationToken::new(), CancellationToken::new());
    let mut worker_tasks = Vec::new();
    let mut worker = |task: JoinHandle<()>| worker_tasks.push(task);
    let (streams, tables) = (Arc::clone(&kinesis), Arc::clone(&leases));
    worker(tokio::spawn(until(workers.clone(), async move { streams.run().await })));
    worker(tokio::spawn(until(workers.clone(), async move { tables.run().await })));
    worker(sql.spawn({
        let (warehouse, workers) = (Arc::clone(&warehouse), workers.clone());
        let pipes = Arc::clone(&warehouse).run_pipes(workers.clone());
        async move {
            tokio::join!(pipes, warehouse.run_state(workers));
        }
    }));
    if let Some(archive) = base.archive.clone() {
        let stop = workers.clone();
        worker(tokio::spawn(async move { archive.run(stop).await }));
    }
    let objects = Arc::clone(&bucket);
    worker(tokio::spawn(until(workers.clone(), async move { sweep(&objects).await })));

    let sessions: Arc<dyn Sessions> = Arc::new(EngineSessions(warehouse));
    let driver = DriverEndpoint::new(
        Arc::clone(&sessions),
        Arc::clone(&base.clock),
        Arc::clone(&base.random),
        driver::Options::default(),
    );
    let services: Vec<Arc<dyn JsonService>> =
        vec![Arc::clone(&kinesis) as _, Arc::clone(&delivery) as _, leases, measures.clone()];
    let untargeted = router::untargeted(measures);
    let (verifier, random) = (Arc::clone(&base.verifier), Arc::clone(&base.random));
    let router = Arc::new(Router {
        json: JsonFront::new(services, Arc::clone(&verifier), Arc::clone(&random)),
        rpc: RpcFront::new(untargeted, Arc::clone(&verifier), Arc::clone(&random)),
        driver,
        sql: sql.clone(),
        bucket,
        verifier,
        sql_is_open: settings.sql_users.is_empty(),
        hosts: AllowedHosts::loopback_and(settings.allow_hosts.iter().cloned()),
    });
    let places = settings.connections_max;
    let endpoint_tasks = vec![
        tokio::spawn({
            let (tls, ending) = (Arc::clone(&tls), ending.clone());
            async move { tls.keep(ending).await }
        }),
        tokio::spawn(listener::serve(listeners.http, router, tls, places, ending.clone())),
        sql.spawn(pgwire::serve(listeners.sql, sessions, random, ending.clone())),
        tokio::spawn(admin::serve(listeners.admin, Arc::clone(&admin), ending.clone())),
    ];
    admin.ready.store(true, Ordering::Release);
    endpoints::announce(&settings.data_dir, &endpoints)?;

    let Base { disk_log: log, control, stores, archive, .. } = base;
    let any = || NamedSecret { name: "test".to_owned(), secret: Secret("test".to_owned()) };
    let parts = Parts {
        admin,
        kinesis,
        delivery,
        sources,
        workers,
        worker_tasks,
        endpoints: ending,
        endpoint_tasks,
        log,
        control,
        archive,
    };
    Ok(Running {
        endpoints,
        own_key: settings.access_keys.first().cloned().unwrap_or_else(any),
        own_user: settings.sql_users.first().cloned(),
        open: stores.open,
        data_dir: settings.data_dir.clone(),
        region: settings.region.clone(),
        parts,
    })
}

impl Running {
    /// A user who may log in to SQL.
    pub(crate) fn user(&self) -> &str {
        self.own_user.as_ref().map_or("hydrant", |user| user.name.as_str())
    }

    /// Says where the server answers and how to reach it.
    pub(crate) fn greet(&self) {
        let Endpoints { aws, aws_tls, ca, sql, admin, .. } = &self.endpoints;
        let trust =
            ca.as_ref().map(|ca| format!("  export AWS_CA_BUNDLE={}   # TLS\n", ca.display()));
        let trust = trust.unwrap_or_default();
        let (host, port) = sql.rsplit_once(':').unwrap_or((sql, ""));
        let keys = if self.open {
            " AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
        } else {
            " AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…"
        };
        let (user, region) = (self.user(), self.region.as_str());
        // A reader that went away (`hydrant serve | head`) is no error.
        let _ = writeln!(
            std::io::stdout().lock(),
            "hydrant {} serves from {}

  Kinesis, Firehose, S3, Snowflake's drivers   {aws}
  the same in TLS                              {aws_tls}
  SQL (PostgreSQL protocol)                    {sql}
  health, metrics                              {admin}

  export AWS_ENDPOINT_URL={aws}{keys} AWS_REGION={region}
{trust}  psql -h {host} -p {port} -U {user}
",
            env!("CARGO_PKG_VERSION"),
            self.data_dir.display(),
        );
    }

    /// Stops: finishes what was acknowledged, then closes what holds it. What is late is left; it is
    /// on disk all the same.
    pub(crate) async fn stop(self) {
        let mut parts = self.parts;
        parts.admin.ready.store(false, Ordering::Release);
        // Deliveries and pipes use the endpoints, so they go first.
        parts.workers.cancel();
        patiently("deliveries", parts.delivery.shutdown()).await;
        for task in &mut parts.worker_tasks {
            patiently("a worker", task).await;
        }
        // Subscriptions to shards would keep their connections for minutes.
        parts.kinesis.end_subscriptions();
        parts.endpoints.cancel();
        for task in &mut parts.endpoint_tasks {
            patiently("an endpoint", task).await;
        }
        // After the statements that start one.
        patiently("the sources", parts.sources.shutdown()).await;
        patiently("the log", parts.log.close()).await;
        patiently("the control store", parts.control.close()).await;
        if let Some(archive) = parts.archive {
            patiently("the archive", archive.finish()).await;
        }
        endpoints::withdraw(&self.data_dir);
        tracing::info!("stopped");
    }
}

/// Works until the workers are to stop.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn patiently<T>(what: &str, part: impl Future<Output = T>) {
    if tokio::time::timeout(STOP_PATIENCE, part).await.is_err() {
        tracing::warn!("{what} did not stop within {} s", STOP_PATIENCE.as_secs());
    }
}

/// Clears away what an earlier crash left in the bucket's directory.
async fn sweep(bucket: &Bucket) {
    match bucket.sweep().await {
        Ok(swept) => tracing::debug!(?swept, "swept the bucket's directory"),
        Err(error) => tracing::warn!(%error, "cannot sweep the bucket's directory"),
    }
}
