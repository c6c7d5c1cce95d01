//! Parses COPY INTO and CREATE TABLE, whose parts have parentheses of their own.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::ast::{Copy, Create, CreateTable, Location, MatchBy, Name, Statement};
use super::front::{Front, parser_error};
use super::options::{self, Options};
use super::types;
use crate::catalog::ColumnDef;
use crate::error::{SqlResult, invalid_value, syntax, unsupported};

/// Most names in FILES (Snowflake).
const FILES_MAX: usize = 1_000;

impl Front<'_> {
    pub(super) fn copy(&mut self) -> SqlResult<Copy> {
        self.skip();
        self.expect("INTO")?;
        if matches!(&self.p.peek_token_ref().token,
            Token::Word(Word { value, quote_style: Some(_), .. }) if value.starts_with('@'))
            || matches!(self.p.peek_token_ref().token, Token::SingleQuotedString(_))
        {
            return Err(unsupported("COPY INTO a location; COPY INTO a table is supported"));
        }
        let table = self.name()?;
        let columns = self.column_list()?;
        self.expect("FROM")?;
        let (from, transform) = if self.p.peek_token_ref().token == Token::LParen {
            self.skip();
            let query = self.p.parse_query().map_err(parser_error)?;
            self.expect_token(&Token::RParen)?;
            (self.transform_source(&query)?, Some(query))
        } else {
            (self.location()?, None)
        };
        let o = self.options()?;
        finish_copy(o, table, columns, from, transform)
    }

    fn column_list(&mut self) -> SqlResult<Option<Vec<String>>> {
        if !self.p.consume_token(&Token::LParen) {
            return Ok(None);
        }
        let mut columns = Vec::new();
        loop {
            columns.push(self.p.parse_identifier().map_err(parser_error)?.value);
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(Some(columns))
    }

    /// The stage a transformation reads; it may read nothing else.
    fn transform_source(&self, query: &ast::Query) -> SqlResult<Location> {
        let refuse = |what: &str| Err(unsupported(format!("{what} in a COPY transformation")));
        let ast::SetExpr::Select(select) = query.body.as_ref() else {
            return refuse("anything but one SELECT");
        };
        if query.with.is_some() || query.order_by.is_some() || query.limit_clause.is_some() {
            return refuse("WITH, ORDER BY or LIMIT");
        }
        let grouped = !matches!(&select.group_by,
            ast::GroupByExpr::Expressions(e, m) if e.is_empty() && m.is_empty());
        if select.selection.is_some() || select.distinct.is_some() || grouped {
            return refuse("WHERE, DISTINCT or GROUP BY");
        }
        match select.from.as_slice() {
            [
                ast::TableWithJoins {
                    relation: ast::TableFactor::Table { name, args: None, .. },
                    joins,
                },
            ] if joins.is_empty() => {
                let name = name.0.first().and_then(|p| p.as_ident()).map(|i| i.value.as_str());
                match name.and_then(|n| self.prepared.stage(n)) {
                    Some(stage) => super::front::location(stage),
                    None => refuse("a table that is not a stage"),
                }
            }
            _ => refuse("joins, or options of the stage"),
        }
    }

    pub(super) fn create_table(&mut self, name: Name, create: Create) -> SqlResult<Statement> {
        if self.words(&["FROM", "SOURCE"]) {
            return self.state_table(name, create);
        }
        let mut columns = Vec::new();
        if self.p.consume_token(&Token::LParen) {
            let mut keys = Vec::new();
            loop {
                self.table_element(&mut columns, &mut keys)?;
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
            for key in keys {
                match columns.iter_mut().find(|c: &&mut ColumnDef| c.name == key) {
                    Some(column) => {
                        column.primary_key = true;
                        column.nullable = false;
                    }
                    None => return Err(crate::error::invalid_identifier(&key)),
                }
            }
        }
        let mut o = self.options()?;
        let comment = o.text("COMMENT")?.unwrap_or_default();
        o.finish(
            "TABLE",
            &[
                "CLUSTER",
                "DATA_RETENTION_TIME_IN_DAYS",
                "MAX_DATA_EXTENSION_TIME_IN_DAYS",
                "CHANGE_TRACKING",
                "ENABLE_SCHEMA_EVOLUTION",
                "DEFAULT_DDL_COLLATION",
                "STAGE_FILE_FORMAT",
                "STAGE_COPY_OPTIONS",
                "COPY_GRANTS",
            ],
        )?;
        for clause in ["CLUSTER", "LIKE", "CLONE", "USING", "COPY", "WITH"] {
            if self.peek_word(0).as_deref() == Some(clause) {
                return Err(unsupported(format!("CREATE TABLE … {clause}")));
            }
        }
        let query = match self.word("AS") {
            true => Some(self.p.parse_query().map_err(parser_error)?),
            false => None,
        };
        if columns.is_empty() && query.is_none() {
            return Err(self.unexpected());
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = columns.iter().find(|c| !seen.insert(c.name.clone())) {
            return Err(crate::error::error(
                2025,
                "42S21",
                format!("SQL compilation error:\nduplicate column name '{}'", twice.name),
            ));
        }
        Ok(Statement::CreateTable(Box::new(CreateTable { name, create, columns, comment, query })))
    }

    fn table_element(
        &mut self,
        columns: &mut Vec<ColumnDef>,
        keys: &mut Vec<String>,
    ) -> SqlResult<()> {
        if self.word("CONSTRAINT") {
            self.name()?;
        }
        if self.words(&["PRIMARY", "KEY"]) {
            keys.extend(self.column_list()?.unwrap_or_default());
            return Ok(());
        }
        for kind in ["UNIQUE", "FOREIGN", "CHECK"] {
            if self.peek_word(0).as_deref() == Some(kind)
                && self.p.peek_tokens_ref::<2>()[1].token == Token::LParen
            {
                return Err(unsupported(format!("{kind} constraints")));
            }
        }
        columns.push(self.column()?);
        Ok(())
    }

    fn column(&mut self) -> SqlResult<ColumnDef> {
        let name = self.p.parse_identifier().map_err(parser_error)?.value;
        let kind = self.p.parse_data_type().map_err(parser_error)?;
        let written = types::parse(&kind.to_string())?;
        let mut column = ColumnDef {
            name,
            kind: written.kind,
            length: written.length,
            nullable: true,
            primary_key: false,
            comment: String::new(),
        };
        loop {
            if self.words(&["NOT", "NULL"]) {
                column.nullable = false;
            } else if self.word("NULL") {
                column.nullable = true;
            } else if self.words(&["PRIMARY", "KEY"]) {
                (column.primary_key, column.nullable) = (true, false);
            } else if self.word("COMMENT") {
                column.comment = self.text()?;
            } else {
                match self.peek_word(0) {
                    Some(word) => return Err(unsupported(format!("{word} of a column"))),
                    None => return Ok(column),
                }
            }
        }
    }
}

fn finish_copy(
    mut o: Options,
    table: Name,
    columns: Option<Vec<String>>,
    from: Location,
    transform: Option<Box<ast::Query>>,
) -> SqlResult<Copy> {
    let files = o.take("FILES").map(|v| v.texts("FILES")).transpose()?.unwrap_or_default();
    if files.len() > FILES_MAX {
        return Err(syntax(format!("FILES takes at most {FILES_MAX} names")));
    }
    let match_by = match o.text("MATCH_BY_COLUMN_NAME")?.map(|t| t.to_uppercase()).as_deref() {
        None | Some("NONE") => MatchBy::None,
        Some("CASE_SENSITIVE") => MatchBy::CaseSensitive,
        Some("CASE_INSENSITIVE") => MatchBy::CaseInsensitive,
        Some(other) => return Err(invalid_value(other, "MATCH_BY_COLUMN_NAME")),
    };
    if match_by != MatchBy::None && transform.is_some() {
        return Err(syntax("MATCH_BY_COLUMN_NAME does not go with a transformation"));
    }
    // FALSE is what happens anyway.
    for key in ["PURGE", "RETURN_FAILED_ONLY", "TRUNCATECOLUMNS"] {
        if o.flag(key)? == Some(true) {
            return Err(unsupported(format!("{key} of COPY")));
        }
    }
    let copy = Copy {
        table,
        columns,
        from,
        transform,
        files,
        pattern: o.text("PATTERN")?,
        format: o.take("FILE_FORMAT").map(options::format).transpose()?.unwrap_or_default(),
        on_error: o.take("ON_ERROR").map(options::on_error).transpose()?,
        force: o.flag("FORCE")?.unwrap_or(false),
        match_by,
    };
    o.finish(
        "COPY",
        &[
            "SIZE_LIMIT",
            "VALIDATION_MODE",
            "LOAD_UNCERTAIN_FILES",
            "ENFORCE_LENGTH",
            "LOAD_MODE",
            "INCLUDE_METADATA",
            "CREDENTIALS",
            "STORAGE_INTEGRATION",
            "ENCRYPTION",
            "CLUSTER_AT_INGEST_TIME",
        ],
    )?;
    Ok(copy)
}
