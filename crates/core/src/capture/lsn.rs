//! Places in a PostgreSQL server's write-ahead log, and in what a source made of it.

use serde::{Deserialize, Serialize};

/// A byte position in the write-ahead log (PostgreSQL: `pg_lsn`). Shown and stored as PostgreSQL
/// writes it, `16/B374D848`. Zero is no position.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

/// The text is not an LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an LSN: two hexadecimal numbers of up to eight digits with a / between them are needed"
)]
pub struct InvalidLsn;

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl std::str::FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        let part = |digits: &str| {
            let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
            let parsed = (hex && digits.len() <= 8).then(|| u32::from_str_radix(digits, 16).ok());
            parsed.flatten().map(u64::from).ok_or(InvalidLsn)
        };
        Ok(Self(part(high)? << 32 | part(low)?))
    }
}

impl TryFrom<String> for Lsn {
    type Error = InvalidLsn;
    fn try_from(text: String) -> Result<Self, InvalidLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

/// A place in the changes of a source: the position of a transaction's commit, and a number within
/// the transaction. Grows from record to record of a source and epoch; rows of a snapshot have the
/// snapshot's consistent point as their commit, and come before every change.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// LSN of the transaction's commit record.
    pub commit_lsn: Lsn,
    /// Which change of the transaction, from 1.
    pub seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_lsn_reads_back_from_its_text(n: u64) {
            prop_assert_eq!(Lsn(n).to_string().parse(), Ok(Lsn(n)));
        }

        #[test]
        fn any_text_is_an_lsn_or_an_error(text: String) {
            let _ = text.parse::<Lsn>();
        }
    }

    #[test]
    fn lsns_are_written_as_postgresql_does() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        for wrong in ["", "/", "1/", "/1", "1/123456789", "+1/2", "g/1", "1/2/3"] {
            assert_eq!(wrong.parse::<Lsn>(), Err(InvalidLsn), "{wrong}");
        }
    }
}
