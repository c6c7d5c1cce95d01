//! What policies say, and which are refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";

fn statement(more: Value) -> Value {
    let mut statement = json!({
        "Effect": "Allow",
        "Principal": { "AWS": "111111111111" },
        "Action": "kinesis:PutRecord",
        "Resource": ARN,
    });
    statement.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    statement
}

fn policy(statements: Value) -> Result<Policy, InvalidPolicy> {
    let text = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    Policy::parse(&text)
}

fn ask(policy: &Policy, account: &str, key: &str, action: &str) -> Verdict {
    let region = "us-east-1".parse().unwrap();
    let scope = Scope { account: account.parse().unwrap(), region };
    policy.ask(&Caller { scope: &scope, access_key: key }, action)
}

#[test]
fn a_statement_is_about_its_principals_and_actions_alone() {
    let policy = policy(statement(json!({}))).unwrap();
    assert_eq!(ask(&policy, "111111111111", "k", "PutRecord"), Verdict::Allowed);
    assert_eq!(ask(&policy, "111111111111", "k", "PutRecords"), Verdict::Silent);
    assert_eq!(ask(&policy, "222222222222", "k", "PutRecord"), Verdict::Silent);
}

#[test]
fn every_form_of_a_principal_means_whom_it_names() {
    for (principal, account, key, is) in [
        (json!("*"), "333333333333", "k", true),
        (json!({ "AWS": "*" }), "333333333333", "k", true),
        (json!({ "AWS": "arn:aws:iam::111111111111:root" }), "111111111111", "k", true),
        (json!({ "AWS": ["222222222222", "111111111111"] }), "111111111111", "k", true),
        (json!({ "AWS": "arn:aws:iam::111111111111:user/k" }), "111111111111", "k", true),
        (json!({ "AWS": "arn:aws:iam::111111111111:user/team/k" }), "111111111111", "k", true),
        (json!({ "AWS": "arn:aws:iam::111111111111:user/k" }), "111111111111", "l", false),
        (json!({ "AWS": "arn:aws:iam::111111111111:user/k" }), "222222222222", "k", false),
        (json!({ "AWS": "arn:aws:iam::111111111111:role/k" }), "111111111111", "k", false),
        (json!({ "Service": "lambda.amazonaws.com" }), "111111111111", "k", false),
    ] {
        let policy = policy(statement(json!({ "Principal": principal }))).unwrap();
        let allowed = ask(&policy, account, key, "PutRecord") == Verdict::Allowed;
        assert_eq!(allowed, is, "{principal}");
    }
}

#[test]
fn a_denial_wins() {
    let deny = statement(json!({ "Effect": "Deny", "Action": "kinesis:put*" }));
    for statements in [
        json!([statement(json!({})), deny.clone()]),
        json!([deny, statement(json!({ "Action": "kinesis:*" }))]),
    ] {
        let policy = policy(statements).unwrap();
        assert_eq!(ask(&policy, "111111111111", "k", "PutRecord"), Verdict::Denied);
    }
}

#[test]
fn conditions_hold_or_the_statement_is_silent() {
    for (operator, key, value, holds) in [
        ("StringEquals", "aws:PrincipalAccount", json!(["1", "111111111111"]), true),
        ("StringEquals", "aws:PrincipalAccount", json!("222222222222"), false),
        ("StringNotEquals", "aws:principalaccount", json!("222222222222"), true),
        ("StringLike", "aws:RequestedRegion", json!("us-*"), true),
        ("StringNotLike", "aws:RequestedRegion", json!("us-*"), false),
        ("StringEqualsIgnoreCase", "aws:RequestedRegion", json!("US-EAST-1"), true),
        ("ArnLike", "aws:PrincipalArn", json!("arn:aws:iam::*:user/k?y"), true),
        ("ArnNotEquals", "aws:PrincipalArn", json!("arn:aws:iam::111111111111:user/key"), false),
        ("StringEqualsIfExists", "aws:RequestedRegion", json!("eu-west-1"), false),
    ] {
        let condition = json!({ "Condition": { operator: { key: value } } });
        let policy = policy(statement(condition)).unwrap();
        let allowed = ask(&policy, "111111111111", "key", "PutRecord") == Verdict::Allowed;
        assert_eq!(allowed, holds, "{operator}");
    }
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    for (statements, why) in [
        (json!([]), "no Statement"),
        (json!(statement(json!({ "Effect": "Perhaps" }))), "Effect Perhaps"),
        (json!(statement(json!({ "Principal": null }))), "no Principal"),
        (json!(statement(json!({ "Principal": "me" }))), "Principal me"),
        (json!(statement(json!({ "Principal": { "AWS": [] } }))), "names nobody"),
        (json!(statement(json!({ "Principal": { "AWS": "12" } }))), "Principal 12"),
        (json!(statement(json!({ "Principal": { "Federated": "x" } }))), "Federated"),
        (json!(statement(json!({ "NotPrincipal": "*" }))), "NotPrincipal"),
        (json!(statement(json!({ "NotAction": "kinesis:*" }))), "NotAction"),
        (json!(statement(json!({ "Action": [] }))), "no Action"),
        (json!(statement(json!({ "Action": "s3:GetObject" }))), "s3:GetObject"),
        (json!(statement(json!({ "Effects": 1 }))), "Effects"),
        (json!([statement(json!({ "Sid": "a" })), statement(json!({ "Sid": "a" }))]), "Sid a"),
        (
            json!(statement(json!({ "Condition": { "Bool": { "aws:SecureTransport": "true" } } }))),
            "operator Bool",
        ),
        (
            json!(statement(json!({ "Condition": { "StringLike": { "aws:SourceIp": "1" } } }))),
            "key aws:SourceIp",
        ),
        (
            json!(statement(
                json!({ "Condition": { "StringLike": { "aws:PrincipalArn": "${aws:x}" } } })
            )),
            "variables",
        ),
    ] {
        let refusal = policy(statements).unwrap_err().to_string();
        assert!(refusal.contains(why), "{why}: {refusal}");
    }
    let version = json!({ "Version": "2020-01-01", "Statement": statement(json!({})) });
    assert!(Policy::parse(&version.to_string()).is_err());
    let long = format!("{}{}", version, " ".repeat(POLICY_BYTES_MAX));
    assert!(Policy::parse(&long).unwrap_err().to_string().contains("20480 bytes"));
    assert!(Policy::parse("{").is_err());
    let twice = statement(json!({ "Condition": "CONDITION" })).to_string().replace(
        "\"CONDITION\"",
        r#"{"StringLike":{"aws:PrincipalArn":"a"},"StringLike":{"aws:PrincipalArn":"*"}}"#,
    );
    let refusal = Policy::parse(&format!(r#"{{"Statement":{twice}}}"#)).unwrap_err().to_string();
    assert!(refusal.contains("StringLike is there twice"), "{refusal}");
}

#[test]
fn a_policy_is_for_one_resource_and_some_actions() {
    let actions = ["PutRecord", "PutRecords"];
    let check = |more: Value| policy(statement(more)).unwrap().check(ARN, &actions);
    assert_eq!(check(json!({ "Action": ["kinesis:Put*", "kinesis:putrecord"] })), Ok(()));
    let action = check(json!({ "Action": "kinesis:DeleteStream" })).unwrap_err().to_string();
    assert!(action.contains("DeleteStream") && action.contains("PutRecords"), "{action}");
    let resource = check(json!({ "Resource": [ARN, "*"] })).unwrap_err().to_string();
    assert!(resource.contains("Resource * is not"), "{resource}");
}

#[test]
fn a_row_keeps_the_text_as_it_was_put() {
    let policy = policy(statement(json!({}))).unwrap();
    let row = serde_json::to_string(&policy).unwrap();
    let again: Policy = serde_json::from_str(&row).unwrap();
    assert_eq!(again.text(), policy.text());
    assert_eq!(ask(&again, "111111111111", "k", "PutRecord"), Verdict::Allowed);
}

proptest! {
    #[test]
    fn any_text_is_a_policy_or_an_error(text in ".{0,200}") {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn a_pattern_of_stars_matches_as_a_regular_expression_does(
        pattern in "[ab*?]{0,8}", text in "[ab]{0,8}",
    ) {
        // By recursion, the obvious way.
        fn slow(p: &[u8], t: &[u8]) -> bool {
            match (p, t) {
                ([], _) => t.is_empty(),
                ([b'*', p @ ..], _) => slow(p, t) || (!t.is_empty() && slow(&[b"*", p].concat(), &t[1..])),
                ([b'?', p @ ..], [_, t @ ..]) => slow(p, t),
                ([a, p @ ..], [b, t @ ..]) => a == b && slow(p, t),
                _ => false,
            }
        }
        prop_assert_eq!(like(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
    }
}
