//! Requests that botocore signed (`botocore/sign.py` makes the fixture): each is let in as it is, and
//! refused once any byte that it signs is another.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::request::Parts;
use proptest::prelude::*;
use serde::Deserialize;

use super::tests::{SIGNED_AT, open_verifier, verifier_at};
use super::{BodyHash, ServiceKind, SignedPayload};
use crate::api::ApiError;

const SIGNED: &str = include_str!("botocore/signed.ndjson");

#[derive(Clone, Debug, Deserialize)]
struct Signed {
    service: String,
    how: String,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn all() -> Vec<Signed> {
    SIGNED.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Signed {
    fn kind(&self) -> ServiceKind {
        match self.service.as_str() {
            "kinesis" => ServiceKind::Json("kinesis"),
            "firehose" => ServiceKind::Json("firehose"),
            _ => ServiceKind::S3,
        }
    }

    /// `None` if HTTP itself does not take it.
    fn parts(&self) -> Option<Parts> {
        let mut request = Request::builder().method(self.method.as_str()).uri(&self.uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Some(request.body(()).ok()?.into_parts().0)
    }

    fn body(&self) -> Vec<u8> {
        STANDARD.decode(&self.body).unwrap()
    }

    /// Whether it is let in, with its body there and, for S3, also with its body to come.
    fn verify(&self, body: &[u8]) -> Option<Result<(), ApiError>> {
        let (parts, verifier) = (self.parts()?, verifier_at(SIGNED_AT));
        let whole = verifier.authenticate(&parts, BodyHash::Whole(body), self.kind());
        if self.kind() == ServiceKind::S3 {
            let coming = verifier.authenticate(&parts, BodyHash::Streaming, self.kind());
            let body_alone = |e: &ApiError| e.code == "XAmzContentSHA256Mismatch";
            if !whole.as_ref().is_err_and(body_alone) {
                assert_eq!(whole, coming);
            }
        }
        Some(whole.map(drop))
    }
}

#[test]
fn what_botocore_signs_is_let_in() {
    let mut seen = std::collections::BTreeMap::new();
    for signed in all() {
        assert_eq!(signed.verify(&signed.body()), Some(Ok(())), "{signed:?}");
        let parts = signed.parts().unwrap();
        let open = open_verifier();
        open.screen(&parts, signed.kind()).unwrap();
        let got = open.authenticate(&parts, BodyHash::Whole(&signed.body()), signed.kind());
        let payload = match got.unwrap().payload {
            SignedPayload::Hash(_) => "hash".to_owned(),
            SignedPayload::Unsigned => "unsigned".to_owned(),
            SignedPayload::Streaming(name) => name,
        };
        *seen.entry((signed.service, signed.how, payload)).or_insert(0) += 1;
    }
    assert!(seen.len() >= 13, "{seen:?}");
}

#[test]
fn another_body_is_refused() {
    for signed in all() {
        let declared = signed.headers.iter().find(|(name, _)| name == "x-amz-content-sha256");
        let hashed = declared.is_some_and(|(_, value)| value.len() == 64);
        let s3 = signed.kind() == ServiceKind::S3;
        let mut body = signed.body();
        body.push(b'x');
        let got = signed.verify(&body).unwrap();
        assert_eq!(got.is_err(), hashed || !s3, "{signed:?}");
    }
}

/// The text with a bit of one byte flipped; `None` if it is no text any more.
fn flipped(text: &str, at: usize, bit: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let len = bytes.len();
    *bytes.get_mut(at % len.max(1))? ^= 1 << bit;
    String::from_utf8(bytes).ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn a_flipped_bit_is_refused(which: prop::sample::Index, field: prop::sample::Index, at: usize,
                                bit in 0u8..7) {
        let all = all();
        let whole = which.get(&all);
        let mut signed = whole.clone();
        // What stands before `/../` in the path of a JSON service means nothing.
        let path = whole.uri.split('?').next().unwrap();
        let odd = path.contains("/.") || path.contains("//");
        if odd && whole.kind() != ServiceKind::S3 {
            return Ok(());
        }
        let names: Vec<String> = signed_names(whole);
        // 0 and 1 are method and target, the others the headers that are signed, and the signature.
        let field = field.index(names.len() + 3);
        let slot = match field {
            0 => &mut signed.method,
            1 => &mut signed.uri,
            n => {
                let name = names.get(n - 2).map_or("authorization", String::as_str);
                match signed.headers.iter_mut().find(|(n, _)| n == name) {
                    Some((_, value)) => value,
                    None => return Ok(()),
                }
            }
        };
        let Some(text) = flipped(slot, at, bit) else { return Ok(()) };
        *slot = text;
        if meaning(&signed) == meaning(whole) {
            return Ok(());
        }
        let got = signed.verify(&signed.body());
        prop_assert!(got.is_none_or(|got| got.is_err()), "{:?} was {:?}", signed, whole);
    }
}

fn signed_names(signed: &Signed) -> Vec<String> {
    let authorization = signed.headers.iter().find(|(name, _)| name == "authorization");
    let names = match authorization {
        Some((_, value)) => value.split("SignedHeaders=").nth(1).unwrap().split(',').next(),
        None => signed.uri.split("X-Amz-SignedHeaders=").nth(1).unwrap().split('&').next(),
    };
    names.unwrap().replace("%3B", ";").split(';').map(str::to_owned).collect()
}

/// What a request says, spelled so that two spellings of the same are one: escapes, blanks in
/// headers, the case of hexadecimal digits, a fragment.
fn meaning(signed: &Signed) -> Option<String> {
    let parts = signed.parts()?;
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or(""));
    let decoded = |text: &str| -> Vec<u8> { percent_encoding::percent_decode_str(text).collect() };
    let path = match signed.kind() {
        ServiceKind::S3 => decoded(path),
        ServiceKind::Json(_) => path.as_bytes().to_vec(),
    };
    let pairs = query.split('&').map(|pair| decoded(&pair.replace('+', " ")));
    let pairs: Vec<_> = pairs.map(|pair| String::from_utf8_lossy(&pair).into_owned()).collect();
    let headers = parts.headers.iter().map(|(name, value)| {
        let text = value.to_str().unwrap_or("?");
        let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        (name.as_str().to_owned(), text)
    });
    let headers: Vec<_> = headers.collect();
    let text = format!("{} {path:?} {pairs:?} {headers:?}", parts.method);
    let (before, signature) = text.split_once("Signature=").unwrap_or((&text, ""));
    Some(before.to_owned() + &signature.to_ascii_lowercase())
}
