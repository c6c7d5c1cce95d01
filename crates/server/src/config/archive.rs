//! The settings of archives, backups and restores.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::{NamedSecret, check_secrets, named_secret};

/// Room for fetched segments, unless said.
const CACHE_MIB: u64 = 4096;
/// Longest duration.
const SECONDS_MAX: u64 = 36_500 * 86_400;

/// How an S3-compatible archive is reached.
#[derive(Clone, Debug, Args)]
pub(crate) struct ArchiveStore {
    /// S3-compatible service of s3:// archives and backups; without it AWS_ENDPOINT_URL, or AWS.
    #[arg(long, value_name = "URL", env = "HYDRANT_ARCHIVE_ENDPOINT")]
    pub(crate) archive_endpoint: Option<String>,

    /// Region of --archive-endpoint; without it AWS_REGION.
    #[arg(long, value_name = "REGION", env = "HYDRANT_ARCHIVE_REGION")]
    pub(crate) archive_region: Option<String>,

    /// Access key for --archive-endpoint; without it AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or
    /// what the machine is allowed.
    #[arg(
        long,
        value_name = "ID:SECRET",
        env = "HYDRANT_ARCHIVE_ACCESS_KEY",
        value_parser = named_secret,
        hide_env_values = true
    )]
    pub(crate) archive_access_key: Option<NamedSecret>,
}

/// What a server archives to while it runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct ArchiveSettings {
    /// Archive that the log, the control store, objects and tables are copied to while they are served:
    /// s3://BUCKET/PREFIX or file:///DIR. `hydrant restore` makes a data directory of it.
    #[arg(long, value_name = "URL", env = "HYDRANT_ARCHIVE_URL")]
    pub(crate) archive_url: Option<String>,

    /// Seconds between two points of the archive: what a lost disk loses at most.
    #[arg(long, value_name = "S",
          env = "HYDRANT_ARCHIVE_INTERVAL_SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) archive_interval_seconds: u64,

    /// Archive secrets.key too, which the passwords of secrets are encrypted with where there is no
    /// master key: whoever reads the archive can then read them.
    #[arg(long, env = "HYDRANT_ARCHIVE_SECRETS")]
    pub(crate) archive_secrets: bool,

    /// Keep segments of the log on the local disk for this long after their newest record, such as 36h
    /// or 7d; older ones, once the archive has them, are fetched from it when they are read. Without it
    /// everything stays.
    #[arg(long, value_name = "DURATION", env = "HYDRANT_LOCAL_RETENTION", value_parser = duration)]
    pub(crate) local_retention: Option<Duration>,

    /// Room on the local disk for segments that were fetched from the archive, in MiB; 4096 without it.
    #[arg(long, value_name = "MIB", env = "HYDRANT_ARCHIVE_CACHE_MIB",
          value_parser = clap::value_parser!(u64).range(16..=1 << 24))]
    pub(crate) archive_cache_mib: Option<u64>,

    #[command(flatten)]
    pub(crate) store: ArchiveStore,
}

/// Settings of `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupSettings {
    /// File with settings; ./hydrant.toml is read if it is there.
    #[arg(long, value_name = "FILE", env = "HYDRANT_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Directory that is copied.
    #[arg(long, value_name = "DIR", env = "HYDRANT_DATA_DIR", default_value = "hydrant-data")]
    pub(crate) data_dir: PathBuf,

    /// Where the copy goes: a directory, file:///DIR or s3://BUCKET/PREFIX. What is there of an earlier
    /// backup is not copied again.
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,

    /// The archive of the server, which segments are copied from that are not on its disk any more.
    #[arg(long, value_name = "URL", env = "HYDRANT_ARCHIVE_URL")]
    pub(crate) archive_url: Option<String>,

    /// Backups that are kept there, this one counted.
    #[arg(long, value_name = "N", default_value_t = 7,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) keep: u32,

    /// Copy secrets.key too, which the passwords of secrets are encrypted with where there is no
    /// master key: whoever reads the backup can then read them.
    #[arg(long)]
    pub(crate) secrets: bool,

    #[command(flatten)]
    pub(crate) store: ArchiveStore,
}

/// Settings of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreSettings {
    /// File with settings; ./hydrant.toml is read if it is there.
    #[arg(long, value_name = "FILE", env = "HYDRANT_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Directory that is made. Refused if anything is in it but half of the same restore.
    #[arg(long, value_name = "DIR", env = "HYDRANT_DATA_DIR", default_value = "hydrant-data")]
    pub(crate) data_dir: PathBuf,

    /// The archive or backup: a directory, file:///DIR or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,

    /// Restore this point and not the newest.
    #[arg(long, value_name = "N")]
    pub(crate) point: Option<u64>,

    #[command(flatten)]
    pub(crate) store: ArchiveStore,
}

impl ArchiveSettings {
    /// Refuses settings that contradict each other, with what to do about it.
    pub(super) fn check(&self, segment_mib: u64) -> Result<()> {
        let store = &self.store;
        if self.archive_url.is_none() && self.local_retention.is_some() {
            bail!(
                "--local-retention needs --archive-url URL: what leaves the disk has to be somewhere"
            );
        }
        if self.archive_url.is_none() && self.archive_cache_mib.is_some() {
            bail!("--archive-cache-mib needs --archive-url URL, which segments are fetched from");
        }
        if self.cache_mib() < segment_mib {
            bail!(
                "--archive-cache-mib {} has no room for one segment: want --segment-mib, {segment_mib}, \
                 or more",
                self.cache_mib()
            );
        }
        let is_said = self.archive_secrets
            || store.archive_endpoint.is_some()
            || store.archive_access_key.is_some();
        if self.archive_url.is_none() && is_said {
            bail!(
                "--archive-endpoint, --archive-access-key and --archive-secrets need --archive-url"
            );
        }
        store.check()
    }

    /// Room for segments that were fetched, in MiB.
    pub(crate) fn cache_mib(&self) -> u64 {
        self.archive_cache_mib.unwrap_or(CACHE_MIB)
    }
}

/// A number and its unit: seconds, minutes, hours or days.
fn duration(text: &str) -> Result<Duration, String> {
    let parse = || {
        let unit = match text.chars().last()? {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        let number = &text[..text.len() - 1];
        let is_number = number.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = is_number.then(|| number.parse().ok())??;
        number.checked_mul(unit).filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
    };
    let duration = parse().map(Duration::from_secs);
    duration.ok_or_else(|| "want a number and s, m, h or d, such as 36h, up to 36500d".to_owned())
}

impl ArchiveStore {
    /// Refuses settings that make no sense, with what to do about it.
    pub(crate) fn check(&self) -> Result<()> {
        check_secrets("--archive-access-key", "ID:SECRET", &self.archive_access_key)?;
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(url) = self.archive_endpoint.as_ref().filter(|url| !is_url(url)) {
            bail!("--archive-endpoint {url}: want http://… or https://…");
        }
        Ok(())
    }
}
