//! The parts that statements are made of: words, names, texts, locations and options.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::{Front, parser_error};
use crate::error::{SqlResult, syntax, unsupported};
use crate::session::SqlError;
use crate::sql::ast::{Location, Name};
use crate::sql::options::{self, Options, Value};
use crate::sql::tokens::bare;

impl Front<'_> {
    /// `@stage/path`, `'@stage/path'` or `'s3://…'`.
    pub(in crate::sql) fn location(&mut self) -> SqlResult<Location> {
        match self.p.next_token().token {
            Token::Word(Word { value, quote_style: Some('"'), .. }) if value.starts_with('@') => {
                let stage = self.prepared.stage(&value).map(str::to_owned);
                location(&stage.unwrap_or(value))
            }
            Token::SingleQuotedString(text) => location(&text),
            other => Err(syntax(format!("expected @stage or 's3://…', found {other}"))),
        }
    }

    /// `KEY = VALUE …` as far as it goes, with or without commas.
    pub(in crate::sql) fn options(&mut self) -> SqlResult<Options> {
        let mut options = Vec::new();
        loop {
            let _ = self.p.consume_token(&Token::Comma);
            let key = match self.p.peek_tokens_ref::<2>() {
                [key, eq] if matches!(eq.token, Token::Eq | Token::RArrow) => {
                    match bare(&key.token) {
                        Some(key) => key.to_owned(),
                        None => return Ok(Options(options)),
                    }
                }
                _ => return Ok(Options(options)),
            };
            self.skip();
            self.skip();
            let value = self.value(0)?;
            options.push((key, value));
        }
    }

    fn value(&mut self, depth: usize) -> SqlResult<Value> {
        if depth > 4 {
            return Err(syntax("options are nested too deeply"));
        }
        let token = self.p.next_token().token;
        match token {
            Token::SingleQuotedString(text) => Ok(Value::Text(text)),
            Token::DollarQuotedString(text) => Ok(Value::Text(text.value)),
            Token::Number(text, _) => Ok(Value::Word(text)),
            Token::Minus => Ok(Value::Word(format!("-{}", self.p.next_token()))),
            Token::Word(word) => {
                let mut parts = vec![word.value];
                while self.p.consume_token(&Token::Period) {
                    match self.p.next_token().token {
                        Token::Word(word) => parts.push(word.value),
                        other => return Err(syntax(format!("expected a name, found {other}"))),
                    }
                }
                match parts.len() {
                    1 => Ok(Value::Word(parts.remove(0))),
                    _ => Ok(Value::Name(parts)),
                }
            }
            Token::LParen => {
                let options = self.options()?;
                if !options.0.is_empty() {
                    self.expect_token(&Token::RParen)?;
                    return Ok(Value::Options(options));
                }
                let mut list = Vec::new();
                while !self.p.consume_token(&Token::RParen) {
                    list.push(self.value(depth + 1)?);
                    let _ = self.p.consume_token(&Token::Comma);
                }
                Ok(Value::List(list))
            }
            other => Err(syntax(format!("expected a value, found {other}"))),
        }
    }

    pub(in crate::sql) fn name(&mut self) -> SqlResult<Name> {
        let token = self.p.peek_token_ref().clone();
        if matches!(&token.token, Token::SingleQuotedString(_)) {
            return Err(self.unexpected());
        }
        let name = self.p.parse_object_name(false).map_err(parser_error)?;
        name_of(&name)
    }

    pub(in crate::sql) fn text(&mut self) -> SqlResult<String> {
        match self.p.next_token().token {
            Token::SingleQuotedString(text) => Ok(text),
            Token::DollarQuotedString(text) => Ok(text.value),
            other => Err(syntax(format!("expected a quoted text, found {other}"))),
        }
    }

    pub(in crate::sql) fn peek_word(&self, ahead: usize) -> Option<String> {
        let tokens = self.p.peek_tokens_ref::<3>();
        tokens.get(ahead).and_then(|t| bare(&t.token)).map(str::to_owned)
    }

    pub(in crate::sql) fn skip(&mut self) {
        self.p.next_token();
    }

    pub(in crate::sql) fn next_word(&mut self) -> SqlResult<String> {
        match self.peek_word(0) {
            Some(word) => {
                self.skip();
                Ok(word)
            }
            None => Err(self.unexpected()),
        }
    }

    /// Takes the word if it is next.
    pub(in crate::sql) fn word(&mut self, word: &str) -> bool {
        let found = bare(&self.p.peek_token_ref().token) == Some(word);
        if found {
            self.skip();
        }
        found
    }

    /// Takes the words if all of them are next; at most three.
    pub(in crate::sql) fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(i, w)| self.peek_word(i).as_deref() == Some(*w));
        if found {
            words.iter().for_each(|_| self.skip());
        }
        found
    }

    pub(in crate::sql) fn expect(&mut self, word: &str) -> SqlResult<()> {
        if self.word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub(in crate::sql) fn expect_token(&mut self, token: &Token) -> SqlResult<()> {
        if self.p.consume_token(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Snowflake's words for a token that cannot be there.
    pub(in crate::sql) fn unexpected(&self) -> SqlError {
        let token = self.p.peek_token_ref();
        let (line, column) = (token.span.start.line, token.span.start.column.saturating_sub(1));
        match &token.token {
            _ if self.is_secret => syntax(format!(
                "syntax error line {line} at position {column}. What is there is not shown, for it may \
                 be a secret."
            )),
            Token::EOF => {
                syntax(format!("syntax error line {line} at position {column} unexpected '<EOF>'."))
            }
            other => {
                let other = self.prepared.original(&other.to_string());
                syntax(format!(
                    "syntax error line {line} at position {column} unexpected '{other}'."
                ))
            }
        }
    }
}

/// The parts of a name; `db..t` leaves the schema out, which means PUBLIC.
pub(crate) fn name_of(name: &ast::ObjectName) -> SqlResult<Name> {
    let mut parts = Vec::new();
    for part in &name.0 {
        match part.as_ident() {
            Some(ident) if ident.value.is_empty() && ident.quote_style.is_none() => {
                parts.push("PUBLIC".to_owned());
            }
            Some(ident) => parts.push(ident.value.clone()),
            None => return Err(unsupported("IDENTIFIER()")),
        }
    }
    if parts.len() > 3 {
        return Err(syntax(format!("the name {} has too many parts", parts.join("."))));
    }
    Ok(parts)
}

/// Reads `@db.schema.stage/path` or a URL.
pub(crate) fn location(text: &str) -> SqlResult<Location> {
    let Some(rest) = text.strip_prefix('@') else {
        if text.starts_with("s3://") || text.starts_with("s3compat://") {
            return Ok(Location::Url(text.to_owned()));
        }
        return Err(syntax(format!("'{text}' is not @stage or an 's3://…' URL")));
    };
    if rest.starts_with(['~', '%']) {
        return Err(unsupported("user and table stages; create a stage with a URL"));
    }
    let (mut parts, mut part, mut quoted, mut end) = (Vec::new(), String::new(), false, rest.len());
    for (i, c) in rest.char_indices() {
        match c {
            '"' => {
                quoted = !quoted;
                part.push(c);
            }
            '.' if !quoted => parts.push(options::fold(&std::mem::take(&mut part))),
            '/' if !quoted => {
                end = i;
                break;
            }
            _ => part.push(c),
        }
    }
    parts.push(options::fold(&part));
    if parts.iter().any(String::is_empty) || parts.len() > 3 {
        return Err(syntax(format!("'{text}' is not the name of a stage")));
    }
    let path = rest[end..].trim_start_matches('/').to_owned();
    Ok(Location::Stage { name: parts, path })
}
