//! The text as tokens, with unquoted names folded to upper case and paths into VARIANT left alone.

use datafusion::sql::sqlparser::dialect::SnowflakeDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use crate::error::{SqlResult, syntax};

/// Tokenises and folds. With `parameters`, placeholders become the parameters' values.
pub(crate) fn tokens(text: &str, parameters: &[Option<String>]) -> SqlResult<Vec<TokenWithSpan>> {
    let mut tokens =
        Tokenizer::new(&SnowflakeDialect {}, text).tokenize_with_location().map_err(syntax)?;
    fold(&mut tokens);
    if !parameters.is_empty() {
        bind(&mut tokens, parameters)?;
    }
    Ok(tokens)
}

/// Folds every unquoted word but the keys of a path: in `v:Name.First[0].Last` only `v` is a name.
fn fold(tokens: &mut [TokenWithSpan]) {
    let mut in_path = false;
    let mut brackets: Vec<bool> = Vec::new();
    // The token before, blanks aside; whether a value can end with it.
    let mut ends_value = false;
    let mut after_dot_or_colon = false;
    for token in tokens.iter_mut() {
        match &mut token.token {
            Token::Whitespace(_) => continue,
            Token::Word(word) => {
                if word.quote_style.is_none() && !(in_path && after_dot_or_colon) {
                    word.value = word.value.to_uppercase();
                }
                if !(in_path && after_dot_or_colon) {
                    in_path = false;
                }
                (ends_value, after_dot_or_colon) = (true, false);
            }
            Token::Colon => {
                in_path = ends_value;
                (ends_value, after_dot_or_colon) = (false, true);
            }
            Token::Period => {
                after_dot_or_colon = true;
                ends_value = false;
            }
            Token::LBracket => {
                brackets.push(ends_value);
                (in_path, ends_value, after_dot_or_colon) = (false, false, false);
            }
            Token::RBracket => {
                in_path = brackets.pop().unwrap_or(false);
                (ends_value, after_dot_or_colon) = (true, false);
            }
            Token::RParen | Token::Placeholder(_) => {
                (in_path, ends_value, after_dot_or_colon) = (false, true, false);
            }
            _ => (in_path, ends_value, after_dot_or_colon) = (false, false, false),
        }
    }
}

fn bind(tokens: &mut [TokenWithSpan], parameters: &[Option<String>]) -> SqlResult<()> {
    let mut positional = 0;
    for token in tokens.iter_mut() {
        let number = match &token.token {
            Token::Placeholder(name) if name == "?" => {
                positional += 1;
                positional
            }
            Token::Placeholder(name) => {
                name.trim_start_matches(['$', ':']).parse::<usize>().unwrap_or(0)
            }
            _ => continue,
        };
        let value = number
            .checked_sub(1)
            .and_then(|n| parameters.get(n))
            .ok_or_else(|| syntax(format!("Bind variable {} not set.", token.token)))?;
        token.token = match value {
            Some(text) => Token::SingleQuotedString(text.clone()),
            None => Token::make_keyword("NULL"),
        };
    }
    Ok(())
}

/// The byte at which a token begins.
pub(crate) fn byte_of(text: &str, at: Location) -> usize {
    let line = usize::try_from(at.line.saturating_sub(1)).unwrap_or(0);
    let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(0);
    let from = match line {
        0 => 0,
        n => text.match_indices('\n').nth(n - 1).map_or(text.len(), |(i, _)| i + 1),
    };
    text[from..].char_indices().nth(column).map_or(text.len(), |(i, _)| from + i)
}

/// The unquoted word a token is.
pub(crate) fn bare(token: &Token) -> Option<&str> {
    match token {
        Token::Word(Word { value, quote_style: None, .. }) => Some(value),
        _ => None,
    }
}
