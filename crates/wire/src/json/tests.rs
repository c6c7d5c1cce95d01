//! The front, with a service that repeats what it was asked.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http_body::Frame;
use hydrant_core::limits::JSON_BODY_BYTES_MAX;
use hydrant_core::{Clock, Timestamp};

use super::*;
use crate::sigv4::Credentials;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000)
    }
}

struct Echo;

#[async_trait]
impl JsonService for Echo {
    fn target(&self) -> &'static str {
        "Kinesis_20131202"
    }

    async fn call(&self, call: Call) -> Result<Reply, ApiError> {
        let whole = match call.operation.as_str() {
            "Echo" => Ok(call.body),
            "Empty" => Ok(Bytes::new()),
            "Pieces" => {
                let pieces = [b"[1,", b"2,3", b",4]"].map(|piece| Bytes::from_static(piece));
                return Ok(Reply::Pieces(crate::api::Pieces::new(9, pieces.into_iter())));
            }
            "Who" => Ok(call.scope().to_string().into()),
            "Break" => Err(ApiError::internal("the disk is on fire")),
            "Parse" => call.read::<serde::de::IgnoredAny>().map(|_| Bytes::new()),
            _ => Err(ApiError::new("UnknownOperationException", "")),
        };
        whole.map(Reply::from)
    }
}

fn front() -> JsonFront {
    front_of(Arc::new(Echo))
}

fn front_of(service: Arc<dyn JsonService>) -> JsonFront {
    let account = "000000000000".parse().unwrap();
    let verifier = Verifier::new(Credentials::Any, account, Arc::new(Fixed));
    JsonFront::new(vec![service], Arc::new(verifier), Arc::new(Random::from_seed(7)))
}

fn request<B>(operation: &str, body: B) -> Request<B> {
    Request::post("/")
        .header("host", "localhost")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .header("x-amz-date", "20260102T030405Z")
        .header(
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential=test/20260102/us-east-1/kinesis/aws4_request, \
                 SignedHeaders=host, Signature={}",
                "0".repeat(64)
            ),
        )
        .body(body)
        .unwrap()
}

async fn answer(request: Request<Full<Bytes>>) -> (u16, String, Bytes) {
    let reply = front().answer(request).await;
    let id = reply.headers()["x-amzn-requestid"].to_str().unwrap();
    assert_eq!((id.len(), &id[14..15]), (36, "4"));
    assert_eq!(reply.headers()["x-amz-id-2"].len(), 64);
    let media_type = reply.headers()["content-type"].to_str().unwrap().to_owned();
    let status = reply.status().as_u16();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, media_type, body)
}

async fn said(request: Request<Full<Bytes>>) -> (u16, String) {
    let (status, _, body) = answer(request).await;
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_call_reaches_its_operation() {
    let body = Full::from("{\"a\": [1]}");
    assert_eq!(said(request("Echo", body)).await, (200, "{\"a\": [1]}".to_owned()));
    assert_eq!(said(request("Empty", Full::from("{}"))).await, (200, String::new()));
    let who = said(request("Who", Full::from("{}"))).await;
    assert_eq!(who, (200, "000000000000/us-east-1".to_owned()));
    let mut old = request("Empty", Full::from("{}"));
    let media_type = "application/x-amz-json-1.0";
    old.headers_mut().insert("content-type", HeaderValue::from_static(media_type));
    assert_eq!(answer(old).await.1, media_type);
}

#[tokio::test]
async fn a_reply_in_pieces_is_of_known_length() {
    let reply = front().answer(request("Pieces", Full::from("{}"))).await;
    assert_eq!(reply.headers()["content-type"], "application/x-amz-json-1.1");
    let mut body = reply.into_body();
    for left in [9, 6, 3] {
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(left), false));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 3);
    }
    assert!(body.is_end_stream() && body.frame().await.is_none());
    assert_eq!(said(request("Pieces", Full::from("{}"))).await, (200, "[1,2,3,4]".to_owned()));
}

struct Slow(Arc<tokio::sync::Notify>);

#[async_trait]
impl JsonService for Slow {
    fn target(&self) -> &'static str {
        "Kinesis_20131202"
    }

    async fn call(&self, _: Call) -> Result<Reply, ApiError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.notify_one();
        Ok(Bytes::new().into())
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_outlives_the_client_that_hangs_up() {
    let done = Arc::new(tokio::sync::Notify::new());
    let front = front_of(Arc::new(Slow(Arc::clone(&done))));
    let asked = front.answer(request("Slow", Full::from("{}")));
    let hung_up = tokio::time::timeout(Duration::from_millis(10), asked).await;
    assert!(hung_up.is_err());
    tokio::time::timeout(Duration::from_secs(10), done.notified()).await.unwrap();
}

#[tokio::test]
async fn errors_look_like_those_of_aws() {
    let unknown = "{\"__type\":\"UnknownOperationException\"}";
    assert_eq!(said(request("Nope", Full::from("{}"))).await, (400, unknown.to_owned()));
    let mut other = request("Echo", Full::from("{}"));
    other.headers_mut().insert("x-amz-target", HeaderValue::from_static("Other_1.Echo"));
    assert_eq!(said(other).await, (400, unknown.to_owned()));
    let broken = "{\"__type\":\"InternalFailure\"}";
    assert_eq!(said(request("Break", Full::from("{}"))).await, (500, broken.to_owned()));
    let serialization = "{\"__type\":\"SerializationException\"}";
    for text in ["", "{", "{\"a\":[1", "\"", "{\"a\":}", "nul"] {
        let got = said(request("Parse", Full::from(text))).await;
        assert_eq!(got, (400, serialization.to_owned()), "{text}");
    }
    let mut unsigned = request("Echo", Full::from("{}"));
    unsigned.headers_mut().remove("authorization");
    let missing = "{\"__type\":\"MissingAuthenticationTokenException\",\"message\":\"Missing \
                   Authentication Token\"}";
    assert_eq!(said(unsigned).await, (400, missing.to_owned()));
}

#[tokio::test]
async fn what_is_no_json_call_is_refused_in_its_own_form() {
    let mut get = request("Echo", Full::from(""));
    *get.method_mut() = Method::GET;
    let (status, media_type, body) = answer(get).await;
    assert_eq!((status, media_type.as_str()), (403, "application/xml"));
    assert!(body.starts_with(b"<AccessDeniedException>"));
    let mut html = request("Echo", Full::from("{}"));
    html.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
    assert_eq!(said(html).await, (404, "<UnknownOperationException/>\n".to_owned()));
    let mut other = request("Echo", Full::from("{}"));
    other.headers_mut().insert("content-encoding", HeaderValue::from_static("zstd"));
    assert!(said(other).await.1.contains("packed with gzip and nothing else"));
    let mut cbor = request("Echo", Full::from("{}"));
    cbor.headers_mut().insert("content-type", HeaderValue::from_static(CBOR));
    let (status, media_type, body) = answer(cbor).await;
    assert_eq!((status, media_type.as_str()), (400, CBOR));
    assert!(body.starts_with(b"\xa2\x66__type\x76SerializationException\x67Message\x78"));
}

#[tokio::test]
async fn a_body_is_bounded_in_bytes_and_depth() {
    let large = "x".repeat(JSON_BODY_BYTES_MAX + 1);
    assert_eq!(said(request("Echo", Full::from(large))).await.0, 413);
    let mut declared = request("Echo", Full::from("{}"));
    declared.headers_mut().insert("content-length", HeaderValue::from(JSON_BODY_BYTES_MAX + 1));
    assert_eq!(said(declared).await.0, 413);
    for (depth, status) in [(JSON_DEPTH_MAX, 200), (JSON_DEPTH_MAX + 1, 400), (1 << 20, 400)] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(said(request("Echo", Full::from(text))).await.0, status, "{depth}");
    }
    let quoted = format!("\"\\\"{}\"", "[".repeat(100));
    assert_eq!(said(request("Echo", Full::from(quoted))).await.0, 200);
}

fn zipped(text: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(text).unwrap();
    zip.finish().unwrap()
}

async fn unpacked(body: Vec<u8>) -> (u16, String) {
    let mut request = request("Echo", Full::from(body));
    request.headers_mut().insert("content-encoding", HeaderValue::from_static("GZIP"));
    said(request).await
}

#[tokio::test]
async fn a_body_in_gzip_is_unpacked_within_its_bounds() {
    let broken = (400, "{\"__type\":\"SerializationException\"}".to_owned());
    let good = zipped(b"{\"a\": [1]}");
    assert_eq!(unpacked(good.clone()).await, (200, "{\"a\": [1]}".to_owned()));
    let longest = format!("\"{}\"", " ".repeat(JSON_BODY_BYTES_MAX - 2));
    assert_eq!(unpacked(zipped(longest.as_bytes())).await.0, 200);
    // A bomb that says so, and one that does not.
    let mut bomb = zipped(format!("{longest} ").as_bytes());
    assert_eq!(unpacked(bomb.clone()).await.0, 413);
    let end = bomb.len() - 4;
    bomb[end..].copy_from_slice(&2_u32.to_le_bytes());
    assert_eq!(unpacked(bomb).await, broken);
    for cut in [0, 1, 10, good.len() - 1] {
        // What then stands at the end may be any length.
        let status = unpacked(good[..cut].to_vec()).await.0;
        assert!([400, 413].contains(&status), "{cut}: {status}");
    }
    // Another member behind the first, and a wrong checksum.
    assert_eq!(unpacked([&good[..], &good[..]].concat()).await, broken);
    let mut wrong = good.clone();
    let at = wrong.len() - 8;
    wrong[at] ^= 1;
    assert_eq!(unpacked(wrong).await, broken);
    let deep = zipped("[".repeat(JSON_DEPTH_MAX + 1).as_bytes());
    assert_eq!(unpacked(deep).await, broken);
}

#[tokio::test]
async fn a_page_may_call_and_read_the_reply() {
    let mut asked = request("Echo", Full::from(""));
    *asked.method_mut() = Method::OPTIONS;
    for (name, value) in [
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type, X-Amz-Target"),
    ] {
        asked.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    asked.headers_mut().remove("x-amz-target");
    let (parts, body) = asked.into_parts();
    assert!(is_for_json(&parts));
    let reply = front().answer(Request::from_parts(parts, body)).await;
    assert_eq!(reply.status(), 200);
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type, X-Amz-Target"),
        ("access-control-max-age", "172800"),
    ] {
        assert_eq!(reply.headers()[name], value, "{name}");
    }
    let mut call = request("Nope", Full::from("{}"));
    call.headers_mut().insert("origin", HeaderValue::from_static("null"));
    let reply = front().answer(call).await;
    assert_eq!(reply.status(), 400);
    assert_eq!(reply.headers()["access-control-allow-origin"], "*");
    assert!(reply.headers()["access-control-expose-headers"].as_bytes().starts_with(b"x-amzn-R"));
    let plain = front().answer(request("Echo", Full::from("{}"))).await;
    assert!(!plain.headers().contains_key("access-control-allow-origin"));
}

/// A body in pieces that never ends, or ends after some.
struct Pieces(usize);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0 {
            usize::MAX => Poll::Pending,
            0 => Poll::Ready(None),
            n => {
                self.0 = n - 1;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("{n} "))))))
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_in_pieces_is_joined_and_a_slow_one_ends() {
    let reply = front().answer(request("Echo", Pieces(3))).await;
    assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), "3 2 1 ");
    assert_eq!(front().answer(request("Echo", Pieces(usize::MAX))).await.status(), 408);
}

#[test]
fn members_of_another_type_are_refused_in_the_words_of_aws() {
    use crate::shape::{Blob, Flag, Integer, List, Map, Structure, Text, parse};

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inner {
        #[allow(dead_code)]
        n: Option<Integer>,
    }

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    #[allow(dead_code)]
    struct Entries<'a> {
        #[serde(borrow)]
        list: Option<List<Option<Text<'a>>>>,
    }

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    #[allow(dead_code)]
    struct Asked<'a> {
        #[serde(borrow)]
        text: Option<Text<'a>>,
        #[serde(borrow)]
        blob: Option<Blob<'a>>,
        number: Option<Integer>,
        flag: Option<Flag>,
        #[serde(borrow)]
        list: Option<List<Text<'a>>>,
        #[serde(borrow)]
        map: Option<Map<'a, Text<'a>>>,
        inner: Option<Structure<Inner>>,
    }

    let no = |text: &str| parse::<Asked<'_>>(text.as_bytes()).err().unwrap().message;
    let list = "Start of list found where not expected";
    let map = "Start of structure or map found where not expected.";
    for (text, want) in [
        (r#"{"Text":true}"#, "class java.lang.Boolean can not be converted to an String"),
        (r#"{"Text":1.5}"#, "class java.math.BigDecimal can not be converted to an String"),
        (r#"{"Text":[]}"#, list),
        (r#"{"Text":{}}"#, map),
        (r#"{"Blob":1}"#, "class java.math.BigDecimal can not be converted to a Blob"),
        (r#"{"Number":"1"}"#, "class java.lang.String can not be converted to an Integer"),
        (r#"{"Flag":"yes"}"#, "'YES' can not be converted to an Boolean"),
        (r#"{"List":"a"}"#, "Expected list or null"),
        (r#"{"List":{}}"#, map),
        (r#"{"List":[1]}"#, "class java.math.BigDecimal can not be converted to an String"),
        (r#"{"Map":1}"#, "Expected map or null"),
        (r#"{"Map":[]}"#, list),
        (r#"{"Inner":1}"#, "Expected null"),
        (r#"{"Inner":{"N":false}}"#, "class java.lang.Boolean can not be converted to an Integer"),
    ] {
        assert_eq!(no(text), want, "{text}");
    }
    let asked: Asked<'_> =
        parse(br#"{"Text":"a\/b","Blob":"YQ==","Number":3.9,"Flag":null,"Other":[{}]}"#).unwrap();
    assert_eq!(asked.text.unwrap().0, "a/b");
    assert_eq!(asked.number, Some(Integer(3)));
    assert!(asked.flag.is_none());

    // What the parser says in words of its own is not told.
    for text in
        [r#"{"Text":"a","Text":"b"}"#, "null", r#"{"List":[null]}"#, r#"{"Map":{"a":null}}"#]
    {
        assert_eq!(no(text), "", "{text}");
    }
    let cut = |text: &str| parse::<Asked<'_>>(text.as_bytes()).unwrap().number.unwrap().0;
    assert_eq!(cut(r#"{"Number":-0.5}"#), 0);
    assert_eq!(cut(r#"{"Number":-2.5}"#), -2);

    let many = format!("{{\"List\":[{}null]}}", "null,".repeat(10_000));
    let no_list = parse::<Entries<'_>>(many.as_bytes()).err().unwrap().message;
    assert_eq!(no_list, "Lists and maps of more than 10000 entries are not read");

    let mut room = b"x".to_vec();
    assert_eq!(asked.blob.unwrap().decoded(&mut room), Ok(&b"a"[..]));
    let base64 = |text: &'static str| Blob::Base64(text.as_bytes().into());
    let blob = |text| base64(text).decoded(&mut vec![]).unwrap_err().message;
    assert_eq!(
        blob("abc"),
        "'abc' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 \
         bytes but found: 3"
    );
    assert_eq!(
        blob("a*=="),
        "'a*==' can not be converted to a Blob: Invalid Base64 character: '*'"
    );
    assert_eq!(
        blob("YR=="),
        "'YR==' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"
    );
    assert_eq!(base64("YWI=").decoded_len(), 2);
}

proptest::proptest! {
    #[test]
    fn both_decoders_of_base64_agree(
        text in "[A-Da-d018+/]{0,90}={0,3}|[A-Za-z0-9+/]{0,90}[AQg=*\n]{0,2}=?",
    ) {
        use base64::Engine as _;
        let blob = crate::shape::Blob::Base64(text.as_bytes().into());
        let mut out = b"before".to_vec();
        let appended = blob.append_to(&mut out);
        let want = base64::engine::general_purpose::STANDARD.decode(&text);
        proptest::prop_assert_eq!(appended.is_ok(), want.is_ok());
        let decoded = want.unwrap_or_default();
        proptest::prop_assert_eq!(&out, &[b"before", &decoded[..]].concat());
        if appended.is_ok() {
            proptest::prop_assert_eq!(blob.decoded_len(), decoded.len());
        }
    }
}
