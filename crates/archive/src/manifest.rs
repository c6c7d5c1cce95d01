//! The manifest of a point: which files a data directory had at one moment, and which objects of the
//! archive hold their bytes.

use std::fmt;
use std::path::{Component, Path as FilePath};

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ArchiveError;

/// The format this build writes and reads.
const FORMAT: u32 = 1;
/// Largest manifest; about six million files.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// Where the manifests are.
pub(crate) const POINTS: &str = "points";
/// Where the bytes of files are, by what they hold.
pub(crate) const DATA: &str = "data";
/// What a data directory has in a copy, at its top.
const TOP: [&str; 5] = ["hydrant.db", "log", "bucket", "warehouse", "secrets.key"];
/// Digits of a checksum at the manifest's end.
const SUM_CHARS: usize = 64;

/// SHA-256 of some bytes, and thereby the name of the object that holds them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Sum([u8; 32]);

impl Sum {
    pub(crate) fn of(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }

    /// The object that holds the bytes.
    pub(crate) fn object(&self) -> Path {
        let text = self.to_string();
        Path::from_iter([DATA, &text[..2], &text[2..]])
    }

    /// Whose bytes an object holds.
    pub(crate) fn of_object(path: &Path) -> Option<Self> {
        let parts: Vec<_> = path.parts().collect();
        let [.., head, rest] = &parts[..] else { return None };
        Self::try_from(format!("{}{}", head.as_ref(), rest.as_ref())).ok()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Sum {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map(|()| Self(bytes))
    }
}

impl From<Sum> for String {
    fn from(sum: Sum) -> Self {
        sum.to_string()
    }
}

/// Some bytes of a file, one after the other with those of its other pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) sum: Sum,
    pub(crate) bytes: u64,
}

/// A file of the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    /// From the data directory.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Of a segment of the log and its index: what tells it from others of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) life: Option<String>,
    /// Whether a segment will not grow any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) complete: bool,
    pub(crate) pieces: Vec<Piece>,
}

/// A point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// One more than that of the point before.
    pub(crate) number: u64,
    /// The data directory it is of.
    pub(crate) writer: String,
    /// When its control store was copied, in ms since 1970. What was acknowledged before is in it.
    pub(crate) at_ms: u64,
    /// No record in it arrived later than this.
    pub(crate) last_ms: u64,
    /// The last commit in it.
    pub(crate) control_version: u64,
    pub(crate) files: Vec<File>,
}

impl Manifest {
    pub(crate) fn new(number: u64, writer: String, at_ms: u64) -> Self {
        let files = Vec::new();
        Self { format: FORMAT, number, writer, at_ms, last_ms: 0, control_version: 0, files }
    }

    /// The object that is, or would be, the manifest of this number.
    pub(crate) fn object(number: u64) -> Path {
        Path::from_iter([POINTS.to_owned(), format!("{number:012}.json")])
    }

    /// The number in such an object's name.
    pub(crate) fn number_of(path: &Path) -> Option<u64> {
        path.filename()?.strip_suffix(".json")?.parse().ok()
    }

    /// JSON, and its checksum in a line of its own.
    pub(crate) fn encode(&self) -> Result<Bytes, ArchiveError> {
        let failed = |e: serde_json::Error| ArchiveError::Damaged(e.to_string());
        let mut out = serde_json::to_vec(self).map_err(failed)?;
        let sum = Sum::of(Sha256::new_with_prefix(&out));
        out.push(b'\n');
        out.extend_from_slice(sum.to_string().as_bytes());
        if out.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(ArchiveError::Refused(format!(
                "the list of {} files is longer than {MANIFEST_BYTES_MAX} bytes: put fewer and \
                 larger objects into hydrant's own bucket",
                self.files.len()
            )));
        }
        Ok(out.into())
    }

    /// Reads what [`Manifest::encode`] made, and nothing that could name a file outside.
    pub(crate) fn decode(number: u64, bytes: &[u8]) -> Result<Self, ArchiveError> {
        let damaged = |what: &str| {
            ArchiveError::Damaged(format!("point {number} is {what}; restore another: --point N"))
        };
        let at = bytes.len().checked_sub(SUM_CHARS + 1).ok_or_else(|| damaged("cut short"))?;
        let (json, sum) = (&bytes[..at], &bytes[at + 1..]);
        if sum != Sum::of(Sha256::new_with_prefix(json)).to_string().as_bytes() {
            return Err(damaged("not as written"));
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|_| damaged("of another version of hydrant"))?;
        let is_whole = |f: &File| f.bytes == f.pieces.iter().map(|p| p.bytes).sum::<u64>();
        if manifest.format != FORMAT {
            return Err(damaged("of another version of hydrant"));
        }
        if manifest.number != number || !manifest.files.iter().all(|f| is_whole(f) && is_inside(f))
        {
            return Err(damaged("not a point of hydrant's"));
        }
        Ok(manifest)
    }

    /// Everything it names.
    pub(crate) fn sums(&self) -> impl Iterator<Item = Sum> {
        self.files.iter().flat_map(|file| file.pieces.iter().map(|piece| piece.sum))
    }
}

/// Whether the file is one that a data directory has.
fn is_inside(file: &File) -> bool {
    let mut parts = FilePath::new(&file.path).components();
    let top = matches!(parts.next(), Some(Component::Normal(top)) if TOP.iter().any(|t| top == *t));
    top && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str) -> Manifest {
        let sum = Sum::of(Sha256::new_with_prefix(b"abc"));
        let pieces = vec![Piece { sum, bytes: 3 }];
        let file = File { path: path.to_owned(), bytes: 3, life: None, complete: false, pieces };
        Manifest { files: vec![file], ..Manifest::new(7, "me".to_owned(), 5) }
    }

    #[test]
    fn reads_back_and_notices_every_byte() {
        let manifest = manifest("log/1.seg");
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(7, &bytes).unwrap(), manifest);
        Manifest::decode(8, &bytes).unwrap_err();
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            // The line's end between the two is not looked at.
            let is_end = bytes[at] == b'\n';
            assert_eq!(Manifest::decode(7, &bad).is_ok(), is_end, "byte {at}");
            Manifest::decode(7, &bytes[..at]).unwrap_err();
        }
    }

    #[test]
    fn no_file_is_outside() {
        for path in ["../a", "/etc/passwd", "log/../../a", "tls/key.pem", "lock", ""] {
            Manifest::decode(7, &manifest(path).encode().unwrap()).unwrap_err();
        }
        for path in ["hydrant.db", "bucket/data/00/11", "warehouse/tables/U/F.parquet"] {
            Manifest::decode(7, &manifest(path).encode().unwrap()).unwrap();
        }
    }

    #[test]
    fn an_object_is_named_by_what_it_holds() {
        let sum = Sum::of(Sha256::new_with_prefix(b"abc"));
        assert_eq!(Sum::of_object(&sum.object()), Some(sum));
        assert!(sum.object().as_ref().starts_with("data/ba/7816bf"));
        assert_eq!(Manifest::number_of(&Manifest::object(12)), Some(12));
    }
}
