//! Expressions read and applied.

use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::value::{Item, read_item};

fn item(json: &str) -> Item {
    read_item(json).unwrap()
}

fn placeholders() -> Placeholders {
    let names = serde_json::from_str(r##"{"#n":"name","#c":"leaseCounter"}"##).unwrap();
    let values = serde_json::from_str(
        r#"{":one":{"N":"1"},":a":{"S":"a"},":list":{"L":[{"S":"x"}]},":set":{"SS":["b"]},":yes":{"BOOL":true}}"#,
    );
    Placeholders::read(Some(names), Some(values.unwrap()), true, "").unwrap()
}

fn holds(text: &str, json: &str) -> bool {
    condition("ConditionExpression", text, &mut placeholders()).unwrap().holds(&item(json))
}

fn updated(text: &str, json: &str) -> Result<String, Error> {
    let mut item = item(json);
    update(text, &mut placeholders())?.apply(&mut item)?;
    Ok(serde_json::to_string(&item).unwrap())
}

#[test]
fn conditions_hold_or_do_not() {
    let lease = r#"{"leaseKey":{"S":"abc"},"leaseCounter":{"N":"1.0"},"m":{"M":{"l":{"L":[{"S":"a"}]}}},"s":{"SS":["a","b"]}}"#;
    for (text, wanted) in [
        ("attribute_exists(leaseKey) AND #c = :one", true),
        ("attribute_not_exists(leaseKey) OR leaseCounter < :one", false),
        ("not attribute_not_exists(leaseKey)", true),
        ("m.l[0] = :a", true),
        ("m.l[1] = :a", false),
        ("nothing = :a", false),
        ("nothing <> :a", true),
        ("begins_with(leaseKey, :a) and contains(s, :a)", true),
        ("size(leaseKey) > :one", true),
        (
            "leaseCounter BETWEEN :one AND :one AND (leaseKey IN (:a, :one) OR size(s) >= :one)",
            true,
        ),
        ("leaseKey < :one", false),
        ("attribute_type(leaseKey, :a)", false),
    ] {
        if text.contains("attribute_type") {
            assert!(condition("ConditionExpression", text, &mut placeholders()).is_err());
            continue;
        }
        assert_eq!(holds(text, lease), wanted, "{text}");
    }
}

#[test]
fn updates_see_the_item_before_them() {
    let lease = r#"{"a":{"N":"5"},"l":{"L":[{"S":"0"},{"S":"1"},{"S":"2"}]},"s":{"SS":["a","b"]}}"#;
    for (text, wanted) in [
        ("SET b = a + :one, c = if_not_exists(a, :one)", r#""b":{"N":"6"},"c":{"N":"5"}"#),
        ("set c = if_not_exists(nothing, :one) - :one", r#""c":{"N":"0"}"#),
        ("SET l = list_append(:list, l)", r#"[{"S":"x"},{"S":"0"},{"S":"1"},{"S":"2"}]"#),
        ("REMOVE l[0], l[2]", r#""l":{"L":[{"S":"1"}]}"#),
        ("SET l[9] = :a, l[7] = :one", r#"{"S":"2"},{"N":"1"},{"S":"a"}]"#),
        ("ADD a :one, fresh :one DELETE s :set", r#""a":{"N":"6"}"#),
        ("DELETE s :set", r#""s":{"SS":["a"]}"#),
    ] {
        let found = updated(text, lease).unwrap();
        assert!(found.contains(wanted), "{text}: {found}");
    }
    for text in ["SET b = nothing", "SET a.b = :one", "SET b = l + :one", "ADD l :one"] {
        assert!(updated(text, lease).is_err(), "{text}");
    }
    assert_eq!(updated("DELETE s :set REMOVE a, l", r#"{"s":{"SS":["b"]}}"#).unwrap(), "{}");
}

#[test]
fn refusals_have_awss_words() {
    let said = |text| match update(text, &mut placeholders()) {
        Err(Error::Validation(text)) => text,
        other => panic!("{text}: {other:?}"),
    };
    for (text, wanted) in [
        ("", "Invalid UpdateExpression: The expression can not be empty;"),
        ("SET a", "Invalid UpdateExpression: Syntax error; token: \"<EOF>\", near: \"a\""),
        ("SET a = :b", "value used in expression is not defined; attribute value: :b"),
        ("SET #b = :a", "name used in the document path is not defined; attribute name: #b"),
        ("SET name = :a", "Attribute name is a reserved keyword; reserved keyword: name"),
        ("SET a = :a SET b = :a", "The \"SET\" section can only be used once"),
        ("SET a = :a, a.b = :a", "path one: [a], path two: [a, b]"),
        ("SET a = size(b)", "The function is not allowed in an update expression; function: size"),
        ("SET a = f(b)", "Invalid function name; function: f"),
        ("ADD a :a", "operator: ADD, operand type: S"),
        ("SET a = $", "Syntax error; token: \"$\", near: \"= $\""),
    ] {
        let found = said(text);
        assert!(found.contains(wanted), "{text}: {found}");
    }
    let mut placeholders = placeholders();
    update("SET #n = :one", &mut placeholders).unwrap();
    let Err(Error::Validation(text)) = placeholders.finish() else { panic!("all were used") };
    assert_eq!(
        text,
        "Value provided in ExpressionAttributeNames unused in expressions: keys: {#c}"
    );
}

#[test]
fn parts_of_items_are_projected() {
    let whole =
        item(r#"{"a":{"M":{"b":{"S":"1"},"c":{"S":"2"}}},"l":{"L":[{"N":"0"},{"N":"1"}]}}"#);
    let part = |text| {
        let projection = projection(text, &mut placeholders()).unwrap();
        serde_json::to_string(&projection.of(&whole)).unwrap()
    };
    assert_eq!(part("a.b, l[1], nothing"), r#"{"a":{"M":{"b":{"S":"1"}}},"l":{"L":[{"N":"1"}]}}"#);
    assert!(projection("a, a.b", &mut placeholders()).is_err());
}

#[test]
fn key_conditions_name_one_partition() {
    let key = |text| {
        let condition = condition("KeyConditionExpression", text, &mut placeholders())?;
        KeyCondition::of(condition, "h", Some("r"))
    };
    assert!(key("h = :a").is_ok_and(|c| c.range.is_none()));
    assert!(key("r > :a AND h = :a").is_ok_and(|c| c.range.is_some()));
    assert!(key("h = :a and begins_with(r, :a)").is_ok());
    for text in ["r = :a", "h > :a", "h = :a OR r = :a", "h = :a AND x = :a", "h <> :a"] {
        assert!(key(text).is_err(), "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = format!("{}a = :a{}", "(".repeat(100), ")".repeat(100));
    assert!(condition("ConditionExpression", &nested, &mut placeholders()).is_err());
    let long = vec!["a = :a"; 400].join(" OR ");
    assert!(condition("ConditionExpression", &long, &mut placeholders()).is_err());
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_an_error(text in "[a-z#:.,()\\[\\]<>=+\\- 0-9]{0,60}") {
        let _ = condition("ConditionExpression", &text, &mut placeholders());
        let _ = update(&text, &mut placeholders());
        let _ = projection(&text, &mut placeholders());
    }

    #[test]
    fn any_text_is_read_to_its_end(text in "\\PC{0,40}") {
        let _ = condition("ConditionExpression", &text, &mut placeholders());
    }
}

#[test]
fn an_update_that_makes_too_much_ends_before_it_is_made() {
    let text = "x".repeat(100_000);
    let lease = format!(r#"{{"a":{{"L":[{{"S":"{text}"}}]}}}}"#);
    let many: Vec<String> = (0..200).map(|n| format!("b{n} = a")).collect();
    for text in [
        format!("SET {}", many.join(", ")),
        "SET b = list_append(list_append(a, a), list_append(list_append(a, a), a))".to_owned(),
    ] {
        assert!(updated(&text, &lease).unwrap_err().to_string().contains("maximum allowed size"));
    }
    assert!(updated("SET b = list_append(a, a)", &lease).is_ok());
}
