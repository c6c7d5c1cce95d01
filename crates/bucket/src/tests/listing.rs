//! Listings against a model: a sorted map, rolled up as S3 documents it.

use super::*;
use crate::ops::list::Start;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn key() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            4 => Just("a"), 3 => Just("/"), 2 => Just("b"), 1 => Just("é"), 1 => Just("\u{10FFFF}"),
            1 => Just("!"), 1 => Just("\u{1}"), 1 => Just("."), 1 => Just("z"),
        ],
        1..7,
    )
    .prop_map(|parts| parts.concat())
}

/// Keys and common prefixes in order.
fn model(keys: &BTreeSet<String>, prefix: &str, delimiter: &str) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let item = match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => format!("CP {}", &key[..prefix.len() + at + delimiter.len()]),
            None => key.clone(),
        };
        if shown.last() != Some(&item) {
            shown.push(item);
        }
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pages_laid_end_to_end_are_the_model(
        keys in prop::collection::btree_set(key(), 0..40),
        prefix in prop_oneof![Just(String::new()), key()],
        delimiter in prop_oneof![Just(""), Just("/"), Just("a/"), Just("é")],
        max in 1usize..7,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let h = Harness::with_bucket("lake").await;
            for (n, key) in keys.iter().enumerate() {
                let row = crate::index::ObjectRow {
                    size_bytes: n as u64,
                    etag: "e".into(),
                    modified: hydrant_core::Timestamp::ZERO,
                    data: crate::index::Data::File("0".repeat(32).parse().unwrap()),
                    described: Default::default(),
                    checksum: None,
                    upload: None,
                };
                let write = hydrant_core::control::Write::insert(
                    crate::index::object_key("lake", key), &row);
                h.control.commit(vec![write]).await.unwrap();
            }
            // A neighbour whose name begins alike.
            h.put("/lake2", "").await;
            h.put("/lake2/a", "").await;
            let mut shown: Vec<String> = Vec::new();
            let mut start: Option<Start> = None;
            loop {
                let page = h.bucket.store.list("lake", &prefix, delimiter, start, max).await.unwrap();
                let count = page.objects.len() + page.prefixes.len();
                let mut items: Vec<(String, String)> = Vec::new();
                items.extend(page.objects.into_iter().map(|(key, _)| (key.clone(), key)));
                items.extend(page.prefixes.into_iter().map(|p| (p.clone(), format!("CP {p}"))));
                items.sort();
                shown.extend(items.into_iter().map(|(_, item)| item));
                start = page.next;
                if start.is_none() {
                    assert!(count <= max);
                    break;
                }
                assert_eq!(count, max, "a page that is not the last is full");
            }
            assert_eq!(shown, model(&keys, &prefix, delimiter));
        });
    }
}

#[tokio::test]
async fn both_versions_page_by_their_own_means() {
    let h = Harness::with_bucket("lake").await;
    for key in ["a/1", "a/2", "b", "c/1", "d"] {
        h.put(&format!("/lake/{key}"), "x").await;
    }
    let first = h.get("/lake?list-type=2&delimiter=/&max-keys=2&fetch-owner=true").await;
    assert_eq!(first.element("IsTruncated"), "true");
    assert_eq!(first.element("KeyCount"), "2");
    assert!(first.text().contains("<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"));
    let token = first.element("NextContinuationToken");
    let next = h.get(&format!("/lake?list-type=2&delimiter=/&continuation-token={token}")).await;
    assert_eq!(next.element("IsTruncated"), "false");
    assert!(next.text().contains("<Prefix>c/</Prefix>") && next.text().contains("<Key>d</Key>"));
    assert!(!next.text().contains("<Key>b</Key>"));

    let v1 = h.get("/lake?delimiter=/&max-keys=1").await;
    assert_eq!(v1.element("NextMarker"), "a/");
    let v1 = h.get("/lake?delimiter=/&max-keys=1&marker=a/").await;
    assert_eq!(v1.element("Key"), "b");
    let after = h.get("/lake?list-type=2&start-after=a/1").await;
    assert_eq!(after.element("KeyCount"), "4");
    assert_eq!(h.get("/lake?list-type=2&max-keys=0").await.element("IsTruncated"), "false");
    for bad in ["max-keys=-1", "continuation-token=!", "encoding-type=x"] {
        assert_eq!(
            h.get(&format!("/lake?list-type=2&{bad}")).await.element("Code"),
            "InvalidArgument"
        );
    }
    h.put("/lake/sp%20ace%2Bplus/%C3%A9", "x").await;
    let url = h.get("/lake?list-type=2&encoding-type=url&prefix=sp").await;
    assert_eq!(url.element("Key"), "sp%20ace%2Bplus/%C3%A9");
}

#[tokio::test]
async fn uploads_and_parts_are_listed_in_pages() {
    let h = Harness::with_bucket("lake").await;
    let mut ids = Vec::new();
    for key in ["a", "a", "a/b", "c"] {
        let made = h.call(Method::POST, &format!("/lake/{key}?uploads"), &[], b"").await;
        ids.push((key, made.element("UploadId")));
    }
    let first = h.get("/lake?uploads&max-uploads=2").await;
    assert_eq!(first.element("IsTruncated"), "true");
    assert_eq!(first.element("NextKeyMarker"), "a");
    let id = first.element("NextUploadIdMarker");
    let rest = h.get(&format!("/lake?uploads&key-marker=a&upload-id-marker={id}")).await.text();
    assert!(rest.contains("<Key>a/b</Key>") && rest.contains("<Key>c</Key>"));
    assert!(!rest.contains("<Key>a</Key>"));
    let (_, id) = &ids[3];
    for n in [3, 1, 2] {
        let put = h.put(&format!("/lake/c?partNumber={n}&uploadId={id}"), "x").await;
        assert_eq!(put.status, 200);
    }
    let parts = h.get(&format!("/lake/c?uploadId={id}&max-parts=2")).await;
    assert_eq!(parts.element("NextPartNumberMarker"), "2");
    let parts = h.get(&format!("/lake/c?uploadId={id}&part-number-marker=2")).await;
    assert_eq!(
        (parts.element("PartNumber").as_str(), parts.element("IsTruncated").as_str()),
        ("3", "false")
    );
    for bad in ["../x", "00", &"0".repeat(32)] {
        let got = h.get(&format!("/lake/c?uploadId={bad}")).await;
        assert_eq!(got.element("Code"), "NoSuchUpload", "{bad}");
    }
    let (key, id) = &ids[0];
    assert_eq!(h.delete(&format!("/lake/{key}?uploadId={id}")).await.status, 204);
    assert_eq!(h.delete("/lake").await.status, 204, "unfinished uploads go with their bucket");
    h.files_settle_at(0).await;
    h.put("/lake", "").await;
    assert!(!h.get("/lake?uploads").await.text().contains("<Upload>"));
}

#[tokio::test]
async fn control_characters_of_a_key_are_written_as_references() {
    let harness = Harness::with_bucket("lake").await;
    harness.put("/lake/a%0Db%01c", "x").await;
    for list in ["/lake?list-type=2", "/lake"] {
        assert_eq!(harness.get(list).await.element("Key"), "a&#13;b&#1;c", "{list}");
    }
    let list = b"<Delete><Object><Key>a&#13;b\x01c</Key></Object></Delete>";
    let deleted = harness.call(Method::POST, "/lake?delete", &[], list).await;
    assert_eq!(deleted.element("Key"), "a&#13;b&#1;c", "{}", deleted.text());
    assert!(!harness.get("/lake").await.text().contains("<Key>"));
}
