//! The statements that make a connection or a source like one that is there.

use hydrant_core::arn::Arn;
use hydrant_core::capture::{Connection, PgTable, SourceSettings, SourceTable};
use hydrant_core::names::Scope;
use serde::Serialize;

use crate::catalog::shown;

/// CREATE CONNECTION; it names its secret, whose password is nowhere in it.
pub(super) fn connection(of: &Connection) -> String {
    let mut reach = vec![
        format!("HOST {}", quoted(&of.host)),
        format!("PORT {}", of.port),
        format!("DATABASE {}", quoted(&of.database)),
    ];
    reach.extend(of.user.as_ref().map(|user| format!("USER {}", quoted(user))));
    reach.extend(of.secret.as_ref().map(|secret| format!("PASSWORD SECRET {}", shown(secret))));
    reach.push(format!("SSL MODE {}", quoted(&word(&of.ssl_mode))));
    let authority = of.ssl_authority.as_ref();
    reach.extend(authority.map(|pem| format!("SSL CERTIFICATE AUTHORITY {}", quoted(pem))));
    let name = shown(&of.name);
    format!("CREATE CONNECTION {name} TO POSTGRES ({}){};", reach.join(", "), comment(&of.comment))
}

/// CREATE SOURCE. The stream is written by its name in the scope of `near`, and by its ARN elsewhere.
pub(super) fn source(of: &SourceSettings, near: Option<&Scope>) -> String {
    let mut reads: Vec<_> =
        of.publications.iter().map(|p| format!("PUBLICATION {}", quoted(p))).collect();
    reads.extend(of.slot.as_ref().map(|slot| {
        let adopt = if slot.adopt { " ADOPT" } else { "" };
        format!("SLOT {}{adopt}", quoted(&slot.name))
    }));
    let tables = match &of.tables {
        None if of.left_out.is_empty() => "ALL TABLES".to_owned(),
        None => format!("ALL TABLES EXCEPT ({})", list(&of.left_out, pg_table)),
        Some(listed) => format!("TABLES ({})", list(listed, table)),
    };
    let stream = match near {
        Some(near) if *near == of.scope => of.stream.as_str().to_owned(),
        _ => Arn::new("kinesis", &of.scope, format!("stream/{}", of.stream)).to_string(),
    };
    format!(
        "CREATE SOURCE {} FROM POSTGRES CONNECTION {} ({}) FOR {tables} INTO STREAM {} WITH (ENVELOPE \
         {}, SNAPSHOT {}, OVERSIZE {}, TRANSACTIONS {}, SHARDS {}, ON SLOT LOSS {}){};",
        shown(&of.name),
        shown(&of.connection),
        reads.join(", "),
        quoted(&stream),
        quoted(&word(&of.envelope)),
        quoted(&word(&of.snapshot)),
        quoted(&word(&of.oversize)),
        if of.transactions { "TRUE" } else { "FALSE" },
        of.shards,
        quoted(&word(&of.on_slot_loss)),
        comment(&of.comment),
    )
}

fn table(of: &SourceTable) -> String {
    let table = pg_table(&of.table);
    if of.partition_by.is_empty() {
        return table;
    }
    format!("{table} PARTITION BY ({})", list(&of.partition_by, |column| pg_name(column)))
}

fn pg_table(of: &PgTable) -> String {
    format!("{}.{}", pg_name(&of.schema), pg_name(&of.table))
}

fn list<T>(all: &[T], write: impl Fn(&T) -> String) -> String {
    all.iter().map(write).collect::<Vec<_>>().join(", ")
}

/// A name as PostgreSQL takes it: bare if it would be folded to itself.
fn pg_name(name: &str) -> String {
    let plain =
        |(i, c): (usize, char)| c.is_ascii_lowercase() || c == '_' || (i > 0 && c.is_ascii_digit());
    if !name.is_empty() && name.chars().enumerate().all(plain) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

fn comment(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" COMMENT = {}", quoted(text)) }
}

/// A text between quotes; a backslash begins an escape there.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The word that a value without fields is stored as.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
