//! Databases, schemas and what is in them: rows of the control store, and their typed readers.
//!
//! | row | content |
//! |---|---|
//! | `warehouse/db/D` | [`Database`] |
//! | `warehouse/schema/D/S` | [`Schema`] |
//! | `warehouse/table/D/S/T`, `…/stage/…`, `…/format/…`, `…/pipe/…` | [`Table`], [`Stage`], [`Format`], [`Pipe`] |
//!
//! What a table or a pipe holds is under its uid (see [`crate::table`]), so that replacing an object
//! leaves nothing of the old one to the new.

mod stage;
mod store;

use hydrant_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::session::ColumnType;
use crate::sql::types;
use crate::state::Followed;

pub(crate) use stage::Stage;
pub(crate) use store::{Catalog, Dropped, Held, Names, ObjectName, object_key, shown};

/// Longest name of an object (Snowflake).
pub(crate) const NAME_CHARS_MAX: usize = 255;
/// Schema that every database has from the start.
pub(crate) const PUBLIC: &str = "PUBLIC";
/// Schema of views on the catalog that every database has.
pub(crate) const INFORMATION_SCHEMA: &str = "INFORMATION_SCHEMA";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) owner: String,
    #[serde(default)]
    pub(crate) comment: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) owner: String,
    #[serde(default)]
    pub(crate) comment: String,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ColumnDef {
    pub(crate) name: String,
    #[serde(with = "type_as_text")]
    pub(crate) kind: ColumnType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<u32>,
    pub(crate) nullable: bool,
    #[serde(default)]
    pub(crate) primary_key: bool,
    #[serde(default)]
    pub(crate) comment: String,
}

mod type_as_text {
    use super::{ColumnType, types};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(kind: &ColumnType, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&types::name(*kind, None))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<ColumnType, D::Error> {
        let text = String::deserialize(d)?;
        types::parse(&text).map(|w| w.kind).map_err(D::Error::custom)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) created: Timestamp,
    pub(crate) owner: String,
    pub(crate) columns: Vec<ColumnDef>,
    #[serde(default)]
    pub(crate) comment: String,
    /// What a current-state table follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) follows: Option<Followed>,
}

/// COMPRESSION of a file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Compression {
    /// By the file's extension.
    Auto,
    Gzip,
    None,
}

/// What is said of a file format in one place; what is not said there, the next place says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormatOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) named: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) json: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compression: Option<Compression>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) strip_outer_array: Option<bool>,
}

impl FormatOptions {
    /// Fills in what `self` leaves open.
    #[must_use]
    pub(crate) fn or(self, other: &Self) -> Self {
        Self {
            named: self.named.or_else(|| other.named.clone()),
            json: self.json.or(other.json),
            compression: self.compression.or(other.compression),
            strip_outer_array: self.strip_outer_array.or(other.strip_outer_array),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) owner: String,
    pub(crate) format: FormatOptions,
    #[serde(default)]
    pub(crate) comment: String,
}

/// Bucket and key of `s3://bucket/key`.
pub(crate) fn split_url(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("s3://").or_else(|| url.strip_prefix("s3compat://"))?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    (!bucket.is_empty()).then_some((bucket, key))
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pipe {
    pub(crate) database: String,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) created: Timestamp,
    pub(crate) owner: String,
    pub(crate) auto_ingest: bool,
    pub(crate) paused: bool,
    /// The COPY statement as written.
    pub(crate) definition: String,
    #[serde(default)]
    pub(crate) comment: String,
    /// What it took when it was made.
    #[serde(default)]
    pub(crate) reach: Option<Reach>,
}

/// Which new objects of hydrant's own buckets a pipe takes. Kept with the pipe, so that none is
/// missed while its stage is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    pub(crate) bucket: String,
    /// Key prefix of the stage; a pattern sees what follows it.
    pub(crate) stage_prefix: String,
    /// Key prefix of the stage and the path after it: a plain prefix, not a directory.
    pub(crate) prefix: String,
    /// PATTERN, as written.
    pub(crate) pattern: Option<String>,
}
