//! Requests as the Java SDK sends them, replies as it reads them, and bytes that are neither.

use hydrant_core::Timestamp;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::shape::{Blob, Epoch, Flag, Integer, List, Map, Seconds, Text};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    blob: Option<Blob<'a>>,
    number: Option<Integer>,
    at: Option<Seconds>,
    flag: Option<Flag>,
    #[serde(borrow)]
    list: Option<List<Option<Structure<Entry<'a>>>>>,
    #[serde(borrow)]
    map: Option<Map<'a, Option<Text<'a>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    data: Option<Blob<'a>>,
}

fn read(hex: &str) -> Result<Asked<'static>, String> {
    let bytes = hex::decode(hex.replace(' ', "")).unwrap();
    parse(Box::leak(bytes.into_boxed_slice())).map_err(|e: ApiError| {
        assert_eq!(e.code, "SerializationException");
        e.message
    })
}

/// A map of unknown length, as the SDK opens every request, with one member.
fn member(name: &str, value: &str) -> Result<Asked<'static>, String> {
    read(&format!("bf {:02x} {} {value} ff", 0x60 + name.len(), hex::encode(name)))
}

#[test]
fn requests_are_read_as_the_java_sdk_writes_them() {
    let text = member("Text", "63 616263").unwrap().text.unwrap();
    assert!(matches!(text.0, Cow::Borrowed("abc")));
    let blob = member("Blob", "43 000102").unwrap().blob.unwrap();
    assert_eq!(blob, Blob::Raw(Cow::Borrowed(&[0, 1, 2])));
    assert_eq!(blob.decoded(&mut Vec::new()).unwrap(), [0, 1, 2]);
    assert_eq!(blob.decoded_len(), 3);
    // Tag 1, and milliseconds: 2026-01-02T03:04:05.678Z.
    let at = member("At", "c1 1b 0000019b7cab9c2e").unwrap().at.unwrap();
    assert_eq!(at.0, 1_767_323_180.078);
    assert_eq!(member("At", "1b 0000019b7cab9c2e").unwrap().at, Some(at));
    assert_eq!(member("Number", "19 03e8").unwrap().number, Some(Integer(1000)));
    assert_eq!(member("Number", "20").unwrap().number, Some(Integer(-1)));
    assert_eq!(member("Number", "3b ffffffffffffffff").unwrap().number, Some(Integer(i64::MIN)));
    assert_eq!(member("Number", "fb 400c000000000000").unwrap().number, Some(Integer(3)));
    assert_eq!(member("Flag", "f5").unwrap().flag, Some(Flag(true)));
    for nothing in ["f6", "f7", "c1 f6"] {
        assert!(member("Text", nothing).unwrap().text.is_none(), "{nothing}");
    }
    // Known and unknown lengths, and a text and a blob in pieces.
    for list in ["82 a1 64 44617461 41 00 f6", "9f bf 64 44617461 5f 40 41 00 ff ff f6 ff"] {
        let List(entries) = member("List", list).unwrap().list.unwrap();
        assert_eq!(entries.len(), 2);
        let data = entries[0].as_ref().unwrap().0.data.as_ref().unwrap();
        assert_eq!(data.decoded(&mut Vec::new()).unwrap(), [0], "{list}");
    }
    let Map(tags) = member("Map", "a1 7f 61 61 61 62 ff 61 63").unwrap().map.unwrap();
    assert_eq!((&*tags[0].0, tags[0].1.as_deref()), ("ab", Some("c")));
    // What the model does not have is read over, whatever it is.
    assert!(member("New", "82 a1 01 f9 3c00 9f d8 20 5f 41 00 ff ff").unwrap().text.is_none());
    assert!(read("a0").is_ok());
}

#[test]
fn what_is_no_request_is_refused() {
    // What is no structure at all may be told so.
    const TEXTS: [&str; 3] = ["", "Expected null", "Start of list found where not expected"];
    for bad in [
        "",
        "bf",
        "ff",
        "a1",
        "a1 64 54657874",
        "a0 00",
        "80",
        "01",
        "f6",
        "1c",
        "5f 00 ff",
        // A text that is not UTF-8, a member that is none, a half of a number.
        "a1 64 54657874 61 ff",
        "a1 01 02",
        "a1 66 4e756d626572 f9 3c00",
        "a1 64 54657874 1b 00",
    ] {
        let text = read(bad).unwrap_err();
        assert!(TEXTS.contains(&text.as_str()), "{bad}: {text}");
    }
    let no = |name, value| member(name, value).unwrap_err();
    let decimal = "class java.math.BigDecimal can not be converted to";
    assert_eq!(no("Text", "01"), format!("{decimal} an String"));
    assert_eq!(no("Text", "20"), format!("{decimal} an String"));
    assert_eq!(no("Text", "41 00"), "");
    assert_eq!(no("Blob", "01"), format!("{decimal} a Blob"));
    assert_eq!(no("Blob", "61 61"), "class java.lang.String can not be converted to a Blob");
    assert_eq!(no("Number", "f4"), "class java.lang.Boolean can not be converted to an Integer");
    assert_eq!(no("List", "a0"), "Start of structure or map found where not expected.");
    assert_eq!(no("At", "61 61"), "class java.lang.String can not be converted to a Date");
}

#[test]
fn lengths_and_depths_are_not_believed() {
    // 2^60 bytes, entries, pairs: nothing is allocated for them.
    for kind in ["5b", "7b", "9b", "bb"] {
        for name in ["Text", "Blob", "List", "Map", "New"] {
            assert!(member(name, &format!("{kind} 1000000000000000")).is_err(), "{kind} {name}");
        }
    }
    for open in ["81", "9f", "a1 61 61", "bf 61 61"] {
        assert!(member("New", &open.repeat(1 << 16)).is_err(), "{open}");
    }
    assert!(member("New", &format!("{}01", "81".repeat(JSON_DEPTH_MAX - 2))).is_ok());
    assert!(member("Number", &format!("{}01", "c1".repeat(1 << 16))).is_ok());
    let many = format!("9f {} ff", "f6".repeat(10_001));
    let text = "Lists and maps of more than 10000 entries are not read";
    assert_eq!(member("List", &many).unwrap_err(), text);
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    at: Epoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    names: Vec<&'static str>,
}

#[test]
fn replies_are_written_as_the_java_sdk_reads_them() {
    let at = Epoch(Timestamp::from_millis(1_767_323_180_078));
    let told = to_bytes(&Told { at, token: None, names: vec!["a"] }).unwrap();
    assert_eq!(
        hex::encode(told),
        "a2624174 1b0000019b7cab9c2e 654e616d6573 816161".replace(' ', "")
    );

    let mut out = Writer::with_capacity(0);
    out.map(3).text("a").blob(&[1, 2]).text("b").number(500).text("c").shown(12_u8);
    assert_eq!(
        hex::encode(out.into_bytes()),
        "a3 6161 420102 6162 1901f4 6163 7802 3132".replace(' ', "")
    );
    let mut long = Writer::with_capacity(0);
    long.shown("é".repeat(200));
    let long = long.into_bytes();
    assert_eq!((long.len(), &long[..3]), (403, &[0x79, 0x01, 0x90][..]));

    let error = ApiError::new("ValidationException", "no").body(crate::Format::Cbor);
    let want =
        "a2 66 5f5f74797065 73 56616c69646174696f6e457863657074696f6e 67 6d657373616765 626e6f";
    assert_eq!(hex::encode(error), want.replace(' ', ""));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse::<Asked<'_>>(&bytes);
        let mut inner = b"\xa1\x63New".to_vec();
        inner.extend(&bytes);
        let _ = parse::<Asked<'_>>(&inner);
    }

    #[test]
    fn what_is_written_is_read(
        text in "\\PC{0,300}",
        blob in prop::collection::vec(any::<u8>(), 0..300),
        number in any::<u32>(),
    ) {
        let mut out = Writer::with_capacity(0);
        out.map(3).text("Text").shown(&text).text("Blob").blob(&blob);
        out.text("Number").number(number.into());
        let bytes = out.into_bytes();
        let asked: Asked<'_> = parse(&bytes).unwrap();
        prop_assert_eq!(&*asked.text.unwrap(), text.as_str());
        prop_assert_eq!(asked.blob.unwrap(), Blob::Raw(Cow::Owned(blob)));
        prop_assert_eq!(asked.number.unwrap().0, i64::from(number));
    }
}
