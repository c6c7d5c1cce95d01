//! Secrets, connections and sources of the settings file: the statements CREATE SECRET, CREATE
//! CONNECTION and CREATE SOURCE as tables `[[secret]]`, `[[connection]]` and `[[source]]`.
//!
//! [`apply`] makes them at the start.

mod apply;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hydrant_core::Timestamp;
use hydrant_core::arn::Arn;
use hydrant_core::capture::{
    Connection, Envelope, OnSlotLoss, Oversize, PgTable, Secret, SecretText, SlotChoice,
    SnapshotMode, SourceSettings, SourceTable, SslMode,
};
use hydrant_core::names::{Scope, StreamName};
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) use crate::declared::apply::apply;

/// What the settings file declares.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    secrets: Vec<Secret>,
    connections: Vec<Connection>,
    sources: Vec<SourceOfFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretOfFile {
    name: String,
    user: Option<String>,
    /// Not a text only, so that no refusal shows what it is instead.
    password: Option<toml::Value>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    #[serde(default)]
    comment: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionOfFile {
    name: String,
    host: String,
    #[serde(default = "postgresql_port")]
    port: u16,
    database: String,
    user: Option<String>,
    secret: Option<String>,
    #[serde(default)]
    ssl_mode: SslMode,
    ssl_authority_file: Option<PathBuf>,
    #[serde(default)]
    comment: String,
}

/// A `[[source]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceOfFile {
    name: String,
    connection: String,
    publications: Vec<String>,
    slot: Option<String>,
    #[serde(default)]
    adopt_slot: bool,
    tables: Option<Vec<Listed>>,
    stream: String,
    #[serde(default = "one_shard")]
    shards: u32,
    #[serde(default)]
    envelope: Envelope,
    #[serde(default)]
    snapshot: SnapshotMode,
    #[serde(default)]
    oversize: Oversize,
    #[serde(default)]
    transactions: bool,
    #[serde(default)]
    on_slot_loss: OnSlotLoss,
    #[serde(default)]
    comment: String,
}

/// A table of a source, by name alone or with the columns of its partition key.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "want tables = [\"schema.table\", { table = \"schema.table\", partition_by = [\"column\"] }]"
)]
enum Listed {
    Name(String),
    By(ListedBy),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedBy {
    table: String,
    partition_by: Vec<String>,
}

const fn postgresql_port() -> u16 {
    5432
}

const fn one_shard() -> u32 {
    1
}

impl Declared {
    /// Takes the tables out of the file's. Passwords and certificates are read from where they are; no
    /// error shows one.
    pub(crate) fn take(file: &mut toml::Table) -> Result<Self> {
        let secrets: Vec<SecretOfFile> = take(file, "secret")?;
        let connections: Vec<ConnectionOfFile> = take(file, "connection")?;
        Ok(Self {
            secrets: secrets.into_iter().map(secret).collect::<Result<_>>()?,
            connections: connections.into_iter().map(connection).collect::<Result<_>>()?,
            sources: take(file, "source")?,
        })
    }
}

fn take<T: DeserializeOwned>(file: &mut toml::Table, key: &str) -> Result<Vec<T>> {
    let Some(value) = file.remove(key) else { return Ok(Vec::new()) };
    let toml::Value::Array(tables) = value else { bail!("write [[{key}]], once for each {key}") };
    let read = |(nth, table): (usize, toml::Value)| {
        let of = table.get("name").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        table.try_into().map_err(|e: toml::de::Error| {
            anyhow::anyhow!("[[{key}]] {of:?} (number {}): {}", nth + 1, e.message())
        })
    };
    tables.into_iter().enumerate().map(read).collect()
}

fn secret(of: SecretOfFile) -> Result<Secret> {
    let at = format!("[[secret]] {:?}", of.name);
    let password = match (of.password, of.password_file, of.password_env) {
        (Some(toml::Value::String(password)), None, None) => password,
        (Some(_), None, None) => bail!("{at}: password wants a text"),
        (None, Some(path), None) => {
            let text = read(&path).with_context(|| at.clone())?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        (None, None, Some(name)) => {
            let missing = || format!("{at}: the environment variable {name} is not set");
            std::env::var(&name).ok().with_context(missing)?
        }
        _ => bail!("{at} wants one of password_file, password_env and password"),
    };
    if password.is_empty() || of.user.as_deref() == Some("") {
        bail!("{at}: neither the user nor the password may be empty");
    }
    Ok(Secret {
        name: folded(&of.name),
        user: of.user,
        password: SecretText::new(password),
        created: Timestamp::ZERO,
        comment: of.comment,
    })
}

fn connection(of: ConnectionOfFile) -> Result<Connection> {
    let at = || format!("[[connection]] {:?}", of.name);
    let ssl_authority = of.ssl_authority_file.as_deref().map(read).transpose().with_context(at)?;
    Ok(Connection {
        name: folded(&of.name),
        host: of.host,
        port: of.port,
        database: of.database,
        user: of.user,
        secret: of.secret.as_deref().map(folded),
        ssl_mode: of.ssl_mode,
        ssl_authority,
        created: Timestamp::ZERO,
        comment: of.comment,
    })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

impl SourceOfFile {
    fn settings(&self, scope: &Scope) -> Result<SourceSettings> {
        let (scope, stream) = stream(&self.stream, scope)?;
        if self.adopt_slot && self.slot.is_none() {
            bail!("adopt_slot wants the slot's name: slot = \"…\"");
        }
        let slot = self.slot.clone();
        let tables = self.tables.as_ref();
        let tables = tables.map(|all| all.iter().map(listed).collect::<Result<Vec<_>>>());
        Ok(SourceSettings {
            name: folded(&self.name),
            connection: folded(&self.connection),
            publications: self.publications.clone(),
            slot: slot.map(|name| SlotChoice { name, adopt: self.adopt_slot }),
            tables: tables.transpose()?,
            left_out: Vec::new(),
            scope,
            stream,
            shards: self.shards,
            envelope: self.envelope,
            snapshot: self.snapshot,
            oversize: self.oversize,
            transactions: self.transactions,
            on_slot_loss: self.on_slot_loss,
            comment: self.comment.clone(),
        })
    }
}

/// A stream by its ARN, or by its name in the scope of the settings.
fn stream(text: &str, scope: &Scope) -> Result<(Scope, StreamName)> {
    let Ok(arn) = text.parse::<Arn>() else { return Ok((scope.clone(), text.parse()?)) };
    let name = arn.name_of("stream").filter(|_| arn.service == "kinesis");
    let name = name.with_context(|| format!("{text} is no ARN of a stream"))?;
    Ok((arn.scope.clone(), name.parse()?))
}

fn listed(of: &Listed) -> Result<SourceTable> {
    let (name, columns) = match of {
        Listed::Name(name) => (name, [].as_slice()),
        Listed::By(ListedBy { table, partition_by }) => (table, partition_by.as_slice()),
    };
    let (schema, table) = match *parts(name).as_slice() {
        [table] => ("public", table),
        [schema, table] => (schema, table),
        _ => bail!("{name:?} is no table: write schema.table"),
    };
    let table = PgTable { schema: pg_folded(schema), table: pg_folded(table) };
    let partition_by = columns.iter().map(|column| pg_folded(column)).collect();
    Ok(SourceTable { table, partition_by })
}

/// The parts of a name with dots; dots in double quotes do not part it.
fn parts(name: &str) -> Vec<&str> {
    let mut quoted = false;
    name.split(|c| {
        quoted ^= c == '"';
        c == '.' && !quoted
    })
    .collect()
}

/// As statements fold a name: upper case unless it is quoted.
fn folded(name: &str) -> String {
    unquoted(name).unwrap_or_else(|| name.to_uppercase())
}

/// As PostgreSQL folds a name: lower case unless it is quoted.
fn pg_folded(name: &str) -> String {
    unquoted(name).unwrap_or_else(|| name.to_ascii_lowercase())
}

fn unquoted(name: &str) -> Option<String> {
    Some(name.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests;
