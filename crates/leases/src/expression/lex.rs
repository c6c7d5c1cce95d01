//! An expression's tokens.

use crate::error::Error;

/// Longest expression (AWS: 4 KB).
const EXPRESSION_BYTES_MAX: usize = 4_096;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, a keyword or a function.
    Word,
    /// `#name`.
    Name,
    /// `:value`.
    Value,
    /// Digits.
    Index,
    /// Punctuation or a comparison.
    Symbol,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) start: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

const SYMBOLS: [&str; 14] =
    ["<>", "<=", ">=", "<", ">", "=", "(", ")", "[", "]", ",", ".", "+", "-"];

/// An expression cut into tokens.
pub(super) struct Tokens<'a> {
    /// Which parameter it came as.
    pub(super) parameter: &'static str,
    text: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// Cuts the text; one that is empty, too long or has a character of no token is an error.
    pub(super) fn of(parameter: &'static str, text: &'a str) -> Result<Self, Error> {
        let mut tokens = Self { parameter, text, tokens: Vec::new(), at: 0 };
        if text.trim().is_empty() {
            return Err(tokens.refuse("The expression can not be empty;"));
        }
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(tokens.refuse(&format!(
                "Expression size has exceeded the maximum allowed size; expression size: {}",
                text.len()
            )));
        }
        let mut at = 0;
        while let Some(first) = text[at..].chars().next() {
            if first.is_whitespace() {
                at += first.len_utf8();
                continue;
            }
            let rest = &text[at..];
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let run = |from: usize| {
                rest[from..].find(|c: char| !word(c)).map_or(rest.len(), |n| from + n)
            };
            let (kind, len) = match first {
                '#' => (Kind::Name, run(1)),
                ':' => (Kind::Value, run(1)),
                c if c.is_ascii_digit() => {
                    (Kind::Index, rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()))
                }
                c if word(c) => (Kind::Word, run(0)),
                c => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                    Some(symbol) => (Kind::Symbol, symbol.len()),
                    None => {
                        let wrong =
                            Token { kind: Kind::Symbol, text: &rest[..c.len_utf8()], start: at };
                        tokens.tokens.push(wrong);
                        tokens.at = tokens.tokens.len() - 1;
                        return Err(tokens.syntax());
                    }
                },
            };
            tokens.tokens.push(Token { kind, text: &rest[..len], start: at });
            if len == 1 && matches!(kind, Kind::Name | Kind::Value) {
                tokens.at = tokens.tokens.len() - 1;
                return Err(tokens.syntax());
            }
            at += len;
        }
        Ok(tokens)
    }

    /// The next token, left where it is.
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    /// The token after the next.
    pub(super) fn peek_second(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at + 1).copied()
    }

    /// Takes the next token.
    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    /// Takes the next token if it is this symbol, or this keyword in any case.
    pub(super) fn take(&mut self, text: &str) -> bool {
        let found = self.peek().is_some_and(|token| match token.kind {
            Kind::Symbol => token.text == text,
            Kind::Word => token.text.eq_ignore_ascii_case(text),
            _ => false,
        });
        self.at += usize::from(found);
        found
    }

    /// Takes this symbol or keyword; anything else is an error.
    pub(super) fn expect(&mut self, text: &str) -> Result<(), Error> {
        if self.take(text) { Ok(()) } else { Err(self.syntax()) }
    }

    /// The error of the next token: that it stands where it does.
    pub(super) fn syntax(&self) -> Error {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let here = self.tokens.get(self.at);
        let after = self.tokens.get(self.at + 1);
        let start = before.or(here).map_or(0, |token| token.start);
        let end = after.or(here).or(before).map_or(0, Token::end);
        let token = here.map_or("<EOF>", |token| token.text);
        let near = self.text.get(start..end).unwrap_or_default();
        self.refuse(&format!("Syntax error; token: \"{token}\", near: \"{near}\""))
    }

    /// An error about this expression.
    pub(super) fn refuse(&self, text: &str) -> Error {
        Error::validation(format!("Invalid {}: {text}", self.parameter))
    }
}
