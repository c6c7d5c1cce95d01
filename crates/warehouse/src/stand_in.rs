//! A stand-in for the SQL engine in the endpoints' tests: a handful of fixed statements.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    RecordBatch, StringArray, Time64NanosecondArray, TimestampNanosecondArray,
};

use crate::session::{Answer, Column, ColumnType, Login, Names, Session, Sessions, SqlError, Tag};

/// The password of the user `ALICE`; every other name is unknown, unless [`StandIn::open_to_all`].
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct StandIn {
    pub(crate) open_to_all: bool,
}

impl Sessions for StandIn {
    fn open(&self, user: &str, names: Names) -> Box<dyn Session> {
        Box::new(Opened { user: user.to_owned(), names })
    }

    fn login(&self, user: &str) -> Login {
        match user {
            _ if self.open_to_all => Login::Anyone,
            user if user.eq_ignore_ascii_case("alice") => Login::Password(PASSWORD.into()),
            _ => Login::Unknown,
        }
    }

    fn split(&self, sql: &str) -> Result<Vec<String>, SqlError> {
        Ok(sql.split(';').map(str::trim).filter(|one| !one.is_empty()).map(String::from).collect())
    }
}

struct Opened {
    user: String,
    names: Names,
}

fn column(name: &str, kind: ColumnType) -> Column {
    Column { name: name.into(), kind, nullable: true }
}

fn rows(columns: Vec<(Column, ArrayRef)>) -> Answer {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.iter().map(|(column, array)| (column.name.clone(), Arc::clone(array), true)),
    )
    .unwrap();
    let columns = columns.into_iter().map(|(column, _)| column).collect();
    Answer { columns, batches: vec![batch], tag: Tag::Rows }
}

fn text(name: &str, value: &str) -> Answer {
    let array: ArrayRef = Arc::new(StringArray::from(vec![value]));
    rows(vec![(column(name, ColumnType::Text), array)])
}

/// A row of every type, and a row of NULLs. 1,700,000,000.123456789 s is 2023-11-14T22:13:20Z.
fn every_type() -> Answer {
    let at = 1_700_000_000_123_456_789_i64;
    let number = |precision, scale| ColumnType::Number { precision, scale };
    let decimals = |value, precision, scale| {
        Decimal128Array::from(vec![Some(value), None])
            .with_precision_and_scale(precision, scale)
            .unwrap()
    };
    let stamps = || TimestampNanosecondArray::from(vec![Some(at), None]);
    let json = |value| StringArray::from(vec![Some(value), None]);
    let columns: Vec<(&str, ColumnType, ArrayRef)> = vec![
        ("ID", number(38, 0), Arc::new(Int64Array::from(vec![Some(42), None]))),
        ("BIG", number(38, 0), Arc::new(decimals(12_345_678_901_234_567_890_123, 38, 0))),
        ("PRICE", number(10, 2), Arc::new(decimals(-1_250, 10, 2))),
        ("RATIO", ColumnType::Real, Arc::new(Float64Array::from(vec![Some(0.1), None]))),
        ("NAME", ColumnType::Text, Arc::new(StringArray::from(vec![Some("Żółw's"), None]))),
        ("OK", ColumnType::Boolean, Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("DAY", ColumnType::Date, Arc::new(Date32Array::from(vec![Some(19_675), None]))),
        (
            "AT_TIME",
            ColumnType::Time,
            Arc::new(Time64NanosecondArray::from(vec![Some(80_000_123_456_789), None])),
        ),
        ("NTZ", ColumnType::TimestampNtz, Arc::new(stamps())),
        ("LTZ", ColumnType::TimestampLtz, Arc::new(stamps().with_timezone("UTC"))),
        (
            "RAW",
            ColumnType::Binary,
            Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None])),
        ),
        ("V", ColumnType::Variant, Arc::new(json("{\"a\":[1,\"x\"]}"))),
    ];
    rows(columns.into_iter().map(|(name, kind, array)| (column(name, kind), array)).collect())
}

#[async_trait]
impl Session for Opened {
    async fn execute(
        &mut self,
        sql: &str,
        parameters: &[Option<String>],
    ) -> Result<Answer, SqlError> {
        let sql = sql.trim().trim_end_matches(';');
        let status = |text_: &str, words| Answer { tag: Tag::Done(words), ..text("status", text_) };
        let words: Vec<&str> = sql.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["select", "types"] => every_type(),
            ["select", "names"] => text("NAMES", &format!("{:?} {:?}", self.user, self.names)),
            ["select", "series", n] => {
                let n: i64 = n.parse().unwrap();
                let mut answer = rows(vec![(
                    column("N", ColumnType::Number { precision: 38, scale: 0 }),
                    Arc::new(Int64Array::from_iter_values(0..n)),
                )]);
                let more = answer.batches[0].clone();
                answer.batches.push(more);
                answer
            }
            ["select", "forever"] => std::future::pending().await,
            ["select", "slow"] => {
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                text("SLOW", "done")
            }
            ["select", "panic"] => panic!("asked for"),
            ["echo", ..] => {
                let values: Vec<_> = parameters.iter().map(|p| p.as_deref()).collect();
                let each = values.iter().enumerate().map(|(i, value)| {
                    let array: ArrayRef = Arc::new(StringArray::from(vec![*value]));
                    (column(&format!("P{}", i + 1), ColumnType::Text), array)
                });
                rows(each.collect())
            }
            ["literal", ..] => text("LITERAL", sql),
            ["create", "pipe", ..] => status("Pipe P successfully created.", "CREATE PIPE"),
            ["create", "table", "if", ..] => {
                status("T already exists, statement succeeded.", "CREATE TABLE")
            }
            ["create", "database", name] | ["use", "database", name] => {
                self.names.database = Some(name.to_uppercase());
                self.names.schema = Some("PUBLIC".into());
                status("Database successfully created.", "CREATE DATABASE")
            }
            ["USE", "SCHEMA", name] => {
                self.names.schema = Some(name.to_uppercase());
                status("Statement executed successfully.", "USE SCHEMA")
            }
            ["insert", ..] => {
                let array: ArrayRef = Arc::new(Int64Array::from(vec![3]));
                let number = ColumnType::Number { precision: 19, scale: 0 };
                let answer = rows(vec![(column("number of rows inserted", number), array)]);
                Answer { tag: Tag::Changed("INSERT", 3), ..answer }
            }
            _ => {
                return Err(SqlError {
                    code: 2003,
                    sqlstate: "02000",
                    message: "SQL compilation error:\nObject 'MISSING' does not exist or not \
                              authorized."
                        .into(),
                });
            }
        })
    }

    async fn describe(&mut self, sql: &str) -> Result<Option<Vec<Column>>, SqlError> {
        if sql.starts_with("create") || sql.starts_with("insert") {
            return Ok(None);
        }
        if sql.starts_with("echo") {
            let count = sql.matches('$').count().max(sql.matches('?').count());
            let names = (1..=count).map(|i| column(&format!("P{i}"), ColumnType::Text));
            return Ok(Some(names.collect()));
        }
        self.execute(sql, &[]).await.map(|answer| Some(answer.columns))
    }

    fn names(&self) -> Names {
        self.names.clone()
    }
}
