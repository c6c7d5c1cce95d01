//! Opaque texts that callers carry back to us: shard iterators and pagination tokens.
//!
//! Each is a version number, a payload padded to 16 bytes, and a MAC over both, the kind of text and
//! the account and region it was given out in. So nobody makes one up, and none works elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hydrant_core::Random;
use hydrant_core::control::{ControlError, ControlStore, Write};
use hydrant_core::names::Scope;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The row that keeps the key, so that iterators outlive a restart.
const KEY_ROW: &str = "kinesis/iterator-key";
/// What AWS's iterators begin with.
const HEAD: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
const MAC_BYTES: usize = 16;
/// Longest text that may be one of ours, before base64.
const SEALED_BYTES_MAX: usize = 512;

/// What a text is for; one kind is never taken for another.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A shard iterator.
    Iterator = 1,
    /// A token of `ListStreams`.
    Streams = 2,
    /// A token of `ListShards`.
    Shards = 3,
    /// A token of `ListStreamConsumers`.
    Consumers = 4,
}

/// Makes and opens such texts.
pub(crate) struct Sealer {
    key: [u8; 32],
}

impl Sealer {
    /// With the stored key, which the first call draws.
    pub(crate) async fn open(
        control: &dyn ControlStore,
        random: &Random,
    ) -> Result<Self, ControlError> {
        // Drawn by us or, meanwhile, by another: the second look finds it.
        for _ in 0..2 {
            if let Some(entry) = control.get(KEY_ROW).await? {
                return Ok(Self { key: entry.json(KEY_ROW)? });
            }
            let key: [u8; 32] = random.bytes();
            match control.commit(vec![Write::insert(KEY_ROW, &key)]).await {
                Ok(_) | Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(ControlError::Unavailable(format!("{KEY_ROW} was written, but is not there")))
    }

    /// Seals a payload, padded with zeros to at least `bytes_min` and a multiple of 16.
    pub(crate) fn seal(
        &self,
        kind: Kind,
        scope: &Scope,
        payload: &[u8],
        bytes_min: usize,
    ) -> String {
        let padded = payload.len().max(bytes_min).next_multiple_of(MAC_BYTES);
        let mut bytes = Vec::with_capacity(HEAD.len() + padded + MAC_BYTES);
        bytes.extend(HEAD);
        bytes.extend(payload);
        bytes.resize(HEAD.len() + padded, 0);
        let mac = self.mac(kind, scope, &bytes);
        bytes.extend(mac);
        STANDARD.encode(bytes)
    }

    /// The padded payload of a text that [`Sealer::seal`] made for this kind and scope.
    pub(crate) fn unseal(&self, kind: Kind, scope: &Scope, text: &str) -> Option<Vec<u8>> {
        if text.len() > SEALED_BYTES_MAX.div_ceil(3) * 4 {
            return None;
        }
        let mut bytes = STANDARD.decode(text).ok()?;
        let signed = bytes.len().checked_sub(MAC_BYTES)?;
        let (body, mac) = bytes.split_at(signed);
        if !body.starts_with(&HEAD) || !bool::from(self.mac(kind, scope, body).ct_eq(mac)) {
            return None;
        }
        bytes.truncate(signed);
        bytes.drain(..HEAD.len());
        Some(bytes)
    }

    fn mac(&self, kind: Kind, scope: &Scope, body: &[u8]) -> [u8; MAC_BYTES] {
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(&[kind as u8]);
        mac.update(scope.account.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(scope.region.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(body);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut cut = [0; MAC_BYTES];
        cut.copy_from_slice(&full[..MAC_BYTES]);
        cut
    }
}

/// Reads the fields of an opened payload, front to back.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(field)
    }

    /// A number of eight bytes.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A number of four bytes.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A number of one byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    /// A text behind its length in one byte.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let len = self.u8()?;
        std::str::from_utf8(self.take(usize::from(len))?).ok()
    }
}

/// Adds a text behind its length in one byte. The caller's duty: at most 255 bytes.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
}
