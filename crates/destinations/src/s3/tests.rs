//! Names, bytes and the meaning of failures, on an object store in memory.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use futures::TryStreamExt;
use hydrant_core::clock::Timestamp;
use hydrant_core::record::{Frame, RecordBatch};
use hydrant_core::sequence::RecordIndex;
use hydrant_testkit::{Target, destination_conformance};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;

/// 2024-09-04T12:05:09.042Z, a Wednesday, day 248 of the year.
const ARRIVAL: Timestamp = Timestamp::from_millis(1_725_451_509_042);
const SUFFIX: &str = "orders-3-2024-09-04-12-05-09-07070707-0707-4707-8707-070707070707";

fn settings(prefix: &str, compression: Compression) -> S3Settings {
    S3Settings {
        bucket: "lake".into(),
        prefix: prefix.into(),
        error_output_prefix: if prefix.contains("!{") {
            "errors/!{firehose:error-output-type}/".into()
        } else {
            String::new()
        },
        compression,
        file_extension: String::new(),
        time_zone: String::new(),
    }
}

fn batch(records: &[&[u8]]) -> Batch {
    let mut body = RecordBatch::new();
    records.iter().for_each(|data| body.push(b"key", data));
    let (offsets, body) = body.into_parts();
    let frame = Frame::new(RecordIndex::at(ARRIVAL), ARRIVAL, offsets, body).unwrap();
    Batch {
        id: [7; 16],
        delivery_stream: "orders".parse().unwrap(),
        version: 3,
        first_arrival: ARRIVAL,
        frames: vec![frame],
    }
}

fn key(settings: &S3Settings) -> Result<String, String> {
    let destination =
        S3Destination::new(settings, Arc::new(InMemory::new())).map_err(|e| e.to_string())?;
    Ok(destination.key(&batch(&[b"x"])))
}

#[test]
fn prefixes_become_what_aws_documents() {
    for (prefix, want) in [
        ("", "2024/09/04/12/"),
        ("raw/", "raw/2024/09/04/12/"),
        ("raw", "raw2024/09/04/12/"),
        ("dt=!{timestamp:yyyy-MM-dd}/h=!{timestamp:HH}/", "dt=2024-09-04/h=12/"),
        ("!{timestamp:yyyy'-'MM'-'dd}/", "2024-09-04/"),
        ("!{timestamp:yyyy/'week of' MMM d, yy}/", "2024/week of Sep 4, 24/"),
        (
            "!{timestamp:MMMM EEE EEEE D DDD h a m s SSS 'o''clock'}/",
            "September Wed Wednesday 248 248 12 PM 5 9 042 o'clock/",
        ),
        ("!{timestamp:hh.mm.ss.S}-", "12.05.09.0-"),
    ] {
        let got = key(&settings(prefix, Compression::Uncompressed));
        assert_eq!(got.as_deref(), Ok(format!("{want}{SUFFIX}").as_str()), "{prefix}");
    }
}

#[test]
fn extension_and_time_zone_are_the_callers() {
    let gzip = settings("", Compression::Gzip);
    assert_eq!(key(&gzip), Ok(format!("2024/09/04/12/{SUFFIX}.gz")));
    let own = S3Settings { file_extension: ".json.gz".into(), ..gzip.clone() };
    assert_eq!(key(&own), Ok(format!("2024/09/04/12/{SUFFIX}.json.gz")));
    let tokyo = S3Settings { time_zone: "Asia/Tokyo".into(), ..gzip };
    let want = format!("2024/09/04/21/{}.gz", SUFFIX.replace("04-12-05", "04-21-05"));
    assert_eq!(key(&tokyo), Ok(want));
}

#[test]
fn random_strings_are_the_batchs_own() {
    let random =
        settings("!{firehose:random-string}/!{firehose:random-string}/", Compression::Gzip);
    let one = key(&random).unwrap();
    assert_eq!(key(&random).unwrap(), one, "the same batch has the same key");
    let parts: Vec<&str> = one.split('/').collect();
    assert!(parts[0].len() == 11 && parts[1].len() == 11 && parts[0] != parts[1], "{one}");
    assert!(one.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-.".contains(&b)), "{one}");
}

#[test]
fn what_cannot_be_named_is_refused_with_a_reason() {
    let long = "x".repeat(1024);
    for (prefix, reason) in [
        ("!{timestamp:YYYY}/", "YYYY"),
        ("!{timestamp:}/", "without a pattern"),
        ("!{timestamp:yyyy'x}/", "open quote"),
        ("!{timestamp:[yyyy]}/", "reserves"),
        ("!{timestamp:yyyy/", "closing brace"),
        ("!{partitionKeyFromQuery:id}/", "dynamic partitioning"),
        ("!{firehose:nonsense}/", "not a known expression"),
        ("!{nonsense}/", "namespace:value"),
        ("!{firehose:error-output-type}/", "cannot contain"),
        ("/raw/", "start with /"),
        ("a//b/", "empty"),
        ("../b/", ".."),
        ("a\u{1}b/", "illegal"),
        (long.as_str(), "1024"),
    ] {
        let error = key(&settings(prefix, Compression::Gzip)).unwrap_err();
        assert!(error.contains(reason), "{prefix}: {error}");
    }
    let mut needs = settings("!{timestamp:yyyy}/", Compression::Gzip);
    needs.error_output_prefix = String::new();
    assert!(key(&needs).unwrap_err().contains("cannot be null or empty"));
    needs.error_output_prefix = "errors/".into();
    assert!(key(&needs).unwrap_err().contains("must contain"));
    let nowhere =
        S3Settings { time_zone: "Mars/Olympus".into(), ..settings("", Compression::Gzip) };
    assert!(key(&nowhere).unwrap_err().contains("Mars/Olympus"));
}

#[tokio::test]
async fn objects_hold_the_records_and_nothing_else() {
    let store = Arc::new(InMemory::new());
    let plain =
        S3Destination::new(&settings("", Compression::Uncompressed), store.clone()).unwrap();
    let it = batch(&[b"{\"id\":1}", b"", b"{\"id\":2}\n"]);
    let done = plain.deliver(&it).await.unwrap();
    assert_eq!(done.written, [format!("s3://lake/{}", plain.key(&it))]);
    assert_eq!(done.bytes, 17);
    let got = store.get(&Path::parse(plain.key(&it)).unwrap()).await.unwrap();
    let kind = got.attributes.get(&Attribute::ContentType).map(|v| v.to_string());
    assert_eq!(kind.as_deref(), Some("application/octet-stream"));
    assert!(got.attributes.get(&Attribute::ContentEncoding).is_none());
    assert_eq!(&got.bytes().await.unwrap()[..], b"{\"id\":1}{\"id\":2}\n");
}

#[tokio::test]
async fn gzip_is_the_same_bytes_each_time_and_large_objects_go_up_in_parts() {
    let store = Arc::new(InMemory::new());
    let record = vec![b'x'; 1 << 20];
    let records: Vec<&[u8]> = (0..70).map(|_| &record[..]).collect();
    let it = batch(&records);
    let plain =
        S3Destination::new(&settings("", Compression::Uncompressed), store.clone()).unwrap();
    assert_eq!(plain.deliver(&it).await.unwrap().bytes, 70 << 20);
    let got = store.get(&Path::parse(plain.key(&it)).unwrap()).await.unwrap();
    assert_eq!(got.bytes().await.unwrap().len(), 70 << 20);
    let gzip = S3Destination::new(&settings("", Compression::Gzip), store.clone()).unwrap();
    let path = Path::parse(gzip.key(&it)).unwrap();
    gzip.deliver(&it).await.unwrap();
    let first = store.get(&path).await.unwrap().bytes().await.unwrap();
    gzip.deliver(&it).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), first);
    assert_eq!(&first[4..8], &[0; 4], "no time in the header");
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(&first[..]).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked.len() == 70 << 20 && unpacked.iter().all(|b| *b == b'x'));
}

#[test]
fn failures_say_what_to_do() {
    let generic = |text: &str| object_store::Error::Generic { store: "S3", source: text.into() };
    for (error, misconfigured) in [
        (generic("<Code>NoSuchBucket</Code>"), true),
        (generic("connection reset"), false),
        (object_store::Error::NotFound { path: "x".into(), source: "gone".into() }, true),
        (object_store::Error::PermissionDenied { path: "x".into(), source: "no".into() }, true),
    ] {
        let text = error.to_string();
        let verdict = what_to_do("lake", error);
        assert_eq!(matches!(verdict, DeliveryError::Misconfigured(_)), misconfigured, "{text}");
    }
}

#[tokio::test]
async fn conforms() {
    for compression in [Compression::Uncompressed, Compression::Gzip] {
        destination_conformance(async || {
            let store = Arc::new(InMemory::new());
            let settings = settings("", compression);
            let destination = Arc::new(S3Destination::new(&settings, store.clone()).unwrap());
            let contents = move || contents(store.clone(), compression);
            Target { destination, contents: Box::new(move || Box::pin(contents())) }
        })
        .await;
    }
}

async fn contents(store: Arc<InMemory>, compression: Compression) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let list: Vec<_> = store.list(None).try_collect().await.unwrap();
    for object in list {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        let mut unpacked = Vec::new();
        match compression {
            Compression::Uncompressed => unpacked.extend_from_slice(&bytes),
            Compression::Gzip => {
                MultiGzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).unwrap();
            }
        }
        out.insert(object.location.to_string(), unpacked);
    }
    out
}
