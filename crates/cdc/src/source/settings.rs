//! What can be set of secrets, connections and sources, checked before it is stored.

use std::collections::BTreeSet;

use hydrant_core::capture::{
    CAPTURE_NAME_BYTES_MAX, CaptureError, Connection, PgTable, SOURCE_TABLES_MAX, Secret,
    SlotChoice, SourceSettings, SourceTable,
};

/// Longest name that PostgreSQL keeps, in bytes (`NAMEDATALEN` - 1).
const PG_NAME_BYTES_MAX: usize = 63;
/// Most publications of a source.
const PUBLICATIONS_MAX: usize = 100;
/// Longest comment, in bytes.
const COMMENT_BYTES_MAX: usize = 4_096;
/// Longest password, host or certificate, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Most shards of a stream that a source makes.
const SHARDS_MAX: u32 = 10_000;

fn invalid(text: impl Into<String>) -> CaptureError {
    CaptureError::Invalid(text.into())
}

fn name(kind: &str, name: &str) -> Result<(), CaptureError> {
    let fits = (1..=CAPTURE_NAME_BYTES_MAX).contains(&name.len());
    if fits && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(invalid(format!(
        "the name of a {kind} has 1 to {CAPTURE_NAME_BYTES_MAX} bytes and no control character"
    )))
}

fn pg_name(kind: &str, name: &str) -> Result<(), CaptureError> {
    if (1..=PG_NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(invalid(format!("'{name}' is no name of a {kind}: PostgreSQL's have 1 to 63 bytes")))
}

fn comment(comment: &str) -> Result<(), CaptureError> {
    if comment.len() <= COMMENT_BYTES_MAX {
        return Ok(());
    }
    Err(invalid(format!("a comment has at most {COMMENT_BYTES_MAX} bytes")))
}

pub(crate) fn secret(secret: &Secret) -> Result<(), CaptureError> {
    name("secret", &secret.name)?;
    comment(&secret.comment)?;
    let password = secret.password.reveal();
    if password.len() > TEXT_BYTES_MAX || password.contains('\0') {
        return Err(invalid("a password has at most 65536 bytes, none of them zero"));
    }
    secret.user.as_deref().map_or(Ok(()), |user| pg_name("role", user))
}

pub(crate) fn connection(connection: &Connection) -> Result<(), CaptureError> {
    name("connection", &connection.name)?;
    comment(&connection.comment)?;
    let host = &connection.host;
    if host.is_empty() || host.len() > 255 || host.contains(|c: char| c.is_control() || c == ' ') {
        return Err(invalid("HOST is a host name or an address of 1 to 255 bytes"));
    }
    if connection.port == 0 {
        return Err(invalid("PORT is 1 to 65535"));
    }
    pg_name("database", &connection.database)?;
    if connection.ssl_authority.as_ref().is_some_and(|pem| pem.len() > TEXT_BYTES_MAX) {
        return Err(invalid("the certificates of authorities have at most 65536 bytes"));
    }
    connection.user.as_deref().map_or(Ok(()), |user| pg_name("role", user))
}

pub(crate) fn table(table: &PgTable) -> Result<(), CaptureError> {
    pg_name("schema", &table.schema)?;
    pg_name("table", &table.table)
}

pub(crate) fn source_table(listed: &SourceTable) -> Result<(), CaptureError> {
    table(&listed.table)?;
    listed.partition_by.iter().try_for_each(|column| pg_name("column", column))
}

fn slot(slot: &SlotChoice) -> Result<(), CaptureError> {
    let fits = (1..=PG_NAME_BYTES_MAX).contains(&slot.name.len());
    if fits && slot.name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        return Ok(());
    }
    Err(invalid(format!("SLOT '{}' is no name of a slot: 1 to 63 of a-z, 0-9 and _", slot.name)))
}

pub(crate) fn source(settings: &SourceSettings) -> Result<(), CaptureError> {
    name("source", &settings.name)?;
    comment(&settings.comment)?;
    let publications = &settings.publications;
    if publications.is_empty() {
        return Err(invalid("a source needs a publication: (PUBLICATION 'name')"));
    }
    if publications.len() > PUBLICATIONS_MAX {
        return Err(invalid(format!("a source has at most {PUBLICATIONS_MAX} publications")));
    }
    publications.iter().try_for_each(|publication| pg_name("publication", publication))?;
    if publications.iter().collect::<BTreeSet<_>>().len() < publications.len() {
        return Err(invalid("a publication is named twice"));
    }
    if let Some(choice) = &settings.slot {
        slot(choice)?;
    }
    if let Some(tables) = &settings.tables {
        if tables.is_empty() {
            return Err(invalid("FOR TABLES needs a table; FOR ALL TABLES takes every one"));
        }
        if tables.len() > SOURCE_TABLES_MAX {
            return Err(invalid(format!("a source lists at most {SOURCE_TABLES_MAX} tables")));
        }
        tables.iter().try_for_each(source_table)?;
        if tables.iter().map(|t| &t.table).collect::<BTreeSet<_>>().len() < tables.len() {
            return Err(invalid("a table is listed twice"));
        }
    }
    let left_out = &settings.left_out;
    if left_out.len() > SOURCE_TABLES_MAX {
        return Err(invalid(format!("a source leaves out at most {SOURCE_TABLES_MAX} tables")));
    }
    left_out.iter().try_for_each(table)?;
    if left_out.iter().collect::<BTreeSet<_>>().len() < left_out.len() {
        return Err(invalid("a table is left out twice"));
    }
    if !(1..=SHARDS_MAX).contains(&settings.shards) {
        return Err(invalid(format!("SHARDS is 1 to {SHARDS_MAX}")));
    }
    Ok(())
}
