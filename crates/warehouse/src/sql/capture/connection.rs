//! CREATE CONNECTION.

use datafusion::sql::sqlparser::tokenizer::Token;
use hydrant_core::Timestamp;
use hydrant_core::capture::{Connection, IfExists, SslMode};

use super::CaptureStatement;
use crate::catalog::shown;
use crate::error::{SqlResult, invalid_value, syntax};
use crate::session::SqlError;
use crate::sql::front::Front;

const PORT_DEFAULT: u16 = 5432;

/// What the brackets say.
#[derive(Default)]
struct Reach {
    host: Option<String>,
    port: Option<u16>,
    database: Option<String>,
    user: Option<String>,
    secret: Option<String>,
    ssl_mode: SslMode,
    ssl_authority: Option<String>,
}

fn ssl_mode(text: &str) -> SqlResult<SslMode> {
    match text.to_ascii_lowercase().as_str() {
        "disable" => Ok(SslMode::Disable),
        "require" => Ok(SslMode::Require),
        "verify-ca" | "verify_ca" => Ok(SslMode::VerifyCa),
        "verify-full" | "verify_full" => Ok(SslMode::VerifyFull),
        _ => Err(syntax(
            "SSL MODE is one of 'disable', 'require', 'verify-ca', 'verify-full'; those that fall \
             back to plaintext are not taken",
        )),
    }
}

/// A password belongs into a secret, where no answer shows it.
fn literal_password(connection: &str) -> SqlError {
    let secret = shown(&format!("{connection}_PASSWORD"));
    syntax(format!(
        "a connection takes its password from a secret. Write CREATE SECRET {secret} TYPE = PASSWORD \
         USERNAME = '…' PASSWORD = '…'; then PASSWORD SECRET {secret} here"
    ))
}

impl Front<'_> {
    pub(super) fn create_connection(
        &mut self,
        name: String,
        there: IfExists,
    ) -> SqlResult<CaptureStatement> {
        self.expect("TO")?;
        self.expect("POSTGRES")?;
        self.expect_token(&Token::LParen)?;
        let mut reach = Reach::default();
        loop {
            self.connection_setting(&name, &mut reach)?;
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        let comment = if self.word("COMMENT") { self.quoted_setting()? } else { String::new() };
        let (Some(host), Some(database)) = (reach.host, reach.database) else {
            return Err(syntax("a connection takes HOST and DATABASE"));
        };
        let connection = Connection {
            name,
            host,
            port: reach.port.unwrap_or(PORT_DEFAULT),
            database,
            user: reach.user,
            secret: reach.secret,
            ssl_mode: reach.ssl_mode,
            ssl_authority: reach.ssl_authority,
            created: Timestamp::from_millis(0),
            comment,
        };
        Ok(CaptureStatement::CreateConnection { connection, there })
    }

    fn connection_setting(&mut self, name: &str, reach: &mut Reach) -> SqlResult<()> {
        match self.next_word()?.as_str() {
            "HOST" => reach.host = Some(self.quoted_setting()?),
            "PORT" => {
                let text = self.setting()?;
                let port = text.parse().ok().filter(|port| *port > 0);
                reach.port = Some(port.ok_or_else(|| invalid_value(&text, "PORT"))?);
            }
            "DATABASE" => reach.database = Some(self.quoted_setting()?),
            "USER" => reach.user = Some(self.quoted_setting()?),
            "PASSWORD" => {
                let _ = self.p.consume_token(&Token::Eq);
                if !self.word("SECRET") {
                    return Err(literal_password(name));
                }
                reach.secret = Some(self.capture_name()?);
            }
            "SSL" if self.word("MODE") => reach.ssl_mode = ssl_mode(&self.setting()?)?,
            "SSL" if self.words(&["CERTIFICATE", "AUTHORITY"]) => {
                reach.ssl_authority = Some(self.quoted_setting()?);
            }
            _ => {
                return Err(syntax(
                    "a connection takes HOST, PORT, DATABASE, USER, PASSWORD SECRET, SSL MODE and \
                     SSL CERTIFICATE AUTHORITY, with commas between them",
                ));
            }
        }
        Ok(())
    }
}
