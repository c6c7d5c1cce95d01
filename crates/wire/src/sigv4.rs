//! AWS Signature Version 4: who is calling, proven or (without configured keys) claimed.
//!
//! Follows "AWS Signature Version 4 for API requests" in the IAM user guide, and "Authenticating
//! requests" in the S3 API reference for what S3 does differently.

#[cfg(test)]
mod botocore;
mod canonical;
mod claim;
mod error;
mod older;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use hydrant_core::Clock;
use hydrant_core::names::{AccountId, Scope};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::canonical::single;
use self::claim::{Claim, Form, claimed_account, iso_text};
use self::error::{AuthError, Fault};
use crate::api::{ApiError, Principal};

/// How far a JSON request's time may be from ours (AWS: five minutes).
const SKEW_JSON: Duration = Duration::from_secs(300);
/// How far an S3 request's time may be from ours (AWS: fifteen minutes).
const SKEW_S3: Duration = Duration::from_secs(900);
/// Most signing keys kept; one is good for one key, day, region and service.
const SIGNING_KEYS_MAX: usize = 1_024;
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// Where a caller is whose signature names no region (AWS: where that version still holds).
const OLDER_REGION: &str = "us-east-1";

/// The rules that a request's signature follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// A JSON service, by the name its credentials are scoped to (`kinesis`, `firehose`). The path is
    /// normalised and encoded twice, the body is always signed, the clock may be five minutes off.
    Json(&'static str),
    /// S3: the path is taken as it is, the body may be unsigned or signed in chunks, the clock may
    /// be fifteen minutes off, and errors carry S3's names.
    S3,
}

/// An access key that may sign requests.
#[derive(Clone)]
pub struct AccessKey {
    /// The public half, at most 128 bytes.
    pub id: String,
    /// The secret half.
    pub secret: String,
    /// The account it acts for; `None` is the server's.
    pub account: Option<AccountId>,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whose signatures are good.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Any well-formed signature of any key: nothing is verified. Loopback only.
    Any,
    /// Signatures of these keys, verified.
    Keys(Vec<AccessKey>),
}

/// The body of a request, as far as it is known when the signature is checked.
#[derive(Clone, Copy, Debug)]
pub enum BodyHash<'a> {
    /// The whole body: its hash has to be the signed one.
    Whole(&'a [u8]),
    /// The SHA-256 of the whole body, which somebody took while it arrived.
    Sha256([u8; 32]),
    /// Still arriving (S3 only). The reader's duty: check the body against
    /// [`Authenticated::payload`].
    Streaming,
}

/// What the signature says of a body that had not arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedPayload {
    /// The SHA-256 that the body must have.
    Hash([u8; 32]),
    /// Nothing is said: `UNSIGNED-PAYLOAD`.
    Unsigned,
    /// Signed, or marked unsigned, chunk by chunk: the value of `x-amz-content-sha256`, one of AWS's
    /// `STREAMING-…` names.
    Streaming(String),
}

/// A caller, and what its signature says of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The caller.
    pub principal: Principal,
    /// What the reader of the body has to check.
    pub payload: SignedPayload,
}

/// What a signing key is good for: access key, day, region, service.
type SigningScope = (String, String, String, String);

/// Checks signatures. One per process, shared by every front.
pub struct Verifier {
    keys: Option<HashMap<String, AccessKey>>,
    account: AccountId,
    clock: Arc<dyn Clock>,
    signing_keys: Mutex<HashMap<SigningScope, [u8; 32]>>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("verifies", &self.keys.is_some()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier for these credentials; keys without an account act for `account`.
    pub fn new(credentials: Credentials, account: AccountId, clock: Arc<dyn Clock>) -> Self {
        let keys = match credentials {
            Credentials::Any => None,
            Credentials::Keys(keys) => {
                Some(keys.into_iter().map(|key| (key.id.clone(), key)).collect())
            }
        };
        Self { keys, account, clock, signing_keys: Mutex::default() }
    }

    /// Whether signatures are verified at all: `false` with [`Credentials::Any`].
    pub fn verifies(&self) -> bool {
        self.keys.is_some()
    }

    /// What can be told before the body is there: whether the request carries a well-formed
    /// signature, for this service, of a known key, at about this time. It proves nothing; it
    /// spares reading bodies of strangers.
    pub fn screen(&self, parts: &Parts, kind: ServiceKind) -> Result<(), ApiError> {
        self.try_screen(parts, kind).map_err(|e| e.into_api(kind))
    }

    fn try_screen(&self, parts: &Parts, kind: ServiceKind) -> Result<(), AuthError> {
        let key_id = match self.read_older(parts, kind)? {
            Some(claim) => claim.key_id,
            None => {
                let claim = claim::read(parts)?;
                self.check_claim(&claim, kind)?;
                claim.key_id
            }
        };
        match &self.keys {
            Some(keys) if !keys.contains_key(&key_id) => Err(AuthError::UnknownKey),
            _ => Ok(()),
        }
    }

    /// The claim of a URL presigned with the version before, which S3 alone takes, if it still holds.
    fn read_older(
        &self,
        parts: &Parts,
        kind: ServiceKind,
    ) -> Result<Option<older::Claim>, AuthError> {
        if kind != ServiceKind::S3 {
            return Ok(None);
        }
        let claim = older::read(parts)?;
        match &claim {
            Some(claim) if self.clock.now() > claim.ends => {
                Err(AuthError::Expired("Request has expired".to_owned()))
            }
            _ => Ok(claim),
        }
    }

    fn authenticate_older(
        &self,
        parts: &Parts,
        claim: older::Claim,
    ) -> Result<Authenticated, AuthError> {
        let account = match &self.keys {
            None => claimed_account(&claim.key_id, &self.account),
            Some(keys) => {
                let key = keys.get(&claim.key_id);
                let secret = key.map_or("", |key| key.secret.as_str());
                let good = older::is_signed_with(parts, &claim, secret);
                let key = key.ok_or(AuthError::UnknownKey)?;
                if !good {
                    return Err(AuthError::Mismatch);
                }
                key.account.clone().unwrap_or_else(|| self.account.clone())
            }
        };
        let region = OLDER_REGION.parse().map_err(|_| AuthError::Mismatch)?;
        let principal = Principal::verified(Scope { account, region }, claim.key_id);
        Ok(Authenticated { principal, payload: SignedPayload::Unsigned })
    }

    /// Authenticates a request.
    ///
    /// With keys: the signature, the signed headers, the moment and the body are verified. Without:
    /// the signature has to be well formed, and a presigned URL not past its end. Errors have AWS's
    /// names and words, and never say what the right signature would have been.
    pub fn authenticate(
        &self,
        parts: &Parts,
        body: BodyHash<'_>,
        kind: ServiceKind,
    ) -> Result<Authenticated, ApiError> {
        self.try_authenticate(parts, body, kind).map_err(|e| e.into_api(kind))
    }

    fn try_authenticate(
        &self,
        parts: &Parts,
        body: BodyHash<'_>,
        kind: ServiceKind,
    ) -> Result<Authenticated, AuthError> {
        if let Some(claim) = self.read_older(parts, kind)? {
            return self.authenticate_older(parts, claim);
        }
        let claim = claim::read(parts)?;
        self.check_claim(&claim, kind)?;
        let Payload { text, signed, unchecked } =
            payload_of(parts, &claim, body, kind, self.verifies())?;
        let account = match &self.keys {
            None => claimed_account(&claim.key_id, &self.account),
            Some(keys) => self.verify(keys, parts, &claim, &text, kind)?,
        };
        // A declared hash is compared last: for a caller who has proven to hold the secret.
        if let (true, SignedPayload::Hash(declared)) = (unchecked && self.verifies(), &signed)
            && let Some(is) = body.sha256()
            && !bool::from(is.ct_eq(declared))
        {
            return Err(AuthError::Body);
        }
        let scope = Scope { account, region: claim.region };
        Ok(Authenticated { principal: Principal::verified(scope, claim.key_id), payload: signed })
    }

    /// Scope and moment; neither needs the secret.
    fn check_claim(&self, claim: &Claim, kind: ServiceKind) -> Result<(), AuthError> {
        let service = match kind {
            ServiceKind::Json(name) => name,
            ServiceKind::S3 => "s3",
        };
        if claim.service != service {
            let json = format!("Credential should be scoped to correct service: '{service}'.");
            let s3 = format!(
                "incorrect service \"{}\". This endpoint belongs to \"{service}\".",
                claim.service
            );
            return Err(AuthError::Scope(claim.form, Fault { json, s3 }));
        }
        if (kind, claim.form) == (ServiceKind::S3, Form::Query(None)) {
            return Err(AuthError::IncompleteQuery(
                "Query-string authentication version 4 requires the X-Amz-Expires parameter."
                    .to_owned(),
            ));
        }
        let now = self.clock.now();
        if let Form::Query(Some(life)) = claim.form {
            let end = claim.signed_at.plus(life);
            if now > end {
                return Err(AuthError::Expired(format!(
                    "Signature expired: {} is now earlier than {}",
                    iso_text(end),
                    iso_text(now)
                )));
            }
        }
        if !self.verifies() {
            return Ok(());
        }
        if !claim.signed_at_text.starts_with(&claim.date) {
            let day = claim.signed_at_text.get(..8).unwrap_or_default();
            let json = format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
                 from HTTP: '{}' != '{day}', from '{}'.",
                claim.date, claim.signed_at_text
            );
            let s3 = format!(
                "Invalid credential date \"{}\". This date is not the same as X-Amz-Date: \"{day}\".",
                claim.date
            );
            return Err(AuthError::Scope(claim.form, Fault { json, s3 }));
        }
        let skew = match kind {
            ServiceKind::Json(_) => SKEW_JSON,
            ServiceKind::S3 => SKEW_S3,
        };
        let minutes = skew.as_secs() / 60;
        let (oldest, newest) = (now.minus(skew), now.plus(skew));
        // A presigned URL has its own end, checked above.
        let may_be_old = matches!(claim.form, Form::Query(Some(_)));
        if claim.signed_at < oldest && !may_be_old {
            return Err(AuthError::Skew(format!(
                "Signature expired: {} is now earlier than {} ({} - {minutes} min.)",
                claim.signed_at_text,
                iso_text(oldest),
                iso_text(now)
            )));
        }
        if claim.signed_at > newest {
            let text = format!(
                "Signature not yet current: {} is still later than {} ({} + {minutes} min.)",
                claim.signed_at_text,
                iso_text(newest),
                iso_text(now)
            );
            return Err(if may_be_old { AuthError::Early(text) } else { AuthError::Skew(text) });
        }
        Ok(())
    }

    /// Computes the signature and compares. Does the same work for an unknown key.
    fn verify(
        &self,
        keys: &HashMap<String, AccessKey>,
        parts: &Parts,
        claim: &Claim,
        payload: &str,
        kind: ServiceKind,
    ) -> Result<AccountId, AuthError> {
        check_signed_headers(parts, claim)?;
        let canonical = canonical::request(parts, &claim.signed_headers, payload, kind)?;
        let key = keys.get(&claim.key_id);
        let cached = (
            claim.key_id.clone(),
            claim.date.clone(),
            claim.region.as_str().to_owned(),
            claim.service.clone(),
        );
        let known = self.signing_keys.lock().get(&cached).copied();
        let signing =
            known.unwrap_or_else(|| signing_key(key.map_or("", |k| k.secret.as_str()), claim));
        let mut mac = keyed(&signing);
        mac.update(
            format!(
                "AWS4-HMAC-SHA256\n{}\n{}/{}/{}/aws4_request\n{}",
                claim.signed_at_text,
                claim.date,
                claim.region,
                claim.service,
                hex::encode(Sha256::digest(canonical.as_bytes()))
            )
            .as_bytes(),
        );
        let computed: [u8; 32] = mac.finalize().into_bytes().into();
        let good = bool::from(computed.ct_eq(&claim.signature));
        let Some(key) = key else { return Err(AuthError::UnknownKey) };
        if claim.has_token {
            return Err(AuthError::UnknownKey);
        }
        if !good {
            return Err(AuthError::Mismatch);
        }
        if known.is_none() {
            let mut kept = self.signing_keys.lock();
            if kept.len() >= SIGNING_KEYS_MAX {
                kept.clear();
            }
            kept.insert(cached, signing);
        }
        Ok(key.account.clone().unwrap_or_else(|| self.account.clone()))
    }
}

/// The service that a request's signature is scoped to, proven by nothing: for choosing who answers.
pub fn claimed_service(parts: &Parts) -> Option<String> {
    claim::read(parts).ok().map(|claim| claim.service)
}

/// Every header that changes what a request means has to be signed.
fn check_signed_headers(parts: &Parts, claim: &Claim) -> Result<(), AuthError> {
    let signed = |name: &str| claim.signed_headers.split(';').any(|s| s == name);
    if !signed("host") && !signed(":authority") {
        return Err(AuthError::Headers(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
        ));
    }
    // Whichever of the two is signed, nobody may be led elsewhere by the other.
    if let (Some(host), Some(authority)) = (parts.headers.get("host"), parts.uri.authority())
        && host.as_bytes() != authority.as_str().as_bytes()
    {
        return Err(AuthError::Headers("'Host' and ':authority' must be the same.".to_owned()));
    }
    // The hash of the payload is part of what is signed even where its header is not; the other
    // names an SDK, nothing more.
    let exempt = ["x-amz-content-sha256", "x-amz-user-agent"];
    for name in parts.headers.keys().map(http::HeaderName::as_str) {
        if name.starts_with("x-amz-") && !exempt.contains(&name) && !signed(name) {
            return Err(AuthError::Headers(format!(
                "There were headers present in the request which were not signed: {name}"
            )));
        }
    }
    Ok(())
}

/// What a request says of its body.
struct Payload {
    /// The last line of the canonical request.
    text: String,
    signed: SignedPayload,
    /// Whether the hash is the client's word, not taken from the body itself.
    unchecked: bool,
}

fn payload_of(
    parts: &Parts,
    claim: &Claim,
    body: BodyHash<'_>,
    kind: ServiceKind,
    verifies: bool,
) -> Result<Payload, AuthError> {
    let of = |text: &str, signed| Payload { text: text.to_owned(), signed, unchecked: true };
    let declared = single(&parts.headers, "x-amz-content-sha256").map_err(|()| {
        AuthError::Payload("There must be one 'x-amz-content-sha256' header.".to_owned())
    })?;
    match (declared, kind, body) {
        (None, ServiceKind::S3, _) if matches!(claim.form, Form::Query(_)) => {
            Ok(of(UNSIGNED, SignedPayload::Unsigned))
        }
        (None, ServiceKind::S3, _) => Err(AuthError::Payload(
            "Missing required header for this request: x-amz-content-sha256".to_owned(),
        )),
        // Whatever is declared: a body that is there is signed by its own hash.
        (_, ServiceKind::Json(_), BodyHash::Whole(_) | BodyHash::Sha256(_)) => {
            // Without keys nothing is compared, so the hash would be work for nothing.
            let hash = if verifies { body.sha256() } else { None }.unwrap_or_default();
            let signed = SignedPayload::Hash(hash);
            Ok(Payload { text: hex::encode(hash), signed, unchecked: false })
        }
        (_, ServiceKind::Json(_), BodyHash::Streaming) => {
            Err(AuthError::Payload("The body has to be signed.".to_owned()))
        }
        (Some(UNSIGNED), ServiceKind::S3, _) => Ok(of(UNSIGNED, SignedPayload::Unsigned)),
        (Some(text), ServiceKind::S3, _) if STREAMING.contains(&text) => {
            Ok(of(text, SignedPayload::Streaming(text.to_owned())))
        }
        (Some(text), _, _) => {
            let mut hash = [0; 32];
            hex::decode_to_slice(text, &mut hash).map_err(|_| {
                AuthError::Payload(
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, \
                     STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, \
                     STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
                        .to_owned(),
                )
            })?;
            Ok(of(text, SignedPayload::Hash(hash)))
        }
    }
}

/// The kinds of chunked body that a symmetric key can sign (S3 API reference, "Transferring payload
/// in multiple chunks").
const STREAMING: [&str; 3] = [
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
];

/// HMAC-SHA256 with a key of any length: one longer than a block is hashed, a shorter one padded.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    Hmac::new(&block.into())
}

fn signing_key(secret: &str, claim: &Claim) -> [u8; 32] {
    let mut key: [u8; 32] = {
        let mut mac = keyed(format!("AWS4{secret}").as_bytes());
        mac.update(claim.date.as_bytes());
        mac.finalize().into_bytes().into()
    };
    for part in [claim.region.as_str(), claim.service.as_str(), "aws4_request"] {
        let mut mac = keyed(&key);
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().into();
    }
    key
}
