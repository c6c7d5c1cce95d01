//! Running a request's statements: what the engine says, as the driver's JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::login::formats;
use super::reply::Reply;
use super::rowset::{rowset, rowtype};
use crate::session::{Answer, Column, ColumnType, Names, Session, SqlError, Tag};

/// Snowflake's ids of statement types, which drivers tell queries and changes by.
const SELECT: u32 = 0x1000;
const INSERT: u32 = 0x3100;
const UPDATE: u32 = 0x3200;
const DELETE: u32 = 0x3300;
const MERGE: u32 = 0x3400;
const SESSION: u32 = 0x4000;
const DDL: u32 = 0x6000;

/// What a request asks to be run.
pub(super) struct Work {
    pub(super) statements: Vec<String>,
    pub(super) values: Vec<Option<String>>,
    pub(super) describe: bool,
    /// How long each statement may take.
    pub(super) limit: Option<Duration>,
}

/// A statement that has been run: its answer, and the type it is of.
pub(super) struct Ran {
    pub(super) reply: Reply,
    pub(super) kind: u32,
}

/// Runs one statement, or only describes it.
pub(super) async fn run(
    engine: &mut dyn Session,
    id: &str,
    work: &Work,
    statement: &str,
) -> Result<Ran, SqlError> {
    let (columns, rows, count, kind) = if work.describe {
        match engine.describe(statement).await? {
            Some(columns) => (columns, "[]".to_owned(), 0, SELECT),
            None => (Vec::new(), "[]".to_owned(), 0, guess(statement)),
        }
    } else {
        let answer = engine.execute(statement, &work.values).await?;
        let kind = kind(&answer, statement);
        let (columns, rows, count) = rows(answer)?;
        (columns, rows, count, kind)
    };
    let data = json!({
        "parameters": parameters(),
        "rowtype": rowtype(&columns),
        "total": count,
        "returned": count,
        "queryId": id,
        "databaseProvider": null,
        "numberOfBinds": work.values.len(),
        "arrayBindSupported": false,
        "statementTypeId": kind,
        "version": 1,
        "queryResultFormat": "json",
    });
    Ok(Ran { reply: with_rows(with_names(data, engine.names()), &rows), kind })
}

/// The answer to a request of several statements: where the answer to each is.
pub(super) fn several(engine: &dyn Session, id: &str, ran: &[(String, u32)]) -> Reply {
    let join = |each: &dyn Fn(&(String, u32)) -> String| {
        ran.iter().map(each).collect::<Vec<_>>().join(",")
    };
    let column = Column {
        name: "multiple statement execution".into(),
        kind: ColumnType::Text,
        nullable: false,
    };
    let data = json!({
        "parameters": parameters(),
        "rowtype": rowtype(&[column]),
        "total": 1,
        "returned": 1,
        "queryId": id,
        "databaseProvider": null,
        "numberOfBinds": 0,
        "arrayBindSupported": false,
        "statementTypeId": 0xA000,
        "version": 1,
        "queryResultFormat": "json",
        "resultIds": join(&|(id, _)| id.clone()),
        "resultTypes": join(&|(_, kind)| kind.to_string()),
    });
    let rows = r#"[["Multiple statements executed successfully."]]"#;
    with_rows(with_names(data, engine.names()), rows)
}

fn parameters() -> Vec<Value> {
    let each = formats().into_iter();
    each.map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn with_names(mut data: Value, names: Names) -> Value {
    data["finalDatabaseName"] = json!(names.database);
    data["finalSchemaName"] = json!(names.schema);
    data["finalWarehouseName"] = json!(names.warehouse);
    data["finalRoleName"] = json!(names.role);
    data
}

/// The envelope around rows that are JSON already.
fn with_rows(data: Value, rows: &str) -> Reply {
    let mut data = data.to_string();
    data.pop();
    let reply = [
        "{\"data\":",
        &data,
        ",\"rowset\":",
        rows,
        "},\"code\":null,\"message\":null,\"success\":true}",
    ];
    Reply(reply.concat().into())
}

/// The rows of an answer; those of a change are its count, in Snowflake's columns.
fn rows(answer: Answer) -> Result<(Vec<Column>, String, usize), SqlError> {
    if let Tag::Changed(word, changed) = answer.tag
        && answer.columns.is_empty()
    {
        let names: &[&str] = match word {
            "INSERT" => &["number of rows inserted"],
            "DELETE" => &["number of rows deleted"],
            _ => &["number of rows updated", "number of multi-joined rows updated"],
        };
        let kind = ColumnType::Number { precision: 19, scale: 0 };
        let column = |name: &&str| Column { name: (*name).to_owned(), kind, nullable: false };
        let values: Vec<Value> = (0..names.len())
            .map(|at| json!(if at == 0 { changed } else { 0 }.to_string()))
            .collect();
        return Ok((names.iter().map(column).collect(), json!([values]).to_string(), 1));
    }
    let (rows, count) = rowset(&answer)?;
    Ok((answer.columns, rows, count))
}

fn kind(answer: &Answer, statement: &str) -> u32 {
    match answer.tag {
        Tag::Rows => SELECT,
        Tag::Changed("INSERT", _) => INSERT,
        Tag::Changed("DELETE", _) => DELETE,
        Tag::Changed("MERGE", _) => MERGE,
        Tag::Changed(..) => UPDATE,
        Tag::Done(_) => guess(statement),
    }
}

/// The type of a statement that answers with no rows, from its first word.
fn guess(statement: &str) -> u32 {
    let word = statement.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty());
    match word.unwrap_or_default().to_ascii_uppercase().as_str() {
        "INSERT" => INSERT,
        "UPDATE" => UPDATE,
        "DELETE" => DELETE,
        "MERGE" => MERGE,
        "USE" | "SET" | "UNSET" => SESSION,
        _ => DDL,
    }
}
