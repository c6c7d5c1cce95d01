//! The one definition of every setting: a flag, a `HYDRANT_*` variable and a key of `hydrant.toml`,
//! in that order of precedence.

mod archive;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use hydrant_core::names::{AccountId, Region};
use hydrant_vault::KmsKey;

pub(crate) use self::archive::{ArchiveSettings, ArchiveStore, BackupSettings, RestoreSettings};
use crate::declared::Declared;
use crate::log_tools::LogTool;

/// Streams, delivery streams, a bucket, and SQL over what lands in it, in one process.
#[derive(Debug, Parser)]
#[command(name = "hydrant", version, about, propagate_version = true)]
#[command(after_help = "Every setting is a flag, a HYDRANT_* variable, or a key of hydrant.toml \
    (the flag's long name without the dashes in front), in that order.")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve everything until Ctrl-C or SIGTERM.
    Serve(Settings),
    /// Serve, and run the whole pipeline on a bundled set of real earthquakes.
    Demo(DemoSettings),
    /// Copy a data directory, as of one moment, whether a server uses it or not.
    Backup(BackupSettings),
    /// Make a data directory of an archive or a backup.
    Restore(RestoreSettings),
    /// Load a server, and tell what it took.
    #[command(subcommand)]
    Bench(hydrant_bench::Measurement),
    /// Look at the log of a data directory: verify it, print it, go on from damage.
    #[command(subcommand)]
    Log(LogTool),
}

/// Settings of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoSettings {
    /// Stop when the demo is through, for scripts.
    #[arg(long)]
    pub(crate) exit: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// An access key that may sign requests.
#[derive(Clone, Debug)]
pub(crate) struct NamedSecret {
    /// Access key id, or user name.
    pub(crate) name: String,
    /// Secret access key, or password.
    pub(crate) secret: Secret,
}

/// A text that `Debug` does not show.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Whose rates and quotas hold for streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Limits {
    /// A shard is as fast as the disk.
    Default,
    /// AWS's, as documented.
    Aws,
}

impl From<Limits> for hydrant_kinesis::Limits {
    fn from(limits: Limits) -> Self {
        match limits {
            Limits::Default => Self::Default,
            Limits::Aws => Self::Aws,
        }
    }
}

/// Settings of a server.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// File with settings; ./hydrant.toml is read if it is there.
    #[arg(long, value_name = "FILE", env = "HYDRANT_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Directory that holds everything that must survive.
    #[arg(long, value_name = "DIR", env = "HYDRANT_DATA_DIR", default_value = "hydrant-data")]
    pub(crate) data_dir: PathBuf,

    /// Address of the AWS APIs (Kinesis, Firehose, S3) and of Snowflake's drivers.
    #[arg(long, value_name = "ADDR", env = "HYDRANT_LISTEN", default_value = "127.0.0.1:4566")]
    pub(crate) listen: SocketAddr,

    /// Address of SQL over the PostgreSQL protocol (psql, JDBC).
    #[arg(long, value_name = "ADDR", env = "HYDRANT_PG_LISTEN", default_value = "127.0.0.1:5439")]
    pub(crate) pg_listen: SocketAddr,

    /// Address of /healthz, /readyz and /metrics.
    #[arg(
        long,
        value_name = "ADDR",
        env = "HYDRANT_ADMIN_LISTEN",
        default_value = "127.0.0.1:4580"
    )]
    pub(crate) admin_listen: SocketAddr,

    /// Access key that requests are signed with; repeat for more. Without any, every well-formed
    /// signature is taken and all addresses must be loopback.
    #[arg(
        long = "access-key",
        value_name = "ID:SECRET",
        env = "HYDRANT_ACCESS_KEYS",
        value_delimiter = ',',
        value_parser = named_secret,
        hide_env_values = true,
        action = ArgAction::Append
    )]
    pub(crate) access_keys: Vec<NamedSecret>,

    /// User who may log in to SQL; repeat for more. Without any, everyone may, from loopback.
    #[arg(
        long = "sql-user",
        value_name = "NAME:PASSWORD",
        env = "HYDRANT_SQL_USERS",
        value_delimiter = ',',
        value_parser = named_secret,
        hide_env_values = true,
        action = ArgAction::Append
    )]
    pub(crate) sql_users: Vec<NamedSecret>,

    /// Account that resources belong to. Without access keys, an access key id of 12 digits is an
    /// account of its own.
    #[arg(long, value_name = "ID", env = "HYDRANT_ACCOUNT_ID", default_value = "000000000000")]
    pub(crate) account_id: AccountId,

    /// Region of a stream that a source names without its ARN.
    #[arg(long, value_name = "REGION", env = "HYDRANT_REGION", default_value = "us-east-1")]
    pub(crate) region: Region,

    /// Host name that clients may use beside localhost and the listen address; repeat for more.
    #[arg(
        long = "allow-host",
        value_name = "NAME",
        env = "HYDRANT_ALLOW_HOSTS",
        value_delimiter = ',',
        action = ArgAction::Append
    )]
    pub(crate) allow_hosts: Vec<String>,

    /// Whose rates and quotas hold for streams: hydrant's own, or AWS's, to test against them.
    #[arg(long, value_enum, env = "HYDRANT_LIMITS", default_value = "default")]
    pub(crate) limits: Limits,

    /// Most open shards of an account and region: 10,000, or with --limits aws AWS's quota.
    #[arg(long, value_name = "N", env = "HYDRANT_SHARD_LIMIT",
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) shard_limit: Option<u32>,

    /// Certificate for TLS on --listen, and those that lead from it to its authority, in a PEM file. Read
    /// again when it changes. Without it, one for development is made in the data directory.
    #[arg(long, value_name = "FILE", env = "HYDRANT_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, in a PEM file.
    #[arg(long, value_name = "FILE", env = "HYDRANT_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,

    /// S3-compatible service (URL, or `aws`) that holds the buckets of --s3-bucket.
    #[arg(long, value_name = "URL", env = "HYDRANT_S3_ENDPOINT")]
    pub(crate) s3_endpoint: Option<String>,

    /// Bucket that is at --s3-endpoint and not hydrant's own, for delivery streams and for stages
    /// without ENDPOINT; repeat for more, `*` for all.
    #[arg(
        long = "s3-bucket",
        value_name = "NAME",
        env = "HYDRANT_S3_BUCKETS",
        value_delimiter = ',',
        action = ArgAction::Append
    )]
    pub(crate) s3_buckets: Vec<String>,

    /// Region of --s3-endpoint.
    #[arg(long, value_name = "REGION", env = "HYDRANT_S3_REGION", default_value = "us-east-1")]
    pub(crate) s3_region: String,

    /// Access key that delivery streams use at --s3-endpoint.
    #[arg(
        long,
        value_name = "ID:SECRET",
        env = "HYDRANT_S3_ACCESS_KEY",
        value_parser = named_secret,
        hide_env_values = true
    )]
    pub(crate) s3_access_key: Option<NamedSecret>,

    /// File with the master key that streams are encrypted under: 32 bytes in base64 or hex. (Or the
    /// key itself in HYDRANT_MASTER_KEY.) Without one, no stream can be encrypted.
    #[arg(long, value_name = "FILE", env = "HYDRANT_MASTER_KEY_FILE")]
    pub(crate) master_key_file: Option<PathBuf>,

    /// KMS key that streams may be encrypted under, beside alias/aws/kinesis: alias/NAME, a key id
    /// (a UUID) or an ARN of either; repeat for more. `=disabled` or `=pending-deletion` behind it
    /// keeps what is encrypted under it from being read.
    #[arg(
        long = "kms-key",
        value_name = "NAME[=STATE]",
        env = "HYDRANT_KMS_KEYS",
        value_delimiter = ',',
        action = ArgAction::Append
    )]
    pub(crate) kms_keys: Vec<KmsKey>,

    /// Memory for records that were written lately, shared by all streams, in MiB.
    #[arg(long, value_name = "MIB", env = "HYDRANT_TAIL_CACHE_MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) tail_cache_mib: u64,

    /// How long a stream or a consumer shows CREATING, UPDATING or DELETING, in milliseconds; records
    /// are taken while a stream is UPDATING.
    #[arg(long, value_name = "MS", env = "HYDRANT_STREAM_STATE_DELAY_MS", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub(crate) stream_state_delay_ms: u64,

    /// How long a SubscribeToShard lasts, in seconds; its clients then subscribe again.
    #[arg(long, value_name = "S", env = "HYDRANT_SUBSCRIPTION_SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) subscription_seconds: u64,

    /// Size of a segment of the log, in MiB.
    #[arg(long, value_name = "MIB", env = "HYDRANT_SEGMENT_MIB", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(16..=1024))]
    pub(crate) segment_mib: u64,

    /// Memory that SQL statements may use together, in MiB.
    #[arg(long, value_name = "MIB", env = "HYDRANT_SQL_MEMORY_MIB", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub(crate) sql_memory_mib: u64,

    /// Most connections on --listen; further ones wait until one ends.
    #[arg(long, value_name = "N", env = "HYDRANT_CONNECTIONS_MAX", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) connections_max: u32,

    /// What to log: error, warn, info, debug, or a filter such as `hydrant_delivery=debug`.
    #[arg(long, value_name = "FILTER", env = "HYDRANT_LOG", default_value = "info")]
    pub(crate) log: String,

    /// How log lines look.
    #[arg(long, value_enum, env = "HYDRANT_LOG_FORMAT", default_value = "auto")]
    pub(crate) log_format: LogFormat,

    #[command(flatten)]
    pub(crate) archive: ArchiveSettings,

    /// The secrets, connections and sources of the settings file.
    #[arg(skip)]
    pub(crate) declared: Declared,
}

impl Settings {
    /// Refuses settings that contradict each other, with what to do about it.
    pub(crate) fn check(&self) -> Result<()> {
        check_secrets("--access-key", "ID:SECRET", &self.access_keys)?;
        check_secrets("--sql-user", "NAME:PASSWORD", &self.sql_users)?;
        check_secrets("--s3-access-key", "ID:SECRET", &self.s3_access_key)?;
        self.archive.check(self.segment_mib)?;
        let open = [
            ("--listen", self.listen, self.access_keys.is_empty()),
            ("--listen", self.listen, self.sql_users.is_empty()),
            ("--pg-listen", self.pg_listen, self.sql_users.is_empty()),
            ("--admin-listen", self.admin_listen, self.access_keys.is_empty()),
        ];
        for (flag, address, open) in open {
            if open && !address.ip().is_loopback() {
                bail!(
                    "{flag} {address} can be reached from other machines, and no credentials are \
                     configured; give --access-key ID:SECRET and --sql-user NAME:PASSWORD, or \
                     listen on 127.0.0.1"
                );
            }
        }
        let mut names = HashSet::new();
        if let Some(key) = self.kms_keys.iter().find(|key| !names.insert(&key.name)) {
            bail!("--kms-key names {} twice; give each name one state", key.name);
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            bail!("--tls-cert and --tls-key go together: give both, or neither");
        }
        if let Some(url) = &self.s3_endpoint {
            let known = url == "aws" || url.starts_with("http://") || url.starts_with("https://");
            if !known {
                bail!("--s3-endpoint {url}: want http://…, https://… or aws");
            }
            if self.s3_access_key.is_none() || self.s3_buckets.is_empty() {
                bail!("--s3-endpoint needs --s3-access-key ID:SECRET and --s3-bucket NAME");
            }
        } else if !self.s3_buckets.is_empty() {
            bail!("--s3-bucket needs --s3-endpoint URL");
        }
        Ok(())
    }
}

/// Takes any text: a refusal of the parser's would show it, and it may hold a secret. What is no
/// name and secret is refused by [`Settings::check`].
#[allow(clippy::unnecessary_wraps, reason = "what a value parser returns")]
fn named_secret(text: &str) -> Result<NamedSecret, String> {
    let (name, secret) = text.split_once(':').unwrap_or_default();
    Ok(NamedSecret { name: name.to_owned(), secret: Secret(secret.to_owned()) })
}

fn check_secrets<'a>(
    flag: &str,
    want: &str,
    given: impl IntoIterator<Item = &'a NamedSecret>,
) -> Result<()> {
    let mut names = HashSet::new();
    for NamedSecret { name, secret } in given {
        if name.is_empty() || secret.0.is_empty() {
            bail!("{flag} wants {want}, neither of them empty or with a comma");
        }
        if !names.insert(name) {
            bail!("{flag} names {name:?} twice; give each name one secret");
        }
    }
    Ok(())
}

/// Reads the settings of this process.
pub(crate) fn parse() -> Result<Cli> {
    let path = config_path();
    let (mut command, mut declared) = (Cli::command(), Declared::default());
    if let Some(path) = path {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the settings in {}", path.display()))?;
        (command, declared) =
            with_file(command, &text).with_context(|| path.display().to_string())?;
    }
    let matches = command.get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    match &mut cli.command {
        Command::Serve(settings) => settings.declared = declared,
        Command::Demo(demo) => demo.settings.declared = declared,
        Command::Backup(_) | Command::Restore(_) | Command::Bench(_) | Command::Log(_) => {}
    }
    Ok(cli)
}

/// The file that is named, or `hydrant.toml` if it is there.
fn config_path() -> Option<PathBuf> {
    let matches = Cli::command().ignore_errors(true).get_matches();
    let has_settings = |name: &str| !matches!(name, "bench" | "log");
    let named = matches.subcommand().filter(|(name, _)| has_settings(name)).and_then(|(_, m)| {
        let given = m.value_source("config")? != ValueSource::DefaultValue;
        given.then(|| m.get_one::<PathBuf>("config").cloned()).flatten()
    });
    named.or_else(|| {
        let usual = Path::new("hydrant.toml");
        usual.exists().then(|| usual.to_owned())
    })
}

/// The command with the file's values in place of the defaults, so that flags and variables win; and
/// what only the file can say.
fn with_file(command: clap::Command, text: &str) -> Result<(clap::Command, Declared)> {
    // The parser's own words would quote the line, which may hold a password.
    let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let before = e.span().and_then(|at| text.get(..at.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        anyhow::anyhow!("line {line}: {}", e.message())
    })?;
    let declared = Declared::take(&mut table)?;
    let mut defaults = Vec::new();
    for (key, value) in flat(table) {
        let settings = Settings::augment_args(clap::Command::new("settings"));
        let known = settings
            .get_arguments()
            .find(|a| a.get_long() == Some(key.as_str()) && key != "config")
            .with_context(|| format!("unknown setting {key:?}; see `hydrant serve --help`"))?;
        if value.is_array() && !matches!(known.get_action(), ArgAction::Append) {
            bail!("{key:?} wants one value, not a list");
        }
        defaults.push((known.get_id().clone(), texts(&key, value)?));
    }
    let set = |mut command: clap::Command| {
        for (id, texts) in &defaults {
            if command.get_arguments().any(|arg| arg.get_id() == id) {
                command = command.mut_arg(id, |arg| arg.default_values(texts.clone()));
            }
        }
        command
    };
    let place = |mut tool: clap::Command| {
        if let Some((id, texts)) = defaults.iter().find(|(id, _)| id == "data_dir") {
            tool = tool.mut_arg(id, |arg| arg.default_values(texts.clone()));
        }
        tool
    };
    let tools = |log: clap::Command| {
        ["verify", "dump", "salvage"].iter().fold(log, |log, tool| log.mut_subcommand(tool, place))
    };
    let commands = ["serve", "demo", "backup", "restore"];
    let command = commands.iter().fold(command, |command, name| command.mut_subcommand(name, set));
    Ok((command.mut_subcommand("log", tools), declared))
}

/// The keys of a table by their long names: `url` in `[archive]` is `archive-url`.
fn flat(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut flat = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(below) => {
                flat.extend(
                    below.into_iter().map(|(name, value)| (format!("{key}-{name}"), value)),
                );
            }
            value => flat.push((key, value)),
        }
    }
    flat
}

fn texts(key: &str, value: toml::Value) -> Result<Vec<String>> {
    Ok(match value {
        toml::Value::String(text) => vec![text],
        toml::Value::Integer(n) => vec![n.to_string()],
        toml::Value::Boolean(b) => vec![b.to_string()],
        toml::Value::Array(values) => {
            let nested: Result<Vec<_>> = values.into_iter().map(|v| texts(key, v)).collect();
            nested?.into_iter().flatten().collect()
        }
        _ => bail!("{key:?} wants a text, a number or a list of texts"),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settings(file: &str, args: &[&str]) -> Result<Settings> {
        let args = ["hydrant", "serve"].iter().chain(args);
        let (command, declared) = with_file(Cli::command(), file)?;
        let matches = command.try_get_matches_from(args)?;
        match Cli::from_arg_matches(&matches)?.command {
            Command::Serve(settings) => Ok(Settings { declared, ..settings }),
            _ => bail!("not serve"),
        }
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file = "listen = \"127.0.0.1:1\"\ntail-cache-mib = 7\naccess-key = [\"a:b\", \"c:d\"]";
        let seen = settings(file, &["--listen", "127.0.0.1:2"]).unwrap();
        assert_eq!((seen.listen.port(), seen.tail_cache_mib), (2, 7));
        assert_eq!(seen.access_keys.len(), 2);
        assert_eq!(seen.pg_listen.port(), 5439);
        assert!(!format!("{seen:?}").contains("\"b\""));
    }

    #[test]
    fn mistakes_say_what_to_do() {
        let unknown = settings("lisen = 1", &[]).unwrap_err().to_string();
        assert!(unknown.contains("unknown setting \"lisen\""), "{unknown}");
        let open = settings("", &["--listen", "0.0.0.0:4566"]).unwrap().check().unwrap_err();
        assert!(open.to_string().contains("--access-key"), "{open}");
        let admin = settings("", &["--admin-listen", "0.0.0.0:1"]).unwrap().check().unwrap_err();
        assert!(admin.to_string().contains("--admin-listen"), "{admin}");
        let half = settings("tls-cert = \"a.pem\"", &[]).unwrap().check().unwrap_err();
        assert!(half.to_string().contains("--tls-key"), "{half}");
        let list = settings("data-dir = [\"a\", \"b\"]", &[]).unwrap_err().to_string();
        assert!(list.contains("one value"), "{list}");
    }

    #[test]
    fn an_archive_is_a_table_of_the_file() {
        let file = "[archive]\nurl = \"s3://b/p\"\ninterval-seconds = 5\nsecrets = true";
        let seen = settings(file, &[]).unwrap().archive;
        assert_eq!(
            (seen.archive_url.as_deref(), seen.archive_interval_seconds, seen.archive_secrets),
            (Some("s3://b/p"), 5, true)
        );
        let unknown = settings("[archive]\nuri = \"\"", &[]).unwrap_err().to_string();
        assert!(unknown.contains("archive-uri"), "{unknown}");
        let alone = settings("", &["--archive-secrets"]).unwrap().check().unwrap_err();
        assert!(alone.to_string().contains("--archive-url"), "{alone}");
        let alone = settings("", &["--local-retention", "7d"]).unwrap().check().unwrap_err();
        assert!(alone.to_string().contains("--archive-url"), "{alone}");
        let cold = settings("local-retention = \"36h\"", &["--archive-url", "s3://b"]).unwrap();
        assert_eq!(cold.archive.local_retention.unwrap().as_secs(), 36 * 3_600);
        cold.check().unwrap();
        for wrong in ["", "7", "d", "0s", "-1d", "1.5h", "7 d", "36501d", "9999999999999999999d"] {
            let given = ["--local-retention", wrong];
            settings("", &given).err().unwrap_or_else(|| panic!("{wrong:?} is no duration"));
        }
        let small = ["--archive-url", "s3://b", "--archive-cache-mib", "64"];
        settings("", &small).unwrap().check().unwrap_err();
        let half = ["--archive-url", "s3://b", "--archive-access-key", "hidden"];
        let half = settings("", &half).unwrap().check().unwrap_err().to_string();
        assert!(half.contains("ID:SECRET") && !half.contains("hidden"), "{half}");
    }

    #[test]
    fn a_malformed_secret_is_not_repeated() {
        for (flag, value) in
            [("--access-key", "hidden"), ("--sql-user", "me:"), ("--sql-user", "me:a,hidden")]
        {
            let refusal = settings("", &[flag, value]).unwrap().check().unwrap_err().to_string();
            assert!(refusal.contains(flag) && !refusal.contains("hidden"), "{refusal}");
        }
        let twice = settings("", &["--sql-user", "me:a", "--sql-user", "me:b"]).unwrap();
        assert!(twice.check().unwrap_err().to_string().contains("twice"));
    }
}
