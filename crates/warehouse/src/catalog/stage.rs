//! Stages, and the sealed keys that their buckets are reached with.

use hydrant_core::Timestamp;
use hydrant_core::bucket::BucketRef;
use hydrant_core::capture::SecretText;
use hydrant_core::control::{Write, scan_all};
use hydrant_core::encryption::Seal;
use serde::{Deserialize, Serialize};

use super::store::{Catalog, Row as _, shown};
use super::{FormatOptions, split_url};
use crate::error::{SqlResult, control, invalid_value};
use crate::stage::cannot_open;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) owner: String,
    /// As written: `s3://bucket/path/`.
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) endpoint: Option<String>,
    #[serde(default)]
    pub(crate) region: Option<String>,
    #[serde(default)]
    pub(crate) credentials: Option<StageKey>,
    #[serde(default)]
    pub(crate) format: FormatOptions,
    #[serde(default)]
    pub(crate) comment: String,
}

/// `AWS_KEY_ID`, and `AWS_SECRET_KEY` sealed for the place that the stage is made for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageKey {
    pub(crate) id: String,
    sealed_secret: String,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("name", &self.name).field("url", &self.url).finish()
    }
}

impl Stage {
    /// The bucket, how to reach it, and the key prefix in it.
    pub(crate) fn place(&self, seal: &dyn Seal) -> SqlResult<(BucketRef, String)> {
        let (bucket, prefix) =
            split_url(&self.url).ok_or_else(|| invalid_value(&self.url, "URL"))?;
        let opened = |key: &StageKey| -> SqlResult<_> {
            let name = shown(&self.name);
            let secret = seal.open(&self.bound(&key.id), &key.sealed_secret).map_err(|e| {
                let why = format!(
                    "the AWS_SECRET_KEY of stage {name}: {e}. Start hydrant with the key that it was \
                     stored with, or CREATE OR REPLACE STAGE {name} …"
                );
                cannot_open(bucket, &why)
            });
            Ok((key.id.clone(), secret?))
        };
        let reference = BucketRef {
            bucket: bucket.to_owned(),
            region: self.region.clone(),
            endpoint: self.endpoint.clone(),
            credentials: self.credentials.as_ref().map(opened).transpose()?,
        };
        Ok((reference, prefix.to_owned()))
    }

    /// Has the stage's bucket reached with this key.
    pub(crate) fn seal(
        &mut self,
        seal: &dyn Seal,
        id: String,
        secret: &SecretText,
    ) -> SqlResult<()> {
        let sealed = seal.seal(&self.bound(&id), secret.reveal());
        let sealed_secret = sealed.map_err(|e| cannot_open(&self.url, &e.to_string()))?;
        self.credentials = Some(StageKey { id, sealed_secret });
        Ok(())
    }

    /// What the secret is sealed for: a row that is changed to lead elsewhere does not take it along.
    fn bound(&self, id: &str) -> String {
        serde_json::json!(["stage", self.url, self.endpoint, id]).to_string()
    }

    /// Seals what another key sealed with the one that is taken now. `false` if there is nothing to do,
    /// or it cannot be opened, which is said.
    fn seal_again(&mut self, seal: &dyn Seal) -> SqlResult<bool> {
        let held = self.credentials.as_ref();
        if held.is_none_or(|key| seal.is_current(&key.sealed_secret)) {
            return Ok(false);
        }
        match self.place(seal) {
            Ok((BucketRef { credentials: Some((id, secret)), .. }, _)) => {
                self.seal(seal, id, &SecretText::new(secret))?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) => {
                tracing::error!(%error, "a stage cannot be used");
                Ok(false)
            }
        }
    }
}

impl Catalog {
    /// Has the keys of all stages sealed with the key that is taken now.
    pub(crate) async fn seal_again(&self) -> SqlResult<()> {
        let prefix = format!("warehouse/{}/", Stage::KIND);
        for (key, entry) in scan_all(self.control.as_ref(), &prefix).await.map_err(control)? {
            let mut stage: Stage = entry.json(&key).map_err(control)?;
            if stage.seal_again(self.seal.as_ref())? {
                let write = Write::update(key, entry.version, &stage);
                self.control.commit(vec![write]).await.map_err(control)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hydrant_core::log::KeyError;
    use hydrant_testkit::OpenSeal;

    use super::*;

    /// Takes over from [`OpenSeal`].
    struct Later;

    impl Seal for Later {
        fn seal(&self, what: &str, text: &str) -> Result<String, KeyError> {
            Ok(format!("later:{}", OpenSeal.seal(what, text)?))
        }

        fn open(&self, what: &str, sealed: &str) -> Result<String, KeyError> {
            OpenSeal.open(what, sealed.strip_prefix("later:").unwrap_or(sealed))
        }

        fn is_current(&self, sealed: &str) -> bool {
            sealed.starts_with("later:")
        }
    }

    fn stage(url: &str) -> Stage {
        let row = serde_json::json!({"name": "S", "created": 0, "owner": "O", "url": url});
        serde_json::from_value(row).unwrap()
    }

    fn secret(stage: &Stage, seal: &dyn Seal) -> SqlResult<Option<(String, String)>> {
        Ok(stage.place(seal)?.0.credentials)
    }

    #[test]
    fn a_key_opens_for_its_own_place_only() {
        let mut row = stage("s3://lake/in/");
        assert_eq!(secret(&row, &OpenSeal).unwrap(), None);
        row.seal(&OpenSeal, "AKID".to_owned(), &SecretText::new("hunter2")).unwrap();
        assert_eq!(secret(&row, &OpenSeal).unwrap().unwrap(), ("AKID".into(), "hunter2".into()));
        let text = serde_json::to_string(&row).unwrap();
        assert!(text.contains("AKID") && !text.contains("hunter2"), "{text}");
        row.endpoint = Some("http://elsewhere".to_owned());
        let refused = secret(&row, &OpenSeal).unwrap_err();
        assert!(refused.message.contains("CREATE OR REPLACE STAGE S"), "{refused}");
    }

    #[test]
    fn a_key_is_sealed_again_once() {
        let mut row = stage("s3://lake/");
        assert!(!row.seal_again(&Later).unwrap(), "there is none");
        row.seal(&OpenSeal, "AKID".to_owned(), &SecretText::new("hunter2")).unwrap();
        assert!(row.seal_again(&Later).unwrap());
        assert!(!row.seal_again(&Later).unwrap());
        assert_eq!(secret(&row, &Later).unwrap().unwrap().1, "hunter2");
        row.url = "s3://other/".to_owned();
        assert!(!row.seal_again(&OpenSeal).unwrap(), "one that does not open stays");
    }

    #[test]
    fn one_that_lies_there_in_the_plain_is_refused() {
        let mut row = serde_json::to_value(stage("s3://lake/")).unwrap();
        row["credentials"] = serde_json::json!(["AKID", "hunter2"]);
        let row: Stage = serde_json::from_value(row).unwrap();
        let refused = secret(&row, &OpenSeal).unwrap_err();
        assert!(refused.message.contains("CREATE OR REPLACE STAGE S"), "{refused}");
        assert!(!refused.message.contains("hunter2"), "{refused}");
    }
}
