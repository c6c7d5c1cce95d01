//! What the parser takes of these statements, and what its errors keep to themselves.

use super::*;
use crate::sql::front::{parse, parse_unbound};

fn capture(sql: &str) -> CaptureStatement {
    match parse(sql, &[]) {
        Ok(parsed) => match parsed.statement {
            Statement::Capture(statement) => statement,
            other => panic!("{sql}: {other:?}"),
        },
        Err(e) => panic!("{sql}: {e}"),
    }
}

#[test]
fn a_source_says_everything() {
    let sql = r#"create or replace source Src from postgres connection "Pg" (publication 'P', publication = 'q', slot 's1' adopt)
        for tables (Orders, sales."Big Ones" partition by (Region, "Id")) into stream 'twitch'
        with (envelope = 'DMS', snapshot 'never', oversize truncate, transactions = true, shards 4, on slot loss = 'resnapshot') comment = 'c';"#;
    let CaptureStatement::CreateSource(source) = capture(sql) else { panic!() };
    assert_eq!((source.name.as_str(), source.connection.as_str()), ("SRC", "Pg"));
    assert_eq!(source.there, IfExists::Replace);
    assert_eq!(source.publications, ["P", "q"]);
    assert_eq!(source.slot, Some(SlotChoice { name: "s1".into(), adopt: true }));
    let tables = source.tables.unwrap();
    assert_eq!(tables[0].table.to_string(), "public.orders");
    assert_eq!(tables[1].table.to_string(), "sales.Big Ones");
    assert_eq!(tables[1].partition_by, ["region", "Id"]);
    assert_eq!((source.envelope, source.snapshot), (Envelope::Dms, SnapshotMode::Never));
    assert_eq!((source.oversize, source.transactions), (Oversize::Truncate, true));
    assert_eq!((source.shards, source.on_slot_loss), (4, OnSlotLoss::Resnapshot));
    assert_eq!((source.stream.as_str(), source.comment.as_str()), ("twitch", "c"));

    let sql = "create source if not exists s from postgres connection c (publication 'p') for all tables into stream 'x'";
    let CaptureStatement::CreateSource(source) = capture(sql) else { panic!() };
    assert_eq!((source.there, source.tables, source.shards), (IfExists::Keep, None, 1));
}

#[test]
fn a_connection_takes_its_password_from_a_secret() {
    let reach = "host = 'h', database 'd', user 'u', password secret S, ssl mode verify_ca";
    let sql = format!("create connection c to postgres ({reach}, port 5433)");
    let CaptureStatement::CreateConnection { connection, .. } = capture(&sql) else { panic!() };
    assert_eq!((connection.host.as_str(), connection.port), ("h", 5433));
    assert_eq!(connection.secret.as_deref(), Some("S"));
    let literal = "create connection c to postgres (host 'h', database 'd', password 'hunter2')";
    let e = parse(literal, &[]).err().unwrap();
    assert!(e.message.contains("CREATE SECRET C_PASSWORD"), "{e}");
    assert!(!e.message.contains("hunter2"), "{e}");
}

#[test]
fn a_secret_is_in_no_error() {
    for sql in [
        "create secret s type = password username = 'u' password = 'hunter2' 'hunter2'",
        "create secret s type = password username = 'u' password = hunter2",
        "create secret s type = password username = 'u' password = 'x' hunter2 = 'hunter2'",
        "create secret s type = generic_string secret_string = ('hunter2')",
        "create or replace secret 'hunter2'",
        "create secret s type = password password = 'hunter2'",
        "create secret s type = generic_string secret_string = 'hunter2' ) hunter2",
        "create connection c to postgres (host 'h', 'hunter2')",
        "create connection c to postgres (host 'h', password 'x', 'hunter2')",
        "create /* a */ connection c to mysql 'hunter2'",
    ] {
        let e = parse(sql, &[]).err().unwrap_or_else(|| panic!("{sql}"));
        assert!(!e.message.contains("hunter2"), "{sql}: {e}");
    }
    let sql = "create secret s type = password username = 'u' password = 'hunter2'";
    assert!(!format!("{:?}", capture(sql)).contains("hunter2"));
    assert!(parse_unbound("create secret s type = generic_string secret_string = $1").is_ok());
}

#[test]
fn sources_are_altered_shown_and_dropped() {
    let alter = |sql: &str| match capture(sql) {
        CaptureStatement::Alter { name, change } if name == "S" => change,
        other => panic!("{sql}: {other:?}"),
    };
    let table = PgTable { schema: "a".into(), table: "b".into() };
    let added = SourceTable { table: table.clone(), partition_by: vec!["c".into()] };
    assert_eq!(
        alter("alter source s add table A.B partition by (C)"),
        AlterSource::AddTable(added)
    );
    assert_eq!(alter("alter source s drop table a.b"), AlterSource::DropTable(table));
    assert_eq!(alter("alter source s resnapshot"), AlterSource::Resnapshot);
    assert_eq!(alter("alter source s set comment = 'x'"), AlterSource::Comment("x".into()));
    assert_eq!(alter("pause source s"), AlterSource::Pause);
    assert_eq!(alter("resume source s;"), AlterSource::Resume);
    assert!(matches!(
        capture("show sources like 's%' limit 3"),
        CaptureStatement::Show { what: CaptureKind::Source, like: Some(_), limit: Some(3) }
    ));
    assert!(matches!(
        capture("show create source s;"),
        CaptureStatement::ShowCreate { kind: CaptureKind::Source, name } if name == "S"
    ));
    for kind in ["secret", "connection", "source"] {
        let described = capture(&format!("desc {kind} \"x\""));
        let CaptureStatement::Describe { kind: of, name } = described else { panic!() };
        assert_eq!((of.noun().to_lowercase().as_str(), name.as_str()), (kind, "x"));
        let table = parse(&format!("desc {kind}"), &[]).unwrap().statement;
        assert!(matches!(table, Statement::Describe { .. }), "a table of that name");
        let dropped = capture(&format!("drop {kind} if exists \"x\""));
        let CaptureStatement::Drop { name, if_exists: true, .. } = dropped else { panic!() };
        assert_eq!(name, "x");
    }
}

#[test]
fn what_cannot_be_is_said() {
    for (sql, word) in [
        (
            "create source a.s from postgres connection c (publication 'p') into stream 'x'",
            "one part",
        ),
        ("create source s from postgres connection c (slot 'x') into stream 'x'", "PUBLICATION"),
        (
            "create source s from postgres connection c (publication 'p') into stream 'x' with (colour 1)",
            "COLOUR",
        ),
        (
            "create source s from postgres connection c (publication 'p') into stream 'x' with (shards 0)",
            "SHARDS",
        ),
        (
            "create source s from postgres connection c (publication 'p') into stream 'x' with (envelope 'avro')",
            "avro",
        ),
        ("create connection c to postgres (host 'h')", "DATABASE"),
        ("create connection c to postgres (host 'h', database 'd', port 70000)", "PORT"),
        (
            "create connection c to postgres (host 'h', database 'd', ssl mode 'prefer')",
            "verify-full",
        ),
        (
            "create or replace secret if not exists s type = generic_string secret_string = 'x'",
            "incompatible",
        ),
        ("alter source s drop table größe", "unexpected 'ö'"),
        ("alter source s pause", "PAUSE SOURCE"),
        ("show create secret s", "DESCRIBE SECRET"),
        ("show create table t", "SHOW CREATE TABLE"),
    ] {
        let e = parse(sql, &[]).err().unwrap_or_else(|| panic!("{sql}"));
        assert!(e.message.contains(word), "{sql}: {e}");
    }
}
