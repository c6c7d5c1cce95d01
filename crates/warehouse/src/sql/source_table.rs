//! `FROM SOURCE s (REFERENCE schema.table, TEXT COLUMNS (…), EXCLUDE COLUMNS (…))`, in Materialize's
//! words.

use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::ast::{Create, Name, Statement};
use super::front::Front;
use crate::error::{SqlResult, syntax};
use crate::state::CreateStateTable;

impl Front<'_> {
    pub(super) fn state_table(&mut self, name: Name, create: Create) -> SqlResult<Statement> {
        let source = match self.p.next_token().token {
            Token::Word(Word { value, quote_style, .. }) => (value, quote_style.is_some()),
            other => return Err(syntax(format!("expected the name of a source, found {other}"))),
        };
        self.expect_token(&Token::LParen)?;
        let (mut reference, mut text, mut exclude) = (None, Vec::new(), Vec::new());
        loop {
            if self.word("REFERENCE") {
                reference = Some(self.pg_table()?);
            } else {
                self.columns_of(&mut text, &mut exclude)?;
            }
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        // Materialize has the columns here.
        if self.word("WITH") {
            self.expect_token(&Token::LParen)?;
            loop {
                self.columns_of(&mut text, &mut exclude)?;
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
        }
        let reference =
            reference.ok_or_else(|| syntax("FROM SOURCE … needs (REFERENCE schema.table)"))?;
        let mut options = self.options()?;
        let comment = options.text("COMMENT")?.unwrap_or_default();
        options.finish("TABLE", &[])?;
        Ok(Statement::CreateStateTable(Box::new(CreateStateTable {
            name,
            create,
            source,
            reference,
            text,
            exclude,
            comment,
        })))
    }

    fn columns_of(&mut self, text: &mut Vec<String>, exclude: &mut Vec<String>) -> SqlResult<()> {
        let list = match self.next_word()?.as_str() {
            "TEXT" => text,
            "EXCLUDE" => exclude,
            other => {
                return Err(syntax(format!(
                    "unexpected '{other}': REFERENCE, TEXT COLUMNS and EXCLUDE COLUMNS can be here"
                )));
            }
        };
        self.expect("COLUMNS")?;
        let _ = self.p.consume_token(&Token::Eq);
        self.expect_token(&Token::LParen)?;
        loop {
            list.push(self.pg_name()?);
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::ast::Statement;
    use crate::sql::front::parse;

    #[test]
    fn names_of_postgresql_fold_to_lower_case() {
        let sql = "CREATE TABLE t FROM SOURCE mz_source (REFERENCE Twitch.\"Xxx\", TEXT COLUMNS (A, \
                   \"B\")) WITH (EXCLUDE COLUMNS = (c)) COMMENT = 'x'";
        let Ok(parsed) = parse(sql, &[]) else { panic!() };
        let Statement::CreateStateTable(table) = parsed.statement else { panic!() };
        assert_eq!(table.name, ["T"]);
        assert_eq!(table.source, ("MZ_SOURCE".to_owned(), false));
        assert_eq!(table.reference.to_string(), "twitch.Xxx");
        assert_eq!((table.text, table.exclude), (vec!["a".into(), "B".into()], vec!["c".into()]));
        assert!(parse("CREATE TABLE t FROM SOURCE s (TEXT COLUMNS (a))", &[]).is_err());
        // A source is of one database.
        assert!(parse("CREATE TABLE t FROM SOURCE s (REFERENCE d.a.b)", &[]).is_err());
        assert!(
            parse("CREATE TABLE t FROM SOURCE s (REFERENCE a.b, FOO COLUMNS (a))", &[]).is_err()
        );
    }
}
