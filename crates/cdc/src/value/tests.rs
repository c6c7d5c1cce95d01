//! Values against the table of types, and against PostgreSQL's rules for writing arrays.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn json(kind: Kind, text: &str) -> Result<String, BadValue> {
    let mut out = b"before ".to_vec();
    kind.write(text.as_bytes(), &mut out)?;
    let text = String::from_utf8(out).unwrap();
    Ok(text.strip_prefix("before ").unwrap().to_owned())
}

#[test]
fn each_type_has_its_form() {
    for (oid, text, want) in [
        (16, "t", "true"),
        (20, "-9223372036854775808", "-9223372036854775808"),
        (23, "0", "0"),
        (26, "4294967295", "4294967295"),
        (700, "1e+20", "1e+20"),
        (701, "-0", "-0"),
        (701, "1e-05", "1e-05"),
        (701, "NaN", "\"NaN\""),
        (701, "-Infinity", "\"-Infinity\""),
        (1700, "1.10", "\"1.10\""),
        (1700, "NaN", "\"NaN\""),
        (790, "$1,000.00", "\"$1,000.00\""),
        (1184, "2026-11-23 09:38:05.123456+00", "\"2026-11-23T09:38:05.123456Z\""),
        (1184, "2026-11-23 09:38:05+00", "\"2026-11-23T09:38:05Z\""),
        (1184, "infinity", "\"infinity\""),
        (1184, "0044-03-15 12:00:00+00 BC", "\"0044-03-15 12:00:00+00 BC\""),
        (1184, "12026-01-01 00:00:00+00", "\"12026-01-01 00:00:00+00\""),
        (1114, "2026-11-23 09:38:05.1", "\"2026-11-23 09:38:05.1\""),
        (1083, "24:00:00", "\"24:00:00\""),
        (17, "\\x", "\"\""),
        (17, "\\x00ff10", "\"AP8Q\""),
        (17, "\\x00ff1020", "\"AP8QIA==\""),
        (114, "{\"a\": 1e400,\n\"a\": 1.10}", "\"{\\\"a\\\": 1e400,\\n\\\"a\\\": 1.10}\""),
        (1007, "{1,NULL,-3}", "[1,null,-3]"),
        (1007, "{}", "[]"),
        (1007, "[0:1]={1,2}", "\"[0:1]={1,2}\""),
        (1007, "{{1,2},{3,4}}", "\"{{1,2},{3,4}}\""),
        (1009, r#"{a,"b c","NULL","","x\"y\\z"}"#, r#"["a","b c","NULL","","x\"y\\z"]"#),
        (1000, "{t,f}", "[true,false]"),
        (1185, "{\"2026-11-23 09:38:05+00\"}", "[\"2026-11-23T09:38:05Z\"]"),
        (1001, "{\"\\\\x6869\"}", "[\"aGk=\"]"),
        (1022, "{1.5,NaN}", "[1.5,\"NaN\"]"),
        (1020, "{(1,1),(0,0);(2,2),(1,1)}", "\"{(1,1),(0,0);(2,2),(1,1)}\""),
        (3904, "[1,5)", "\"[1,5)\""),
        (99_999, "mood", "\"mood\""),
    ] {
        assert_eq!(json(Kind::of(oid), text).as_deref(), Ok(want), "{oid} {text}");
        assert!(serde_json::from_str::<Value>(want).is_ok(), "{want}");
    }
}

#[test]
fn what_a_type_cannot_have_is_an_error() {
    for (oid, text) in [
        (16, "true"),
        (23, ""),
        (23, "-"),
        (23, "01"),
        (23, "-0"),
        (23, "1.0"),
        (23, "99999999999999999999"),
        (701, "1."),
        (701, "01"),
        (701, ".5"),
        (701, "1e"),
        (701, "inf"),
        (1184, "2026-11-23 09:38:05+01"),
        (1184, "2026-11-23 09:38:05"),
        (1184, "2026-11-23 09:38+00"),
        (17, "abc"),
        (17, "\\xabc"),
        (17, "\\xgg"),
        (1007, "1,2"),
        (1007, "{1,2"),
        (1007, "{1,,2}"),
        (1007, "{1}2"),
        (1007, "{1,{2}}"),
        (1009, "{\"a}"),
        (1009, "{\"a\\"),
    ] {
        assert!(json(Kind::of(oid), text).is_err(), "{oid} {text}");
    }
    assert_eq!(Kind::Text.write(b"\xff", &mut Vec::new()), Err(BadValue::NotUtf8));
}

/// As `array_out` writes an element.
fn element(text: Option<&str>) -> String {
    let Some(text) = text else { return "NULL".to_owned() };
    let plain = |c: char| !(c.is_ascii_whitespace() || c == '\x0b' || "\"\\{},".contains(c));
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    #[test]
    fn any_text_is_the_string_a_parser_reads(text in any::<String>(), quiet in "[a-z]{0,20}") {
        for text in [format!("{quiet}{text}"), text.clone() + &quiet] {
            let written = json(Kind::Text, &text).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }

    #[test]
    fn every_byte_is_escaped_where_it_must(at in 0..24_usize, byte in 0..0x80_u8) {
        let mut text = vec![b'a'; 24];
        text[at] = byte;
        let text = String::from_utf8(text).unwrap();
        let written = json(Kind::Text, &text).unwrap();
        prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }

    #[test]
    fn arrays_read_as_they_were_written(
        list in proptest::collection::vec(proptest::option::of(r#"[a-z"\\{}, \n]{0,6}|NULL|null"#), 0..6),
    ) {
        let texts: Vec<_> = list.iter().map(|text| element(text.as_deref())).collect();
        let written = json(Kind::Texts, &format!("{{{}}}", texts.join(","))).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<Option<String>>>(&written).unwrap(), list);
    }

    #[test]
    fn bytes_are_base64(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let written = json(Kind::Bytea, &format!("\\x{}", hex::encode(&bytes))).unwrap();
        prop_assert_eq!(STANDARD.decode(written.trim_matches('"')).unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_json_or_an_error(
        oid in prop::sample::select(vec![16_u32, 20, 701, 1184, 17, 25, 1000, 1007, 1009, 1022, 1185, 1001]),
        text in r#"[{}\[\]"\\,=: .+a-fNULt0-9eE-]{0,24}"#,
    ) {
        if let Ok(written) = json(Kind::of(oid), &text) {
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&written).is_ok(), "{written}");
        }
    }
}
