//! The simple query protocol, the statements answered here, and how an answer is written.

use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field as ArrowField, Schema};

use super::connection::{Block, Connection, Fault};
use super::lex::bare;
use super::settings::{Local, Settings, modes, recognise, version};
use super::value::{field, format_of, put_row};
use super::wire::{Field, Report, Severity};
use crate::cells::Cells;
use crate::session::{Answer, Column, ColumnType, Tag};

/// An answer on its way to the client.
pub(super) struct Cursor {
    answer: Answer,
    fields: Arc<[Field]>,
    batch: usize,
    row: usize,
    sent: u64,
}

impl Cursor {
    /// An answer whose columns the client has been told as `fields`, or is about to be.
    pub(super) fn new(answer: Answer, fields: Arc<[Field]>) -> Self {
        Self { answer, fields, batch: 0, row: 0, sent: 0 }
    }
}

/// Whether an answer's rows are for the client, rather than Snowflake's word that it was done.
pub(super) fn has_rows(answer: &Answer) -> bool {
    matches!(answer.tag, Tag::Rows)
}

/// The fields of an answer, in the formats a Bind asked for.
pub(super) fn fields_of(answer: &Answer, formats: &[i16]) -> Result<Arc<[Field]>, Report> {
    let integers = |index: usize| {
        !answer.batches.is_empty()
            && answer.batches.iter().all(|batch| {
                batch.columns().get(index).is_some_and(|a| *a.data_type() == DataType::Int64)
            })
    };
    let each = answer.columns.iter().enumerate();
    each.map(|(index, column)| {
        Ok(Field { format: format_of(formats, index)?, ..field(column, integers(index)) })
    })
    .collect()
}

impl Connection {
    /// A Query message: its statements one after the other, up to the first that fails.
    pub(super) async fn simple(&mut self, sql: &str) -> Result<(), Fault> {
        self.portals.remove("");
        let statements = self.entered.server.sessions.split(sql)?;
        let mut any = false;
        for statement in &statements {
            if bare(statement).is_empty() {
                continue;
            }
            any = true;
            let answer = match recognise(statement) {
                Some(local) => self.local(local).await?,
                None => self.run(statement, &[]).await?,
            };
            let fields = fields_of(&answer, &[])?;
            if has_rows(&answer) {
                self.out.fields(&fields);
            }
            self.send(&mut Cursor::new(answer, fields), usize::MAX).await?;
        }
        if !any {
            self.out.bare(b'I');
        }
        Ok(())
    }

    /// Writes up to `rows_max` rows and, if they were the last, what was done. True if they were.
    pub(super) async fn send(
        &mut self,
        cursor: &mut Cursor,
        rows_max: usize,
    ) -> Result<bool, Fault> {
        let zone = self.settings.zone.clone();
        let mut scratch = String::new();
        let mut left = rows_max;
        while has_rows(&cursor.answer) && cursor.batch < cursor.answer.batches.len() {
            let cells = cells_of(&cursor.answer.columns, &cursor.answer.batches[cursor.batch])?;
            let rows = cursor.answer.batches[cursor.batch].num_rows();
            while cursor.row < rows {
                if left == 0 {
                    self.out.bare(b's');
                    return Ok(false);
                }
                let fields = &cursor.fields;
                put_row(&mut self.out.buffer, fields, &cells, cursor.row, &zone, &mut scratch)?;
                cursor.row += 1;
                cursor.sent += 1;
                left -= 1;
                self.flush_if_full().await?;
            }
            // A batch that has been sent is not kept for the rest.
            let schema = cursor.answer.batches[cursor.batch].schema();
            cursor.answer.batches[cursor.batch] = RecordBatch::new_empty(schema);
            cursor.batch += 1;
            cursor.row = 0;
        }
        self.complete(cursor);
        Ok(true)
    }

    fn complete(&mut self, cursor: &Cursor) {
        let tag = match cursor.answer.tag {
            Tag::Rows => format!("SELECT {}", cursor.sent),
            Tag::Changed("INSERT", rows) => format!("INSERT 0 {rows}"),
            Tag::Changed(word, rows) => format!("{word} {rows}"),
            Tag::Done(words) => {
                if let Some(status) = unchanged(&cursor.answer)
                    && self.settings.wants(false)
                {
                    self.out.diagnostic(Severity::Notice, &Report::new("00000", status));
                }
                words.to_owned()
            }
        };
        self.out.complete(&tag);
    }

    /// Answers a statement about the session.
    pub(super) async fn local(&mut self, local: Local) -> Result<Answer, Fault> {
        let tag = match local {
            Local::Begin(wanted) => {
                modes(&wanted)?;
                if self.block.is_some() {
                    self.warn("25001", "there is already a transaction in progress");
                } else {
                    self.block = Some(Block::default());
                }
                "BEGIN"
            }
            Local::Commit => {
                if self.block.take().is_none() {
                    self.warn("25P01", "there is no transaction in progress");
                }
                "COMMIT"
            }
            Local::Rollback => {
                self.rollback()?;
                "ROLLBACK"
            }
            Local::Set(name, value) => {
                if let Some(reported) = self.settings.set(&name, &value)? {
                    let value = self.settings.get(&name).unwrap_or_default();
                    self.out.parameter(reported, &value);
                }
                "SET"
            }
            Local::Schema(name) => {
                self.run(&format!("USE SCHEMA {name}"), &[]).await?;
                "SET"
            }
            Local::Reset(name) => {
                self.reset(&name);
                "RESET"
            }
            Local::Show(name) => {
                let value = self.settings.get(&name).unwrap_or_default();
                return Ok(one_text(&name, &value));
            }
            Local::Version => return Ok(one_text("version", &version())),
            Local::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            Local::Deallocate(Some(name)) => {
                if self.statements.remove(&name).is_none() {
                    let text = format!("prepared statement \"{name}\" does not exist");
                    return Err(Report::new("26000", text).into());
                }
                "DEALLOCATE"
            }
            Local::Discard => {
                self.statements.clear();
                self.portals.clear();
                self.reset("all");
                "DISCARD ALL"
            }
            Local::Nothing(tag) => tag,
        };
        Ok(Answer { columns: Vec::new(), batches: Vec::new(), tag: Tag::Done(tag) })
    }

    /// Ends a block. What it changed stays changed, which is not what a ROLLBACK may claim.
    fn rollback(&mut self) -> Result<(), Report> {
        match self.block.take() {
            None => self.warn("25P01", "there is no transaction in progress"),
            Some(Block { changes: 0 }) => {}
            Some(Block { changes }) => {
                let text = format!(
                    "ROLLBACK is not supported: each statement commits by itself, and {changes} of \
                     this block are in effect"
                );
                return Err(Report::new("0A000", text));
            }
        }
        Ok(())
    }

    fn reset(&mut self, name: &str) {
        self.settings.reset(name);
        for (key, reported) in Settings::REPORTED {
            if let Some(value) = self.settings.get(key).filter(|_| name == "all" || name == key) {
                self.out.parameter(reported, &value);
            }
        }
    }

    fn warn(&mut self, sqlstate: &'static str, text: &str) {
        if self.settings.wants(true) {
            self.out.diagnostic(Severity::Warning, &Report::new(sqlstate, text));
        }
    }
}

fn cells_of(columns: &[Column], batch: &RecordBatch) -> Result<Vec<Cells>, Report> {
    if columns.len() != batch.num_columns() {
        return Err(Report::new("XX000", "an answer's columns are not those of its rows"));
    }
    let each = columns.iter().zip(batch.columns());
    Ok(each.map(|(column, array)| Cells::of(column, array)).collect::<Result<_, _>>()?)
}

/// Snowflake's status where nothing was changed because it was so already, of which PostgreSQL
/// sends a notice; of all else the command tag is the word.
fn unchanged(answer: &Answer) -> Option<String> {
    let batch = answer.batches.first().filter(|batch| batch.num_rows() == 1)?;
    let column = batch.columns().first()?.as_any().downcast_ref::<StringArray>()?;
    let status = (!column.is_null(0)).then(|| column.value(0))?;
    status.contains(" already ").then(|| status.to_owned())
}

/// An answer of one row with one text.
fn one_text(name: &str, value: &str) -> Answer {
    let column = Column { name: name.to_owned(), kind: ColumnType::Text, nullable: false };
    let schema = Schema::new(vec![ArrowField::new(name, DataType::Utf8, false)]);
    let array = Arc::new(StringArray::from(vec![value]));
    let batches = RecordBatch::try_new(Arc::new(schema), vec![array]).into_iter().collect();
    Answer { columns: vec![column], batches, tag: Tag::Rows }
}
