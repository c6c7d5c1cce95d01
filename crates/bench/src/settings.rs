//! What to measure, and where.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::client::{BenchError, Place};

/// Most bytes of a record (Kinesis: 10 MiB with a raised limit, 1 MiB without; the stream is made
/// with the default).
const RECORD_BYTES_MAX: i64 = 1 << 20;
/// Most bytes of a PutRecords request (Kinesis).
const BATCH_BYTES_MAX: usize = 10 << 20;
/// Largest key of a batch's record: what [`crate::load`] makes.
const KEY_BYTES: usize = 20;
/// Most records of a PutRecords request (Kinesis).
const BATCH_MAX: u16 = 500;
/// How often a connection of `fan-out` puts, unless its batch is said or would be too large.
const PUTS_A_SECOND: u64 = 50;

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum Measurement {
    /// PutRecords (or PutRecord, with --batch 1) as fast as the server takes it.
    Put(Put),
    /// GetRecords from the oldest record to the newest, again and again.
    Get(Get),
    /// The delay from a put to its arrival by SubscribeToShard, at a steady rate.
    FanOut(FanOut),
    /// CreateStream, many times: streams that nobody uses, which stay.
    Streams(Streams),
}

/// Settings of `put`.
#[derive(Args, Clone, Debug)]
pub struct Put {
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Settings of `get`.
#[derive(Args, Clone, Debug)]
pub struct Get {
    /// Records that are put before anything is read.
    #[arg(long, value_name = "N", default_value_t = 200_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) records: u64,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Settings of `fan-out`.
#[derive(Args, Clone, Debug)]
pub struct FanOut {
    /// Registered consumers, each of which reads every shard.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=50))]
    pub(crate) consumers: u16,
    /// Records put in a second, over all connections.
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) rate: u64,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Settings of `streams`.
#[derive(Args, Clone, Debug)]
pub struct Streams {
    /// Streams of one shard to make.
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) count: u64,
    /// What their names start with; a number follows.
    #[arg(long, value_name = "PREFIX", default_value = "hydrant-bench-")]
    pub(crate) prefix: String,
    /// Connections, each with one request at a time.
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) connections: u16,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// The server, and how it is told what was measured.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Data directory of a server on this machine: its endpoint and its process are found there.
    #[arg(long, value_name = "DIR", env = "HYDRANT_DATA_DIR", default_value = "hydrant-data")]
    pub(crate) data_dir: PathBuf,
    /// URL of any server of Kinesis's API instead, such as http://127.0.0.1:4566.
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Process of that server, whose CPU time and memory are told.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Access key that requests are signed with.
    #[arg(long, value_name = "ID:SECRET", default_value = "test:test", hide_default_value = true)]
    pub(crate) access_key: String,
    /// Region that requests are signed for.
    #[arg(long, value_name = "REGION", default_value = "us-east-1")]
    pub(crate) region: String,
    /// Print one JSON object instead of a text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The stream and the load of a measurement.
#[derive(Args, Clone, Debug)]
pub struct Target {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Stream that is made for the measurement, and deleted after it.
    #[arg(long, value_name = "NAME", default_value = "hydrant-bench")]
    pub(crate) stream: String,
    /// Its shards.
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) shards: u16,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Connections, each with one request at a time.
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) connections: u16,
    /// Bytes of a record's data.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024,
        value_parser = clap::value_parser!(i64).range(9..=RECORD_BYTES_MAX))]
    pub(crate) record_bytes: i64,
    /// Records of a request: 500, but for fan-out so few that a connection puts 50 times a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=500))]
    batch: Option<u16>,
    /// Seed of keys and data.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What a server says of itself in its data directory.
#[derive(Deserialize)]
struct Endpoints {
    aws: String,
    pid: u32,
}

impl Measurement {
    /// Whether the report is wanted as JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Put(put) => put.target.server.json,
            Self::Get(get) => get.target.server.json,
            Self::FanOut(fan_out) => fan_out.target.server.json,
            Self::Streams(streams) => streams.server.json,
        }
    }
}

impl FanOut {
    /// The load, with requests as large as the rate needs them unless it is said.
    pub(crate) fn target(&self) -> Target {
        let often = self.rate / (u64::from(self.target.connections) * PUTS_A_SECOND);
        let batch = u16::try_from(often).unwrap_or(BATCH_MAX).clamp(1, BATCH_MAX);
        Target { batch: Some(self.target.batch.unwrap_or(batch)), ..self.target.clone() }
    }
}

impl Target {
    /// Records of a request.
    pub(crate) fn batch(&self) -> u16 {
        self.batch.unwrap_or(BATCH_MAX)
    }

    /// Where the server is; an error if it would not take the requests.
    pub(crate) fn place(&self) -> Result<Place, BenchError> {
        let bytes = usize::from(self.batch()) * (self.record_bytes as usize + KEY_BYTES);
        if bytes > BATCH_BYTES_MAX {
            return Err(BenchError::Setting(format!(
                "a request may have {BATCH_BYTES_MAX} bytes, not {bytes}: make --batch or \
                 --record-bytes smaller"
            )));
        }
        self.server.place()
    }
}

impl Server {
    /// Where the server is, and with what its requests are signed.
    pub(crate) fn place(&self) -> Result<Place, BenchError> {
        let Some((id, secret)) = self.access_key.split_once(':') else {
            return Err(BenchError::Setting("--access-key is ID:SECRET".into()));
        };
        let (endpoint, pid) = match &self.endpoint {
            Some(endpoint) => (endpoint.clone(), self.server_pid),
            None => {
                let file = self.data_dir.join("endpoints.json");
                let found = std::fs::read(&file)
                    .map_err(|error| error.to_string())
                    .and_then(|text| {
                        serde_json::from_slice::<Endpoints>(&text).map_err(|e| e.to_string())
                    })
                    .map_err(|error| {
                        BenchError::Setting(format!(
                            "no server is found by {}: {error}. Start one with `hydrant serve`, or \
                             name it with --data-dir or --endpoint",
                            file.display()
                        ))
                    })?;
                (found.aws, Some(self.server_pid.unwrap_or(found.pid)))
            }
        };
        Place::new(&endpoint, pid, id, secret, &self.region)
    }
}
