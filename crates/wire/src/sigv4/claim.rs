//! What a request says of itself: key, scope, moment, signature. Read strictly, believed by nobody
//! until the signature has been checked.

use std::time::Duration;

use http::request::Parts;
use hydrant_core::Timestamp;
use hydrant_core::names::{AccountId, Region};

use super::canonical::{parameters, single};
use super::error::{AuthError, Fault};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Longest life of a presigned URL (AWS: seven days).
const EXPIRES_SECONDS_MAX: u64 = 604_800;

/// Where the signature stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the Authorization header.
    Header,
    /// In the query; good for this long, where it says so.
    Query(Option<Duration>),
}

/// A well-formed claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) form: Form,
    pub(super) key_id: String,
    pub(super) date: String,
    pub(super) region: Region,
    pub(super) service: String,
    pub(super) signed_headers: String,
    pub(super) signature: [u8; 32],
    /// `YYYYMMDDTHHMMSSZ`, as signed.
    pub(super) signed_at_text: String,
    pub(super) signed_at: Timestamp,
    /// Whether a session token came along.
    pub(super) has_token: bool,
}

/// The account of a caller that proves nothing: an access key id that is the number of an account names
/// it, as emulators of AWS have it; any other acts for the server's.
pub(super) fn claimed_account(key_id: &str, own: &AccountId) -> AccountId {
    key_id.parse().unwrap_or_else(|_| own.clone())
}

/// Reads the claim of a request, from its header or its query.
pub(super) fn read(parts: &Parts) -> Result<Claim, AuthError> {
    let header = single(&parts.headers, "authorization").map_err(|()| {
        AuthError::IncompleteHeader("There must be one 'Authorization' header.".to_owned())
    })?;
    let query = parts.uri.query().unwrap_or("");
    let presigned = parameters(query).any(|(name, _)| name == "X-Amz-Algorithm");
    match (header, presigned) {
        (Some(_), true) => Err(AuthError::Both),
        (Some(value), false) => from_header(parts, value),
        (None, true) => from_query(query),
        (None, false) => Err(AuthError::Missing),
    }
}

fn from_header(parts: &Parts, value: &str) -> Result<Claim, AuthError> {
    let (algorithm, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if !algorithm.starts_with("AWS4-") {
        return Err(AuthError::Missing);
    }
    if algorithm != ALGORITHM {
        return Err(AuthError::IncompleteHeader(format!(
            "Unsupported AWS 'algorithm': '{algorithm}'."
        )));
    }
    let [mut credential, mut signature, mut signed_headers] = [None; 3];
    for part in rest.split([',', ' ']).filter(|p| !p.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let slot = match name {
            "Credential" => &mut credential,
            "Signature" => &mut signature,
            "SignedHeaders" => &mut signed_headers,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(AuthError::IncompleteHeader(format!(
                "Authorization header has '{name}' twice."
            )));
        }
    }
    let moment = moment_of(parts)?;
    let mut text = String::new();
    for (name, slot) in
        [("Credential", credential), ("Signature", signature), ("SignedHeaders", signed_headers)]
    {
        if slot.is_none_or(str::is_empty) {
            text.push_str(&format!("Authorization header requires '{name}' parameter. "));
        }
    }
    if moment.is_none() {
        text.push_str(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
        );
    }
    let (Some(credential), Some(signature), Some(signed_headers), Some(moment), true) =
        (credential, signature, signed_headers, moment, text.is_empty())
    else {
        return Err(AuthError::IncompleteHeader(format!("{text}Authorization={value}")));
    };
    let has_token = parts.headers.contains_key("x-amz-security-token");
    let credential =
        Credential::read(credential).map_err(|fault| AuthError::Credential(Form::Header, fault))?;
    claim(Form::Header, credential, signature, signed_headers, moment, has_token)
        .map_err(AuthError::IncompleteHeader)
}

fn from_query(query: &str) -> Result<Claim, AuthError> {
    let names = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Security-Token",
    ];
    let mut values: [Option<String>; 7] = Default::default();
    for (name, value) in parameters(query) {
        let Some(n) = names.iter().position(|known| *known == name) else { continue };
        if values[n].replace(value).is_some() {
            return Err(AuthError::IncompleteQuery(format!(
                "AWS query-string parameters must include '{name}' once."
            )));
        }
    }
    let mut text = String::new();
    for (name, value) in names.iter().zip(&values).take(5) {
        if value.as_ref().is_none_or(String::is_empty) {
            text.push_str(&format!("AWS query-string parameters must include '{name}'. "));
        }
    }
    if !text.is_empty() {
        text.push_str("Re-examine the query-string parameters.");
        return Err(AuthError::IncompleteQuery(text));
    }
    let [algorithm, credential, signature, signed_headers, date, expires, token] = values;
    let [algorithm, credential, signature, signed_headers, date] =
        [algorithm, credential, signature, signed_headers, date].map(Option::unwrap_or_default);
    if algorithm != ALGORITHM {
        return Err(AuthError::IncompleteQuery(format!(
            "X-Amz-Algorithm only supports \"{ALGORITHM}\""
        )));
    }
    let expires = expires.map(|text| expiry(&text)).transpose()?;
    let moment = iso_moment(&date).ok_or_else(|| {
        AuthError::IncompleteQuery(format!(
            "Date must be in ISO-8601 'basic format'. Got '{date}'."
        ))
    })?;
    let has_token = token.is_some();
    let form = Form::Query(expires);
    let credential =
        Credential::read(&credential).map_err(|fault| AuthError::Credential(form, fault))?;
    claim(form, credential, &signature, &signed_headers, (date, moment), has_token)
        .map_err(AuthError::IncompleteQuery)
}

fn expiry(text: &str) -> Result<Duration, AuthError> {
    let wrong = |text: &str| AuthError::IncompleteQuery(text.to_owned());
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(seconds @ 1..=EXPIRES_SECONDS_MAX) if digits => Ok(Duration::from_secs(seconds)),
        Ok(0) => Err(wrong("X-Amz-Expires must be greater than 0")),
        Ok(_) if digits => Err(wrong(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires \
             must be less than 604800 seconds",
        )),
        _ => Err(wrong("X-Amz-Expires should be a number")),
    }
}

/// `key id/date/region/service/aws4_request`.
struct Credential<'a> {
    key_id: &'a str,
    date: &'a str,
    region: Region,
    service: &'a str,
}

impl<'a> Credential<'a> {
    fn read(text: &'a str) -> Result<Self, Fault> {
        let shape = |json: String| Fault {
            json,
            s3: "the Credential is mal-formed; expecting \
                 \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\"."
                .to_owned(),
        };
        let fields: Vec<&str> = text.rsplitn(5, '/').collect();
        let [terminator, service, region, date, key_id] = fields[..] else {
            return Err(shape(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. \
                 keyid/date/region/service/term, got '{text}'"
            )));
        };
        if terminator != "aws4_request" {
            return Err(Fault {
                json: format!(
                    "Credential should be scoped with a valid terminator: 'aws4_request', not \
                     '{terminator}'."
                ),
                s3: format!(
                    "incorrect terminal \"{terminator}\". This endpoint uses \"aws4_request\"."
                ),
            });
        }
        if key_id.is_empty() || key_id.len() > 128 || service.is_empty() || service.len() > 64 {
            return Err(shape(format!("'{text}' is not a valid Credential.")));
        }
        let region: Region = region.parse().map_err(|_| {
            shape(format!("Credential should be scoped to a valid region, not '{region}'."))
        })?;
        if date.len() != 8 || !date.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Fault {
                json: format!("Date in Credential scope must be YYYYMMDD, got '{date}'."),
                s3: format!(
                    "incorrect date format \"{date}\". This date in the credential must be in the \
                     format \"yyyyMMdd\"."
                ),
            });
        }
        Ok(Self { key_id, date, region, service })
    }
}

fn claim(
    form: Form,
    Credential { key_id, date, region, service }: Credential<'_>,
    signature: &str,
    signed_headers: &str,
    (signed_at_text, signed_at): (String, Timestamp),
    has_token: bool,
) -> Result<Claim, String> {
    let mut names = signed_headers.split(';').peekable();
    let mut ordered = true;
    while let Some(name) = names.next() {
        let lower = !name.is_empty() && name.bytes().all(|b| !b.is_ascii_uppercase());
        ordered &= lower && names.peek().is_none_or(|after| name < *after);
    }
    if !ordered {
        return Err(format!(
            "SignedHeaders must be lower case, in order and each once, got '{signed_headers}'."
        ));
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(signature, &mut bytes)
        .map_err(|_| format!("Signature must be 64 hexadecimal digits, got '{signature}'."))?;
    Ok(Claim {
        form,
        key_id: key_id.to_owned(),
        date: date.to_owned(),
        region,
        service: service.to_owned(),
        signed_headers: signed_headers.to_owned(),
        signature: bytes,
        signed_at_text,
        signed_at,
        has_token,
    })
}

/// The moment of signing: `X-Amz-Date`, else `Date`. `None` if there is neither.
fn moment_of(parts: &Parts) -> Result<Option<(String, Timestamp)>, AuthError> {
    let bad = |text: &str| {
        AuthError::IncompleteHeader(format!(
            "Date must be in ISO-8601 'basic format'. Got '{text}'."
        ))
    };
    if let Some(text) = single(&parts.headers, "x-amz-date").map_err(|()| bad(""))? {
        let moment = iso_moment(text).ok_or_else(|| bad(text))?;
        return Ok(Some((text.to_owned(), moment)));
    }
    let Some(text) = single(&parts.headers, "date").map_err(|()| bad(""))? else {
        return Ok(None);
    };
    if let Some(moment) = iso_moment(text) {
        return Ok(Some((text.to_owned(), moment)));
    }
    let zoned = jiff::fmt::rfc2822::parse(text).map_err(|_| bad(text))?;
    let ms = u64::try_from(zoned.timestamp().as_millisecond()).map_err(|_| bad(text))?;
    let moment = Timestamp::from_millis(ms);
    Ok(Some((iso_text(moment), moment)))
}

/// Reads `YYYYMMDDTHHMMSSZ`.
fn iso_moment(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let digits = |from: usize, to: usize| -> Option<i16> {
        let part = text.get(from..to)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let small = |from: usize| -> Option<i8> { i8::try_from(digits(from, from + 2)?).ok() };
    let civil = jiff::civil::DateTime::new(
        digits(0, 4)?,
        small(4)?,
        small(6)?,
        small(9)?,
        small(11)?,
        small(13)?,
        0,
    )
    .ok()?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    u64::try_from(zoned.timestamp().as_millisecond()).ok().map(Timestamp::from_millis)
}

/// Writes `YYYYMMDDTHHMMSSZ`.
pub(super) fn iso_text(moment: Timestamp) -> String {
    let ms = i64::try_from(moment.as_millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}
