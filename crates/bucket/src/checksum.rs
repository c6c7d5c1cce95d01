//! Checksums: what a client declares, what its bytes come to, and what is kept with an object.
//!
//! Follows "Checking object integrity for data uploads in Amazon S3" in the S3 user guide.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use s3s::crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use serde::{Deserialize, Serialize};

/// An algorithm of `x-amz-checksum-…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 5] =
        [Self::Crc32, Self::Crc32c, Self::Crc64nvme, Self::Sha1, Self::Sha256];

    /// As `x-amz-checksum-algorithm` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header (or trailer) that carries a value.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name))
    }

    fn size_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The polynomial, lowest power first, if the checksum of a whole follows from its parts'.
    fn polynomial(self) -> Option<u64> {
        match self {
            Self::Crc32 => Some(0xedb8_8320),
            Self::Crc32c => Some(0x82f6_3b78),
            Self::Crc64nvme => Some(0x9a6c_9329_ac4b_c9b5),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// The value in base64, if it is one of this algorithm.
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(text).ok().filter(|bytes| bytes.len() == self.size_bytes())
    }
}

/// An upload's algorithm, and whether the object's checksum is one of all its bytes
/// (`FULL_OBJECT`) or one of its parts' checksums (`COMPOSITE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub(crate) algorithm: Algorithm,
    pub(crate) full_object: bool,
}

impl Choice {
    /// The choice that `x-amz-checksum-algorithm` and `-type` make, or `None` where S3 has no such
    /// pair: CRC64NVME has no composite form, SHA has no other.
    pub(crate) fn new(algorithm: Algorithm, full_object: Option<bool>) -> Option<Self> {
        let full_object = full_object.unwrap_or(algorithm == Algorithm::Crc64nvme);
        let exists = match algorithm {
            Algorithm::Crc64nvme => full_object,
            Algorithm::Sha1 | Algorithm::Sha256 => !full_object,
            Algorithm::Crc32 | Algorithm::Crc32c => true,
        };
        exists.then_some(Self { algorithm, full_object })
    }
}

/// A checksum as it is kept and returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) algorithm: Algorithm,
    /// Base64, for a composite one with `-N` after it.
    pub(crate) value: String,
    pub(crate) full_object: bool,
}

impl Stored {
    pub(crate) fn type_name(&self) -> &'static str {
        if self.full_object { "FULL_OBJECT" } else { "COMPOSITE" }
    }

    /// The value, if it is of this algorithm.
    pub(crate) fn of(&self, algorithm: Algorithm) -> Option<String> {
        (self.algorithm == algorithm).then(|| self.value.clone())
    }

    /// The checksum of an object made of parts with these checksums and sizes. `None` if a part has
    /// none of this algorithm.
    pub(crate) fn of_parts(choice: Choice, parts: &[(Option<&Stored>, u64)]) -> Option<Self> {
        let algorithm = choice.algorithm;
        let values = parts
            .iter()
            .map(|(stored, size)| {
                let stored = stored.filter(|s| s.algorithm == algorithm)?;
                Some((algorithm.decode(&stored.value)?, *size))
            })
            .collect::<Option<Vec<_>>>()?;
        let value = match (choice.full_object, algorithm.polynomial()) {
            (true, Some(polynomial)) => {
                let field = Field { polynomial, one: 1 << (algorithm.size_bytes() * 8 - 1) };
                let whole = values.iter().fold(0, |sum, (value, size)| {
                    field.multiply(field.zeros(*size), sum) ^ big_endian(value)
                });
                let bytes = whole.to_be_bytes();
                BASE64_STANDARD.encode(&bytes[bytes.len() - algorithm.size_bytes()..])
            }
            (true, None) => return None,
            (false, _) => {
                let mut hasher = Hasher::new(algorithm);
                values.iter().for_each(|(value, _)| hasher.update(value));
                format!("{}-{}", BASE64_STANDARD.encode(hasher.finish()), values.len())
            }
        };
        Some(Self { algorithm, value, full_object: choice.full_object })
    }
}

/// Arithmetic of a CRC, bits reflected: the highest bit is the power 0.
struct Field {
    polynomial: u64,
    one: u64,
}

impl Field {
    fn multiply(&self, a: u64, mut b: u64) -> u64 {
        let (mut product, mut bit) = (0, self.one);
        while bit != 0 {
            if a & bit != 0 {
                product ^= b;
            }
            b = if b & 1 == 0 { b >> 1 } else { b >> 1 ^ self.polynomial };
            bit >>= 1;
        }
        product
    }

    /// What a checksum is multiplied by when this many bytes follow.
    fn zeros(&self, mut bytes: u64) -> u64 {
        let (mut power, mut square) = (self.one, self.one >> 8);
        while bytes > 0 {
            if bytes & 1 == 1 {
                power = self.multiply(power, square);
            }
            square = self.multiply(square, square);
            bytes >>= 1;
        }
        power
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// One algorithm, at work.
pub(crate) enum Hasher {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64nvme(Crc64Nvme),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Self::Crc32(Checksum::new()),
            Algorithm::Crc32c => Self::Crc32c(Checksum::new()),
            Algorithm::Crc64nvme => Self::Crc64nvme(Checksum::new()),
            Algorithm::Sha1 => Self::Sha1(Checksum::new()),
            Algorithm::Sha256 => Self::Sha256(Checksum::new()),
        }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Crc32(h) => h.update(data),
            Self::Crc32c(h) => h.update(data),
            Self::Crc64nvme(h) => h.update(data),
            Self::Sha1(h) => h.update(data),
            Self::Sha256(h) => h.update(data),
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc32(h) => h.finalize().to_vec(),
            Self::Crc32c(h) => h.finalize().to_vec(),
            Self::Crc64nvme(h) => h.finalize().to_vec(),
            Self::Sha1(h) => h.finalize().to_vec(),
            Self::Sha256(h) => h.finalize().to_vec(),
        }
    }
}

/// MD5 and, where wanted, one more checksum of the same bytes.
pub(crate) struct Digester {
    md5: Md5,
    chosen: Option<(Algorithm, Hasher)>,
    size_bytes: u64,
}

/// What bytes came to.
#[derive(Clone, Debug)]
pub(crate) struct Digests {
    pub(crate) md5: [u8; 16],
    pub(crate) checksum: Option<Stored>,
    pub(crate) size_bytes: u64,
}

impl Digests {
    /// The ETag of bytes that were sent in one piece, without quotes.
    pub(crate) fn etag(&self) -> String {
        hex::encode(self.md5)
    }
}

impl Digester {
    pub(crate) fn new(algorithm: Option<Algorithm>) -> Self {
        let chosen = algorithm.map(|a| (a, Hasher::new(a)));
        Self { md5: Checksum::new(), chosen, size_bytes: 0 }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        self.md5.update(data);
        if let Some((_, hasher)) = &mut self.chosen {
            hasher.update(data);
        }
        self.size_bytes += data.len() as u64;
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn finish(self) -> Digests {
        let checksum = self.chosen.map(|(algorithm, hasher)| Stored {
            algorithm,
            value: BASE64_STANDARD.encode(hasher.finish()),
            full_object: true,
        });
        Digests { md5: self.md5.finalize(), checksum, size_bytes: self.size_bytes }
    }
}

/// The ETag of an object uploaded in parts: MD5 of the parts' MD5s, and how many.
/// `None` if a part's ETag is not an MD5.
pub(crate) fn multipart_etag<'a>(
    part_etags: impl ExactSizeIterator<Item = &'a str>,
) -> Option<String> {
    let count = part_etags.len();
    let mut md5 = Md5::new();
    for etag in part_etags {
        md5.update(&hex::decode(etag).ok()?);
    }
    Some(format!("{}-{count}", hex::encode(md5.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(algorithm: Algorithm, data: &[u8]) -> Stored {
        let mut digester = Digester::new(Some(algorithm));
        digester.update(data);
        digester.finish().checksum.unwrap()
    }

    proptest::proptest! {
        #[test]
        fn a_full_object_checksum_of_parts_is_that_of_the_whole(
            parts in proptest::collection::vec(
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600), 1..6),
        ) {
            for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64nvme] {
                let sums: Vec<_> = parts.iter().map(|part| stored(algorithm, part)).collect();
                let sums: Vec<_> =
                    sums.iter().zip(&parts).map(|(s, p)| (Some(s), p.len() as u64)).collect();
                let choice = Choice::new(algorithm, Some(true)).unwrap();
                let whole = Stored::of_parts(choice, &sums).unwrap();
                proptest::prop_assert_eq!(whole, stored(algorithm, &parts.concat()));
            }
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(stored(Algorithm::Crc32, b"123456789").value, "y/Q5Jg==");
        assert_eq!(stored(Algorithm::Crc32c, b"123456789").value, "4waSgw==");
        assert_eq!(stored(Algorithm::Crc64nvme, b"123456789").value, "rosUhgp5mIg=");
        let etags = ["5d41402abc4b2a76b9719d911017c592", "7d793037a0760186574b0282f2f435e7"];
        let etag = multipart_etag(etags.into_iter()).unwrap();
        assert!(etag.ends_with("-2") && etag.len() == 34, "{etag}");
    }

    #[test]
    fn pairs_that_s3_does_not_have_are_refused() {
        assert!(Choice::new(Algorithm::Sha256, Some(true)).is_none());
        assert!(Choice::new(Algorithm::Crc64nvme, Some(false)).is_none());
        assert!(!Choice::new(Algorithm::Crc32, None).unwrap().full_object);
        assert!(Choice::new(Algorithm::Crc64nvme, None).unwrap().full_object);
    }
}
