//! Operations one by one, as raw requests.

use super::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Headers, body, and the code of the error.
type Case<'a> = (Vec<(&'a str, &'a str)>, &'a [u8], &'a str);

#[tokio::test]
async fn a_bucket_lives_and_dies_as_on_aws() {
    let h = Harness::new();
    assert_eq!(h.call(Method::HEAD, "/lake", &[], b"").await.status, 404);
    assert_eq!(h.get("/lake").await.element("Code"), "NoSuchBucket");
    assert_eq!(h.put("/lake/x", "y").await.element("Code"), "NoSuchBucket");
    assert!(!h.bucket.exists("lake").await.unwrap());

    let made = h.put("/lake", "").await;
    assert_eq!((made.status, made.header("location")), (200, "/lake"));
    assert!(h.bucket.exists("lake").await.unwrap());
    assert_eq!(h.put("/lake", "").await.status, 200, "us-east-1 lets its owner create it again");
    let head = h.call(Method::HEAD, "/lake", &[], b"").await;
    assert_eq!((head.status, head.header("x-amz-bucket-region")), (200, "us-east-1"));
    assert!(h.get("/lake?location").await.text().contains("LocationConstraint"));

    let constraint = "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                      <LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    assert_eq!(h.put("/there", constraint).await.status, 200);
    let again = h.put("/there", constraint).await;
    assert_eq!((again.status, again.element("Code").as_str()), (409, "BucketAlreadyOwnedByYou"));
    assert!(h.get("/there?location").await.text().contains("eu-west-1"));

    let list = h.get("/").await.text();
    assert!(list.contains("<Name>lake</Name>") && list.contains("<Name>there</Name>"), "{list}");

    h.put("/lake/x", "y").await;
    let full = h.delete("/lake").await;
    assert_eq!((full.status, full.element("Code").as_str()), (409, "BucketNotEmpty"));
    assert_eq!(h.delete("/lake/x").await.status, 204);
    assert_eq!(h.delete("/lake/x").await.status, 204, "no object is no error");
    assert_eq!(h.delete("/lake").await.status, 204);
    assert_eq!(h.delete("/lake").await.element("Code"), "NoSuchBucket");
    assert_eq!(h.put("/Up", "").await.element("Code"), "InvalidBucketName");
}

#[tokio::test]
async fn an_object_comes_back_with_all_that_was_said_of_it() {
    let h = Harness::with_bucket("lake").await;
    let headers = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("cache-control", "no-store"),
        ("x-amz-meta-origin", "usgs"),
    ];
    let put = h.call(Method::PUT, "/lake/a/b.json", &headers, b"hello").await;
    assert_eq!((put.status, put.header("etag")), (200, "\"5d41402abc4b2a76b9719d911017c592\""));
    assert_eq!(put.header("x-amz-request-id").len(), 16);
    for method in [Method::GET, Method::HEAD] {
        let got = h.call(method.clone(), "/lake/a/b.json", &[], b"").await;
        assert_eq!(got.status, 200);
        assert_eq!(got.header("content-length"), "5");
        for (name, value) in headers {
            assert_eq!(got.header(name), value, "{method} {name}");
        }
        assert_eq!(got.header("accept-ranges"), "bytes");
        assert!(got.header("last-modified").ends_with("GMT"));
        if method == Method::GET {
            assert_eq!(got.text(), "hello");
        }
    }
    h.put("/lake/plain", "").await;
    let plain = h.get("/lake/plain").await;
    assert_eq!(
        (plain.header("content-type"), plain.header("content-length")),
        ("binary/octet-stream", "0")
    );
    assert_eq!(plain.text(), "");
    let missing = h.get("/lake/none").await;
    assert_eq!((missing.status, missing.element("Code").as_str()), (404, "NoSuchKey"));
    assert_eq!(missing.element("RequestId"), missing.header("x-amz-request-id"));
    let note = h.notifications().await.into_values().next().unwrap();
    assert_eq!((note.bucket.as_str(), note.key.as_str(), note.size_bytes), ("lake", "a/b.json", 5));
}

#[tokio::test]
async fn ranges_and_conditions() {
    let h = Harness::with_bucket("lake").await;
    let etag = h.put("/lake/x", "0123456789").await.header("etag").to_owned();
    for (range, status, body, shown) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=5-99", 206, "56789", "bytes 5-9/10"),
    ] {
        let got = h.call(Method::GET, "/lake/x", &[("range", range)], b"").await;
        assert_eq!((got.status, got.text().as_str()), (status, body), "{range}");
        assert_eq!(got.header("content-range"), shown);
        let head = h.call(Method::HEAD, "/lake/x", &[("range", range)], b"").await;
        assert_eq!((head.status, head.header("content-range")), (206, shown));
    }
    let beyond = h.call(Method::GET, "/lake/x", &[("range", "bytes=10-")], b"").await;
    assert_eq!((beyond.status, beyond.element("Code").as_str()), (416, "InvalidRange"));

    let date = h.get("/lake/x").await.header("last-modified").to_owned();
    let other = "\"00000000000000000000000000000000\"";
    for (name, value, status) in [
        ("if-match", etag.as_str(), 200),
        ("if-match", other, 412),
        ("if-match", "*", 200),
        ("if-none-match", &etag, 304),
        ("if-none-match", other, 200),
        ("if-modified-since", &date, 304),
        ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ("if-unmodified-since", &date, 200),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 412),
    ] {
        let got = h.call(Method::GET, "/lake/x", &[(name, value)], b"").await;
        assert_eq!(got.status, status, "{name}: {value}");
        if status == 304 {
            assert_eq!(got.header("etag"), etag);
        }
    }
    for (path, name, value, status, code) in [
        ("/lake/x", "if-none-match", "*", 412, "PreconditionFailed"),
        ("/lake/x", "if-match", other, 412, "PreconditionFailed"),
        ("/lake/none", "if-match", "*", 404, "NoSuchKey"),
    ] {
        let put = h.call(Method::PUT, path, &[(name, value)], b"new").await;
        assert_eq!((put.status, put.element("Code").as_str()), (status, code));
    }
    assert_eq!(h.call(Method::PUT, "/lake/x", &[("if-match", &etag)], b"new").await.status, 200);
    assert_eq!(h.call(Method::PUT, "/lake/y", &[("if-none-match", "*")], b"new").await.status, 200);
    assert_eq!(h.call(Method::DELETE, "/lake/x", &[("if-match", &etag)], b"").await.status, 412);
    h.files_settle_at(2).await;
}

#[tokio::test]
async fn a_body_that_is_not_as_declared_leaves_nothing() {
    let h = Harness::with_bucket("lake").await;
    let (zeros, big) = ("0".repeat(64), "x".repeat(2_048));
    let wrong_md5 = BASE64_STANDARD.encode([0; 16]);
    let unsigned = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let framed = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n".as_slice();
    let cut = b"5\r\nhello\r\n".as_slice();
    let cases: Vec<Case<'_>> = vec![
        (vec![("content-md5", &wrong_md5)], b"hello", "BadDigest"),
        (vec![("content-md5", "nonsense")], b"hello", "InvalidDigest"),
        (vec![("x-amz-checksum-crc32", "AAAAAA==")], b"hello", "BadDigest"),
        (vec![("x-amz-checksum-crc32", "AAAA")], b"hello", "InvalidRequest"),
        (vec![("x-amz-checksum-sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")], b"hello", "BadDigest"),
        (
            vec![("x-amz-checksum-crc32", "NhCmhg=="), ("x-amz-checksum-crc32c", "mnG7TA==")],
            b"hello",
            "InvalidRequest",
        ),
        (vec![("x-amz-content-sha256", &zeros)], b"hello", "XAmzContentSHA256Mismatch"),
        (vec![("x-amz-content-sha256", "nonsense")], b"hello", "InvalidArgument"),
        (vec![("content-length", "9")], b"hello", "IncompleteBody"),
        (vec![("content-length", "3")], b"hello", "IncompleteBody"),
        (vec![("content-length", "")], b"hello", "MissingContentLength"),
        (vec![("content-length", "5368709121")], b"hello", "EntityTooLarge"),
        (
            vec![
                ("x-amz-content-sha256", unsigned),
                ("x-amz-decoded-content-length", "5"),
                ("x-amz-trailer", "x-amz-checksum-crc32"),
            ],
            framed,
            "BadDigest",
        ),
        (
            vec![
                ("x-amz-content-sha256", unsigned),
                ("x-amz-decoded-content-length", "5"),
                ("x-amz-trailer", "x-amz-checksum-crc32c"),
            ],
            framed,
            "MalformedTrailerError",
        ),
        (
            vec![
                ("x-amz-content-sha256", unsigned),
                ("x-amz-decoded-content-length", "4"),
                ("x-amz-trailer", "x-amz-checksum-crc32"),
            ],
            framed,
            "IncompleteBody",
        ),
        (
            vec![
                ("x-amz-content-sha256", unsigned),
                ("x-amz-decoded-content-length", "5"),
                ("x-amz-trailer", "x-amz-checksum-crc32"),
            ],
            cut,
            "IncompleteBody",
        ),
        (
            vec![("x-amz-content-sha256", unsigned), ("x-amz-trailer", "x-amz-checksum-crc32")],
            framed,
            "MissingContentLength",
        ),
        (vec![("x-amz-acl", "public-read")], b"hello", "AccessControlListNotSupported"),
        (vec![("x-amz-server-side-encryption", "aws:kms")], b"hello", "NotImplemented"),
        (vec![("x-amz-storage-class", "GLACIER")], b"hello", "InvalidStorageClass"),
        (vec![("x-amz-tagging", "a=b")], b"hello", "NotImplemented"),
        (vec![("x-amz-expected-bucket-owner", "111111111111")], b"hello", "AccessDenied"),
        (vec![("x-amz-meta-big", &big)], b"hello", "MetadataTooLarge"),
    ];
    for (headers, body, code) in cases {
        let put = h.call(Method::PUT, "/lake/x", &headers, body).await;
        assert_eq!(put.element("Code"), code, "{headers:?}");
        assert_eq!(h.get("/lake/x").await.status, 404, "{headers:?}");
    }
    h.files_settle_at(0).await;
    assert!(h.notifications().await.is_empty());
}

#[tokio::test]
async fn checksums_in_headers_and_trailers_are_checked_kept_and_returned() {
    let h = Harness::with_bucket("lake").await;
    for (name, value) in [
        ("x-amz-checksum-crc32", "NhCmhg=="),
        ("x-amz-checksum-crc32c", "mnG7TA=="),
        ("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
        ("x-amz-checksum-sha256", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="),
    ] {
        let put = h.call(Method::PUT, "/lake/x", &[(name, value)], b"hello").await;
        assert_eq!((put.status, put.header(name)), (200, value));
        let framed = format!("2\r\nhe\r\n3\r\nllo\r\n0\r\n{name}:{value}\r\n\r\n");
        let headers = [
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "5"),
            ("x-amz-trailer", name),
            ("content-encoding", "aws-chunked"),
        ];
        let put = h.call(Method::PUT, "/lake/y", &headers, framed.as_bytes()).await;
        assert_eq!((put.status, put.header(name)), (200, value), "{}", put.text());
        let got = h.call(Method::GET, "/lake/y", &[("x-amz-checksum-mode", "ENABLED")], b"").await;
        assert_eq!((got.text().as_str(), got.header(name)), ("hello", value));
        assert_eq!(got.header("x-amz-checksum-type"), "FULL_OBJECT");
        assert_eq!(got.header("content-encoding"), "");
        assert_eq!(h.get("/lake/y").await.header(name), "");
    }
}

#[tokio::test]
async fn signed_chunks_are_verified_where_the_secret_is_known() {
    let mut h = Harness::with_bucket("lake").await;
    let signature = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let auth = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20130524/us-east-1/s3/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={signature}"
    );
    let mut body = Vec::new();
    for (size, signature) in [
        (65_536usize, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (1_024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ] {
        body.extend(format!("{size:x};chunk-signature={signature}\r\n").bytes());
        body.extend(std::iter::repeat_n(b'a', size));
        body.extend(b"\r\n");
    }
    let headers = [
        ("authorization", auth.as_str()),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", "66560"),
        ("content-encoding", "aws-chunked,gzip"),
    ];
    let put = h.call(Method::PUT, "/lake/any", &headers, &body).await;
    assert_eq!(put.status, 200, "without secrets only the framing counts: {}", put.text());
    assert_eq!(h.get("/lake/any").await.header("content-encoding"), "gzip");

    let mut options = BucketOptions::new(h.dir.path(), "000000000000".parse().unwrap());
    options.secrets = Some(Arc::new(|id| {
        (id == "AKIDEXAMPLE").then(|| "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned())
    }));
    let random = Arc::new(Random::from_seed(9));
    let clock = Arc::clone(&h.clock);
    h.bucket =
        Bucket::open(options, Arc::clone(&h.control), clock, random, Doorbell::new()).unwrap();
    let put = h.call(Method::PUT, "/lake/good", &headers, &body).await;
    assert_eq!(put.status, 200, "{}", put.text());
    body[100] = b'b';
    let bad = h.call(Method::PUT, "/lake/bad", &headers, &body).await;
    assert_eq!((bad.status, bad.element("Code").as_str()), (403, "SignatureDoesNotMatch"));
    assert_eq!(h.get("/lake/bad").await.status, 404);
    let unsigned = h.call(Method::PUT, "/lake/bad", &headers[1..], &body).await;
    assert_eq!(unsigned.element("Code"), "AccessDenied");
}

#[tokio::test]
async fn both_addressing_styles_and_presigned_urls() {
    let h = Harness::with_bucket("lake").await;
    let request = |method: Method, host: &str, path: &str, body: &str| {
        let request = Request::builder().method(method).uri(path).header("host", host);
        let request = request.header("content-length", body.len());
        request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
    };
    h.send(request(Method::PUT, "lake.localhost:4566", "/a%20b", "by host")).await;
    assert_eq!(h.get("/lake/a%20b").await.text(), "by host");
    let got = h.send(request(Method::GET, "localhost:4566", "/lake/a%20b", "")).await;
    assert_eq!(got.text(), "by host");
    assert!(h.bucket.owns_host("lake.localhost:4566") && !h.bucket.owns_host("localhost:4566"));

    let signed = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=test%2F20251123%2Fus-east-1%2Fs3\
                  %2Faws4_request&X-Amz-Date=20251123T000000Z&X-Amz-Expires=60\
                  &X-Amz-SignedHeaders=host&X-Amz-Signature=00";
    let got = h.get(&format!("/lake/a%20b?response-content-type=text%2Fcsv&{signed}")).await;
    assert_eq!((got.text().as_str(), got.header("content-type")), ("by host", "text/csv"));
    let put = h.put(&format!("/lake/meta?{signed}&x-amz-meta-from=a%2Bb"), "x").await;
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(h.get("/lake/meta").await.header("x-amz-meta-from"), "a+b");
    h.put("/lake/meta?Signature=y&AWSAccessKeyId=x&Expires=1&x-amz-copy-source=lake/a%20b", "x")
        .await;
    assert_eq!(h.get("/lake/meta").await.text(), "x", "version 2 does not sign this parameter");
    let v2 = h.get("/lake/meta?AWSAccessKeyId=x&Signature=y&Expires=1").await;
    assert_eq!((v2.status, v2.text().as_str()), (200, "x"));
}

#[tokio::test]
async fn keys_of_every_kind_stay_in_the_directory() {
    let h = Harness::with_bucket("lake").await;
    let long = "k".repeat(1_024);
    let keys = [
        "../../../../etc/passwd",
        "..",
        ".",
        "a/../b",
        "//",
        "/",
        "a//b",
        "a/",
        "%00",
        "a%00b",
        "%2e%2e%2f%2e%2e%2fx",
        "\u{1F30D}/\u{FFFD}",
        "C:\\x",
        "~",
        "a%0Ab",
        "con",
        " ",
        "+",
        &long,
    ];
    let encode = |key: &str| {
        key.bytes()
            .map(|b| match b {
                b'%' | b'/' | b'.' => (b as char).to_string(),
                b if b.is_ascii_alphanumeric() => (b as char).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect::<String>()
    };
    for (n, key) in keys.iter().enumerate() {
        let path = format!("/lake/{}", encode(key));
        let put = h.put(&path, &n.to_string()).await;
        assert_eq!(put.status, 200, "{key:?}: {}", put.text());
    }
    for (n, key) in keys.iter().enumerate() {
        let got = h.get(&format!("/lake/{}", encode(key))).await;
        assert_eq!((got.status, got.text()), (200, n.to_string()), "{key:?}");
    }
    assert_eq!(h.files().len(), keys.len());
    let above: Vec<_> = std::fs::read_dir(h.dir.path()).unwrap().collect();
    assert_eq!(above.len(), 1, "only the data directory");
    let too_long = h.put(&format!("/lake/{long}x"), "").await;
    assert_eq!((too_long.status, too_long.element("Code").as_str()), (400, "KeyTooLongError"));
    assert_eq!(h.get("/lake/%ff").await.element("Code"), "InvalidURI");
    let listed = h.get("/lake?list-type=2&encoding-type=url").await;
    assert_eq!(listed.element("KeyCount"), keys.len().to_string());
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_name() {
    let h = Harness::with_bucket("lake").await;
    assert!(h.get("/lake?notification").await.text().contains("NotificationConfiguration"));
    let put = h
        .put("/lake?notification", "<NotificationConfiguration></NotificationConfiguration>")
        .await;
    assert_eq!((put.status, put.element("Code").as_str()), (501, "NotImplemented"));
    assert!(put.element("Message").contains("AUTO_INGEST"));
    for path in ["/lake?acl", "/lake?policy", "/lake?lifecycle", "/lake/x?acl"] {
        assert_eq!(h.get(path).await.element("Code"), "NotImplemented", "{path}");
    }
    let form = [("content-type", "multipart/form-data; boundary=x")];
    let posted = h.call(Method::POST, "/lake", &form, b"--x--").await;
    assert_eq!(posted.element("Code"), "NotImplemented");
    let refused = h.bucket.refuse(&ApiError::new("InvalidAccessKeyId", "no such key"));
    assert_eq!(refused.status(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_too_slowly_is_given_up() {
    let harness = Harness::with_bucket("lake").await;
    let send = async |every: Duration, piece: usize, pieces: usize| {
        let stream = futures::stream::unfold(0, move |n| async move {
            tokio::time::sleep(every).await;
            let frame = http_body::Frame::data(Bytes::from(vec![0; piece]));
            (n < pieces).then_some((Ok::<_, std::io::Error>(frame), n + 1))
        });
        let request = Request::put("/lake/slow").header("host", "127.0.0.1:1");
        let request = request.header("content-length", piece * pieces);
        let body = http_body_util::StreamBody::new(stream);
        let begun = tokio::time::Instant::now();
        let reply = harness.bucket.handle(&principal(), request.body(body).unwrap()).await;
        let (parts, body) = reply.into_parts();
        let body = body.collect().await.map(|b| b.to_bytes()).map_err(|e| e.to_string());
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
        (answer, begun.elapsed())
    };
    let (slow, took) = send(Duration::from_secs(1), 1, 10_000).await;
    assert_eq!((slow.status, slow.element("Code").as_str()), (400, "RequestTimeout"));
    assert!(took <= crate::body::PACE + Duration::from_secs(1), "{took:?}");
    assert_eq!(harness.get("/lake/slow").await.status, 404);
    harness.files_settle_at(0).await;

    let (steady, _) = send(Duration::from_secs(20), 32 << 10, 40).await;
    assert_eq!(steady.status, 200, "a slow line is not too slow: {}", steady.text());
}

#[tokio::test(start_paused = true)]
async fn the_bodies_received_at_a_time_are_bounded() {
    let harness = Harness::with_bucket("lake").await;
    let silent = || {
        let stream = futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
        let request = Request::put("/lake/never").header("host", "127.0.0.1:1");
        let request = request.header("content-length", 9);
        let bucket = Arc::clone(&harness.bucket);
        let request = request.body(http_body_util::StreamBody::new(stream)).unwrap();
        tokio::spawn(async move { bucket.handle(&principal(), request).await.status() })
    };
    let held: Vec<_> = (0..RECEIVING_MAX).map(|_| silent()).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = harness.put("/lake/a", "x").await;
    assert_eq!((refused.status, refused.element("Code").as_str()), (503, "SlowDown"));
    assert_eq!(harness.get("/lake").await.status, 200, "reads go on");
    for held in held {
        assert_eq!(held.await.unwrap(), 400);
    }
    assert_eq!(harness.put("/lake/a", "x").await.status, 200, "the places are free again");
}

#[tokio::test]
async fn a_range_that_cannot_be_read_is_no_range() {
    let harness = Harness::with_bucket("lake").await;
    harness.put("/lake/a", "hello").await;
    for range in ["bytes=0-1,3-4", "bytes=x", "bytes=3-1", "lines=0-1", "bytes=-"] {
        for method in [Method::GET, Method::HEAD] {
            let got = harness.call(method, "/lake/a", &[("range", range)], b"").await;
            assert_eq!((got.status, got.header("content-length")), (200, "5"), "{range}");
        }
    }
}

#[tokio::test]
async fn an_object_has_no_tags_and_a_bucket_no_versions() {
    let harness = Harness::with_bucket("lake").await;
    harness.put("/lake/a", "hello").await;
    let tags = harness.get("/lake/a?tagging").await;
    assert_eq!(tags.status, 200, "{}", tags.text());
    assert!(tags.text().contains("<TagSet></TagSet>"), "{}", tags.text());
    assert_eq!(harness.get("/lake/b?tagging").await.element("Code"), "NoSuchKey");
    let versions = harness.get("/lake?versioning").await;
    assert!(versions.status == 200 && !versions.text().contains("Status"), "{}", versions.text());
}
