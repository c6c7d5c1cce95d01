//! The master key: 32 bytes that an operator keeps outside the data directory.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;

/// The key that every data key is wrapped under. Shown nowhere, erased from memory when dropped.
pub struct MasterKey(Zeroizing<[u8; KEY_BYTES]>);

/// The text is no master key. (The text is not repeated: it may be nearly one.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 32 bytes in base64 or hex, such as `openssl rand -base64 32` prints")]
pub struct InvalidMasterKey;

impl MasterKey {
    /// Reads a key: 32 bytes in base64 or in hex, white space around it ignored.
    pub fn parse(text: &str) -> Result<Self, InvalidMasterKey> {
        let text = text.trim();
        let decoded = if text.len() == KEY_BYTES * 2 {
            hex::decode(text).map_err(|_| InvalidMasterKey)?
        } else {
            let padded = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
            padded.map_err(|_| InvalidMasterKey)?
        };
        let decoded = Zeroizing::new(decoded);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if decoded.len() != KEY_BYTES {
            return Err(InvalidMasterKey);
        }
        key.copy_from_slice(&decoded);
        Ok(Self(key))
    }

    /// The key that data keys under one KMS key are wrapped with: no two KMS keys have the same.
    pub(crate) fn wrapping_key(&self, kms_key: &str) -> Option<LessSafeKey> {
        self.derived(&[b"data keys under ", kms_key.as_bytes()])
    }

    /// The key that texts are sealed with.
    pub(crate) fn sealing_key(&self) -> Option<LessSafeKey> {
        self.derived(&[b"texts"])
    }

    fn derived(&self, info: &[&[u8]]) -> Option<LessSafeKey> {
        let secret = Salt::new(HKDF_SHA256, b"hydrant master key").extract(&self.0[..]);
        let expanded = secret.expand(info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(expanded)))
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_base64_are_read_and_nothing_else_is() {
        let hex = "00112233445566778899aabbccddeeff".repeat(2);
        let base64 = STANDARD.encode(hex::decode(&hex).unwrap());
        for text in
            [&hex, &hex.to_uppercase(), &base64, base64.trim_end_matches('='), &format!(" {hex}\n")]
        {
            assert_eq!(MasterKey::parse(text).unwrap().0[..4], [0, 0x11, 0x22, 0x33], "{text}");
        }
        for bad in ["", "key", &hex[..62], &format!("{hex}00"), &"z".repeat(64), &base64[..40]] {
            let refusal = MasterKey::parse(bad).unwrap_err();
            assert!(bad.is_empty() || bad == "key" || !refusal.to_string().contains(bad));
        }
        assert_eq!(format!("{:?}", MasterKey::parse(&hex).unwrap()), "MasterKey(***)");
    }
}
