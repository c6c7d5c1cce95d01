//! Parses Snowflake's statements: those that no crate parses here, the rest by sqlparser.

mod parts;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::SnowflakeDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use hydrant_core::capture::{AlterSource, SecretText};

pub(crate) use self::parts::{location, name_of};
use super::ast::{
    AlterPipe, Create, CreatePipe, CreateStage, Kind, Name, SessionStatement, Show, Statement,
    Within,
};
use super::capture;
use super::options;
use super::scan::Prepared;
use super::tokens::{bare, byte_of, tokens};
use crate::error::{SqlResult, internal, invalid_value, syntax, unsupported};

/// Deepest nesting of a statement.
const DEPTH_MAX: usize = 48;
/// Most brackets open at once, wherever they are: not every part of the parser counts its depth.
const BRACKETS_MAX: usize = 64;
/// Most operators of one expression. A chain such as `a OR b OR …` is a tree as deep as it is long,
/// and the engine walks trees by recursion.
const OPERATORS_MAX: usize = 250;
/// Up to so many, a statement is parsed on the stack of whoever asks.
const BRACKETS_SHALLOW: usize = 4;
/// The same of operators.
const OPERATORS_SHALLOW: usize = 24;
/// Stack of the thread that parses the others. Only what is used of it is memory.
const STACK_BYTES: usize = 64 << 20;
const DIALECT: &SnowflakeDialect = &SnowflakeDialect {};

/// A parsed statement, and the stages its tables named `@0`, `@1` … stand for.
pub(crate) struct Parsed {
    pub(crate) statement: Statement,
    pub(crate) prepared: Prepared,
}

/// Parses one statement. `parameters` replace its placeholders, if there are any.
pub(crate) fn parse(sql: &str, parameters: &[Option<String>]) -> SqlResult<Parsed> {
    let prepared = Prepared::new(sql)?;
    let tokens = tokens(&prepared.text, parameters)?;
    parse_tokens(prepared, tokens)
}

/// Parses a statement whose parameters are not known yet: they are NULL. In a statement that reads
/// a stage `$1` is a column.
pub(crate) fn parse_unbound(sql: &str) -> SqlResult<Parsed> {
    let prepared = Prepared::new(sql)?;
    let mut tokens = tokens(&prepared.text, &[])?;
    if prepared.stages.is_empty() {
        for token in &mut tokens {
            if matches!(token.token, Token::Placeholder(_)) {
                token.token = Token::make_keyword("NULL");
            }
        }
    }
    parse_tokens(prepared, tokens)
}

fn parse_tokens(prepared: Prepared, tokens: Vec<TokenWithSpan>) -> SqlResult<Parsed> {
    if !check_depth(&tokens)? {
        return parse_here(prepared, tokens);
    }
    let (done, parsed) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("parse".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // The receiver waits for this.
            let _ = done.send(parse_here(prepared, tokens));
        })
        .map_err(internal)?;
    parsed.recv().map_err(internal)?
}

fn parse_here(prepared: Prepared, tokens: Vec<TokenWithSpan>) -> SqlResult<Parsed> {
    let is_secret = capture::holds_secret(&tokens);
    let parser =
        Parser::new(DIALECT).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(tokens);
    let mut front = Front { p: parser, prepared: &prepared, is_secret };
    let statement = front.statement()?;
    while front.p.consume_token(&Token::SemiColon) {}
    if front.p.peek_token_ref().token != Token::EOF {
        return Err(front.unexpected());
    }
    Ok(Parsed { statement, prepared })
}

/// How much deeper a token may make a tree.
fn depth_of(token: &Token) -> usize {
    match token {
        Token::Word(word) if word.quote_style.is_none() => match word.value.as_str() {
            "AND" | "OR" | "NOT" | "IS" | "LIKE" | "ILIKE" | "BETWEEN" | "IN" | "AT" => 1,
            // Each is a step of the plan, which takes more of the stack than one of an expression.
            "JOIN" | "FLATTEN" | "UNION" | "INTERSECT" | "EXCEPT" | "MINUS" => 5,
            _ => 0,
        },
        Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => {
            1
        }
        Token::DoubleColon | Token::Colon | Token::LBracket => 1,
        Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => 1,
        _ => 0,
    }
}

/// Refuses what is too deep; says whether the rest may be too deep for an ordinary stack.
fn check_depth(tokens: &[TokenWithSpan]) -> SqlResult<bool> {
    // Operators open at each level of brackets and CASEs; what stands after a comma, a WHEN, a THEN
    // or an ELSE is another tree.
    let (mut levels, mut open, mut is_deep) = (vec![0_usize], 0_usize, false);
    for TokenWithSpan { token, .. } in tokens {
        match (token, bare(token)) {
            (Token::LParen | Token::LBrace, _) | (_, Some("CASE")) => levels.push(0),
            (Token::RParen | Token::RBrace, _) | (_, Some("END")) if levels.len() > 1 => {
                open -= levels.pop().unwrap_or_default();
            }
            (Token::Comma, _) | (_, Some("WHEN" | "THEN" | "ELSE")) => {
                open -= levels.last_mut().map_or(0, std::mem::take);
            }
            _ => {
                let depth = depth_of(token);
                open += depth;
                if let Some(level) = levels.last_mut() {
                    *level += depth;
                }
            }
        }
        is_deep |= levels.len() > BRACKETS_SHALLOW || open > OPERATORS_SHALLOW;
        if levels.len() > BRACKETS_MAX {
            return Err(syntax("the statement is nested too deeply"));
        }
        if open > OPERATORS_MAX {
            let text = format!("more than {OPERATORS_MAX} operators in one expression");
            return Err(syntax(format!("{text}; use IN lists, or several statements")));
        }
    }
    Ok(is_deep)
}

pub(super) fn parser_error(e: ParserError) -> crate::session::SqlError {
    match e {
        ParserError::RecursionLimitExceeded => syntax("the statement is nested too deeply"),
        ParserError::ParserError(why) | ParserError::TokenizerError(why) => {
            syntax(format!("syntax error: {why}"))
        }
    }
}

pub(super) struct Front<'a> {
    pub(super) p: Parser<'a>,
    pub(super) prepared: &'a Prepared,
    /// Errors quote nothing of the statement.
    is_secret: bool,
}

impl Front<'_> {
    fn statement(&mut self) -> SqlResult<Statement> {
        let first = self.peek_word(0).unwrap_or_default();
        match first.as_str() {
            "CREATE" => self.create(),
            "DROP" => self.drop(),
            "ALTER" => self.alter(),
            "PAUSE" => self.turn_source(AlterSource::Pause),
            "RESUME" => self.turn_source(AlterSource::Resume),
            "TRUNCATE" => {
                self.skip();
                self.word("TABLE");
                let if_exists = self.words(&["IF", "EXISTS"]);
                Ok(Statement::Truncate { name: self.name()?, if_exists })
            }
            "USE" => self.use_(),
            "COPY" => Ok(Statement::Copy(Box::new(self.copy()?))),
            "LIST" | "LS" => {
                self.skip();
                let location = self.location()?;
                let mut options = self.options()?;
                let pattern = options.text("PATTERN")?;
                options.finish("LIST", &[])?;
                Ok(Statement::List { location, pattern })
            }
            "SHOW" => self.show(),
            "DESC" | "DESCRIBE" => self.describe(),
            "BEGIN" | "START" | "COMMIT" | "ROLLBACK" => self.transaction(&first),
            "INSERT" => self.insert(),
            "SELECT" | "WITH" | "VALUES" => self.query(),
            _ if self.p.peek_token_ref().token == Token::LParen => self.query(),
            _ if self.p.peek_token_ref().token == Token::EOF => Err(syntax("Empty SQL statement.")),
            "UPDATE" | "DELETE" | "MERGE" | "GRANT" | "REVOKE" | "UNDROP" | "REMOVE" | "RM"
            | "PUT" | "GET" | "CALL" | "EXECUTE" | "EXPLAIN" | "SET" | "UNSET" | "COMMENT" => {
                Err(unsupported(first))
            }
            _ => Err(self.unexpected()),
        }
    }

    fn query(&mut self) -> SqlResult<Statement> {
        self.p.parse_query().map(Statement::Query).map_err(parser_error)
    }

    fn insert(&mut self) -> SqlResult<Statement> {
        match self.p.parse_statement().map_err(parser_error)? {
            ast::Statement::Insert(insert) => Ok(Statement::Insert(Box::new(insert))),
            _ => Err(unsupported("this form of INSERT")),
        }
    }

    fn create(&mut self) -> SqlResult<Statement> {
        self.skip();
        let or_replace = self.words(&["OR", "REPLACE"]);
        match self.peek_word(0).unwrap_or_default().as_str() {
            "DATABASE" => {
                let (name, create) = self.created(or_replace, 1)?;
                let mut options = self.options()?;
                let comment = options.text("COMMENT")?.unwrap_or_default();
                options.finish("DATABASE", &["DATA_RETENTION_TIME_IN_DAYS"])?;
                Ok(Statement::CreateDatabase { name, create, comment })
            }
            "SCHEMA" => {
                let (name, create) = self.created(or_replace, 1)?;
                let mut options = self.options()?;
                let comment = options.text("COMMENT")?.unwrap_or_default();
                options.finish("SCHEMA", &["DATA_RETENTION_TIME_IN_DAYS"])?;
                Ok(Statement::CreateSchema { name, create, comment })
            }
            "TABLE" => {
                let (name, create) = self.created(or_replace, 1)?;
                self.create_table(name, create)
            }
            "STAGE" => {
                let (name, create) = self.created(or_replace, 1)?;
                self.create_stage(name, create)
            }
            "FILE" => {
                let (name, create) = self.created(or_replace, 2)?;
                let mut all = self.options()?;
                let comment = all.text("COMMENT")?.unwrap_or_default();
                let format = options::format_options(all)?;
                Ok(Statement::CreateFormat { name, create, format, comment })
            }
            "PIPE" => {
                let (name, create) = self.created(or_replace, 1)?;
                self.create_pipe(name, create)
            }
            "SECRET" | "CONNECTION" | "SOURCE" => self.create_capture(or_replace),
            other => Err(unsupported(format!("CREATE {other}"))),
        }
    }

    /// The name after `skip` words that say what is created, with IF NOT EXISTS before it.
    fn created(&mut self, or_replace: bool, skip: usize) -> SqlResult<(Name, Create)> {
        for _ in 0..skip {
            self.skip();
        }
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        if or_replace && if_not_exists {
            return Err(syntax(
                "options IF NOT EXISTS and OR REPLACE are incompatible; leave one out",
            ));
        }
        Ok((self.name()?, Create { or_replace, if_not_exists }))
    }

    fn create_stage(&mut self, name: Name, create: Create) -> SqlResult<Statement> {
        let mut o = self.options()?;
        let url = o.text("URL")?.ok_or_else(|| {
            unsupported("internal stages; give the stage a URL such as 's3://bucket/path/'")
        })?;
        let credentials = match o.take("CREDENTIALS") {
            None => None,
            Some(value) => {
                let mut c = value.options("CREDENTIALS")?;
                let id = c.text("AWS_KEY_ID")?;
                let secret = c.text("AWS_SECRET_KEY")?;
                c.finish("CREDENTIALS", &["AWS_TOKEN", "AWS_ROLE"])?;
                match (id, secret) {
                    (Some(id), Some(secret)) => Some((id, SecretText::new(secret))),
                    (None, None) => None,
                    _ => {
                        return Err(syntax("CREDENTIALS needs AWS_KEY_ID and AWS_SECRET_KEY"));
                    }
                }
            }
        };
        let format = o.take("FILE_FORMAT").map(options::format).transpose()?.unwrap_or_default();
        let stage = CreateStage {
            name,
            create,
            url,
            endpoint: o.text("ENDPOINT")?,
            region: o.text("REGION")?,
            credentials,
            format,
            comment: o.text("COMMENT")?.unwrap_or_default(),
        };
        if o.0.iter().any(|(k, _)| k == "STORAGE_INTEGRATION") {
            return Err(unsupported("STORAGE_INTEGRATION; give the stage CREDENTIALS instead"));
        }
        o.finish(
            "STAGE",
            &["ENCRYPTION", "DIRECTORY", "COPY_OPTIONS", "USE_PRIVATELINK_ENDPOINT"],
        )?;
        Ok(Statement::CreateStage(Box::new(stage)))
    }

    fn create_pipe(&mut self, name: Name, create: Create) -> SqlResult<Statement> {
        let mut o = self.options()?;
        let auto_ingest = o.flag("AUTO_INGEST")?.unwrap_or(false);
        let comment = o.text("COMMENT")?.unwrap_or_default();
        o.finish("PIPE", &["ERROR_INTEGRATION", "AWS_SNS_TOPIC", "INTEGRATION"])?;
        self.expect("AS")?;
        let from = byte_of(&self.prepared.text, self.p.peek_token_ref().span.start);
        if self.peek_word(0).as_deref() != Some("COPY") {
            return Err(self.unexpected());
        }
        let copy = self.copy()?;
        let text = self.prepared.text[from..].trim_end().trim_end_matches(';').trim_end();
        let definition = self.prepared.original(text);
        let pipe = CreatePipe { name, create, auto_ingest, comment, definition, copy };
        Ok(Statement::CreatePipe(Box::new(pipe)))
    }

    fn drop(&mut self) -> SqlResult<Statement> {
        self.skip();
        if let Some(statement) = self.drop_capture()? {
            return Ok(statement);
        }
        let kind = self.kind("DROP")?;
        let if_exists = self.words(&["IF", "EXISTS"]);
        let name = self.name()?;
        if self.word("RESTRICT") {
            return Err(unsupported("RESTRICT"));
        }
        self.word("CASCADE");
        Ok(Statement::Drop { kind, name, if_exists })
    }

    fn kind(&mut self, command: &str) -> SqlResult<Kind> {
        let word = self.next_word()?;
        match word.as_str() {
            "DATABASE" => Ok(Kind::Database),
            "SCHEMA" => Ok(Kind::Schema),
            "TABLE" => Ok(Kind::Table),
            "STAGE" => Ok(Kind::Stage),
            "PIPE" => Ok(Kind::Pipe),
            "FILE" if self.word("FORMAT") => Ok(Kind::Format),
            other => Err(unsupported(format!("{command} {other}"))),
        }
    }

    fn alter(&mut self) -> SqlResult<Statement> {
        self.skip();
        match self.next_word()?.as_str() {
            "SESSION" => self.alter_session(),
            "SOURCE" => self.alter_source(),
            "PIPE" => {
                let if_exists = self.words(&["IF", "EXISTS"]);
                let name = self.name()?;
                let what = self.alter_pipe()?;
                Ok(Statement::AlterPipe { name, if_exists, what })
            }
            other => Err(unsupported(format!("ALTER {other}"))),
        }
    }

    fn alter_pipe(&mut self) -> SqlResult<AlterPipe> {
        if self.word("REFRESH") {
            let mut o = self.options()?;
            let prefix = o.text("PREFIX")?.unwrap_or_default();
            let modified_after = o.text("MODIFIED_AFTER")?;
            o.finish("ALTER PIPE REFRESH", &[])?;
            return Ok(AlterPipe::Refresh { prefix, modified_after });
        }
        self.expect("SET")?;
        let mut o = self.options()?;
        let paused = o.flag("PIPE_EXECUTION_PAUSED")?;
        let comment = o.text("COMMENT")?;
        o.finish("ALTER PIPE", &["ERROR_INTEGRATION"])?;
        match (paused, comment) {
            (Some(paused), None) => Ok(AlterPipe::Paused(paused)),
            (None, Some(comment)) => Ok(AlterPipe::Comment(comment)),
            _ => Err(syntax("ALTER PIPE SET takes one of PIPE_EXECUTION_PAUSED and COMMENT")),
        }
    }

    fn alter_session(&mut self) -> SqlResult<Statement> {
        let mut values = Vec::new();
        if self.word("UNSET") {
            loop {
                values.push((self.next_word()?, None));
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
        } else {
            self.expect("SET")?;
            for (key, value) in self.options()?.0 {
                let text = value.text(&key)?;
                values.push((key, Some(text)));
            }
        }
        Ok(Statement::Session(SessionStatement::Alter(values)))
    }

    fn use_(&mut self) -> SqlResult<Statement> {
        self.skip();
        let kind = match self.peek_word(0).unwrap_or_default().as_str() {
            "DATABASE" => Some(Kind::Database),
            "SCHEMA" => Some(Kind::Schema),
            "WAREHOUSE" => Some(Kind::Warehouse),
            "ROLE" => Some(Kind::Role),
            "SECONDARY" => return Err(unsupported("USE SECONDARY ROLES")),
            _ => None,
        };
        if kind.is_some() {
            self.skip();
        }
        let name = self.name()?;
        let kind = kind.unwrap_or(if name.len() == 2 { Kind::Schema } else { Kind::Database });
        Ok(Statement::Use { kind, name })
    }

    fn transaction(&mut self, first: &str) -> SqlResult<Statement> {
        self.skip();
        let _ = self.word("TRANSACTION") || self.word("WORK");
        let words = match first {
            "COMMIT" => "COMMIT",
            "ROLLBACK" => "ROLLBACK",
            _ => "BEGIN",
        };
        Ok(Statement::Session(SessionStatement::Transaction(words)))
    }

    fn show(&mut self) -> SqlResult<Statement> {
        self.skip();
        if self.word("TERSE") {
            return Err(unsupported("SHOW TERSE"));
        }
        if let Some(statement) = self.show_capture()? {
            return Ok(statement);
        }
        let what = match self.next_word()?.as_str() {
            "DATABASES" => Kind::Database,
            "SCHEMAS" => Kind::Schema,
            "TABLES" => Kind::Table,
            "STAGES" => Kind::Stage,
            "PIPES" => Kind::Pipe,
            "FILE" if self.word("FORMATS") => Kind::Format,
            other => return Err(unsupported(format!("SHOW {other}"))),
        };
        let like = if self.word("LIKE") { Some(self.text()?) } else { None };
        let within = if self.word("IN") { self.within()? } else { Within::Current };
        let limit = self.limit()?;
        Ok(Statement::Show(Show { what, like, within, limit }))
    }

    pub(super) fn limit(&mut self) -> SqlResult<Option<usize>> {
        if !self.word("LIMIT") {
            return Ok(None);
        }
        let token = self.p.next_token().to_string();
        token.parse().map(Some).map_err(|_| invalid_value(&token, "LIMIT"))
    }

    fn within(&mut self) -> SqlResult<Within> {
        if self.word("ACCOUNT") {
            return Ok(Within::Account);
        }
        if self.word("DATABASE") {
            return Ok(Within::Database(self.name()?));
        }
        if self.word("SCHEMA") {
            return Ok(Within::Schema(self.name()?));
        }
        let name = self.name()?;
        Ok(if name.len() == 1 { Within::Database(name) } else { Within::Schema(name) })
    }

    fn describe(&mut self) -> SqlResult<Statement> {
        self.skip();
        if let Some(statement) = self.describe_capture()? {
            return Ok(statement);
        }
        let kind = match self.peek_word(0).unwrap_or_default().as_str() {
            "TABLE" | "STAGE" | "PIPE" | "DATABASE" | "SCHEMA" | "FILE" => self.kind("DESCRIBE")?,
            _ => Kind::Table,
        };
        Ok(Statement::Describe { kind, name: self.name()? })
    }
}

#[cfg(test)]
mod tests;
