//! What the front parser takes, refuses and bounds.

use proptest::prelude::*;

use super::*;
use crate::sql::ast::Location;

#[test]
fn a_pipe_keeps_its_copy_as_written() {
    let sql = "create or replace pipe a.b.\"P q\" auto_ingest=true comment='x' as\n  copy into t -- here\n  from @s/päth//x/ file_format = (type = 'JSON') ;";
    let Statement::CreatePipe(pipe) = parse(sql, &[]).unwrap().statement else { panic!() };
    assert_eq!(pipe.name, ["A", "B", "P q"]);
    assert_eq!(
        pipe.definition,
        "copy into t -- here\n  from @s/päth//x/ file_format = (type = 'JSON')"
    );
    let expected = Location::Stage { name: vec!["S".into()], path: "päth//x/".into() };
    assert_eq!(pipe.copy.from, expected);
}

#[test]
fn names_fold_and_keys_of_paths_do_not() {
    let sql = "select Col:Some.Path[0].Deep, \"Kept\", f(x):Key, a['Q'].Next, {'k': v} from Tab";
    let Statement::Query(query) = parse(sql, &[]).unwrap().statement else { panic!() };
    let text = query.to_string();
    for part in ["COL:Some.Path[0].Deep", "\"Kept\"", "F(X):Key", "A['Q'].Next", "FROM TAB"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    for (sql, word) in [
        ("create stage s", "internal stages"),
        ("create stage s url='s3://b/' storage_integration=i", "STORAGE_INTEGRATION"),
        ("create stage s url='s3://b/' encryption=(type='NONE')", "ENCRYPTION"),
        ("create stage s url='s3://b/' colour='red'", "invalid property 'COLOUR'"),
        ("create stage s url='s3://b/' file_format=(type=csv)", "CSV"),
        ("copy into t from @s size_limit=10", "SIZE_LIMIT"),
        ("copy into t from @s purge=true", "PURGE"),
        ("copy into t from @s validation_mode=return_errors", "VALIDATION_MODE"),
        ("copy into @s from t", "COPY INTO a location"),
        ("copy into t from (select $1 from @s where true)", "WHERE"),
        ("create table t (a int) cluster by (a)", "CLUSTER"),
        ("create table t (a int autoincrement)", "AUTOINCREMENT"),
        ("create table t (a geography)", "GEOGRAPHY"),
        ("create view v as select 1", "CREATE VIEW"),
        ("grant usage on database d to role r", "GRANT"),
        ("merge into t using u on true when matched then delete", "MERGE"),
        ("show terse tables", "TERSE"),
        ("list @~", "user and table stages"),
    ] {
        let e = parse(sql, &[]).err().unwrap_or_else(|| panic!("{sql}"));
        assert!(e.message.contains(word), "{sql}: {e}");
    }
}

#[test]
fn parameters_take_the_places_of_placeholders() {
    let bound = [Some("it's".to_owned()), None];
    let parsed = parse("select $1, ?, $2", &bound).map(|p| p.statement);
    let Ok(Statement::Query(query)) = parsed else { panic!() };
    assert_eq!(query.to_string(), "SELECT 'it''s', 'it''s', NULL");
    assert!(parse("select $3", &bound).is_err());
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = |open: &str, close: &str| {
        format!("select {}1{}", open.repeat(20_000), close.repeat(20_000))
    };
    for sql in [
        deep("(", ")"),
        deep("f(", ")"),
        deep("- ", ""),
        deep("not ", ""),
        deep("[", "]"),
        deep("case when ", " end"),
        deep("{'a': ", "}"),
        format!("select 1{}", "+1".repeat(20_000)),
        format!("select 1{}", " or f(1, 2)".repeat(20_000)),
        format!("select v{}", ":a".repeat(20_000)),
        format!("select v{}", "::int".repeat(20_000)),
        format!("select 1{}", " union all select 1".repeat(20_000)),
        format!("copy into t from @s a={}", "(".repeat(20_000)),
        format!("select * from {}", "(".repeat(20_000)),
    ] {
        assert!(parse(&sql, &[]).is_err(), "{}", &sql[..40]);
    }
    let values = vec!["(-1, 'a')"; 5_000].join(", ");
    assert!(parse(&format!("insert into t values {values}"), &[]).is_ok());
    assert!(parse(&"x".repeat(2 << 20), &[]).is_err());
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "create",
        "or",
        "replace",
        "pipe",
        "stage",
        "table",
        "as",
        "copy",
        "into",
        "from",
        "@s/a",
        "@",
        "(",
        ")",
        ",",
        "=",
        "'x'",
        "\"q\"",
        "$1",
        ":",
        "::",
        ".",
        "[",
        "]",
        "{",
        "}",
        "select",
        "file_format",
        "type",
        "json",
        "=>",
        "lateral",
        "flatten",
        "show",
        "in",
        "like",
        "alter",
        "refresh",
        "set",
        "drop",
        "if",
        "exists",
        "not",
        "null",
        ";",
        "--",
        "/*",
        "*",
        "s3://b/c",
        "1",
        "-",
        "?",
        "case",
        "when",
        "end",
        "$$",
        "use",
        "desc",
        "\u{1F600}",
        "é",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn words_in_any_order_parse_or_err(words in prop::collection::vec(word(), 0..30)) {
        let _ = parse(&words.join(" "), &[]);
    }

    #[test]
    fn any_text_parses_or_errs(text in "\\PC{0,80}") {
        let _ = parse(&text, &[]);
        let _ = super::super::scan::split(&text);
    }
}
