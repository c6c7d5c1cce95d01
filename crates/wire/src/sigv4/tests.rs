//! Signatures made by botocore 1.43 and printed in AWS's documentation, and what is left of them
//! when anything changes.

use http::Request;
use http::request::Parts;
use hydrant_core::{Clock, Timestamp};
use proptest::prelude::*;
use std::sync::Arc;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// 2026-01-02T03:04:05Z, when the fixtures were signed.
pub(super) const SIGNED_AT: u64 = 1_767_323_045_000;
const KINESIS: ServiceKind = ServiceKind::Json("kinesis");

struct Fixed(u64);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
}

pub(super) fn verifier_at(ms: u64) -> Verifier {
    let key = |id: &str, secret: &str, account: Option<&str>| AccessKey {
        id: id.to_owned(),
        secret: secret.to_owned(),
        account: account.map(|a| a.parse().unwrap()),
    };
    let keys = vec![
        key("AKIDEXAMPLE", SECRET, None),
        key("AKIDOTHER", "another", Some("111111111111")),
        key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None),
    ];
    let account = "000000000000".parse().unwrap();
    Verifier::new(Credentials::Keys(keys), account, Arc::new(Fixed(ms)))
}

pub(super) fn open_verifier() -> Verifier {
    let account = "000000000000".parse().unwrap();
    Verifier::new(Credentials::Any, account, Arc::new(Fixed(SIGNED_AT)))
}

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn authorization(scope: &str, headers: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/{scope}/aws4_request, \
         SignedHeaders={headers}, Signature={signature}"
    )
}

const LIST_BODY: &[u8] = b"{\"Limit\": 3}";

fn list_streams() -> Parts {
    let signature = "4e789fa4783bad1797fd1e859d1064d448421328df455207b3d12f758cc58a5c";
    let names = "content-type;host;x-amz-date;x-amz-target";
    parts(
        "POST",
        "/",
        &[
            ("host", "127.0.0.1:4566"),
            ("x-amz-target", "Kinesis_20131202.ListStreams"),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-date", "20260102T030405Z"),
            ("authorization", &authorization("us-east-1/kinesis", names, signature)),
        ],
    )
}

const PRESIGNED: &str = "/lake/a%20b/c?response-content-type=text%2Fplain&\
    X-Amz-Algorithm=AWS4-HMAC-SHA256&\
    X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Fus-east-1%2Fs3%2Faws4_request&\
    X-Amz-Date=20260102T030405Z&X-Amz-Expires=600&X-Amz-SignedHeaders=host&\
    X-Amz-Signature=2743e4fdccd17e7383020f3a16922fe8bf2288e2c3939e26cd41eb527ea74ded";

fn presigned() -> Parts {
    parts("GET", PRESIGNED, &[("host", "localhost:4566")])
}

#[test]
fn botocore_json_requests_verify() {
    let verifier = verifier_at(SIGNED_AT);
    for _cached in 0..2 {
        let caller =
            verifier.authenticate(&list_streams(), BodyHash::Whole(LIST_BODY), KINESIS).unwrap();
        assert_eq!(caller.principal.scope().to_string(), "000000000000/us-east-1");
        assert_eq!(caller.principal.access_key(), "AKIDEXAMPLE");
    }
    let signature = "e301153727017e95149bc7f43c866c8b5f0b595dae59fa3e5dc9ffabc578ff3d";
    let names = "host;x-amz-date;x-amz-odd;x-amz-target";
    let odd_path = parts(
        "POST",
        "/a/../b%20c//d/",
        &[
            ("host", "127.0.0.1:4566"),
            ("x-amz-target", "Kinesis_20131202.ListStreams"),
            ("x-amz-odd", "  two   blanks "),
            ("x-amz-date", "20260102T030405Z"),
            ("authorization", &authorization("eu-west-1/kinesis", names, signature)),
        ],
    );
    let caller = verifier.authenticate(&odd_path, BodyHash::Whole(b""), KINESIS).unwrap();
    assert_eq!(caller.principal.scope().region.as_str(), "eu-west-1");
}

#[test]
fn over_http2_the_authority_is_the_signed_host() {
    let mut request = list_streams();
    request.headers.remove("host");
    request.uri = "http://127.0.0.1:4566/".parse().unwrap();
    verifier_at(SIGNED_AT).authenticate(&request, BodyHash::Whole(LIST_BODY), KINESIS).unwrap();
}

#[test]
fn botocore_s3_requests_verify() {
    let verifier = verifier_at(SIGNED_AT);
    let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let signature = "0eb2999e48fac3a1dc5dc75d2c5333e2c9f09419cbfffd5bdc01ec754dd4242d";
    let put = parts(
        "PUT",
        "/k",
        &[
            ("host", "lake.localhost:4566"),
            ("x-amz-meta-a", "b"),
            ("x-amz-date", "20260102T030405Z"),
            ("x-amz-content-sha256", hash),
            (
                "authorization",
                &authorization(
                    "us-east-1/s3",
                    "host;x-amz-content-sha256;x-amz-date;x-amz-meta-a",
                    signature,
                ),
            ),
        ],
    );
    let caller = verifier.authenticate(&put, BodyHash::Streaming, ServiceKind::S3).unwrap();
    let SignedPayload::Hash(signed) = caller.payload else { panic!("{:?}", caller.payload) };
    assert_eq!(hex::encode(signed), hash);
    let wrong = verifier.authenticate(&put, BodyHash::Whole(b"hellO"), ServiceKind::S3);
    assert_eq!(wrong.unwrap_err().code, "XAmzContentSHA256Mismatch");

    let get = parts(
        "GET",
        "/lake/a//b/../c%20%C3%BC%2B~%3D/x?list-type=2&prefix=a%2Fb&delimiter=&b=2&a=1",
        &[
            ("host", "localhost:4566"),
            ("x-amz-date", "20260102T030405Z"),
            (
                "x-amz-content-sha256",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                "authorization",
                &authorization("us-east-1/s3", "host;x-amz-content-sha256;x-amz-date", ODD_KEY),
            ),
        ],
    );
    verifier.authenticate(&get, BodyHash::Whole(b""), ServiceKind::S3).unwrap();

    let caller = verifier.authenticate(&presigned(), BodyHash::Streaming, ServiceKind::S3).unwrap();
    assert_eq!(caller.payload, SignedPayload::Unsigned);
}

const ODD_KEY: &str = "575f764b49b3eb859f917365dd83719d21c408acf9a31be6b6d3e50fc3cce8ad";

#[test]
fn the_examples_of_the_s3_reference_verify() {
    let verifier = verifier_at(1_369_353_600_000);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let get = parts(
        "GET",
        "/test.txt",
        &[
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", empty),
            ("x-amz-date", "20130524T000000Z"),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/\
                 aws4_request,SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=\
                 f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
        ],
    );
    verifier.authenticate(&get, BodyHash::Whole(b""), ServiceKind::S3).unwrap();
    let presigned = parts(
        "GET",
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F\
         20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&\
         X-Amz-SignedHeaders=host&X-Amz-Signature=\
         aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        &[("host", "examplebucket.s3.amazonaws.com")],
    );
    verifier.authenticate(&presigned, BodyHash::Streaming, ServiceKind::S3).unwrap();
}

#[test]
fn the_clock_may_be_five_minutes_off_and_no_more() {
    let at = |ms| {
        verifier_at(ms)
            .authenticate(&list_streams(), BodyHash::Whole(LIST_BODY), KINESIS)
            .map_err(|e| (e.code, e.message))
    };
    assert!(at(SIGNED_AT + 300_000).is_ok() && at(SIGNED_AT - 300_000).is_ok());
    let expired = "Signature expired: 20260102T030405Z is now earlier than 20260102T030406Z \
                   (20260102T030906Z - 5 min.)";
    assert_eq!(at(SIGNED_AT + 301_000), Err(("InvalidSignatureException", expired.to_owned())));
    let early = "Signature not yet current: 20260102T030405Z is still later than \
                 20260102T030404Z (20260102T025904Z + 5 min.)";
    assert_eq!(at(SIGNED_AT - 301_000), Err(("InvalidSignatureException", early.to_owned())));
}

#[test]
fn a_presigned_url_ends_when_it_says() {
    let at = |verifier: Verifier| {
        verifier
            .authenticate(&presigned(), BodyHash::Streaming, ServiceKind::S3)
            .map_err(|e| (e.status, e.code))
    };
    assert!(at(verifier_at(SIGNED_AT + 600_000)).is_ok());
    assert_eq!(at(verifier_at(SIGNED_AT + 600_001)), Err((403, "AccessDenied")));
    let account: AccountId = "000000000000".parse().unwrap();
    let late = Arc::new(Fixed(SIGNED_AT + 600_001));
    assert_eq!(at(Verifier::new(Credentials::Any, account, late)), Err((403, "AccessDenied")));
    let endless = PRESIGNED.replace("&X-Amz-Expires=600", "");
    let request = parts("GET", &endless, &[("host", "localhost:4566")]);
    let got = open_verifier().authenticate(&request, BodyHash::Streaming, ServiceKind::S3);
    assert_eq!(got.unwrap_err().code, "AuthorizationQueryParametersError");
    for (life, good) in
        [("0", false), ("604801", false), ("-1", false), ("", false), ("604800", true)]
    {
        let uri = PRESIGNED.replace("Expires=600", &format!("Expires={life}"));
        let request = parts("GET", &uri, &[("host", "localhost:4566")]);
        let got = open_verifier().authenticate(&request, BodyHash::Streaming, ServiceKind::S3);
        assert_eq!(got.is_ok(), good, "{life}: {got:?}");
    }
}

#[test]
fn refusals_have_the_names_and_words_of_aws() {
    let json = |change: &dyn Fn(&mut Parts)| {
        let mut request = list_streams();
        change(&mut request);
        let got =
            verifier_at(SIGNED_AT).authenticate(&request, BodyHash::Whole(LIST_BODY), KINESIS);
        let error = got.unwrap_err();
        (error.code, error.message)
    };
    let set = |name: &'static str, value: &str| {
        let value = value.to_owned();
        move |p: &mut Parts| {
            p.headers.insert(name, value.parse().unwrap());
        }
    };
    let replaced = |from: &str, to: &str| {
        let value = list_streams().headers["authorization"].to_str().unwrap().replace(from, to);
        set("authorization", &value)
    };
    let missing = "MissingAuthenticationTokenException";
    let incomplete = "IncompleteSignatureException";
    let invalid = "InvalidSignatureException";
    let unknown = "UnrecognizedClientException";

    assert_eq!(
        json(&|p| drop(p.headers.remove("authorization"))),
        (missing, "Missing Authentication Token".to_owned())
    );
    assert_eq!(json(&set("authorization", "Bearer x")).0, missing);
    assert_eq!(
        json(&set("authorization", "AWS4-HMAC-SHA256 Credential=a")),
        (
            incomplete,
            "Authorization header requires 'Signature' parameter. Authorization header requires \
             'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256 Credential=a"
                .to_owned()
        )
    );
    assert_eq!(json(&replaced("/aws4_request", "")).0, incomplete);
    assert_eq!(json(&replaced("Signature=4e", "Signature=4g")).0, incomplete);
    assert_eq!(json(&replaced("content-type;host", "host;content-type")).0, incomplete);
    assert_eq!(json(&replaced("content-type;host", "content-type;host;host")).0, incomplete);
    assert_eq!(
        json(&|p| drop(p.headers.remove("x-amz-date"))).1.split(" Authorization=").next().unwrap(),
        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
    );
    assert_eq!(
        json(&replaced("AKIDEXAMPLE", "AKIDNOBODY")),
        (unknown, "The security token included in the request is invalid.".to_owned())
    );
    assert_eq!(json(&set("x-amz-security-token", "t")).0, invalid);
    let (code, text) = json(&replaced("AKIDEXAMPLE", "AKIDOTHER"));
    assert_eq!(code, invalid);
    assert!(text.starts_with("The request signature we calculated does not match"), "{text}");
    assert_eq!(
        json(&replaced("us-east-1/kinesis", "us-east-1/firehose")),
        (invalid, "Credential should be scoped to correct service: 'kinesis'. ".trim().to_owned())
    );
    assert_eq!(json(&replaced("20260102/", "20260103/")).0, invalid);
    assert_eq!(json(&replaced("content-type;host;", "content-type;")).0, invalid);
    assert_eq!(json(&replaced("x-amz-date;x-amz-target", "x-amz-date")).0, invalid);
    assert_eq!(json(&replaced("content-type;", "accept;content-type;")).0, invalid);
    assert_eq!(
        json(&|p| p.uri = format!("/{}", &PRESIGNED[14..]).parse().unwrap()).0,
        invalid,
        "both mechanisms at once"
    );
    let other = verifier_at(SIGNED_AT).authenticate(
        &list_streams(),
        BodyHash::Whole(b"{\"Limit\": 4}"),
        KINESIS,
    );
    assert_eq!(other.unwrap_err().code, invalid);
}

#[test]
fn s3_names_the_place_of_a_wrong_credential() {
    let query = |from: &str, to: &str| {
        let uri = PRESIGNED.replace(from, to);
        let request = parts("GET", &uri, &[("host", "localhost:4566")]);
        let got =
            verifier_at(SIGNED_AT).authenticate(&request, BodyHash::Streaming, ServiceKind::S3);
        let error = got.unwrap_err();
        (error.status, error.code, error.message)
    };
    let place = "Error parsing the X-Amz-Credential parameter;";
    let malformed = "the Credential is mal-formed; expecting \
                     \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".";
    for (from, to, text) in [
        (
            "%2Fs3%2F",
            "%2Fkinesis%2F",
            "incorrect service \"kinesis\". This endpoint belongs to \"s3\".",
        ),
        (
            "aws4_request",
            "aws5_request",
            "incorrect terminal \"aws5_request\". This endpoint uses \"aws4_request\".",
        ),
        (
            "%2F20260102%2F",
            "%2F2026%2F",
            "incorrect date format \"2026\". This date in the credential must be in the format \
          \"yyyyMMdd\".",
        ),
        (
            "%2F20260102%2F",
            "%2F20260103%2F",
            "Invalid credential date \"20260103\". This date is not the same as X-Amz-Date: \
          \"20260102\".",
        ),
        ("AKIDEXAMPLE%2F20260102", "20260102", malformed),
    ] {
        let want = (400, "AuthorizationQueryParametersError", format!("{place} {text}"));
        assert_eq!(query(from, to), want, "{to}");
    }
    let (status, code, _) = query("Date=20260102T03", "Date=20260102T04");
    assert_eq!((status, code), (403, "AccessDenied"), "a moment to come");
    let header = authorization("us-east-1/kinesis", "host;x-amz-date", &"0".repeat(64));
    let request = parts(
        "GET",
        "/",
        &[("host", "localhost"), ("x-amz-date", "20260102T030405Z"), ("authorization", &header)],
    );
    let got = verifier_at(SIGNED_AT).authenticate(&request, BodyHash::Streaming, ServiceKind::S3);
    let error = got.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; incorrect service \"kinesis\". This endpoint \
             belongs to \"s3\"."
        )
    );
}

#[test]
fn a_json_service_signs_its_body_whatever_is_declared() {
    let mut request = list_streams();
    request.headers.insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
    let whole = BodyHash::Whole(LIST_BODY);
    verifier_at(SIGNED_AT).authenticate(&request, whole, KINESIS).unwrap();
    open_verifier().authenticate(&request, whole, KINESIS).unwrap();
    // Signed with another hash than the body's, as when the body is left unsigned.
    let names = "host;x-amz-content-sha256;x-amz-date;x-amz-target";
    sign(&mut request, "AKIDEXAMPLE", SECRET, names, b"");
    let error = verifier_at(SIGNED_AT).authenticate(&request, whole, KINESIS).unwrap_err();
    assert_eq!(error.code, "InvalidSignatureException");
    assert!(error.message.starts_with("The request signature we calculated"), "{error}");
}

#[test]
fn s3_has_names_of_its_own() {
    let verifier = verifier_at(SIGNED_AT + 901_000);
    let mut request = list_streams();
    let s3 = |request: &Parts| {
        let e = verifier.authenticate(request, BodyHash::Streaming, ServiceKind::S3).unwrap_err();
        (e.status, e.code)
    };
    assert_eq!(s3(&request), (400, "AuthorizationHeaderMalformed"));
    let text = request.headers["authorization"].to_str().unwrap().replace("/kinesis/", "/s3/");
    request.headers.insert("authorization", text.parse().unwrap());
    assert_eq!(s3(&request), (403, "RequestTimeTooSkewed"));
    request.headers.remove("authorization");
    assert_eq!(s3(&request), (403, "AccessDenied"));
}

#[test]
fn without_keys_any_well_formed_signature_will_do() {
    let verifier = open_verifier();
    let mut request = list_streams();
    let text = request.headers["authorization"].to_str().unwrap();
    let text = text.replace("AKIDEXAMPLE", "test").replace("Signature=4e", "Signature=00");
    request.headers.insert("authorization", text.parse().unwrap());
    let caller = verifier.authenticate(&request, BodyHash::Whole(b"x"), KINESIS).unwrap();
    assert_eq!(caller.principal.access_key(), "test");
    let own = caller.principal.scope().account.clone();
    for (key_id, account) in [
        ("210987654321", "210987654321"),
        ("21098765432", own.as_str()),
        ("2109876543210", own.as_str()),
    ] {
        let mut request = list_streams();
        let text = request.headers["authorization"].to_str().unwrap();
        let text = text.replace("AKIDEXAMPLE", key_id);
        request.headers.insert("authorization", text.parse().unwrap());
        let caller = verifier.authenticate(&request, BodyHash::Whole(b"x"), KINESIS).unwrap();
        assert_eq!(caller.principal.scope().account.as_str(), account, "{key_id}");
    }
    request.headers.remove("authorization");
    let none = verifier.authenticate(&request, BodyHash::Whole(b"x"), KINESIS).unwrap_err();
    assert_eq!(none.code, "MissingAuthenticationTokenException");
}

/// Signs a request anew, by the published steps: a signer of the tests' own.
fn sign(request: &mut Parts, key_id: &str, secret: &str, names: &str, body: &[u8]) {
    let claim = claim::read(&list_streams()).unwrap();
    let payload = hex::encode(Sha256::digest(body));
    let canonical = canonical::request(request, names, &payload, KINESIS).unwrap();
    let mut mac = keyed(&signing_key(secret, &claim));
    let hash = hex::encode(Sha256::digest(canonical));
    let scope = "20260102/us-east-1/kinesis/aws4_request";
    mac.update(format!("AWS4-HMAC-SHA256\n20260102T030405Z\n{scope}\n{hash}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let text = authorization("us-east-1/kinesis", names, &signature);
    let text = text.replace("AKIDEXAMPLE", key_id);
    request.headers.insert("authorization", text.parse().unwrap());
}

#[test]
fn a_key_acts_for_its_account() {
    let names = "content-type;host;x-amz-date;x-amz-target";
    let mut request = list_streams();
    sign(&mut request, "AKIDOTHER", "another", names, b"{}");
    let caller =
        verifier_at(SIGNED_AT).authenticate(&request, BodyHash::Whole(b"{}"), KINESIS).unwrap();
    assert_eq!(caller.principal.scope().account.as_str(), "111111111111");
}

#[test]
fn over_http2_the_authority_may_be_signed_under_its_own_name() {
    let names = ":authority;content-type;x-amz-date;x-amz-target";
    let mut request = list_streams();
    request.headers.remove("host");
    request.uri = "http://127.0.0.1:4566/".parse().unwrap();
    sign(&mut request, "AKIDEXAMPLE", SECRET, names, b"{}");
    let verifier = verifier_at(SIGNED_AT);
    let ask = |request: &Parts| verifier.authenticate(request, BodyHash::Whole(b"{}"), KINESIS);
    ask(&request).unwrap();
    request.headers.insert("host", "127.0.0.1:4566".parse().unwrap());
    ask(&request).unwrap();
    request.headers.insert("host", "elsewhere".parse().unwrap());
    assert_eq!(ask(&request).unwrap_err().message, "'Host' and ':authority' must be the same.");
    request.headers.remove("host");
    request.uri = "http://elsewhere/".parse().unwrap();
    assert_eq!(ask(&request).unwrap_err().code, "InvalidSignatureException");
    request.uri = "/".parse().unwrap();
    assert_eq!(ask(&request).unwrap_err().code, "InvalidSignatureException");
}

#[test]
fn the_cache_of_signing_keys_is_bounded_and_takes_no_strangers() {
    let verifier = verifier_at(SIGNED_AT);
    let mut request = list_streams();
    let text = request.headers["authorization"].to_str().unwrap().replace("4e789f", "000000");
    request.headers.insert("authorization", text.parse().unwrap());
    let _ = verifier.authenticate(&request, BodyHash::Whole(LIST_BODY), KINESIS);
    assert_eq!(verifier.signing_keys.lock().len(), 0);
    verifier.authenticate(&list_streams(), BodyHash::Whole(LIST_BODY), KINESIS).unwrap();
    assert_eq!(verifier.signing_keys.lock().len(), 1);
}

/// Flips one bit of a part of the request; `None` if the result is no request at all.
fn flipped(field: usize, at: usize, bit: u8) -> Option<(Parts, Vec<u8>)> {
    let mut request = list_streams();
    let flip = |text: &[u8]| {
        let mut bytes = text.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        bytes
    };
    let names = ["host", "x-amz-target", "content-type", "x-amz-date", "authorization"];
    match field {
        0 => return Some((request, flip(LIST_BODY))),
        1 => request.uri = String::from_utf8(flip(b"/?a=1")).ok()?.parse().ok()?,
        2 => {
            let method = flip(b"POST");
            request.method = http::Method::from_bytes(&method).ok()?;
        }
        n => {
            let name = names[n % names.len()];
            let value =
                http::HeaderValue::from_bytes(&flip(request.headers[name].as_bytes())).ok()?;
            // Blanks at the ends, and hexadecimal digits in either case, mean the same.
            let same = value.as_bytes().eq_ignore_ascii_case(request.headers[name].as_bytes())
                && name == "authorization";
            if same || value.as_bytes().trim_ascii() == request.headers[name].as_bytes() {
                return None;
            }
            request.headers.insert(name, value);
        }
    }
    Some((request, LIST_BODY.to_vec()))
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(field in 0usize..8, at: usize, bit in 0u8..8) {
        if let Some((request, body)) = flipped(field, at, bit) {
            let got = verifier_at(SIGNED_AT).authenticate(&request, BodyHash::Whole(&body), KINESIS);
            prop_assert!(got.is_err(), "{request:?}");
        }
    }

    #[test]
    fn any_header_is_a_claim_or_an_error(text in "(AWS4-HMAC-SHA256 )?[ -~]{0,80}", query in "[ -~]{0,80}") {
        let mut request = list_streams();
        if let Ok(value) = text.parse() {
            request.headers.insert("authorization", value);
        }
        if let Ok(uri) = format!("/?X-Amz-Algorithm={query}").parse() {
            request.uri = uri;
            request.headers.remove("authorization");
        }
        let _ = verifier_at(SIGNED_AT).authenticate(&request, BodyHash::Whole(b""), KINESIS);
    }
}

/// Made by botocore for an endpoint of its user's, good until ten minutes after `SIGNED_AT`.
const OLDER: [(&str, &str); 4] = [
    (
        "GET",
        "/lake/a%20b/%C3%BC%2B%25.txt?AWSAccessKeyId=AKIDEXAMPLE&Signature=\
         ujwVZ6g9PK%2Fk7fXeUQJDNQJwYgY%3D&Expires=1767323645",
    ),
    (
        "PUT",
        "/lake/k?AWSAccessKeyId=AKIDEXAMPLE&Signature=FdMdiQctfX0tupmXi82xMmNt534%3D&\
         content-type=text%2Fplain&x-amz-meta-who=me&Expires=1767323645",
    ),
    (
        "GET",
        "/lake/k?response-content-type=text%2Fhtml%3B%20x&versionId=v1&AWSAccessKeyId=AKIDEXAMPLE&\
         Signature=Ko9JCE0%2F2GtxF79sMAfrYs95rsM%3D&Expires=1767323645",
    ),
    (
        "PUT",
        "/lake/k?uploadId=abc&partNumber=2&AWSAccessKeyId=AKIDEXAMPLE&Signature=\
         CSXCGdXtnt17S%2Br7buRujaO2qv0%3D&Expires=1767323645",
    ),
];

fn older(method: &str, uri: &str, host: &str) -> Result<(), (u16, &'static str)> {
    let parts = parts(method, uri, &[("host", host)]);
    let verifier = verifier_at(SIGNED_AT);
    let screened = verifier.screen(&parts, ServiceKind::S3);
    let seen = verifier.authenticate(&parts, BodyHash::Streaming, ServiceKind::S3);
    assert!(screened.is_ok() || seen.is_err());
    seen.map(|a| assert_eq!(a.payload, SignedPayload::Unsigned)).map_err(|e| (e.status, e.code))
}

#[test]
fn urls_presigned_with_the_version_before_are_verified() {
    for (method, uri) in OLDER {
        for host in ["127.0.0.1:4566", "localhost:4566", "[::1]:4566", "hydrant"] {
            assert_eq!(older(method, uri, host), Ok(()), "{uri}");
        }
        // The host is not signed, so it must not name a bucket.
        assert_eq!(older(method, uri, "other.localhost"), Err((403, "AccessDenied")));
        let mismatch = Err((403, "SignatureDoesNotMatch"));
        assert_eq!(older("DELETE", uri, "localhost"), mismatch);
        assert_eq!(older(method, &uri.replace("/lake/", "/pond/"), "localhost"), mismatch);
        assert_eq!(
            older(method, &uri.replace("=1767323645", "=1767323646"), "localhost"),
            mismatch
        );
        assert_eq!(older(method, &format!("{uri}&acl"), "localhost"), mismatch);
        assert_eq!(older(method, &format!("{uri}&x-amz-acl=private"), "localhost"), mismatch);
        let unknown = uri.replace("AKIDEXAMPLE", "AKIDNOBODY");
        assert_eq!(older(method, &unknown, "localhost"), Err((403, "InvalidAccessKeyId")));
        let other = uri.replace("AKIDEXAMPLE", "AKIDOTHER");
        assert_eq!(older(method, &other, "localhost"), mismatch);
        let malformed = Err((400, "AuthorizationQueryParametersError"));
        assert_eq!(older(method, &uri.replace("=1767323645", "=+5"), "localhost"), malformed);
        assert_eq!(older(method, &uri.replace("Expires=", "Expired="), "localhost"), malformed);
        assert_eq!(older(method, &format!("{uri}&Expires=1"), "localhost"), malformed);
        let both = format!("{uri}&X-Amz-Algorithm=AWS4-HMAC-SHA256");
        assert_eq!(older(method, &both, "localhost"), Err((400, "InvalidArgument")));
    }
}

#[test]
fn a_url_presigned_with_the_version_before_ends_when_it_says() {
    let (method, uri) = OLDER[0];
    let request = parts(method, uri, &[("host", "localhost")]);
    let at = |ms| {
        let seen = verifier_at(ms).authenticate(&request, BodyHash::Streaming, ServiceKind::S3);
        seen.map(drop).map_err(|e| (e.code, e.message))
    };
    assert_eq!(at(SIGNED_AT + 600_000), Ok(()));
    let expired = Err(("AccessDenied", "Request has expired".to_owned()));
    assert_eq!(at(SIGNED_AT + 600_001), expired);
    // It is S3's alone.
    let seen = verifier_at(SIGNED_AT).authenticate(&request, BodyHash::Whole(b""), KINESIS);
    assert_eq!(seen.unwrap_err().code, "MissingAuthenticationTokenException");
}
