//! Encryption at rest as rows say it: which data keys a stream has, wrapped, and which of them new
//! records are encrypted with; and texts that are sealed, such as passwords.
//!
//! Nothing in such a row is secret: a wrapped key is of no use without the master key, and a sealed
//! text is of none without the key it was sealed with.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::log::KeyError;

/// A data key's name. Drawn at random from all there are, so that no two keys share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataKeyId(pub u64);

/// A data key as it is kept: encrypted under the master key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// Its name, as the records that it encrypted carry it.
    pub id: DataKeyId,
    /// The KMS key it stands under: `alias/NAME`, a key id or an ARN.
    pub kms_key: String,
    /// The key, encrypted: base64.
    pub wrapped: String,
}

/// What new records are encrypted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    /// `KeyId`, as the caller gave it.
    pub key_id: String,
    /// The data key.
    pub data_key: DataKeyId,
}

/// The encryption of a stream that is or was encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// From this moment on...
    pub from: Timestamp,
    /// ...new records are encrypted with this; with nothing, they are not encrypted...
    pub with: Option<KeyUse>,
    /// ...and before it with this.
    pub before: Option<KeyUse>,
    /// Every data key that a record still there may be encrypted with, in the order they were drawn,
    /// with the moment from which on it was used no more (the end of time while it may be).
    pub keys: Vec<(WrappedKey, Timestamp)>,
}

impl Encryption {
    /// What a record that arrives at `now` is encrypted with.
    pub fn at(&self, now: Timestamp) -> Option<&KeyUse> {
        if now < self.from { self.before.as_ref() } else { self.with.as_ref() }
    }
}

/// Encrypts short texts on their way to the control store, and decrypts them again.
pub trait Seal: Send + Sync + 'static {
    /// The text, encrypted. `what` is what it belongs to, such as a row's key: it opens under that only,
    /// so that no row can take another's. The caller's duty: the text itself goes nowhere.
    fn seal(&self, what: &str, text: &str) -> Result<String, KeyError>;

    /// The text again. Fails if the key it was sealed with is not at hand or is another one, or if the
    /// sealed text is not as it was.
    fn open(&self, what: &str, sealed: &str) -> Result<String, KeyError>;

    /// Whether a text is sealed with the key that [`Self::seal`] takes now. The caller's duty: at the
    /// start, seal those again that are not.
    fn is_current(&self, sealed: &str) -> bool;
}
