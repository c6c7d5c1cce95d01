//! Texts sealed for the control store: passwords of other systems.
//!
//! ```text
//! KEY . base64( nonce 12 bytes | ciphertext, as long as the text | tag 16 bytes )
//! ```
//!
//! KEY is `master` or `own`. The tag also covers what the text belongs to. A nonce is drawn at random
//! each time: there is a text for each password that somebody types, far below the 2^32 that a key is
//! good for.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hydrant_core::Random;
use hydrant_core::encryption::Seal;
use hydrant_core::log::KeyError;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use crate::master::MasterKey;
use crate::vault::broken;

const MASTER: &str = "master";
const OWN: &str = "own";

/// Seals texts under the master key, or, without one, under a key that the installation made for
/// itself. What is sealed under either opens for as long as that key is given. No key is ever shown.
pub struct TextSeal {
    master: Option<LessSafeKey>,
    own: Option<LessSafeKey>,
    random: Arc<Random>,
}

impl std::fmt::Debug for TextSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextSeal").finish_non_exhaustive()
    }
}

impl TextSeal {
    /// With the master key and the installation's own, of which there should be one.
    pub fn new(master: Option<&MasterKey>, own: Option<&MasterKey>, random: Arc<Random>) -> Self {
        let key = |of: Option<&MasterKey>| of.and_then(MasterKey::sealing_key);
        Self { master: key(master), own: key(own), random }
    }

    /// The key to seal with, and its name.
    fn current(&self) -> Result<(&'static str, &LessSafeKey), KeyError> {
        let own = || self.own.as_ref().map(|key| (OWN, key));
        let key = self.master.as_ref().map(|key| (MASTER, key)).or_else(own);
        key.ok_or_else(|| KeyError::NotFound("there is no key to encrypt it with".to_owned()))
    }
}

impl Seal for TextSeal {
    fn seal(&self, what: &str, text: &str) -> Result<String, KeyError> {
        let (name, key) = self.current()?;
        let nonce: [u8; NONCE_LEN] = self.random.bytes();
        // In place: what was the text is its ciphertext from here on.
        let mut bytes = Zeroizing::new(text.as_bytes().to_vec());
        let tag = key.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(what.as_bytes()),
            &mut bytes,
        );
        let tag = tag.map_err(|_| broken())?;
        Ok(format!("{name}.{}", STANDARD.encode([&nonce[..], &bytes[..], tag.as_ref()].concat())))
    }

    fn open(&self, what: &str, sealed: &str) -> Result<String, KeyError> {
        let denied = || {
            KeyError::Denied(
                "it cannot be decrypted: the key is not the one that it was encrypted with, or it was \
                 changed"
                    .to_owned(),
            )
        };
        let (name, text) = sealed.split_once('.').ok_or_else(denied)?;
        let (key, missing) = match name {
            MASTER => (&self.master, "the master key, and hydrant was started without one"),
            OWN => (&self.own, "the data directory's own key, and that is gone"),
            _ => return Err(denied()),
        };
        let key = key.as_ref();
        let key =
            key.ok_or_else(|| KeyError::NotFound(format!("it is encrypted under {missing}")))?;
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| denied())?);
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(denied)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, Aad::from(what.as_bytes()), &mut sealed);
        let opened = opened.map_err(|_| denied())?;
        std::str::from_utf8(opened).map(str::to_owned).map_err(|_| denied())
    }

    fn is_current(&self, sealed: &str) -> bool {
        let name = sealed.split_once('.').map(|(name, _)| name);
        self.current().is_ok_and(|(current, _)| name == Some(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: &str) -> MasterKey {
        MasterKey::parse(&byte.repeat(32)).unwrap()
    }

    fn seal(master: Option<&MasterKey>, own: Option<&MasterKey>, seed: u64) -> TextSeal {
        TextSeal::new(master, own, Arc::new(Random::from_seed(seed)))
    }

    #[test]
    fn a_text_opens_with_its_key_and_under_its_name_only() {
        let (master, own) = (key("0a"), key("0b"));
        let both = seal(Some(&master), Some(&own), 1);
        let sealed = both.seal("row/a", "hunter2 größe").unwrap();
        assert!(sealed.starts_with("master.") && both.is_current(&sealed));
        assert_eq!(both.open("row/a", &sealed).unwrap(), "hunter2 größe");
        assert!(matches!(both.open("row/b", &sealed), Err(KeyError::Denied(_))));
        assert_ne!(both.seal("row/a", "hunter2 größe").unwrap(), sealed);

        let alone = seal(None, Some(&own), 2);
        assert!(matches!(alone.open("row/a", &sealed), Err(KeyError::NotFound(_))));
        let other = seal(Some(&own), None, 3);
        assert!(matches!(other.open("row/a", &sealed), Err(KeyError::Denied(_))));
        for damaged in ["", "master", "master.", "master.AAAA", "x.y", &sealed[..40]] {
            assert!(matches!(both.open("row/a", damaged), Err(KeyError::Denied(_))), "{damaged}");
        }
    }

    #[test]
    fn what_the_own_key_sealed_opens_until_the_master_key_takes_over() {
        let (master, own) = (key("0a"), key("0b"));
        let sealed = seal(None, Some(&own), 1).seal("row/a", "hunter2").unwrap();
        let both = seal(Some(&master), Some(&own), 2);
        assert!(!both.is_current(&sealed));
        assert_eq!(both.open("row/a", &sealed).unwrap(), "hunter2");
        let sealed = both.seal("row/a", "hunter2").unwrap();
        assert_eq!(seal(Some(&master), None, 3).open("row/a", &sealed).unwrap(), "hunter2");
        assert!(seal(None, None, 4).seal("row/a", "hunter2").is_err());
    }
}
