//! Archives and backups: what of the data directory goes along, and the commands.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use hydrant_archive::{
    Archive, Keep, NamedFiles, Options, RESTORING, Segments, StoreSettings, Taken, Target, Took,
};
use hydrant_core::{Clock, Random, SystemClock, Timestamp};
use hydrant_storage::{ArchiveUse, DataDir, Log};
use tokio_util::sync::CancellationToken;

use crate::config::{ArchiveSettings, ArchiveStore, BackupSettings, RestoreSettings};

/// Points that an archive keeps, so that a restore under way finds all of its own.
const POINTS_KEPT: usize = 12;
/// How long it keeps them.
const POINTS_KEPT_FOR: Duration = Duration::from_secs(3_600);

/// How long a request is repeated for a reader, who asks again himself.
const READ_RETRIED_FOR: Duration = Duration::from_secs(5);

/// The files that the rows of a control store name.
fn named() -> NamedFiles {
    Arc::new(|rows| {
        async move {
            let bucket = hydrant_bucket::named_files(rows.as_ref()).await?;
            let tables = hydrant_warehouse::named_files(rows.as_ref()).await?;
            let bucket = bucket.into_iter().map(|file| format!("bucket/{file}"));
            Ok(bucket.chain(tables.into_iter().map(|file| format!("warehouse/{file}"))).collect())
        }
        .boxed()
    })
}

fn store(settings: &ArchiveStore, retry_for: Option<Duration>) -> StoreSettings {
    let key = settings.archive_access_key.as_ref();
    StoreSettings {
        endpoint: settings.archive_endpoint.clone(),
        region: settings.archive_region.clone(),
        key: key.map(|key| (key.name.clone(), key.secret.0.clone())),
        retry_for,
    }
}

/// Refuses a place inside of what is copied to it.
fn outside(target: &Target, data_dir: &Path) -> Result<()> {
    let dir = std::fs::canonicalize(data_dir)
        .with_context(|| format!("cannot open {}", data_dir.display()))?;
    if let Some(inside) = target.dir().filter(|place| place.starts_with(&dir)) {
        let (inside, dir) = (inside.display(), dir.display());
        bail!("{inside} is in the data directory {dir}, and would be lost with it; name another");
    }
    Ok(())
}

/// A server's archive.
pub(crate) struct Archiving {
    archive: Arc<Archive>,
    segments: Arc<Segments>,
    every: Duration,
    random: Arc<Random>,
}

impl Archiving {
    /// The archive of the settings, if they name one. The error says what to do.
    pub(crate) fn open(
        settings: &ArchiveSettings,
        data_dir: &Path,
        own_endpoint: &str,
        clock: Arc<dyn Clock>,
        random: Arc<Random>,
    ) -> Result<Option<Self>> {
        let Some(url) = &settings.archive_url else { return Ok(None) };
        let reach = &settings.store;
        let store = store(reach, None);
        let endpoint = store.service().unwrap_or_default();
        if url.starts_with("s3://") && endpoint.trim_end_matches('/') == own_endpoint {
            bail!("--archive-endpoint {endpoint} is this server, and would be lost with it");
        }
        let target = Target::open(url, &store, true).context("--archive-url")?;
        outside(&target, data_dir).context("--archive-url")?;
        let options = Options {
            data_dir: data_dir.to_owned(),
            scratch: scratch(data_dir, "archive")?.path().to_owned(),
            named: named(),
            secrets: settings.archive_secrets,
            keep: Keep { points: POINTS_KEPT, age: Some(POINTS_KEPT_FOR) },
            archived_in: None,
        };
        let archive = Arc::new(Archive::new(target, options, clock, Arc::clone(&random)));
        let every = Duration::from_secs(settings.archive_interval_seconds);
        let readers = Target::open(url, &self::store(reach, Some(READ_RETRIED_FOR)), false);
        let segments = Segments::of(Arc::clone(&archive), readers.context("--archive-url")?);
        Ok(Some(Self { archive, segments: Arc::new(segments), every, random }))
    }

    /// Has the log keep old segments in the archive, as the settings say, and read them there. Refuses a
    /// log that needs an archive where none is named.
    pub(crate) fn of_log(
        log: &Arc<Log>,
        settings: &ArchiveSettings,
        own: Option<&Self>,
    ) -> Result<()> {
        match (own, log.archived_segments()) {
            (Some(own), _) => log.archive_to(ArchiveUse {
                archive: own.segments.clone(),
                local_retention: settings.local_retention,
                cache_bytes: settings.cache_mib() << 20,
            }),
            (None, 0) => {}
            (None, n) => bail!(
                "{n} segments of the log are in the archive only; name it with --archive-url, as before"
            ),
        }
        Ok(())
    }

    /// Archives until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let random = Arc::clone(&self.random);
        hydrant_archive::run(Arc::clone(&self.archive), self.every, random, stop).await;
    }

    /// Archives what is left, when nothing is written any more.
    pub(crate) async fn finish(&self) {
        if let Err(error) = self.archive.point().await {
            tracing::warn!(%error, "what was written last is not in the archive");
        }
    }
}

/// A directory in the data directory for the copy of the control store.
fn scratch(data_dir: &Path, name: &str) -> Result<DataDir> {
    Ok(DataDir::open(data_dir.join(name))?)
}

/// Refuses a directory that is still being restored.
pub(crate) fn refuse_half_restored(data_dir: &Path) -> Result<()> {
    if data_dir.join(RESTORING).exists() {
        let dir = data_dir.display();
        bail!("{dir} was restored by half; repeat the `hydrant restore`, which goes on from there");
    }
    Ok(())
}

fn entropy() -> Result<Arc<Random>> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system gives no randomness")?;
    Ok(Arc::new(Random::from_entropy(seed)))
}

/// Copies a data directory, and says what of it.
pub(crate) async fn backup(settings: &BackupSettings) -> Result<()> {
    settings.store.check()?;
    let dir = &settings.data_dir;
    if !dir.join("hydrant.db").exists() {
        bail!("{} is no data directory of hydrant's; name one with --data-dir", dir.display());
    }
    refuse_half_restored(dir)?;
    let reach = store(&settings.store, None);
    let target = Target::open(&settings.to, &reach, true).context("--to")?;
    outside(&target, dir).context("--to")?;
    let archived_in = settings.archive_url.as_ref().map(|url| Target::open(url, &reach, false));
    let scratch = scratch(dir, "backup").context("another backup of it is under way")?;
    let options = Options {
        data_dir: dir.clone(),
        scratch: scratch.path().to_owned(),
        named: named(),
        secrets: settings.secrets,
        keep: Keep { points: settings.keep as usize, age: None },
        archived_in: archived_in.transpose().context("--archive-url")?,
    };
    let archive = Archive::new(target, options, Arc::new(SystemClock), entropy()?);
    let (taken, said) = match archive.point().await? {
        Took::Point(taken) => (taken, "backed up"),
        Took::Unchanged(taken) => (taken, "nothing was written since"),
    };
    let Taken { number, at, files, bytes } = taken;
    let (dir, to) = (dir.display(), &settings.to);
    writeln!(
        std::io::stdout().lock(),
        "{said}: {dir}, everything acknowledged before {at}: {files} files, {bytes} bytes\n\
         to {to}, point {number}{}\n  hydrant restore --from {to} --data-dir NEW",
        if settings.secrets { "" } else { " (without secrets.key)" },
    )?;
    Ok(())
}

/// Makes a data directory, and says of what.
pub(crate) async fn restore(settings: &RestoreSettings) -> Result<()> {
    settings.store.check()?;
    let reach = store(&settings.store, None);
    let target = Target::open(&settings.from, &reach, false).context("--from")?;
    let dir: &PathBuf = &settings.data_dir;
    let random = entropy()?;
    let restored =
        hydrant_archive::restore(&target, dir, settings.point, &SystemClock, &random).await?;
    let (from, number) = (&settings.from, restored.number);
    let hydrant_archive::Restored { at, last, files, bytes, segments, .. } = restored;
    let secrets = match restored.secrets {
        true => "",
        false => {
            "secrets.key is not in it: give the master key, or CREATE OR REPLACE the secrets whose \
             passwords were encrypted with that file\n"
        }
    };
    let latest = match last {
        Timestamp::ZERO => "there is no record in it".to_owned(),
        last => format!("the latest record arrived {last}"),
    };
    let dir = dir.display();
    writeln!(
        std::io::stdout().lock(),
        "restored point {number} of {from}: {files} files, {bytes} bytes, {segments} segments of the log\n\
         everything acknowledged before {at} is there; {latest}\n\
         {secrets}  hydrant serve --data-dir {dir}",
    )?;
    Ok(())
}
