//! The settings of archives, backups and restores.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::{NamedSecret, check_secrets, named_secret};

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
    pub(super) fn check(&self) -> Result<()> {
        let store = &self.store;
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
