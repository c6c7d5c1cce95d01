//! SHOW, DESCRIBE and LIST, with Snowflake's columns.

mod pattern;

pub(crate) use self::pattern::like;
use crate::answer::{self, Cell, Head, INT, TEXT, TIME};
use crate::catalog::{
    Catalog, Database, Format, Held, INFORMATION_SCHEMA, Names, ObjectName, Pipe, Schema, Stage,
    Table,
};
use crate::engine::Engine;
use crate::error::{SqlResult, no_such, unsupported};
use crate::session::Answer;
use crate::sql::ast::{Kind, Location, Show, Within};
use crate::sql::types;
use crate::stage;

const DATABASES: &[Head] = &[
    ("created_on", TIME),
    ("name", TEXT),
    ("is_default", TEXT),
    ("is_current", TEXT),
    ("origin", TEXT),
    ("owner", TEXT),
    ("comment", TEXT),
    ("options", TEXT),
    ("retention_time", TEXT),
    ("kind", TEXT),
];
const SCHEMAS: &[Head] = &[
    ("created_on", TIME),
    ("name", TEXT),
    ("is_default", TEXT),
    ("is_current", TEXT),
    ("database_name", TEXT),
    ("owner", TEXT),
    ("comment", TEXT),
    ("options", TEXT),
    ("retention_time", TEXT),
];
const TABLES: &[Head] = &[
    ("created_on", TIME),
    ("name", TEXT),
    ("database_name", TEXT),
    ("schema_name", TEXT),
    ("kind", TEXT),
    ("comment", TEXT),
    ("cluster_by", TEXT),
    ("rows", INT),
    ("bytes", INT),
    ("owner", TEXT),
    ("retention_time", TEXT),
];
const STAGES: &[Head] = &[
    ("created_on", TIME),
    ("name", TEXT),
    ("database_name", TEXT),
    ("schema_name", TEXT),
    ("url", TEXT),
    ("has_credentials", TEXT),
    ("has_encryption_key", TEXT),
    ("owner", TEXT),
    ("comment", TEXT),
    ("region", TEXT),
    ("type", TEXT),
    ("cloud", TEXT),
    ("storage_integration", TEXT),
    ("endpoint", TEXT),
];
const FORMATS: &[Head] = &[
    ("created_on", TIME),
    ("name", TEXT),
    ("database_name", TEXT),
    ("schema_name", TEXT),
    ("type", TEXT),
    ("owner", TEXT),
    ("comment", TEXT),
    ("format_options", TEXT),
];
const PIPES: &[Head] = &[
    ("created_on", TIME),
    ("name", TEXT),
    ("database_name", TEXT),
    ("schema_name", TEXT),
    ("definition", TEXT),
    ("owner", TEXT),
    ("notification_channel", TEXT),
    ("comment", TEXT),
    ("integration", TEXT),
    ("pattern", TEXT),
    ("error_integration", TEXT),
    ("owner_role_type", TEXT),
    ("invalid_reason", TEXT),
    ("kind", TEXT),
];
pub(crate) const LIST: &[Head] =
    &[("name", TEXT), ("size", INT), ("md5", TEXT), ("last_modified", TEXT)];
const DESC_TABLE: &[Head] = &[
    ("name", TEXT),
    ("type", TEXT),
    ("kind", TEXT),
    ("null?", TEXT),
    ("default", TEXT),
    ("primary key", TEXT),
    ("unique key", TEXT),
    ("check", TEXT),
    ("expression", TEXT),
    ("comment", TEXT),
];
const DESC_STAGE: &[Head] = &[
    ("parent_property", TEXT),
    ("property", TEXT),
    ("property_type", TEXT),
    ("property_value", TEXT),
    ("property_default", TEXT),
];
const DESC_NAMES: &[Head] = &[("created_on", TIME), ("name", TEXT), ("kind", TEXT)];

/// The columns of a SHOW, for a client that asks before it runs it.
pub(crate) fn show_head(what: Kind) -> &'static [Head] {
    match what {
        Kind::Database => DATABASES,
        Kind::Schema => SCHEMAS,
        Kind::Table => TABLES,
        Kind::Stage => STAGES,
        Kind::Format => FORMATS,
        _ => PIPES,
    }
}

/// The columns of a DESCRIBE.
pub(crate) fn describe_head(kind: Kind) -> &'static [Head] {
    match kind {
        Kind::Table => DESC_TABLE,
        Kind::Stage | Kind::Format => DESC_STAGE,
        Kind::Pipe => PIPES,
        _ => DESC_NAMES,
    }
}

impl Engine {
    pub(crate) async fn show(&self, show: &Show, names: &Names) -> SqlResult<Answer> {
        let mut rows = match show.what {
            Kind::Database => self.show_databases(names).await?,
            Kind::Schema => self.show_schemas(&show.within, names).await?,
            kind => self.show_objects(kind, &show.within, names).await?,
        };
        if let Some(pattern) = &show.like {
            rows.retain(|r| matches!(&r[1], Cell::Text(name) if like(pattern, name)));
        }
        rows.truncate(show.limit.unwrap_or(usize::MAX));
        answer::rows(show_head(show.what), rows)
    }

    async fn show_databases(&self, names: &Names) -> SqlResult<Vec<Vec<Cell>>> {
        let databases = self.catalog.databases().await?;
        let row = |Held { row: d, .. }: Held<Database>| {
            let current = names.database.as_ref() == Some(&d.name);
            vec![
                Cell::Time(d.created),
                Cell::text(d.name),
                Cell::flag(false),
                Cell::flag(current),
                Cell::text(""),
                Cell::text(d.owner),
                Cell::text(d.comment),
                Cell::text(""),
                Cell::text("0"),
                Cell::text("STANDARD"),
            ]
        };
        Ok(databases.into_iter().map(row).collect())
    }

    async fn show_schemas(&self, within: &Within, names: &Names) -> SqlResult<Vec<Vec<Cell>>> {
        let databases = match within {
            Within::Database(name) if name.len() == 1 => vec![self.existing(&name[0]).await?],
            Within::Current if names.database.is_some() => names.database.iter().cloned().collect(),
            Within::Schema(_) | Within::Database(_) => {
                return Err(unsupported("SHOW SCHEMAS IN a schema"));
            }
            _ => self.catalog.databases().await?.into_iter().map(|d| d.row.name).collect(),
        };
        let mut rows = Vec::new();
        for database in databases {
            for Held { row: s, .. } in self.catalog.schemas(&database).await? {
                let current = names.database.as_ref() == Some(&database)
                    && names.schema.as_ref() == Some(&s.name);
                rows.push(schema_row(s, &database, current));
            }
        }
        Ok(rows)
    }

    async fn existing(&self, database: &str) -> SqlResult<String> {
        match self.catalog.database(database).await? {
            Some(held) => Ok(held.row.name),
            None => Err(no_such("Database", database)),
        }
    }

    /// Every schema that a SHOW of its objects looks into.
    async fn schemas_within(
        &self,
        within: &Within,
        names: &Names,
    ) -> SqlResult<Vec<(String, String)>> {
        let databases = match within {
            Within::Schema(name) => {
                let (database, schema) = self.catalog.resolve_schema(name, names, "SHOW")?;
                if self.catalog.schema(&database, &schema).await?.is_none() {
                    return Err(no_such("Schema", &format!("{database}.{schema}")));
                }
                return Ok(vec![(database, schema)]);
            }
            Within::Current => match (&names.database, &names.schema) {
                (Some(database), Some(schema)) => {
                    return Ok(vec![(database.clone(), schema.clone())]);
                }
                (Some(database), None) => vec![database.clone()],
                _ => self.catalog.databases().await?.into_iter().map(|d| d.row.name).collect(),
            },
            Within::Account => {
                self.catalog.databases().await?.into_iter().map(|d| d.row.name).collect()
            }
            Within::Database(name) => vec![self.existing(&name.join(".")).await?],
        };
        let mut all = Vec::new();
        for database in databases {
            for schema in self.catalog.schemas(&database).await? {
                all.push((database.clone(), schema.row.name));
            }
        }
        Ok(all)
    }

    async fn show_objects(
        &self,
        kind: Kind,
        within: &Within,
        names: &Names,
    ) -> SqlResult<Vec<Vec<Cell>>> {
        let mut rows = Vec::new();
        for (d, s) in self.schemas_within(within, names).await? {
            match kind {
                Kind::Table => {
                    for held in self.catalog.list::<Table>(&d, &s).await? {
                        rows.push(self.table_row(&d, &s, held.row).await?);
                    }
                }
                Kind::Stage => {
                    let stages = self.catalog.list::<Stage>(&d, &s).await?;
                    rows.extend(stages.into_iter().map(|h| stage_row(&d, &s, h.row)));
                }
                Kind::Format => {
                    let formats = self.catalog.list::<Format>(&d, &s).await?;
                    rows.extend(formats.into_iter().map(|h| format_row(&d, &s, h.row)));
                }
                _ => {
                    for held in self.catalog.list::<Pipe>(&d, &s).await? {
                        rows.push(self.pipe_row(held.row).await?);
                    }
                }
            }
        }
        Ok(rows)
    }

    async fn table_row(&self, d: &str, s: &str, t: Table) -> SqlResult<Vec<Cell>> {
        let (head, _) = self.tables.head(&t.uid).await?;
        let mut comment = t.comment;
        if let (Some(followed), Some(state)) = (&t.follows, &head.state) {
            let state = self.following.describe(&t.uid, followed, state);
            comment = if comment.is_empty() { state } else { format!("{comment} ({state})") };
        }
        Ok(vec![
            Cell::Time(t.created),
            Cell::text(t.name),
            Cell::text(d),
            Cell::text(s),
            Cell::text(if t.follows.is_some() { "CURRENT STATE" } else { "TABLE" }),
            Cell::text(comment),
            Cell::text(""),
            Cell::count(head.rows),
            Cell::count(head.bytes),
            Cell::text(t.owner),
            Cell::text("0"),
        ])
    }

    async fn pipe_row(&self, p: Pipe) -> SqlResult<Vec<Cell>> {
        let pattern = p.copy().ok().and_then(|(copy, _)| copy.pattern);
        let fault = self.pipe_fault(&p).await?;
        let channel = p.channel();
        Ok(vec![
            Cell::Time(p.created),
            Cell::text(p.name),
            Cell::text(p.database),
            Cell::text(p.schema),
            Cell::text(p.definition),
            Cell::text(p.owner),
            Cell::optional(channel),
            Cell::text(p.comment),
            Cell::Null,
            Cell::optional(pattern),
            Cell::Null,
            Cell::text("ROLE"),
            Cell::optional(fault.map(|(_, why)| why)),
            Cell::text("STAGE"),
        ])
    }

    pub(crate) async fn describe(
        &self,
        kind: Kind,
        name: &[String],
        names: &Names,
    ) -> SqlResult<Answer> {
        let catalog: &Catalog = &self.catalog;
        let object = || -> SqlResult<ObjectName> { catalog.resolve(name, names, "DESCRIBE") };
        let rows = match kind {
            Kind::Table => {
                let table: Held<Table> = catalog.expect(kind, &object()?).await?;
                table.row.columns.iter().map(column_row).collect()
            }
            Kind::Stage => stage_properties(&catalog.expect(kind, &object()?).await?.row),
            Kind::Format => {
                let format: Held<Format> = catalog.expect(kind, &object()?).await?;
                format_properties("", &format.row.format)
            }
            Kind::Pipe => vec![self.pipe_row(catalog.expect(kind, &object()?).await?.row).await?],
            Kind::Database => {
                let database = self.existing(&name.join(".")).await?;
                let schemas = catalog.schemas(&database).await?;
                let row = |h: Held<Schema>| {
                    vec![Cell::Time(h.row.created), Cell::text(h.row.name), Cell::text("SCHEMA")]
                };
                schemas.into_iter().map(row).collect()
            }
            _ => {
                let (database, schema) = catalog.resolve_schema(name, names, "DESCRIBE")?;
                let tables = catalog.list::<Table>(&database, &schema).await?;
                let row = |h: Held<Table>| {
                    vec![Cell::Time(h.row.created), Cell::text(h.row.name), Cell::text("TABLE")]
                };
                tables.into_iter().map(row).collect()
            }
        };
        answer::rows(describe_head(kind), rows)
    }

    /// LIST @stage.
    pub(crate) async fn list(
        &self,
        location: &Location,
        pattern: Option<&str>,
        names: &Names,
    ) -> SqlResult<Answer> {
        let place = stage::place(&self.catalog, location, names, "LIST").await?;
        let pattern = pattern.map(stage::pattern).transpose()?;
        let files = stage::list(&self.open_bucket, &place, pattern.as_ref()).await?;
        let rows = files
            .into_iter()
            .map(|l| {
                let modified = i64::try_from(l.modified.as_millis()).unwrap_or_default();
                vec![
                    Cell::text(l.file.url),
                    Cell::count(l.file.size_bytes),
                    Cell::text(l.file.etag),
                    Cell::text(http_date(modified)),
                ]
            })
            .collect();
        answer::rows(LIST, rows)
    }
}

/// `Tue, 24 Nov 2026 03:30:20 GMT`, as LIST shows it.
fn http_date(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn schema_row(s: Schema, database: &str, current: bool) -> Vec<Cell> {
    let comment = match (s.name == INFORMATION_SCHEMA, s.comment.is_empty()) {
        (true, true) => "Views describing the contents of schemas in this database".to_owned(),
        _ => s.comment,
    };
    vec![
        Cell::Time(s.created),
        Cell::text(s.name),
        Cell::flag(false),
        Cell::flag(current),
        Cell::text(database),
        Cell::text(s.owner),
        Cell::text(comment),
        Cell::text(""),
        Cell::text("0"),
    ]
}

fn stage_row(d: &str, s: &str, stage: Stage) -> Vec<Cell> {
    vec![
        Cell::Time(stage.created),
        Cell::text(stage.name),
        Cell::text(d),
        Cell::text(s),
        Cell::text(stage.url),
        Cell::flag(stage.credentials.is_some()),
        Cell::flag(false),
        Cell::text(stage.owner),
        Cell::text(stage.comment),
        Cell::optional(stage.region),
        Cell::text("EXTERNAL"),
        Cell::text("AWS"),
        Cell::Null,
        Cell::optional(stage.endpoint),
    ]
}

fn format_row(d: &str, s: &str, f: Format) -> Vec<Cell> {
    vec![
        Cell::Time(f.created),
        Cell::text(f.name),
        Cell::text(d),
        Cell::text(s),
        Cell::text(if f.format.json == Some(true) { "JSON" } else { "CSV" }),
        Cell::text(f.owner),
        Cell::text(f.comment),
        Cell::text(serde_json::to_string(&f.format).unwrap_or_default()),
    ]
}

fn column_row(c: &crate::catalog::ColumnDef) -> Vec<Cell> {
    vec![
        Cell::text(&c.name),
        Cell::text(types::name(c.kind, c.length)),
        Cell::text("COLUMN"),
        Cell::flag(c.nullable),
        Cell::Null,
        Cell::flag(c.primary_key),
        Cell::flag(false),
        Cell::Null,
        Cell::Null,
        if c.comment.is_empty() { Cell::Null } else { Cell::text(&c.comment) },
    ]
}

fn property(parent: &str, name: &str, kind: &str, value: &str) -> Vec<Cell> {
    vec![Cell::text(parent), Cell::text(name), Cell::text(kind), Cell::text(value), Cell::text("")]
}

/// A stage's properties; the secret key is not one of them.
fn stage_properties(stage: &Stage) -> Vec<Vec<Cell>> {
    let mut rows = format_properties("STAGE_FILE_FORMAT", &stage.format);
    let url = format!("[\"{}\"]", stage.url);
    rows.push(property("STAGE_LOCATION", "URL", "String", &url));
    if let Some(endpoint) = &stage.endpoint {
        rows.push(property("STAGE_LOCATION", "ENDPOINT", "String", endpoint));
    }
    if let Some(region) = &stage.region {
        rows.push(property("STAGE_LOCATION", "REGION", "String", region));
    }
    if let Some(key) = &stage.credentials {
        rows.push(property("STAGE_CREDENTIALS", "AWS_KEY_ID", "String", &key.id));
    }
    rows
}

fn format_properties(parent: &str, format: &crate::catalog::FormatOptions) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    if let Some(name) = &format.named {
        rows.push(property(parent, "FORMAT_NAME", "String", &name.join(".")));
    }
    if format.json == Some(true) {
        rows.push(property(parent, "TYPE", "String", "JSON"));
    }
    if let Some(compression) = format.compression {
        let text = format!("{compression:?}").to_uppercase();
        rows.push(property(parent, "COMPRESSION", "String", &text));
    }
    if let Some(strip) = format.strip_outer_array {
        rows.push(property(parent, "STRIP_OUTER_ARRAY", "Boolean", &strip.to_string()));
    }
    rows
}
