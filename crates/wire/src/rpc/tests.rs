//! Forms and XML, and requests through the front.

use async_trait::async_trait;
use http_body_util::BodyExt;
use hydrant_core::{Clock, Timestamp};
use serde::{Deserialize, Serialize};

use super::*;
use crate::sigv4::Credentials;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_009_600_000)
    }
}

/// Answers with what it was asked.
struct Echo;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[async_trait]
impl JsonService for Echo {
    fn target(&self) -> &'static str {
        "Echo"
    }

    fn speaks(&self, _: Format) -> bool {
        true
    }

    async fn call(&self, call: Call) -> Result<Reply, ApiError> {
        match call.operation.as_str() {
            "Say" => {
                let asked: Asked = call.read()?;
                Ok(call.write(&asked)?.into())
            }
            "Nothing" => Ok(Bytes::new().into()),
            _ => Err(ApiError::new("InvalidParameterValueException", "1 < 2")),
        }
    }
}

fn front() -> RpcFront {
    let account = "000000000000".parse().unwrap();
    let verifier = Arc::new(Verifier::new(Credentials::Any, account, Arc::new(Noon)));
    let service = RpcService {
        signed_as: "echo",
        version: "1",
        namespace: "http://echo/",
        service: Arc::new(Echo),
    };
    RpcFront::new(vec![service], verifier, Arc::new(Random::from_seed(7)))
}

fn request(path: &str, body: impl Into<Bytes>) -> http::request::Builder {
    let _: Bytes = body.into();
    let signature = "0".repeat(64);
    Request::post(path).header("x-amz-date", "20251229T120000Z").header(
        "authorization",
        format!(
            "AWS4-HMAC-SHA256 Credential=AKID/20251229/us-east-1/echo/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={signature}"
        ),
    )
}

async fn answered(request: Request<Full<Bytes>>) -> (u16, http::HeaderMap, Bytes) {
    let front = front();
    let (parts, body) = request.into_parts();
    assert!(front.owns(&parts));
    let response = front.answer(Request::from_parts(parts, body)).await;
    let (parts, body) = response.into_parts();
    (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
}

async fn form(body: &'static str) -> (u16, String) {
    let request = request("/", "").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let (status, _, body) = answered(request.body(Full::new(body.into())).unwrap()).await;
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn names_spell_out_a_structure() {
    let read = form::read(
        b"Action=Put&Version=1&A.member.10.N=ten&A.member.2.N=two+words&B=%26&X-Amz-Date=x",
    )
    .unwrap();
    assert_eq!(read.action.as_deref(), Some("Put"));
    assert_eq!(read.json, serde_json::json!({"A": [{"N": "two words"}, {"N": "ten"}], "B": "&"}));
    for bad in ["a=1&a=2", "a=1&a.b=2", "a.b=1&a=2", "a=%ff", &format!("{}=1", "a.".repeat(40))] {
        assert!(form::read(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_form_is_answered_in_xml() {
    let (status, text) = form("Action=Say&Version=1&Text=a%3Cb").await;
    assert_eq!(status, 200);
    assert!(text.starts_with("<SayResponse xmlns=\"http://echo/\">"), "{text}");
    assert!(text.contains("<SayResult><Text>a&lt;b</Text></SayResult>"), "{text}");
    let (_, text) = form("Action=Nothing").await;
    assert!(!text.contains("Result>") && text.contains("<RequestId>"), "{text}");
    let (status, text) = form("Action=Other").await;
    assert_eq!(status, 400);
    assert!(text.contains("<Code>InvalidParameterValue</Code>"), "{text}");
    assert!(text.contains("<Message>1 &lt; 2</Message>"), "{text}");
    let (status, text) = form("Text=1").await;
    assert!(status == 400 && text.contains("MissingAction"), "{text}");
    let (_, text) = form("Action=Say&Version=2").await;
    assert!(text.contains("InvalidAction"), "{text}");
}

#[tokio::test]
async fn a_path_is_answered_in_cbor() {
    let call = |operation: &str, body: &'static [u8]| {
        request(&format!("/service/Echo/operation/{operation}"), "")
            .header("smithy-protocol", RPC_V2_CBOR)
            .body(Full::new(Bytes::from_static(body)))
            .unwrap()
    };
    let (status, headers, body) = answered(call("Say", b"\xa1dTextbhi")).await;
    assert_eq!(
        (status, &headers["smithy-protocol"]),
        (200, &HeaderValue::from_static(RPC_V2_CBOR))
    );
    assert_eq!(&body[..], b"\xa1dTextbhi");
    let (status, headers, _) = answered(call("Other", b"\xa0")).await;
    assert_eq!(status, 400);
    assert_eq!(headers["x-amzn-query-error"], "InvalidParameterValue;Sender");
}

#[tokio::test]
async fn a_body_may_be_packed_and_is_bounded() {
    use std::io::Write;
    let pack = |text: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(text).unwrap();
        Bytes::from(out.finish().unwrap())
    };
    let packed = |body: Bytes| {
        let request = request("/", "").header("content-encoding", "gzip");
        answered(request.body(Full::new(body)).unwrap())
    };
    assert_eq!(packed(pack(b"Action=Say&Text=x")).await.0, 200);
    let bomb = [b"Action=Say&Text=".as_slice(), &vec![b'x'; 2 << 20]].concat();
    assert_eq!(packed(pack(&bomb)).await.0, 413);
    assert_eq!(packed(Bytes::from_static(b"Action=Say")).await.0, 400);
    let large = request("/", "").body(Full::new(Bytes::from(vec![b'x'; 2 << 20]))).unwrap();
    assert_eq!(answered(large).await.0, 413);
}
