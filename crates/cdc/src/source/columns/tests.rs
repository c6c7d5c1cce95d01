//! Columns told late, seen early, dropped and renamed.

use hydrant_core::capture::{PgTable, TableState};

use super::*;
use crate::pgoutput;

fn column(name: &str, attnum: u16) -> PgColumn {
    PgColumn {
        name: name.into(),
        type_oid: 25,
        type_name: "text".into(),
        type_modifier: -1,
        nullable: true,
        attnum: Some(attnum),
        ..PgColumn::default()
    }
}

fn table(columns: Vec<PgColumn>) -> CapturedTable {
    CapturedTable {
        table: PgTable { schema: "public".into(), table: "t".into() },
        oid: 7,
        identity: 'f',
        columns,
        seen: false,
        dropped: Vec::new(),
        filenode: 9,
        version: 1,
        state: TableState::Live,
        reason: None,
        snapshot_rows: 0,
        snapshot_rows_estimated: None,
    }
}

fn catalog(columns: Vec<PgColumn>) -> TableColumns {
    TableColumns { columns, defaults: Vec::new(), filenode: 9 }
}

fn relation(names: &[&str]) -> Relation {
    let column =
        |name: &&'static str| pgoutput::Column { key: true, name, type_oid: 25, type_modifier: -1 };
    let names: Vec<&'static str> = names.iter().map(|n| &*n.to_string().leak()).collect();
    let columns = names.iter().map(column).collect();
    let identity = pgoutput::Identity::Full;
    Relation::new(&pgoutput::Relation { oid: 7, schema: "public", name: "t", identity, columns }, 2)
}

fn names(found: &Columns) -> Vec<&str> {
    found.columns.iter().map(|c| c.name.as_str()).collect()
}

#[test]
fn an_added_column_is_something_in_the_rows_that_were_there() {
    let known = table(vec![column("a", 1)]);
    let five = PgColumn { missing: Some("say \"5\"".into()), ..column("b", 2) };
    let mut now = catalog(vec![column("a", 1), five.clone()]);
    now.defaults = vec!["b".into()];
    let found = told(&relation(&["a", "b"]), &known, &now);
    assert_eq!(found.columns[1].missing.as_deref(), Some("\"say \\\"5\\\"\""));
    assert!(!found.columns[1].rewritten);
    // What it was is known from then on, whatever becomes of the rows.
    let mut known = known;
    found.put(&mut known);
    now.filenode = 10;
    now.columns[1].missing = None;
    let found = told(&relation(&["a", "b"]), &known, &now);
    assert_eq!((found.columns[1].missing.is_some(), found.filenode), (true, 10));
    // With a default and rows that are all new, they may have anything.
    let known = table(vec![column("a", 1)]);
    assert!(told(&relation(&["a", "b"]), &known, &now).columns[1].rewritten);
    // A default that came later says nothing of them.
    now.filenode = 9;
    assert!(!told(&relation(&["a", "b"]), &known, &now).columns[1].rewritten);
}

#[test]
fn a_dropped_column_is_not_a_renamed_one() {
    let known = table(vec![column("a", 1), column("b", 2)]);
    // The change is older than what the catalog says.
    let now = catalog(vec![column("a", 1), column("c", 3)]);
    let late = told(&relation(&["a", "b"]), &known, &now);
    assert_eq!((names(&late), late.dropped.len()), (vec!["a", "b"], 0));
    assert_eq!(late.columns[1].attnum, Some(2));
    assert_eq!(told(&relation(&["a", "c"]), &known, &now).dropped, ["b"]);
    let renamed = catalog(vec![column("a", 1), column("c", 2)]);
    let found = told(&relation(&["a", "c"]), &known, &renamed);
    assert_eq!((found.columns[1].attnum, found.dropped.len()), (Some(2), 0));
    // One that the catalog was never seen to have.
    let unseen = PgColumn { attnum: None, ..column("b", 0) };
    let known = table(vec![column("a", 1), unseen]);
    assert!(told(&relation(&["a", "c"]), &known, &now).dropped.is_empty());
    let only = catalog(vec![column("a", 1)]);
    assert_eq!(told(&relation(&["a"]), &known, &only).dropped, ["b"]);
}

#[test]
fn columns_are_seen_before_a_change() {
    let seen = |known: &CapturedTable, now: &[PgColumn]| seen(known, now, &catalog(now.to_vec()));
    let known = table(vec![column("a", 1), column("b", 2)]);
    assert_eq!(seen(&known, &known.columns), Columns::of(&known));
    let other = seen(&known, &[column("a", 1), column("b", 3)]);
    assert_eq!(other.columns, [column("a", 1), column("b", 3)]);
    let other = seen(&known, &[column("a", 1), column("c", 3)]);
    assert_eq!((names(&other), &other.dropped), (vec!["a", "c"], &vec!["b".to_owned()]));
    // In the stream already, and not to be seen by others yet.
    let young = PgColumn { attnum: None, ..column("y", 0) };
    let known = table(vec![column("a", 1), young]);
    let other = seen(&known, &[column("a", 1), column("z", 4)]);
    assert_eq!((names(&other), other.dropped.len()), (vec!["a", "y", "z"], 0));
}
