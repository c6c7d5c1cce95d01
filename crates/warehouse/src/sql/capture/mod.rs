//! The statements about change data capture: secrets, connections and sources.

mod connection;
mod secret;
mod source;
#[cfg(test)]
mod tests;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use hydrant_core::capture::{
    AlterSource, CAPTURE_NAME_BYTES_MAX, Connection, Envelope, IfExists, OnSlotLoss, Oversize,
    PgTable, Secret, SlotChoice, SnapshotMode, SourceTable,
};

use super::ast::{Create, Statement};
use super::front::Front;
use super::tokens::bare;
use crate::error::{SqlResult, invalid_value, syntax, unsupported};

/// A statement about change data capture. Secrets and connections are stamped when they are stored.
#[derive(Debug)]
pub(crate) enum CaptureStatement {
    CreateSecret { secret: Secret, there: IfExists },
    CreateConnection { connection: Connection, there: IfExists },
    CreateSource(Box<CreateSource>),
    Alter { name: String, change: AlterSource },
    Drop { kind: CaptureKind, name: String, if_exists: bool },
    Show { what: CaptureKind, like: Option<String>, limit: Option<usize> },
    Describe { kind: CaptureKind, name: String },
    ShowCreate { kind: CaptureKind, name: String },
}

/// What such a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaptureKind {
    Secret,
    Connection,
    Source,
}

impl CaptureKind {
    /// As errors and answers write it.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::Connection => "Connection",
            Self::Source => "Source",
        }
    }

    fn of(word: &str) -> Option<Self> {
        match word {
            "SECRET" => Some(Self::Secret),
            "CONNECTION" => Some(Self::Connection),
            "SOURCE" => Some(Self::Source),
            _ => None,
        }
    }
}

/// CREATE SOURCE; its stream is still the text that was written.
#[derive(Debug)]
pub(crate) struct CreateSource {
    pub(crate) name: String,
    pub(crate) there: IfExists,
    pub(crate) connection: String,
    pub(crate) publications: Vec<String>,
    pub(crate) slot: Option<SlotChoice>,
    pub(crate) tables: Option<Vec<SourceTable>>,
    pub(crate) left_out: Vec<PgTable>,
    pub(crate) stream: String,
    pub(crate) shards: u32,
    pub(crate) envelope: Envelope,
    pub(crate) snapshot: SnapshotMode,
    pub(crate) oversize: Oversize,
    pub(crate) transactions: bool,
    pub(crate) on_slot_loss: OnSlotLoss,
    pub(crate) comment: String,
}

/// Whether a statement may hold a secret, so that its errors quote nothing of it.
pub(super) fn holds_secret(tokens: &[TokenWithSpan]) -> bool {
    let mut words = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_)));
    let mut next = || words.next().and_then(|t| bare(&t.token));
    if next() != Some("CREATE") {
        return false;
    }
    let mut word = next();
    if word == Some("OR") && next() == Some("REPLACE") {
        word = next();
    }
    matches!(word, Some("SECRET" | "CONNECTION"))
}

fn there(create: Create) -> IfExists {
    match create {
        Create { or_replace: true, .. } => IfExists::Replace,
        Create { if_not_exists: true, .. } => IfExists::Keep,
        _ => IfExists::Fail,
    }
}

fn flag(text: &str, option: &str) -> SqlResult<bool> {
    match text.to_ascii_uppercase().as_str() {
        "TRUE" => Ok(true),
        "FALSE" => Ok(false),
        _ => Err(invalid_value(text, option)),
    }
}

impl Front<'_> {
    /// `CREATE [OR REPLACE]` is read; the next word is one of these kinds.
    pub(super) fn create_capture(&mut self, or_replace: bool) -> SqlResult<Statement> {
        let kind = CaptureKind::of(&self.next_word()?);
        let kind = kind.ok_or_else(|| self.unexpected())?;
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        if or_replace && if_not_exists {
            return Err(syntax(
                "options IF NOT EXISTS and OR REPLACE are incompatible; leave one out",
            ));
        }
        let name = self.capture_name()?;
        let there = there(Create { or_replace, if_not_exists });
        let statement = match kind {
            CaptureKind::Secret => self.create_secret(name, there)?,
            CaptureKind::Connection => self.create_connection(name, there)?,
            CaptureKind::Source => self.create_source(name, there)?,
        };
        Ok(Statement::Capture(statement))
    }

    /// The kind that is dropped, if it is one of these. `DROP` is read.
    pub(super) fn drop_capture(&mut self) -> SqlResult<Option<Statement>> {
        let Some(kind) = self.peek_word(0).as_deref().and_then(CaptureKind::of) else {
            return Ok(None);
        };
        self.skip();
        let if_exists = self.words(&["IF", "EXISTS"]);
        let name = self.capture_name()?;
        Ok(Some(Statement::Capture(CaptureStatement::Drop { kind, name, if_exists })))
    }

    /// SHOW of one of these kinds, or SHOW CREATE of one of them. `SHOW` is read.
    pub(super) fn show_capture(&mut self) -> SqlResult<Option<Statement>> {
        if self.word("CREATE") {
            return self.show_create().map(Some);
        }
        let word = self.peek_word(0);
        let kind = word.as_deref().and_then(|w| w.strip_suffix('S')).and_then(CaptureKind::of);
        let Some(what) = kind else { return Ok(None) };
        self.skip();
        let like = if self.word("LIKE") { Some(self.text()?) } else { None };
        let limit = self.limit()?;
        Ok(Some(Statement::Capture(CaptureStatement::Show { what, like, limit })))
    }

    /// `SHOW CREATE CONNECTION name`, `SHOW CREATE SOURCE name` (Materialize). `SHOW CREATE` is read.
    fn show_create(&mut self) -> SqlResult<Statement> {
        let word = self.next_word()?;
        match CaptureKind::of(&word) {
            Some(CaptureKind::Secret) => Err(unsupported(
                "SHOW CREATE SECRET, as the statement would have the password in it; DESCRIBE SECRET \
                 shows the rest",
            )),
            Some(kind) => {
                let name = self.capture_name()?;
                Ok(Statement::Capture(CaptureStatement::ShowCreate { kind, name }))
            }
            None => Err(unsupported(format!("SHOW CREATE {word}"))),
        }
    }

    /// DESCRIBE of one of these kinds, if it is one. `DESCRIBE` is read; a table may be named SOURCE too.
    pub(super) fn describe_capture(&mut self) -> SqlResult<Option<Statement>> {
        let [_, name] = self.p.peek_tokens_ref::<2>();
        let named = matches!(name.token, Token::Word(_));
        let kind = self.peek_word(0).as_deref().and_then(CaptureKind::of);
        let Some(kind) = kind.filter(|_| named) else { return Ok(None) };
        self.skip();
        let name = self.capture_name()?;
        Ok(Some(Statement::Capture(CaptureStatement::Describe { kind, name })))
    }

    /// A name of one part: these objects are the account's, in no database.
    pub(super) fn capture_name(&mut self) -> SqlResult<String> {
        let name = match self.p.peek_token_ref().token.clone() {
            Token::Word(Word { value, quote_style: None | Some('"'), .. }) => value,
            _ => return Err(self.unexpected()),
        };
        self.skip();
        if self.p.peek_token_ref().token == Token::Period {
            return Err(syntax(
                "a secret, connection or source is in no database: its name has one part",
            ));
        }
        if name.is_empty() || name.len() > CAPTURE_NAME_BYTES_MAX {
            return Err(syntax(format!("a name has 1 to {CAPTURE_NAME_BYTES_MAX} bytes")));
        }
        Ok(name)
    }

    /// A name as PostgreSQL folds it.
    pub(in crate::sql) fn pg_name(&mut self) -> SqlResult<String> {
        let name = match &self.p.peek_token_ref().token {
            // The tokenizer takes letters beyond ASCII in quotes only.
            Token::Word(Word { value, quote_style: None, .. }) => value.to_ascii_lowercase(),
            Token::Word(Word { value, quote_style: Some('"'), .. }) => value.clone(),
            _ => return Err(self.unexpected()),
        };
        self.skip();
        Ok(name)
    }

    /// `table` in the schema public, or `schema.table`.
    pub(in crate::sql) fn pg_table(&mut self) -> SqlResult<PgTable> {
        let first = self.pg_name()?;
        if !self.p.consume_token(&Token::Period) {
            return Ok(PgTable { schema: "public".to_owned(), table: first });
        }
        Ok(PgTable { schema: first, table: self.pg_name()? })
    }

    /// `table [PARTITION BY (column, …)]`.
    fn source_table(&mut self) -> SqlResult<SourceTable> {
        let table = self.pg_table()?;
        let mut partition_by = Vec::new();
        if self.words(&["PARTITION", "BY"]) {
            self.expect_token(&Token::LParen)?;
            loop {
                partition_by.push(self.pg_name()?);
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
        }
        Ok(SourceTable { table, partition_by })
    }

    /// The value of an option, with or without `=` before it; NULL, which stands for a parameter that
    /// is not known yet, is empty.
    fn setting(&mut self) -> SqlResult<String> {
        let _ = self.p.consume_token(&Token::Eq);
        let value = match &self.p.peek_token_ref().token {
            Token::SingleQuotedString(text) => text.clone(),
            Token::DollarQuotedString(text) => text.value.clone(),
            Token::Number(text, _) => text.clone(),
            Token::Word(Word { value, quote_style: None, .. }) if value == "NULL" => String::new(),
            Token::Word(Word { value, quote_style: None, .. }) => value.clone(),
            _ => return Err(self.unexpected()),
        };
        self.skip();
        Ok(value)
    }

    /// The same, in quotes only.
    fn quoted_setting(&mut self) -> SqlResult<String> {
        let _ = self.p.consume_token(&Token::Eq);
        let text = match &self.p.peek_token_ref().token {
            Token::SingleQuotedString(text) => text.clone(),
            Token::DollarQuotedString(text) => text.value.clone(),
            Token::Word(Word { value, quote_style: None, .. }) if value == "NULL" => String::new(),
            _ => return Err(self.unexpected()),
        };
        self.skip();
        Ok(text)
    }
}
