//! CREATE SECRET.

use hydrant_core::Timestamp;
use hydrant_core::capture::{IfExists, Secret, SecretText};

use super::CaptureStatement;
use crate::error::{SqlResult, syntax, unsupported};
use crate::sql::front::Front;

const KEYS: &[&str] = &["TYPE", "USERNAME", "PASSWORD", "SECRET_STRING", "COMMENT"];

impl Front<'_> {
    pub(super) fn create_secret(
        &mut self,
        name: String,
        there: IfExists,
    ) -> SqlResult<CaptureStatement> {
        let (mut kind, mut user, mut password, mut generic) = (None, None, None, None);
        let mut comment = String::new();
        while let Some(word) = self.peek_word(0) {
            if !KEYS.contains(&word.as_str()) {
                return Err(self.unexpected());
            }
            self.skip();
            match word.as_str() {
                "TYPE" => kind = Some(self.setting()?),
                "USERNAME" => user = Some(self.quoted_setting()?),
                "PASSWORD" => password = Some(SecretText::new(self.quoted_setting()?)),
                "SECRET_STRING" => generic = Some(SecretText::new(self.quoted_setting()?)),
                _ => comment = self.quoted_setting()?,
            }
        }
        let (user, password) = match kind.as_deref().map(str::to_ascii_uppercase).as_deref() {
            Some("PASSWORD") => match (user, password, generic) {
                (Some(user), Some(password), None) => (Some(user), password),
                _ => {
                    return Err(syntax(
                        "a secret of TYPE = PASSWORD takes USERNAME and PASSWORD; without a user, \
                         TYPE = GENERIC_STRING takes SECRET_STRING",
                    ));
                }
            },
            Some("GENERIC_STRING") => match (user, password, generic) {
                (None, None, Some(password)) => (None, password),
                _ => {
                    return Err(syntax("a secret of TYPE = GENERIC_STRING takes SECRET_STRING"));
                }
            },
            Some("OAUTH2" | "CLOUD_PROVIDER_TOKEN" | "SYMMETRIC_KEY") => {
                return Err(unsupported("secrets of types other than PASSWORD, GENERIC_STRING"));
            }
            _ => return Err(syntax("a secret takes TYPE = PASSWORD or TYPE = GENERIC_STRING")),
        };
        let secret = Secret { name, user, password, created: Timestamp::from_millis(0), comment };
        Ok(CaptureStatement::CreateSecret { secret, there })
    }
}
