//! The settings, checked, and the object keys they make.

use hydrant_core::clock::Timestamp;
use hydrant_core::destination::{Batch, Compression, S3Settings};
use jiff::tz::TimeZone;
use object_store::path::Path;
use uuid::Uuid;

use super::error::InvalidSettings;
use super::prefix::{Part, Prefix};

/// Longest key of an object (S3).
const KEY_BYTES_MAX: usize = 1_024;
/// Longest name of a delivery stream (AWS), for checking how long a key can get.
const NAME_BYTES_MAX: usize = 64;
/// The time prefix of a prefix without expressions. AWS writes it `YYYY/MM/dd/HH/`, and means this.
const DEFAULT_TIME_PREFIX: &str = "!{timestamp:yyyy/MM/dd/HH/}";

/// How the objects of a destination are named, as "Configure Amazon S3 object name format" in the
/// Firehose developer guide has it.
pub(super) struct Naming {
    prefix: Prefix,
    zone: TimeZone,
    extension: String,
}

impl Naming {
    /// Checks everything a key is made from.
    pub(super) fn new(settings: &S3Settings) -> Result<Self, InvalidSettings> {
        let zone = match settings.time_zone.as_str() {
            "" => TimeZone::UTC,
            name => TimeZone::get(name)
                .map_err(|_| InvalidSettings::TimeZone(name.chars().take(50).collect()))?,
        };
        let prefix = checked_prefixes(settings)?;
        let extension = match (settings.file_extension.as_str(), settings.compression) {
            ("", Compression::Uncompressed) => String::new(),
            ("", Compression::Gzip) => ".gz".to_owned(),
            (own, _) => own.to_owned(),
        };
        let naming = Self { prefix, zone, extension };
        naming.check_a_key()?;
        Ok(naming)
    }

    /// `<prefix>name-version-yyyy-MM-dd-HH-mm-ss-<uuid><extension>`, the UUID made from the batch's
    /// id, the time the arrival of its oldest record.
    pub(super) fn key(&self, batch: &Batch) -> String {
        self.key_for(batch.id, batch.delivery_stream.as_str(), batch.version, batch.first_arrival)
    }

    fn key_for(&self, id: [u8; 16], name: &str, version: u64, at: Timestamp) -> String {
        let at = jiff::Timestamp::from_millisecond(at.as_millis() as i64).unwrap_or_default();
        let at = at.to_zoned(self.zone.clone());
        let mut key = self.prefix.evaluate(&at, &id);
        let (year, month, day) = (at.year(), at.month(), at.day());
        let (hour, minute, second) = (at.hour(), at.minute(), at.second());
        let uuid = uuid::Builder::from_random_bytes(id).into_uuid();
        key.push_str(&format!(
            "{name}-{version}-{year:04}-{month:02}-{day:02}-{hour:02}-{minute:02}-{second:02}-{}{}",
            Uuid::hyphenated(uuid),
            self.extension,
        ));
        key
    }

    /// Keys differ from batch to batch in nothing that could make one invalid and another not: one
    /// of the longest kind stands for all.
    fn check_a_key(&self) -> Result<(), InvalidSettings> {
        let name = "n".repeat(NAME_BYTES_MAX);
        let key =
            self.key_for([0xff; 16], &name, u64::MAX, Timestamp::from_millis(1_725_451_200_000));
        if key.len() > KEY_BYTES_MAX {
            let reason =
                format!("a key would be {} bytes long, more than {KEY_BYTES_MAX}", key.len());
            return Err(InvalidSettings::Key(reason));
        }
        if key.starts_with('/') {
            return Err(InvalidSettings::Key("Prefix must not start with /".to_owned()));
        }
        Path::parse(&key).map(drop).map_err(|e| InvalidSettings::Key(e.to_string()))
    }
}

fn checked_prefixes(settings: &S3Settings) -> Result<Prefix, InvalidSettings> {
    let invalid = |member| move |reason| InvalidSettings::Prefix { member, reason };
    let prefix: Prefix = settings.prefix.parse().map_err(invalid("Prefix"))?;
    let errors: Prefix =
        settings.error_output_prefix.parse().map_err(invalid("ErrorOutputPrefix"))?;
    if prefix.has(&Part::ErrorOutputType) {
        let reason = "cannot contain !{firehose:error-output-type}.".to_owned();
        return Err(invalid("Prefix")(reason));
    }
    if prefix.has_expressions() {
        if settings.error_output_prefix.is_empty() {
            let reason = "cannot be null or empty when Prefix contains expressions.".to_owned();
            return Err(invalid("ErrorOutputPrefix")(reason));
        }
        if !errors.has(&Part::ErrorOutputType) {
            let reason = "must contain !{firehose:error-output-type} when Prefix contains \
                          expressions."
                .to_owned();
            return Err(invalid("ErrorOutputPrefix")(reason));
        }
        return Ok(prefix);
    }
    format!("{}{DEFAULT_TIME_PREFIX}", settings.prefix).parse().map_err(invalid("Prefix"))
}
