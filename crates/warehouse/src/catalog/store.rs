//! Reads and writes the catalog's rows, and resolves names.

use std::sync::Arc;

use hydrant_core::Random;
use hydrant_core::control::{ControlStore, Write, scan_all};
use hydrant_core::encryption::Seal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Database, Format, INFORMATION_SCHEMA, NAME_CHARS_MAX, PUBLIC, Pipe, Schema, Stage, Table,
};
use crate::error::{SqlResult, already_exists, control, error, no_current, no_such};
use crate::sql::ast::{Create, Kind};
use crate::table::head_key;

pub(crate) use crate::session::Names;

/// A row and the version a change must name.
#[derive(Clone, Debug)]
pub(crate) struct Held<T> {
    pub(crate) row: T,
    pub(crate) version: u64,
}

/// The full name of a table, stage, format or pipe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    pub(crate) database: String,
    pub(crate) schema: String,
    pub(crate) name: String,
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", shown(&self.database), shown(&self.schema), shown(&self.name))
    }
}

/// A name as Snowflake prints it: quoted if it would not fold to itself.
pub(crate) fn shown(part: &str) -> String {
    let plain = |(i, c): (usize, char)| {
        c.is_ascii_uppercase() || c == '_' || (i > 0 && (c.is_ascii_digit() || c == '$'))
    };
    if !part.is_empty() && part.chars().enumerate().all(plain) {
        part.to_owned()
    } else {
        format!("\"{}\"", part.replace('"', "\"\""))
    }
}

/// A name as a part of a row's key.
pub(crate) fn row_part(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

pub(crate) trait Row: Serialize + DeserializeOwned + Clone {
    const KIND: &'static str;

    /// The row that goes when the object goes, so that nobody adds to a dropped table.
    fn head(&self) -> Option<String> {
        None
    }
}
impl Row for Table {
    const KIND: &'static str = "table";

    fn head(&self) -> Option<String> {
        Some(head_key(&self.uid))
    }
}
impl Row for Stage {
    const KIND: &'static str = "stage";
}
impl Row for Format {
    const KIND: &'static str = "format";
}
impl Row for Pipe {
    const KIND: &'static str = "pipe";
}

/// What went with a database, a schema or an object: uids of tables and pipes, whose files and rows
/// are removed after the commit.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    pub(crate) tables: Vec<String>,
    pub(crate) pipes: Vec<String>,
}

/// The catalog over its rows.
pub(crate) struct Catalog {
    pub(crate) control: Arc<dyn ControlStore>,
    pub(crate) random: Arc<Random>,
    pub(crate) seal: Arc<dyn Seal>,
}

fn database_key(name: &str) -> String {
    format!("warehouse/db/{}", row_part(name))
}

fn schema_key(database: &str, name: &str) -> String {
    format!("warehouse/schema/{}/{}", row_part(database), row_part(name))
}

fn object_prefix(kind: &str, database: &str, schema: &str) -> String {
    format!("warehouse/{kind}/{}/{}/", row_part(database), row_part(schema))
}

pub(crate) fn object_key(kind: &str, n: &ObjectName) -> String {
    format!("{}{}", object_prefix(kind, &n.database, &n.schema), row_part(&n.name))
}

fn checked(name: &str) -> SqlResult<()> {
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        let text =
            format!("SQL compilation error:\ninvalid name: 1 to {NAME_CHARS_MAX} characters");
        return Err(error(1003, "42000", text));
    }
    Ok(())
}

impl Catalog {
    /// 16 random bytes in hex: a table's or a pipe's uid, a file's name.
    pub(crate) fn uid(&self) -> String {
        hex::encode(self.random.bytes::<16>())
    }

    /// The full name of what a statement names, by the session's current names.
    pub(crate) fn resolve(
        &self,
        name: &[String],
        current: &Names,
        command: &str,
    ) -> SqlResult<ObjectName> {
        let database = || current.database.clone().ok_or_else(|| no_current("database", command));
        let schema = || current.schema.clone().ok_or_else(|| no_current("schema", command));
        let (database, schema, name) = match name {
            [n] => (database()?, schema()?, n),
            [s, n] => (database()?, s.clone(), n),
            [d, s, n] => (d.clone(), s.clone(), n),
            _ => return Err(no_such("Object", &name.join("."))),
        };
        checked(name)?;
        Ok(ObjectName { database, schema, name: name.clone() })
    }

    /// Database and schema of a schema's name.
    pub(crate) fn resolve_schema(
        &self,
        name: &[String],
        current: &Names,
        command: &str,
    ) -> SqlResult<(String, String)> {
        match name {
            [s] => {
                let database =
                    current.database.clone().ok_or_else(|| no_current("database", command))?;
                Ok((database, s.clone()))
            }
            [d, s] => Ok((d.clone(), s.clone())),
            _ => Err(no_such("Schema", &name.join("."))),
        }
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> SqlResult<Option<Held<T>>> {
        let Some(entry) = self.control.get(key).await.map_err(control)? else { return Ok(None) };
        let row = entry.json(key).map_err(control)?;
        Ok(Some(Held { row, version: entry.version }))
    }

    async fn read_all<T: DeserializeOwned>(&self, prefix: &str) -> SqlResult<Vec<Held<T>>> {
        let rows = scan_all(self.control.as_ref(), prefix).await.map_err(control)?;
        rows.into_iter()
            .map(|(key, entry)| {
                let row = entry.json(&key).map_err(control)?;
                Ok(Held { row, version: entry.version })
            })
            .collect()
    }

    pub(crate) async fn database(&self, name: &str) -> SqlResult<Option<Held<Database>>> {
        self.read(&database_key(name)).await
    }

    pub(crate) async fn databases(&self) -> SqlResult<Vec<Held<Database>>> {
        self.read_all("warehouse/db/").await
    }

    pub(crate) async fn schema(&self, db: &str, name: &str) -> SqlResult<Option<Held<Schema>>> {
        self.read(&schema_key(db, name)).await
    }

    pub(crate) async fn schemas(&self, database: &str) -> SqlResult<Vec<Held<Schema>>> {
        self.read_all(&format!("warehouse/schema/{}/", row_part(database))).await
    }

    pub(crate) async fn get<T: Row>(&self, name: &ObjectName) -> SqlResult<Option<Held<T>>> {
        self.read(&object_key(T::KIND, name)).await
    }

    /// The object, or Snowflake's error that it does not exist.
    pub(crate) async fn expect<T: Row>(&self, kind: Kind, name: &ObjectName) -> SqlResult<Held<T>> {
        match self.get(name).await? {
            Some(held) => Ok(held),
            None => Err(no_such(kind.noun(), &name.to_string())),
        }
    }

    pub(crate) async fn list<T: Row>(&self, db: &str, schema: &str) -> SqlResult<Vec<Held<T>>> {
        self.read_all(&object_prefix(T::KIND, db, schema)).await
    }

    /// Every object of a kind, wherever it is.
    pub(crate) async fn all<T: Row>(&self) -> SqlResult<Vec<Held<T>>> {
        self.read_all(&format!("warehouse/{}/", T::KIND)).await
    }

    /// Every table with its full name.
    pub(crate) async fn all_tables(&self) -> SqlResult<Vec<(ObjectName, Table)>> {
        let prefix = format!("warehouse/{}/", Table::KIND);
        let rows = scan_all(self.control.as_ref(), &prefix).await.map_err(control)?;
        let part = |text: &str| text.replace("%2F", "/").replace("%25", "%");
        rows.into_iter()
            .map(|(key, entry)| {
                let table: Table = entry.json(&key).map_err(control)?;
                let mut parts = key[prefix.len()..].split('/').map(part);
                let mut next = || parts.next().unwrap_or_default();
                let (database, schema) = (next(), next());
                Ok((ObjectName { database, schema, name: table.name.clone() }, table))
            })
            .collect()
    }

    /// Creates a database with its two schemas. `None` if it was there and may stay.
    pub(crate) async fn create_database(
        &self,
        row: Database,
        create: Create,
    ) -> SqlResult<Option<Dropped>> {
        checked(&row.name)?;
        let seen = self.database(&row.name).await?;
        let mut writes = Vec::new();
        let mut dropped = Dropped::default();
        match seen {
            Some(_) if create.if_not_exists => return Ok(None),
            Some(_) if !create.or_replace => return Err(already_exists(&row.name)),
            Some(held) => {
                writes.extend(self.contents(&row.name, None, &mut dropped).await?);
                writes.push(Write::update(database_key(&row.name), held.version, &row));
            }
            None => writes.push(Write::insert(database_key(&row.name), &row)),
        }
        for name in [INFORMATION_SCHEMA, PUBLIC] {
            let schema = Schema {
                name: name.to_owned(),
                created: row.created,
                owner: row.owner.clone(),
                comment: String::new(),
            };
            let key = schema_key(&row.name, name);
            let old = self.schema(&row.name, name).await?;
            writes.retain(|w| w.key != key);
            writes.push(match old {
                Some(held) => Write::update(key, held.version, &schema),
                None => Write::insert(key, &schema),
            });
        }
        self.control.commit(writes).await.map_err(control)?;
        Ok(Some(dropped))
    }

    /// Creates a schema. `None` if it was there and may stay.
    pub(crate) async fn create_schema(
        &self,
        database: &str,
        row: Schema,
        create: Create,
    ) -> SqlResult<Option<Dropped>> {
        checked(&row.name)?;
        let Some(db) = self.database(database).await? else {
            return Err(no_such("Database", database));
        };
        let key = schema_key(database, &row.name);
        let mut dropped = Dropped::default();
        // Rewriting the database's row as it is makes dropping it meanwhile a conflict.
        let mut writes = vec![Write::update(database_key(database), db.version, &db.row)];
        match self.schema(database, &row.name).await? {
            Some(_) if create.if_not_exists => return Ok(None),
            Some(_) if !create.or_replace => return Err(already_exists(&row.name)),
            Some(held) => {
                let contents = self.contents(database, Some(&row.name), &mut dropped).await?;
                writes.extend(contents.into_iter().filter(|w| w.key != key));
                writes.push(Write::update(key, held.version, &row));
            }
            None => writes.push(Write::insert(key, &row)),
        }
        self.control.commit(writes).await.map_err(control)?;
        Ok(Some(dropped))
    }

    /// Deletes a database, with all in it. `None` if there was none.
    pub(crate) async fn drop_database(&self, name: &str) -> SqlResult<Option<Dropped>> {
        let Some(held) = self.database(name).await? else { return Ok(None) };
        let mut dropped = Dropped::default();
        let mut writes = self.contents(name, None, &mut dropped).await?;
        writes.push(Write::delete(database_key(name), held.version));
        self.control.commit(writes).await.map_err(control)?;
        Ok(Some(dropped))
    }

    /// Deletes a schema, with all in it. `None` if there was none.
    pub(crate) async fn drop_schema(&self, db: &str, name: &str) -> SqlResult<Option<Dropped>> {
        if self.schema(db, name).await?.is_none() {
            return Ok(None);
        }
        let mut dropped = Dropped::default();
        let writes = self.contents(db, Some(name), &mut dropped).await?;
        self.control.commit(writes).await.map_err(control)?;
        Ok(Some(dropped))
    }

    /// Deletions of all rows in a database, or in one of its schemas with the schema itself.
    async fn contents(
        &self,
        database: &str,
        schema: Option<&str>,
        dropped: &mut Dropped,
    ) -> SqlResult<Vec<Write>> {
        let mut writes = Vec::new();
        let database = row_part(database);
        for kind in ["schema", Table::KIND, Stage::KIND, Format::KIND, Pipe::KIND] {
            let prefix = match schema {
                None => format!("warehouse/{kind}/{database}/"),
                Some(s) if kind == "schema" => {
                    format!("warehouse/schema/{database}/{}", row_part(s))
                }
                Some(s) => format!("warehouse/{kind}/{database}/{}/", row_part(s)),
            };
            let exact = schema.is_some() && kind == "schema";
            for (key, entry) in scan_all(self.control.as_ref(), &prefix).await.map_err(control)? {
                if exact && key != prefix {
                    continue;
                }
                if kind == Table::KIND {
                    let table: Table = entry.json(&key).map_err(control)?;
                    writes.extend(self.head_deletion(&table).await?);
                    dropped.tables.push(table.uid);
                } else if kind == Pipe::KIND {
                    let pipe: Pipe = entry.json(&key).map_err(control)?;
                    dropped.pipes.push(pipe.uid);
                }
                writes.push(Write::delete(key, entry.version));
            }
        }
        Ok(writes)
    }

    async fn head_deletion<T: Row>(&self, row: &T) -> SqlResult<Option<Write>> {
        let Some(key) = row.head() else { return Ok(None) };
        let entry = self.control.get(&key).await.map_err(control)?;
        Ok(entry.map(|e| Write::delete(key, e.version)))
    }

    /// Creates or replaces an object; `extra` goes into the same commit. False if it was there and
    /// may stay. With true comes the row it replaced, if any.
    pub(crate) async fn create<T: Row>(
        &self,
        name: &ObjectName,
        row: &T,
        create: Create,
        extra: Vec<Write>,
    ) -> SqlResult<(bool, Option<T>)> {
        if name.schema == INFORMATION_SCHEMA {
            let text = "SQL compilation error:\nCannot perform CREATE in INFORMATION_SCHEMA.";
            return Err(error(3001, "42501", text));
        }
        let schema = self.schema(&name.database, &name.schema).await?;
        let Some(schema) = schema else {
            let missing = match self.database(&name.database).await? {
                None => no_such("Database", &shown(&name.database)),
                Some(_) => {
                    no_such("Schema", &format!("{}.{}", shown(&name.database), shown(&name.schema)))
                }
            };
            return Err(missing);
        };
        let key = object_key(T::KIND, name);
        let old: Option<Held<T>> = self.get(name).await?;
        let write = match &old {
            Some(_) if create.if_not_exists => return Ok((false, None)),
            Some(_) if !create.or_replace => return Err(already_exists(&shown(&name.name))),
            Some(held) => Write::update(key, held.version, row),
            None => Write::insert(key, row),
        };
        // Rewriting the schema's row as it is makes dropping the schema meanwhile a conflict.
        let keep =
            Write::update(schema_key(&name.database, &name.schema), schema.version, &schema.row);
        let mut writes = extra;
        writes.extend([write, keep]);
        if let Some(old) = &old {
            writes.extend(self.head_deletion(&old.row).await?);
        }
        self.control.commit(writes).await.map_err(control)?;
        Ok((true, old.map(|h| h.row)))
    }

    pub(crate) async fn replace<T: Row>(
        &self,
        name: &ObjectName,
        version: u64,
        row: &T,
    ) -> SqlResult<()> {
        let write = Write::update(object_key(T::KIND, name), version, row);
        self.control.commit(vec![write]).await.map_err(control)?;
        Ok(())
    }

    /// Deletes an object; what it was, or `None` if there was none.
    pub(crate) async fn remove<T: Row>(&self, name: &ObjectName) -> SqlResult<Option<T>> {
        let Some(held) = self.get::<T>(name).await? else { return Ok(None) };
        let mut writes = vec![Write::delete(object_key(T::KIND, name), held.version)];
        writes.extend(self.head_deletion(&held.row).await?);
        self.control.commit(writes).await.map_err(control)?;
        Ok(Some(held.row))
    }
}
