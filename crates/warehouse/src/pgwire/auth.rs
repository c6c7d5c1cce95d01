//! Who a client is: SCRAM-SHA-256, as PostgreSQL speaks it.
//!
//! <https://www.postgresql.org/docs/current/sasl-authentication.html>, RFC 5802 and RFC 7677.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hydrant_core::Random;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::session::Login;

/// The mechanism offered; without TLS there is no channel to bind to.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// PostgreSQL's `scram_iterations`.
const ITERATIONS: u32 = 4096;

type Key = [u8; 32];

/// One exchange, after the client's first message.
pub(super) struct Scram {
    stored: Key,
    server: Key,
    known: bool,
    header: String,
    nonce: String,
    first: String,
    challenge: String,
}

impl Scram {
    /// Answers the client's first message. `None`: it is not SCRAM.
    ///
    /// A user who does not exist costs the same work, with a password nobody knows.
    pub(super) fn begin(login: &Login, first: &[u8], random: &Random) -> Option<Self> {
        let text = std::str::from_utf8(first).ok()?;
        let bare_at = text.match_indices(',').nth(1)?.0 + 1;
        let (header, bare) = text.split_at(bare_at);
        if !(header.starts_with("n,") || header.starts_with("y,")) {
            return None;
        }
        let client = bare.split(',').find_map(|part| part.strip_prefix("r="))?;
        let nonce = format!("{client}{}", STANDARD.encode(random.bytes::<18>()));
        let salt = random.bytes::<16>();
        let (password, known) = match login {
            Login::Password(password) => (prepared(password), true),
            Login::Anyone | Login::Unknown => (STANDARD.encode(random.bytes::<18>()), false),
        };
        let salted = salted(password.as_bytes(), &salt);
        let challenge = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(salt));
        Some(Self {
            stored: Sha256::digest(sign(&salted, b"Client Key")).into(),
            server: sign(&salted, b"Server Key"),
            known,
            header: STANDARD.encode(header),
            nonce,
            first: bare.to_owned(),
            challenge,
        })
    }

    /// The server's first message.
    pub(super) fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Checks the client's last message; the server's last message if the password is right.
    pub(super) fn finish(&self, last: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(last).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        let binding = parts.next()?.strip_prefix("c=")?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        let proof: Key = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let signed = format!("{},{},{without_proof}", self.first, self.challenge);
        let signature = sign(&self.stored, signed.as_bytes());
        let mut client = proof;
        client.iter_mut().zip(signature).for_each(|(a, b)| *a ^= b);
        let right = Sha256::digest(client).ct_eq(self.stored.as_slice());
        let fits = binding == self.header && nonce == self.nonce;
        (bool::from(right) && fits && self.known)
            .then(|| format!("v={}", STANDARD.encode(sign(&self.server, signed.as_bytes()))))
    }
}

/// SASLprep, or the password as it is where that does not apply, as PostgreSQL does.
fn prepared(password: &str) -> String {
    stringprep::saslprep(password).map_or_else(|_| password.to_owned(), |text| text.into_owned())
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes a key of any length.
    #[allow(clippy::unwrap_used, reason = "the length is never wrong")]
    Hmac::<Sha256>::new_from_slice(key).unwrap()
}

fn sign(key: &[u8], data: &[u8]) -> Key {
    hmac(key).chain_update(data).finalize().into_bytes().into()
}

/// PBKDF2 with one block, which is what SCRAM-SHA-256 needs.
fn salted(password: &[u8], salt: &[u8]) -> Key {
    let mac = hmac(password);
    let mut last: Key =
        mac.clone().chain_update(salt).chain_update([0, 0, 0, 1]).finalize().into_bytes().into();
    let mut out = last;
    for _ in 1..ITERATIONS {
        last = mac.clone().chain_update(last).finalize().into_bytes().into();
        out.iter_mut().zip(last).for_each(|(a, b)| *a ^= b);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    #[test]
    fn salted_password_as_the_rfc_has_it() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = salted(b"pencil", &salt);
        let first = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let scram = Scram {
            stored: Sha256::digest(sign(&salted, b"Client Key")).into(),
            server: sign(&salted, b"Server Key"),
            known: true,
            header: "biws".into(),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into(),
            first: first.into(),
            challenge: challenge.into(),
        };
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let answer = scram.finish(last.as_bytes());
        assert_eq!(answer.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert_eq!(scram.finish(&last.as_bytes()[..last.len() - 3]), None);
    }
}
