//! The `object_store` crate's S3 client over loopback, and multipart uploads by hand.

use super::*;
use futures::TryStreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut, S3CopyIfNotExists};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

/// Serves the bucket on an ephemeral port until the test ends.
async fn serve(bucket: Arc<Bucket>) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let bucket = Arc::clone(&bucket);
            let service = hyper::service::service_fn(move |request| {
                let bucket = Arc::clone(&bucket);
                async move {
                    Ok::<_, std::convert::Infallible>(bucket.handle(&principal(), request).await)
                }
            });
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    address
}

fn client(address: std::net::SocketAddr, unsigned: bool) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(format!("http://{address}"))
        .with_allow_http(true)
        .with_bucket_name("lake")
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_unsigned_payload(unsigned)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
        .with_checksum_algorithm(object_store::aws::Checksum::SHA256)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_get_list_copy_delete() {
    let h = Harness::with_bucket("lake").await;
    let address = serve(Arc::clone(&h.bucket)).await;
    for unsigned in [false, true] {
        let s3 = client(address, unsigned);
        let path = Path::from("dir/a b+c.json");
        s3.put(&path, PutPayload::from_static(b"0123456789")).await.unwrap();
        let got = s3.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(got, "0123456789");
        assert_eq!(s3.get_range(&path, 3..6).await.unwrap(), "345");
        assert_eq!(s3.head(&path).await.unwrap().size, 10);
        let twice = s3.put_opts(&path, PutPayload::from_static(b"x"), PutMode::Create.into()).await;
        assert!(matches!(twice, Err(object_store::Error::AlreadyExists { .. })), "{twice:?}");
        let copy = Path::from("copy");
        s3.copy(&path, &copy).await.unwrap();
        assert_eq!(s3.get(&copy).await.unwrap().bytes().await.unwrap(), "0123456789");
        let listed: Vec<_> = s3.list(None).try_collect().await.unwrap();
        assert_eq!(
            listed.iter().map(|m| m.location.as_ref()).collect::<Vec<_>>(),
            ["copy", "dir/a b+c.json"]
        );
        let rolled = s3.list_with_delimiter(None).await.unwrap();
        assert_eq!(rolled.common_prefixes, [Path::from("dir")]);
        s3.delete(&path).await.unwrap();
        s3.delete(&copy).await.unwrap();
        assert!(s3.list(None).try_collect::<Vec<_>>().await.unwrap().is_empty());
    }
    h.files_settle_at(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multipart_by_the_client() {
    let h = Harness::with_bucket("lake").await;
    let s3 = client(serve(Arc::clone(&h.bucket)).await, false);
    let path = Path::from("big");
    let mut upload = s3.put_multipart(&path).await.unwrap();
    let mut whole = Vec::new();
    for (n, size) in [(1u8, 5 << 20), (2, (5 << 20) + 77), (3, 1_000)] {
        let part: Vec<u8> = (0..size).map(|i: usize| (i % 251) as u8 ^ n).collect();
        whole.extend_from_slice(&part);
        upload.put_part(part.into()).await.unwrap();
    }
    upload.complete().await.unwrap();
    let got = s3.get(&path).await.unwrap();
    let etag = got.meta.e_tag.clone().unwrap();
    assert!(etag.ends_with("-3\""), "{etag}");
    assert!(got.bytes().await.unwrap() == whole);
    let edge = (5 << 20) as u64;
    assert_eq!(
        s3.get_range(&path, edge - 3..edge + 3).await.unwrap(),
        whole[edge as usize - 3..edge as usize + 3]
    );
    h.files_settle_at(3).await;
    let mut abandoned = s3.put_multipart(&Path::from("other")).await.unwrap();
    abandoned.put_part(PutPayload::from_static(b"x")).await.unwrap();
    abandoned.abort().await.unwrap();
    h.files_settle_at(3).await;
    assert_eq!(h.notifications().await.len(), 1);
    assert_eq!(h.bucket.sweep().await.unwrap().files_removed, 0);
    s3.put(&path, PutPayload::from_static(b"x")).await.unwrap();
    h.files_settle_at(1).await;
}

fn complete(parts: &[(u32, &str)]) -> Vec<u8> {
    let parts: String = parts
        .iter()
        .map(|(n, etag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").into_bytes()
}

#[tokio::test]
async fn completing_checks_the_list_and_may_be_repeated() {
    let h = Harness::with_bucket("lake").await;
    let headers = [
        ("content-type", "text/csv"),
        ("x-amz-meta-a", "b"),
        ("x-amz-checksum-algorithm", "CRC32"),
    ];
    let made = h.call(Method::POST, "/lake/x?uploads", &headers, b"").await;
    assert_eq!(made.header("x-amz-checksum-algorithm"), "CRC32");
    let id = made.element("UploadId");
    let large = "a".repeat(5 << 20);
    let put = |n: u32, body: String| {
        let (h, id) = (&h, &id);
        async move {
            let put = h.put(&format!("/lake/x?partNumber={n}&uploadId={id}"), &body).await;
            assert_eq!(put.status, 200, "{}", put.text());
            put.header("etag").to_owned()
        }
    };
    let (one, two, small) =
        (put(1, large.clone()).await, put(2, large.clone()).await, put(3, "z".into()).await);
    let replaced = put(2, large.replace('a', "b")).await;
    h.files_settle_at(3).await;
    let end = |body: Vec<u8>| {
        let (h, id) = (&h, &id);
        async move { h.call(Method::POST, &format!("/lake/x?uploadId={id}"), &[], &body).await }
    };
    for (list, code) in [
        (vec![(1, one.as_str()), (2, &two)], "InvalidPart"),
        (vec![(1, &one), (4, &one)], "InvalidPart"),
        (vec![(2, &replaced), (1, &one)], "InvalidPartOrder"),
        (vec![(3, &small), (4, &one)], "EntityTooSmall"),
        (vec![], "MalformedXML"),
        (vec![(0, &one)], "InvalidArgument"),
    ] {
        // The fourth part does not exist, yet the third is too small before that is seen.
        let answer = end(complete(&list)).await;
        assert_eq!(answer.element("Code"), code, "{list:?}");
    }
    assert_eq!(h.get("/lake/x").await.status, 404);
    let list = complete(&[(1, &one), (2, &replaced), (3, &small)]);
    let done = end(list.clone()).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(end(list).await.element("ETag"), done.element("ETag"), "said again, same answer");
    let got = h.get("/lake/x").await;
    assert_eq!(got.header("content-type"), "text/csv");
    assert_eq!(got.header("x-amz-meta-a"), "b");
    assert_eq!(got.text().len(), (10 << 20) + 1);
    let part = h.get("/lake/x?partNumber=3").await;
    assert_eq!(
        (part.status, part.text().as_str(), part.header("x-amz-mp-parts-count")),
        (206, "z", "3")
    );
    assert_eq!(h.delete(&format!("/lake/x?uploadId={id}")).await.element("Code"), "NoSuchUpload");
    assert_eq!(h.notifications().await.len(), 1);
    h.files_settle_at(3).await;

    let copied = h.call(Method::PUT, "/lake/y", &[("x-amz-copy-source", "/lake/x")], b"").await;
    assert_eq!(copied.status, 200, "{}", copied.text());
    assert_eq!(h.get("/lake/y").await.header("content-type"), "text/csv");
    h.delete("/lake/x").await;
    assert_eq!(h.get("/lake/y").await.text().len(), (10 << 20) + 1);
    h.files_settle_at(1).await;
    let itself = h.call(Method::PUT, "/lake/y", &[("x-amz-copy-source", "lake/y")], b"").await;
    assert_eq!(itself.element("Code"), "InvalidRequest");
    let headers = [
        ("x-amz-copy-source", "lake/y"),
        ("x-amz-metadata-directive", "REPLACE"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(h.call(Method::PUT, "/lake/y", &headers, b"").await.status, 200);
    assert_eq!(
        h.call(Method::HEAD, "/lake/y", &[], b"").await.header("content-type"),
        "text/plain"
    );
}

#[tokio::test]
async fn many_are_deleted_at_once() {
    let h = Harness::with_bucket("lake").await;
    for n in 0..3 {
        h.put(&format!("/lake/{n}"), "x").await;
    }
    let body = b"<Delete><Object><Key>0</Key></Object><Object><Key>1</Key></Object>\
                 <Object><Key>none</Key></Object></Delete>";
    let answer = h.call(Method::POST, "/lake?delete", &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.text().matches("<Deleted>").count(), 3);
    let wrong = [("x-amz-checksum-crc32", "AAAAAA==")];
    let refused = h
        .call(
            Method::POST,
            "/lake?delete",
            &wrong,
            b"<Delete><Object><Key>2</Key></Object></Delete>",
        )
        .await;
    assert_eq!(refused.element("Code"), "BadDigest");
    assert_eq!(h.get("/lake/2").await.status, 200);
    h.files_settle_at(1).await;
}
