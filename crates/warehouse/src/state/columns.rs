//! PostgreSQL's columns as the warehouse's, and what a change of them means for a table.

use hydrant_core::capture::{CapturedTable, PgColumn};

use super::Followed;
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
    /// Columns gone, and perhaps further ones.
    Dropped,
}

/// What the columns in PostgreSQL now mean for rows that have the columns `have`. An error says why
/// the rows cannot be made like those in PostgreSQL from the changes alone.
pub(super) fn compare(have: &[PgColumn], now: &[PgColumn]) -> Result<Altered, String> {
    let find = |columns: &[PgColumn], name: &str| columns.iter().any(|c| c.name == name);
    let names = |columns: Vec<&PgColumn>| -> String {
        columns.iter().map(|c| format!("'{}'", c.name)).collect::<Vec<_>>().join(", ")
    };
    let added: Vec<&PgColumn> = now.iter().filter(|c| !find(have, &c.name)).collect();
    let dropped: Vec<&PgColumn> = have.iter().filter(|c| !find(now, &c.name)).collect();
    for old in have {
        let Some(new) = now.iter().find(|c| c.name == old.name) else { continue };
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
    match (added.is_empty(), dropped.is_empty()) {
        (true, true) => Ok(Altered::Not),
        (false, false) => Err(format!(
            "columns {} are gone and {} are new: whether they were renamed, the stream does not tell",
            names(dropped),
            names(added)
        )),
        (true, false) if key(have).is_empty() => Err(format!(
            "columns {} are gone, and without a primary key the rows cannot be told apart without them",
            names(dropped)
        )),
        (true, false) => Ok(Altered::Dropped),
        (false, true) => match added.iter().find(|c| !c.nullable) {
            Some(column) => Err(format!(
                "column '{}' was added NOT NULL, and the stream does not tell its values in the rows \
                 that were there",
                column.name
            )),
            None => Ok(Altered::Added),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_oid: u32, type_modifier: i32, type_name: &str) -> PgColumn {
        let (name, type_name) = (name.to_owned(), type_name.to_owned());
        PgColumn { name, type_oid, type_name, type_modifier, key: None, nullable: true }
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
        assert_eq!(compare(&ab, &ab[..1]), Ok(Altered::Dropped));
        let c = PgColumn { name: "c".into(), ..b.clone() };
        assert!(compare(&ab, &[keyed.clone(), c]).is_err_and(|e| e.contains("renamed")));
        let long = PgColumn { type_oid: 1043, ..b.clone() };
        assert!(compare(&ab, &[keyed, long]).is_err());
        assert!(compare(&[a.clone(), b.clone()], std::slice::from_ref(&a)).is_err());
        let filled = PgColumn { nullable: false, ..b };
        assert!(compare(std::slice::from_ref(&a), &[a.clone(), filled]).is_err());
    }
}
