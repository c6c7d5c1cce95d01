//! `DatabaseSourceConfiguration`, checked and made into what a source of change data capture needs.
//!
//! The members and their constraints are those of botocore's model; what a connection and a source
//! cannot do is refused by name. Two members that AWS requires have nothing to do here and are only
//! shown again: hydrant reads the first rows from one snapshot of the server, so it writes no
//! watermarks, and it connects to the endpoint itself, so it makes no PrivateLink.

use hydrant_core::arn::Arn;
use hydrant_core::capture::{PgTable, SOURCE_TABLES_MAX, SecretReport, SourceTable, SslMode};
use hydrant_core::names::{Scope, StreamName};
use serde::{Deserialize, Serialize};

use crate::checks::Checks;
use crate::configuration::{ROLE_ARN, is_role_arn, unsupported};
use crate::error::Error;

/// Longest name that PostgreSQL keeps, in bytes (`NAMEDATALEN` - 1).
pub(crate) const PG_NAME_BYTES_MAX: usize = 63;
/// Length of what Secrets Manager appends to a secret's name in its ARN: a hyphen and six characters.
const ARN_SUFFIX_BYTES: usize = 7;
/// Longest piece of a value that an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 200;

const AT: &str = "databaseSourceConfiguration";
const NOT_BLANK: &str = "^(?!\\s*$).+";
const NAME: &str = "[\\u0001-\\uFFFF]*";
const SECRET_ARN: &str =
    "arn:.*:secretsmanager:[a-zA-Z0-9\\-]+:\\d{12}:secret:[a-zA-Z0-9\\-/_+=.@!]+";
const VPC_SERVICE: &str =
    "([a-zA-Z0-9\\-\\_]+\\.){2,3}vpce\\.[a-zA-Z0-9\\-]*\\.vpce-svc\\-[a-zA-Z0-9\\-]{17}$";
/// What only a pattern has. A dot is in every table's name, so by itself it is just a dot.
const PATTERN_CHARS: &[char] =
    &['*', '+', '?', '|', '(', ')', '[', ']', '{', '}', '^', '$', '\\', '%'];
/// Ways to say that every table is wanted.
const EVERY_TABLE: &[&str] = &["*", ".*", "*.*", ".*\\..*", ".*[.].*"];

/// A delivery stream's database, and how far the capture of it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Database {
    pub(crate) plan: Plan,
    /// The stream that takes the changes, of the delivery stream's name.
    pub(crate) stream: StreamName,
    pub(crate) stage: Stage,
    /// The members that were given, to be shown again.
    pub(crate) configuration: DatabaseConfiguration,
}

/// What a connection and a source are made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) ssl_mode: SslMode,
    /// Name of the secret, as it is stored.
    pub(crate) secret: String,
    /// Every table of the publication if `None`.
    pub(crate) tables: Option<Vec<SourceTable>>,
}

/// How far the connection and the source have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// They are being made, perhaps again after a crash.
    Pending,
    /// They are there.
    Attached,
    /// They cannot be, and this is why.
    Failed(String),
}

/// `DatabaseList`, `DatabaseTableList` and `DatabaseColumnList`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Patterns {
    #[serde(skip_serializing_if = "Option::is_none")]
    include: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude: Option<Vec<String>>,
}

/// `DatabaseSourceAuthenticationConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Authentication {
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets_manager_configuration: Option<SecretsManager>,
}

/// `SecretsManagerConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretsManager {
    #[serde(rename = "SecretARN", skip_serializing_if = "Option::is_none")]
    secret_arn: Option<String>,
    #[serde(rename = "RoleARN", skip_serializing_if = "Option::is_none")]
    role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
}

/// `DatabaseSourceVPCConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Vpc {
    #[serde(skip_serializing_if = "Option::is_none")]
    vpc_endpoint_service_name: Option<String>,
}

/// `DatabaseSourceConfiguration`, and most of `DatabaseSourceDescription`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DatabaseConfiguration {
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
    #[serde(rename = "SSLMode", skip_serializing_if = "Option::is_none")]
    ssl_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    databases: Option<Patterns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tables: Option<Patterns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Patterns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    surrogate_keys: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_watermark_table: Option<String>,
    #[serde(
        rename = "DatabaseSourceAuthenticationConfiguration",
        skip_serializing_if = "Option::is_none"
    )]
    authentication: Option<Authentication>,
    #[serde(rename = "DatabaseSourceVPCConfiguration", skip_serializing_if = "Option::is_none")]
    vpc: Option<Vpc>,
}

impl DatabaseConfiguration {
    /// What to connect to and to capture; `secrets` are those there are. Completes the members with
    /// the default that is shown. An error says which member cannot be, in AWS's words for what AWS
    /// refuses too.
    pub(crate) fn plan(&mut self, scope: &Scope, secrets: &[SecretReport]) -> Result<Plan, Error> {
        self.check()?;
        if self.kind.as_deref() == Some("MySQL") {
            return Err(unsupported("Type", "MySQL", "Use PostgreSQL."));
        }
        let ssl_mode = match self.ssl_mode.get_or_insert_with(|| "Enabled".to_owned()).as_str() {
            "Disabled" => SslMode::Disable,
            _ => SslMode::VerifyFull,
        };
        let host = self.endpoint.clone().unwrap_or_default();
        if host.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(invalid("Endpoint must be a host name or an address."));
        }
        // Checked to be in range; only zero is left.
        let port = self.port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        let port = port.ok_or_else(|| invalid("Port must be 1 to 65535."))?;
        let database = self.database()?;
        let tables = self.tables()?;
        self.refuse()?;
        let secret = self.secret(scope, secrets)?;
        Ok(Plan { host, port, database, ssl_mode, secret, tables })
    }

    /// The constraints of AWS's model.
    fn check(&self) -> Result<(), Error> {
        let mut checks = Checks::default();
        let at = |member: &str| format!("{AT}.{member}");
        let text = |checks: &mut Checks, member: &str, value: &Option<String>| {
            let at = at(member);
            match value {
                Some(text) => Some((at, text.clone())),
                None => {
                    checks.required::<()>(&at, None);
                    None
                }
            }
        };
        if let Some((at, kind)) = text(&mut checks, "type", &self.kind) {
            checks.one_of(&at, &kind, &["MySQL", "PostgreSQL"]);
        }
        if let Some((at, endpoint)) = text(&mut checks, "endpoint", &self.endpoint) {
            checks.length(&at, &endpoint, 1, 255);
            let valid = !endpoint.trim().is_empty() && !endpoint.contains(['\n', '\r']);
            checks.pattern(&at, &endpoint, valid, NOT_BLANK);
        }
        match self.port {
            Some(port) => drop(checks.number(&at("port"), port, 0, 65_535)),
            None => checks.required(&at("port"), None),
        }
        if let Some(mode) = &self.ssl_mode {
            checks.one_of(&at("sslMode"), mode, &["Disabled", "Enabled"]);
        }
        for (member, lists, max, required) in [
            ("databases", &self.databases, 64, true),
            ("tables", &self.tables, 129, true),
            ("columns", &self.columns, 194, false),
        ] {
            match lists {
                Some(lists) => lists.check(&mut checks, &at(member), max),
                None if required => checks.required(&at(member), None),
                None => {}
            }
        }
        let table = text(&mut checks, "snapshotWatermarkTable", &self.snapshot_watermark_table);
        if let Some((at, table)) = table {
            check_name(&mut checks, &at, &table, 129);
        }
        match &self.authentication {
            Some(authentication) => authentication.check(&mut checks),
            None => checks.required(&at("databaseSourceAuthenticationConfiguration"), None),
        }
        match &self.vpc {
            Some(vpc) => vpc.check(&mut checks),
            None => checks.required(&at("databaseSourceVPCConfiguration"), None),
        }
        checks.done()
    }

    /// The one database: a slot belongs to one, so a source does.
    fn database(&self) -> Result<String, Error> {
        let lists = self.databases.as_ref();
        if let Some(name) = lists.and_then(|lists| first(&lists.exclude)) {
            let hint = "Include the one database to read instead.";
            return Err(unsupported("Databases.Exclude", &shown(name), hint));
        }
        let included = lists.and_then(|lists| lists.include.as_deref()).unwrap_or_default();
        let [name] = included else {
            return Err(invalid(
                "Databases.Include must name exactly one database. Create a delivery stream for \
                 each database.",
            ));
        };
        if name.contains(PATTERN_CHARS) {
            let hint = "Name the one database.";
            return Err(unsupported("Databases.Include", &pattern(name), hint));
        }
        if name.len() > PG_NAME_BYTES_MAX {
            return Err(too_long("Databases.Include", name));
        }
        Ok(name.clone())
    }

    /// The tables by name; `None` for all of the publication.
    fn tables(&self) -> Result<Option<Vec<SourceTable>>, Error> {
        let lists = self.tables.as_ref();
        if let Some(name) = lists.and_then(|lists| first(&lists.exclude)) {
            let hint = "Leave the table out of the publication, or include the others by name.";
            return Err(unsupported("Tables.Exclude", &shown(name), hint));
        }
        let included = lists.and_then(|lists| lists.include.as_deref()).unwrap_or_default();
        if included.is_empty() || included.iter().any(|name| EVERY_TABLE.contains(&name.as_str())) {
            return Ok(None);
        }
        if included.len() > SOURCE_TABLES_MAX {
            return Err(invalid(&format!(
                "Tables.Include must name at most {SOURCE_TABLES_MAX} tables; '.*' takes every \
                 table of the publication."
            )));
        }
        let mut tables = included.iter().map(|name| table(name)).collect::<Result<Vec<_>, _>>()?;
        tables.sort();
        tables.dedup();
        let listed = |table| SourceTable { table, partition_by: Vec::new() };
        Ok(Some(tables.into_iter().map(listed).collect()))
    }

    /// Refuses what a source does not do.
    fn refuse(&self) -> Result<(), Error> {
        let columns = self.columns.as_ref();
        if let Some(name) = columns.and_then(|c| first(&c.include).or(first(&c.exclude))) {
            let hint =
                "Give the publication a list of columns: CREATE PUBLICATION … FOR TABLE t (a, b).";
            return Err(unsupported("Columns", &shown(name), hint));
        }
        if let Some(key) = first(&self.surrogate_keys) {
            let hint = "Leave it out: tables without a primary key are read without one.";
            return Err(unsupported("SurrogateKeys", &shown(key), hint));
        }
        Ok(())
    }

    /// The secret that `SecretARN` names.
    fn secret(&self, scope: &Scope, secrets: &[SecretReport]) -> Result<String, Error> {
        let named = self.authentication.as_ref();
        let named = named.and_then(|a| a.secrets_manager_configuration.as_ref());
        let Some(SecretsManager { secret_arn, enabled: Some(true), .. }) = named else {
            let (member, what) = ("SecretsManagerConfiguration", "Enabled is false");
            return Err(unsupported(member, what, "Set Enabled to true and name a SecretARN."));
        };
        let arn: Option<Arn> = secret_arn.as_ref().and_then(|arn| arn.parse().ok());
        let arn = arn.ok_or_else(|| {
            invalid("SecretARN must be specified when SecretsManagerConfiguration is enabled.")
        })?;
        if arn.scope.region != scope.region {
            return Err(invalid(&format!(
                "SecretARN must be of the region of the delivery stream, {}.",
                scope.region.as_str()
            )));
        }
        let name = arn.resource.strip_prefix("secret:").unwrap_or_default();
        let found = find_secret(name, secrets).ok_or_else(|| {
            invalid(&format!(
                "SecretARN: there is no secret '{0}'. Make one: CREATE SECRET \"{0}\" TYPE = \
                 PASSWORD USERNAME = '…' PASSWORD = '…'.",
                shown(bare(name).unwrap_or(name))
            ))
        })?;
        if found.user.is_none() {
            return Err(invalid(&format!(
                "SecretARN: secret '{}' has no USERNAME to log in with. Make it of TYPE = PASSWORD.",
                shown(&found.name)
            )));
        }
        Ok(found.name.clone())
    }
}

impl Patterns {
    fn check(&self, checks: &mut Checks, at: &str, max: usize) {
        for (member, list) in [("include", &self.include), ("exclude", &self.exclude)] {
            for (nth, name) in list.iter().flatten().take(SOURCE_TABLES_MAX).enumerate() {
                check_name(checks, &format!("{at}.{member}.{}.member", nth + 1), name, max);
            }
        }
    }
}

impl Authentication {
    fn check(&self, checks: &mut Checks) {
        let at =
            format!("{AT}.databaseSourceAuthenticationConfiguration.secretsManagerConfiguration");
        let Some(secrets) = &self.secrets_manager_configuration else {
            return checks.required(&at, None);
        };
        if secrets.enabled.is_none() {
            checks.required::<()>(&format!("{at}.enabled"), None);
        }
        if let Some(arn) = &secrets.secret_arn {
            let at = format!("{at}.secretARN");
            checks.length(&at, arn, 1, 2048);
            checks.pattern(&at, arn, is_secret_arn(arn), SECRET_ARN);
        }
        if let Some(arn) = &secrets.role_arn {
            let at = format!("{at}.roleARN");
            checks.length(&at, arn, 1, 512);
            checks.pattern(&at, arn, is_role_arn(arn), ROLE_ARN);
        }
    }
}

impl Vpc {
    fn check(&self, checks: &mut Checks) {
        let at = format!("{AT}.databaseSourceVPCConfiguration.vpcEndpointServiceName");
        let Some(name) = &self.vpc_endpoint_service_name else {
            return checks.required(&at, None);
        };
        checks.length(&at, name, 47, 255);
        checks.pattern(&at, name, is_vpc_service(name), VPC_SERVICE);
    }
}

/// The secret of this name: as it stands or as SQL stores it without quotes, with what
/// Secrets Manager appends to a name or without it; the first that is there.
fn find_secret<'a>(name: &str, secrets: &'a [SecretReport]) -> Option<&'a SecretReport> {
    [Some(name), bare(name)].into_iter().flatten().find_map(|name| {
        let upper = name.to_uppercase();
        let of = |wanted: &str| secrets.iter().find(|secret| secret.name == wanted);
        of(name).or_else(|| of(&upper))
    })
}

/// The name without what Secrets Manager appends to it, if something was.
fn bare(name: &str) -> Option<&str> {
    let (bare, suffix) = name.split_at_checked(name.len().checked_sub(ARN_SUFFIX_BYTES)?)?;
    let random = suffix.strip_prefix('-')?;
    let appended = !bare.is_empty() && random.bytes().all(|b| b.is_ascii_alphanumeric());
    appended.then_some(bare)
}

/// A table's name, `schema.table`; the dot may be escaped, as in a pattern.
fn table(text: &str) -> Result<PgTable, Error> {
    let plain = text.replace("\\.", ".");
    if plain.contains(PATTERN_CHARS) {
        let hint = "Name each table as schema.table; '.*' takes every table of the publication.";
        return Err(unsupported("Tables.Include", &pattern(text), hint));
    }
    let parts = plain
        .split_once('.')
        .filter(|(schema, table)| !schema.is_empty() && !table.is_empty() && !table.contains('.'));
    let Some((schema, table)) = parts else {
        return Err(invalid(&format!(
            "Tables.Include: '{}' must be written as schema.table.",
            shown(text)
        )));
    };
    if schema.len() > PG_NAME_BYTES_MAX || table.len() > PG_NAME_BYTES_MAX {
        return Err(too_long("Tables.Include", text));
    }
    Ok(PgTable { schema: schema.to_owned(), table: table.to_owned() })
}

fn check_name(checks: &mut Checks, at: &str, text: &str, max: usize) {
    checks.length(at, text, 1, max);
    checks.pattern(at, text, text.chars().all(|c| ('\u{1}'..='\u{ffff}').contains(&c)), NAME);
}

fn is_secret_arn(text: &str) -> bool {
    let arn: Option<Arn> = text.parse().ok().filter(|arn: &Arn| arn.service == "secretsmanager");
    let name = arn.as_ref().and_then(|arn| arn.resource.strip_prefix("secret:"));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/_+=.@!".contains(&b);
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(allowed))
}

fn is_vpc_service(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let [heads @ .., vpce, region, service] = parts.as_slice() else { return false };
    let of = |text: &str, more: &[u8]| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let service = service.strip_prefix("vpce-svc-");
    (2..=3).contains(&heads.len())
        && heads.iter().all(|head| !head.is_empty() && of(head, b"-_"))
        && *vpce == "vpce"
        && of(region, b"-")
        && service.is_some_and(|id| id.len() == 17 && of(id, b"-"))
}

fn first(list: &Option<Vec<String>>) -> Option<&str> {
    list.as_ref()?.first().map(String::as_str)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

fn pattern(text: &str) -> String {
    format!("the pattern '{}'", shown(text))
}

fn too_long(member: &str, text: &str) -> Error {
    invalid(&format!(
        "{member}: '{}' is longer than PostgreSQL's names, which have at most \
         {PG_NAME_BYTES_MAX} bytes.",
        shown(text)
    ))
}

fn invalid(text: &str) -> Error {
    Error::InvalidArgument(text.to_owned())
}
