//! PostgreSQL's columns as the warehouse's, and what a change of them means for a table.

use hydrant_core::capture::{CapturedTable, PgColumn};

use super::{Folded, Followed};
use crate::catalog::ColumnDef;
use crate::session::ColumnType;

/// Most digits of a NUMBER.
const DIGITS_MAX: i32 = 38;
/// Length word of a type modifier.
const MODIFIER_HEAD: i32 = 4;

/// A name as Snowflake would have it: one that is written without quotes in PostgreSQL is written
/// without quotes here.
pub(super) fn name(pg: &str) -> String {
    let plain = pg.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && pg
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '$'));
    if plain { pg.to_ascii_uppercase() } else { pg.to_owned() }
}

/// The type that holds a column's values.
fn kind(column: &PgColumn) -> ColumnType {
    // pg_type.dat
    match column.type_oid {
        16 => ColumnType::Boolean,
        20 | 21 | 23 | 26 => ColumnType::Number { precision: 38, scale: 0 },
        700 | 701 => ColumnType::Real,
        1700 => numeric(column.type_modifier),
        1082 => ColumnType::Date,
        1083 => ColumnType::Time,
        1114 => ColumnType::TimestampNtz,
        1184 => ColumnType::TimestampLtz,
        17 => ColumnType::Binary,
        114 | 3802 => ColumnType::Variant,
        _ if column.type_name.ends_with("[]") => ColumnType::Variant,
        _ => ColumnType::Text,
    }
}

/// `numeric(p,s)` as NUMBER where one can have as many digits, else as a text, which has all of them.
fn numeric(modifier: i32) -> ColumnType {
    if modifier < MODIFIER_HEAD {
        return ColumnType::Text;
    }
    let modifier = modifier - MODIFIER_HEAD;
    let precision = (modifier >> 16) & 0xffff;
    // Eleven bits with a sign.
    let scale = ((modifier & 0x7ff) ^ 1024) - 1024;
    if (1..=DIGITS_MAX).contains(&precision) && (0..=precision.min(DIGITS_MAX - 1)).contains(&scale)
    {
        ColumnType::Number { precision: precision as u8, scale: scale as u8 }
    } else {
        ColumnType::Text
    }
}

/// The columns of the warehouse's table.
pub(super) fn define(columns: &[PgColumn], followed: &Followed) -> Vec<ColumnDef> {
    let define = |column: &PgColumn| ColumnDef {
        name: name(&column.name),
        kind: match followed.text.contains(&column.name) {
            true => ColumnType::Text,
            false => kind(column),
        },
        length: None,
        nullable: column.key.is_none(),
        primary_key: column.key.is_some(),
        comment: String::new(),
    };
    columns.iter().map(define).collect()
}

/// The columns of a captured table that a table of ours takes.
pub(super) fn taken(captured: &CapturedTable, followed: &Followed) -> Vec<PgColumn> {
    let taken = |c: &&PgColumn| !followed.exclude.contains(&c.name);
    captured.columns.iter().filter(taken).cloned().collect()
}

/// The columns that rows with those of `at` become. After a start the source may tell of columns as
/// they were, until it has `seen` the catalog: what was added stays until then, and what was dropped
/// does not come back.
pub(super) fn next(at: &Folded, now: &[PgColumn], seen: bool) -> Vec<PgColumn> {
    let is_gone = |c: &PgColumn| match c.attnum {
        Some(attnum) => at.gone.contains_key(&attnum),
        // Told by the stream after it was dropped.
        None => at.gone.values().any(|name| *name == c.name),
    };
    let mut next: Vec<PgColumn> = now.iter().filter(|c| !is_gone(c)).cloned().collect();
    for have in &at.columns {
        let is_told = |c: &PgColumn| c.name == have.name || c.attnum == have.attnum;
        if !seen && have.attnum.is_some() && !next.iter().any(is_told) {
            next.push(have.clone());
        }
    }
    for column in &mut next {
        // Rows are told apart by it where there is no key.
        let same = |c: &&PgColumn| c.name == column.name && is_same(c, column);
        if let Some(have) = at.columns.iter().find(same) {
            column.attnum = column.attnum.or(have.attnum);
            (column.missing, column.rewritten) = (have.missing.clone(), have.rewritten);
        }
    }
    if next.iter().all(|c| c.attnum.is_some()) {
        next.sort_by_key(|c| c.attnum);
    }
    next
}

/// Makes the columns of `at` those that [`next`] found.
pub(super) fn change(at: &mut Folded, next: Vec<PgColumn>) {
    for have in std::mem::take(&mut at.columns) {
        let Some(attnum) = have.attnum else { continue };
        if !next.iter().any(|c| c.attnum == Some(attnum)) {
            at.gone.insert(attnum, have.name);
        }
    }
    at.columns = next;
}

/// Whether two columns are the same one, as far as is known.
fn is_same(a: &PgColumn, b: &PgColumn) -> bool {
    match (a.attnum, b.attnum) {
        (Some(a), Some(b)) => a == b,
        _ => a.name == b.name,
    }
}

/// Places of the primary key's columns, in its order. None: a row has no key but itself.
pub(super) fn key(columns: &[PgColumn]) -> Vec<usize> {
    let mut key: Vec<(u16, usize)> =
        columns.iter().enumerate().filter_map(|(n, c)| Some((c.key?, n))).collect();
    key.sort_unstable();
    key.into_iter().map(|(_, n)| n).collect()
}

/// How a table's columns became others.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Altered {
    Not,
    /// Further columns, NULL in the rows that are there.
    Added,
    /// Columns gone, or further ones that are not NULL in the rows that are there: those are written
    /// anew.
    Rewritten,
}

/// What the columns in PostgreSQL now mean for rows that have the columns `have`. An error says why
/// the rows cannot be made like those in PostgreSQL from the changes alone.
pub(super) fn compare(have: &[PgColumn], now: &[PgColumn]) -> Result<Altered, String> {
    let find = |columns: &[PgColumn], one: &PgColumn| columns.iter().any(|c| is_same(c, one));
    let names = |columns: Vec<&PgColumn>| -> String {
        columns.iter().map(|c| format!("'{}'", c.name)).collect::<Vec<_>>().join(", ")
    };
    let added: Vec<&PgColumn> = now.iter().filter(|c| !find(have, c)).collect();
    let dropped: Vec<&PgColumn> = have.iter().filter(|c| !find(now, c)).collect();
    for old in have {
        let Some(new) = now.iter().find(|c| is_same(c, old)) else { continue };
        if new.name != old.name {
            return Err(format!("column '{}' was renamed to '{}'", old.name, new.name));
        }
        if (new.type_oid, new.type_modifier) != (old.type_oid, old.type_modifier) {
            return Err(format!(
                "column '{}' was {} and is {}, and the stream does not tell what became of its \
                 values",
                old.name, old.type_name, new.type_name
            ));
        }
        if new.key != old.key {
            return Err("the primary key is another one".to_owned());
        }
    }
    if dropped.iter().chain(&added).any(|c| c.key.is_some()) {
        return Err("the primary key is another one".to_owned());
    }
    if let Some(again) = added.iter().find(|a| dropped.iter().any(|d| d.name == a.name)) {
        return Err(format!("column '{}' was dropped and added again", again.name));
    }
    if let Some(new) = added.iter().find(|c| (!c.nullable || c.rewritten) && c.missing.is_none()) {
        let why = if new.rewritten { "with rows written anew" } else { "NOT NULL" };
        return Err(format!(
            "column '{}' was added {why}, and the stream does not tell its values in the rows that \
             were there",
            new.name
        ));
    }
    let numbered = dropped.iter().chain(&added).all(|c| c.attnum.is_some());
    match (added.is_empty(), dropped.is_empty()) {
        (true, true) => Ok(Altered::Not),
        (false, false) if !numbered => Err(format!(
            "columns {} are gone and {} are new: whether they were renamed, the stream does not tell",
            names(dropped),
            names(added)
        )),
        (_, false) if key(have).is_empty() => Err(format!(
            "columns {} are gone, and without a primary key the rows cannot be told apart without them",
            names(dropped)
        )),
        (_, false) => Ok(Altered::Rewritten),
        (false, true) if added.iter().any(|c| c.missing.is_some()) => Ok(Altered::Rewritten),
        (false, true) => Ok(Altered::Added),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_oid: u32, type_modifier: i32, type_name: &str) -> PgColumn {
        let (name, type_name) = (name.to_owned(), type_name.to_owned());
        let nullable = true;
        PgColumn { name, type_oid, type_name, type_modifier, nullable, ..PgColumn::default() }
    }

    #[test]
    fn types_and_names() {
        let of = |oid, modifier, text| kind(&column("a", oid, modifier, text));
        let numeric = |p: i32, s: i32| of(1700, ((p << 16) | (s & 0x7ff)) + 4, "numeric");
        assert_eq!(numeric(10, 2), ColumnType::Number { precision: 10, scale: 2 });
        assert_eq!(numeric(39, 2), ColumnType::Text);
        assert_eq!(numeric(3, 5), ColumnType::Text);
        assert_eq!(numeric(3, -2), ColumnType::Text);
        assert_eq!(of(1700, -1, "numeric"), ColumnType::Text);
        assert_eq!(of(1009, -1, "text[]"), ColumnType::Variant);
        assert_eq!(of(99_999, -1, "mood"), ColumnType::Text);
        assert_eq!(
            (name("a_1$"), name("Ab"), name("a b")),
            ("A_1$".into(), "Ab".into(), "a b".into())
        );
    }

    #[test]
    fn changes_of_columns() {
        let (a, b) = (column("a", 23, -1, "integer"), column("b", 25, -1, "text"));
        let keyed = PgColumn { key: Some(1), nullable: false, ..a.clone() };
        let ab = [keyed.clone(), b.clone()];
        assert_eq!(compare(&ab, &ab), Ok(Altered::Not));
        assert_eq!(compare(&ab[..1], &ab), Ok(Altered::Added));
        assert_eq!(compare(&ab, &ab[..1]), Ok(Altered::Rewritten));
        let c = PgColumn { name: "c".into(), ..b.clone() };
        assert!(compare(&ab, &[keyed.clone(), c]).is_err_and(|e| e.contains("renamed")));
        let long = PgColumn { type_oid: 1043, ..b.clone() };
        assert!(compare(&ab, &[keyed, long]).is_err());
        assert!(compare(&[a.clone(), b.clone()], std::slice::from_ref(&a)).is_err());
        let filled = PgColumn { nullable: false, ..b.clone() };
        assert!(compare(std::slice::from_ref(&a), &[a.clone(), filled.clone()]).is_err());
        let told = PgColumn { missing: Some("5".into()), ..filled };
        assert_eq!(compare(std::slice::from_ref(&a), &[a.clone(), told]), Ok(Altered::Rewritten));
        let anew = PgColumn { rewritten: true, ..b };
        assert!(compare(std::slice::from_ref(&a), &[a.clone(), anew]).is_err());
    }

    #[test]
    fn numbers_tell_columns_apart() {
        let column =
            |name: &str, attnum| PgColumn { attnum: Some(attnum), ..column(name, 25, -1, "text") };
        let key = PgColumn { key: Some(1), ..column("k", 1) };
        let of = |name, attnum| [key.clone(), column(name, attnum)];
        let have = of("a", 2);
        assert_eq!(compare(&have, &of("b", 3)), Ok(Altered::Rewritten));
        assert!(compare(&have, &of("b", 2)).is_err_and(|e| e.contains("renamed to 'b'")));
        assert!(compare(&have, &of("a", 3)).is_err_and(|e| e.contains("again")));
        let at = Folded {
            columns: have.to_vec(),
            gone: [(4, "d".to_owned())].into(),
            ..Folded::default()
        };
        let names = |now: &[PgColumn], seen: bool| -> Vec<String> {
            next(&at, now, seen).into_iter().map(|c| c.name).collect()
        };
        // Told late, and of before.
        assert_eq!(names(&have[..1], false), ["k", "a"]);
        assert_eq!(names(&have[..1], true), ["k"]);
        assert_eq!(names(&[have.to_vec(), of("d", 4)[1..].to_vec()].concat(), true), ["k", "a"]);
        assert_eq!(names(&of("b", 3), false), ["k", "a", "b"]);
        assert_eq!(names(&of("b", 2), false), ["k", "b"]);
    }
}
