//! CREATE, ALTER, PAUSE and RESUME SOURCE.

use datafusion::sql::sqlparser::tokenizer::Token;
use hydrant_core::capture::{
    AlterSource, Envelope, IfExists, OnSlotLoss, Oversize, PgTable, SOURCE_TABLES_MAX, SlotChoice,
    SnapshotMode, SourceTable,
};

use super::{CaptureStatement, CreateSource, flag};
use crate::error::{SqlResult, invalid_value, syntax};
use crate::sql::ast::Statement;
use crate::sql::front::Front;

/// Most publications that a source names.
const PUBLICATIONS_MAX: usize = 64;

impl Front<'_> {
    pub(super) fn create_source(
        &mut self,
        name: String,
        there: IfExists,
    ) -> SqlResult<CaptureStatement> {
        self.expect("FROM")?;
        self.expect("POSTGRES")?;
        self.expect("CONNECTION")?;
        let connection = self.capture_name()?;
        let (publications, slot) = self.publications()?;
        let (tables, left_out) = self.source_tables()?;
        self.expect("INTO")?;
        self.expect("STREAM")?;
        let mut source = CreateSource {
            name,
            there,
            connection,
            publications,
            slot,
            tables,
            left_out,
            stream: self.text()?,
            shards: 1,
            envelope: Envelope::default(),
            snapshot: SnapshotMode::default(),
            oversize: Oversize::default(),
            transactions: false,
            on_slot_loss: OnSlotLoss::default(),
            comment: String::new(),
        };
        if self.word("WITH") {
            self.expect_token(&Token::LParen)?;
            loop {
                self.source_setting(&mut source)?;
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
        }
        if self.word("COMMENT") {
            source.comment = self.quoted_setting()?;
        }
        Ok(CaptureStatement::CreateSource(Box::new(source)))
    }

    /// `(PUBLICATION 'p', …, SLOT 'name' [ADOPT])`.
    fn publications(&mut self) -> SqlResult<(Vec<String>, Option<SlotChoice>)> {
        let (mut publications, mut slot) = (Vec::new(), None);
        self.expect_token(&Token::LParen)?;
        loop {
            match self.next_word()?.as_str() {
                "PUBLICATION" => publications.push(self.quoted_setting()?),
                "SLOT" => {
                    let name = self.quoted_setting()?;
                    slot = Some(SlotChoice { name, adopt: self.word("ADOPT") });
                }
                other => {
                    return Err(syntax(format!(
                        "a source takes PUBLICATION 'name' and SLOT 'name' [ADOPT], not {other}"
                    )));
                }
            }
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        if publications.is_empty() || publications.len() > PUBLICATIONS_MAX {
            return Err(syntax(format!("a source takes 1 to {PUBLICATIONS_MAX} PUBLICATIONs")));
        }
        Ok((publications, slot))
    }

    /// `[FOR ALL TABLES [EXCEPT (table, …)] | FOR TABLES (table [PARTITION BY (column, …)], …)]`: the
    /// tables that are listed, and those that are left out of all.
    fn source_tables(&mut self) -> SqlResult<(Option<Vec<SourceTable>>, Vec<PgTable>)> {
        if !self.word("FOR") {
            return Ok((None, Vec::new()));
        }
        if self.words(&["ALL", "TABLES"]) {
            let except = self.word("EXCEPT");
            let left_out = if except { self.table_list(Self::pg_table)? } else { Vec::new() };
            return Ok((None, left_out));
        }
        self.expect("TABLES")?;
        Ok((Some(self.table_list(Self::source_table)?), Vec::new()))
    }

    fn table_list<T>(&mut self, read: fn(&mut Self) -> SqlResult<T>) -> SqlResult<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let mut tables = Vec::new();
        loop {
            tables.push(read(self)?);
            if tables.len() > SOURCE_TABLES_MAX {
                return Err(syntax(format!("a source lists at most {SOURCE_TABLES_MAX} tables")));
            }
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(tables)
    }

    fn source_setting(&mut self, source: &mut CreateSource) -> SqlResult<()> {
        let option = self.next_word()?;
        let option = match option.as_str() {
            "ON" if self.words(&["SLOT", "LOSS"]) => "ON SLOT LOSS",
            other => other,
        };
        let text = self.setting()?;
        let bad = || invalid_value(&text, option);
        match (option, text.to_ascii_lowercase().as_str()) {
            ("ENVELOPE", "debezium") => source.envelope = Envelope::Debezium,
            ("ENVELOPE", "dms") => source.envelope = Envelope::Dms,
            ("SNAPSHOT", "initial") => source.snapshot = SnapshotMode::Initial,
            ("SNAPSHOT", "never") => source.snapshot = SnapshotMode::Never,
            ("OVERSIZE", "fail") => source.oversize = Oversize::Fail,
            ("OVERSIZE", "truncate") => source.oversize = Oversize::Truncate,
            ("ON SLOT LOSS", "fail") => source.on_slot_loss = OnSlotLoss::Fail,
            ("ON SLOT LOSS", "resnapshot") => source.on_slot_loss = OnSlotLoss::Resnapshot,
            ("TRANSACTIONS", _) => source.transactions = flag(&text, option)?,
            ("SHARDS", number) => {
                let shards = number.parse().ok().filter(|shards| *shards > 0);
                source.shards = shards.ok_or_else(bad)?;
            }
            ("ENVELOPE" | "SNAPSHOT" | "OVERSIZE" | "ON SLOT LOSS", _) => return Err(bad()),
            _ => return Err(syntax(format!("invalid property '{option}' for 'SOURCE'"))),
        }
        Ok(())
    }

    /// `ALTER SOURCE` is read.
    pub(in crate::sql) fn alter_source(&mut self) -> SqlResult<Statement> {
        let name = self.capture_name()?;
        let change = match self.next_word()?.as_str() {
            "ADD" => {
                self.expect("TABLE")?;
                AlterSource::AddTable(self.source_table()?)
            }
            "DROP" => {
                self.expect("TABLE")?;
                AlterSource::DropTable(self.pg_table()?)
            }
            "RESNAPSHOT" => AlterSource::Resnapshot,
            "SET" => {
                self.expect("COMMENT")?;
                AlterSource::Comment(self.quoted_setting()?)
            }
            "PAUSE" | "RESUME" => {
                return Err(syntax("write PAUSE SOURCE name, RESUME SOURCE name"));
            }
            other => {
                return Err(syntax(format!(
                    "ALTER SOURCE takes ADD TABLE, DROP TABLE, RESNAPSHOT or SET COMMENT, not \
                     {other}"
                )));
            }
        };
        Ok(Statement::Capture(CaptureStatement::Alter { name, change }))
    }

    /// `PAUSE SOURCE name`, `RESUME SOURCE name`.
    pub(in crate::sql) fn turn_source(&mut self, change: AlterSource) -> SqlResult<Statement> {
        self.skip();
        self.expect("SOURCE")?;
        let name = self.capture_name()?;
        Ok(Statement::Capture(CaptureStatement::Alter { name, change }))
    }
}
