//! Destination configurations as requests carry them, checked and made into what is kept.
//!
//! The S3 and the extended S3 configuration, and their updates, have the same members as far as
//! hydrant has them, so one type reads all four. What hydrant does not do is refused by name.

use std::collections::BTreeMap;

use hydrant_core::destination::{Compression, DestinationSettings, S3Settings};
use serde::Deserialize;
use serde_json::Value;

use crate::checks::Checks;
use crate::error::Error;
use crate::stream::{Destination, Hints};

const COMPRESSION_FORMATS: &[&str] = &["UNCOMPRESSED", "GZIP", "ZIP", "Snappy", "HADOOP_SNAPPY"];
/// Largest block that is switched off and only kept to be shown again, in bytes of JSON.
const SHOWN_BLOCK_BYTES_MAX: usize = 16 << 10;

/// `BufferingHints`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct BufferingHints {
    #[serde(rename = "SizeInMBs")]
    size_in_mbs: Option<i64>,
    interval_in_seconds: Option<i64>,
}

/// `S3DestinationConfiguration`, `ExtendedS3DestinationConfiguration` and their updates.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct S3Configuration {
    #[serde(rename = "RoleARN")]
    role_arn: Option<String>,
    #[serde(rename = "BucketARN")]
    bucket_arn: Option<String>,
    prefix: Option<String>,
    error_output_prefix: Option<String>,
    buffering_hints: Option<BufferingHints>,
    compression_format: Option<String>,
    encryption_configuration: Option<Value>,
    cloud_watch_logging_options: Option<Value>,
    processing_configuration: Option<Value>,
    s3_backup_mode: Option<String>,
    s3_backup_configuration: Option<Value>,
    s3_backup_update: Option<Value>,
    data_format_conversion_configuration: Option<Value>,
    dynamic_partitioning_configuration: Option<Value>,
    file_extension: Option<String>,
    custom_time_zone: Option<String>,
}

impl S3Configuration {
    /// The destination these members describe; those that are absent are taken from `base`.
    /// `at` is where the configuration stands in the request, for AWS's wording.
    pub(crate) fn into_destination(
        self,
        at: &str,
        base: Option<&Destination>,
    ) -> Result<Destination, Error> {
        self.check(at, base.is_some())?;
        self.refuse()?;
        let hints = self.hints(base.map_or(Hints::DEFAULT, |b| b.hints))?;
        let shown = self.shown(base.map(|b| b.shown.clone()).unwrap_or_default())?;
        let old = base.map(|b| match &b.settings {
            DestinationSettings::S3(settings) => settings.clone(),
        });
        let text =
            |new: Option<String>, old: fn(&S3Settings) -> &String, from: &Option<S3Settings>| {
                new.or_else(|| from.as_ref().map(|s| old(s).clone())).unwrap_or_default()
            };
        let bucket_arn =
            self.bucket_arn.or_else(|| base.map(|b| b.bucket_arn.clone())).unwrap_or_default();
        let compression = match self.compression_format.as_deref() {
            Some("GZIP") => Compression::Gzip,
            Some(_) => Compression::Uncompressed,
            None => old.as_ref().map(|s| s.compression).unwrap_or_default(),
        };
        let settings = S3Settings {
            bucket: bucket_arn.rsplit(':').next().unwrap_or_default().to_owned(),
            prefix: text(self.prefix, |s| &s.prefix, &old),
            error_output_prefix: text(self.error_output_prefix, |s| &s.error_output_prefix, &old),
            compression,
            file_extension: text(self.file_extension, |s| &s.file_extension, &old),
            time_zone: text(self.custom_time_zone, |s| &s.time_zone, &old),
        };
        let role_arn =
            self.role_arn.or_else(|| base.map(|b| b.role_arn.clone())).unwrap_or_default();
        Ok(Destination {
            settings: DestinationSettings::S3(settings),
            hints,
            role_arn,
            bucket_arn,
            shown,
        })
    }

    fn check(&self, at: &str, update: bool) -> Result<(), Error> {
        let mut checks = Checks::default();
        for (member, value, max, matches, pattern) in [
            ("roleARN", &self.role_arn, 512, is_role_arn as fn(&str) -> bool, ROLE_ARN),
            ("bucketARN", &self.bucket_arn, 2048, is_bucket_arn, BUCKET_ARN),
        ] {
            let at = format!("{at}.{member}");
            match value {
                Some(text) => {
                    checks.length(&at, text, 1, max);
                    checks.pattern(&at, text, matches(text), pattern);
                }
                None if update => {}
                None => drop(checks.required::<String>(&at, None)),
            }
        }
        for (member, value, max) in [
            ("prefix", &self.prefix, 1024),
            ("errorOutputPrefix", &self.error_output_prefix, 1024),
            ("fileExtension", &self.file_extension, 128),
            ("customTimeZone", &self.custom_time_zone, 50),
        ] {
            checks.length(&format!("{at}.{member}"), value.as_deref().unwrap_or_default(), 0, max);
        }
        if let Some(text) = &self.file_extension {
            checks.pattern(
                &format!("{at}.fileExtension"),
                text,
                is_file_extension(text),
                "^$|\\.[0-9a-z!\\-_.*'()]+",
            );
        }
        if let Some(text) = &self.custom_time_zone {
            let valid = text.bytes().all(|b| b.is_ascii_alphabetic() || b"/_".contains(&b));
            checks.pattern(&format!("{at}.customTimeZone"), text, valid, "^$|[a-zA-Z/_]+");
        }
        if let Some(format) = &self.compression_format {
            checks.one_of(&format!("{at}.compressionFormat"), format, COMPRESSION_FORMATS);
        }
        if let Some(mode) = &self.s3_backup_mode {
            checks.one_of(&format!("{at}.s3BackupMode"), mode, &["Disabled", "Enabled"]);
        }
        if let Some(hints) = self.buffering_hints {
            let at = format!("{at}.bufferingHints");
            if let Some(size) = hints.size_in_mbs {
                checks.number(&format!("{at}.sizeInMBs"), size, 1, 128);
            }
            if let Some(interval) = hints.interval_in_seconds {
                checks.number(&format!("{at}.intervalInSeconds"), interval, 0, 900);
            }
        }
        checks.done()
    }

    fn hints(&self, old: Hints) -> Result<Hints, Error> {
        match self.buffering_hints {
            None | Some(BufferingHints { size_in_mbs: None, interval_in_seconds: None }) => Ok(old),
            Some(BufferingHints { size_in_mbs: Some(size), interval_in_seconds: Some(time) }) => {
                // Both were checked against far smaller numbers.
                let number = |n| u32::try_from(n).unwrap_or_default();
                Ok(Hints { size_mbs: number(size), interval_seconds: number(time) })
            }
            Some(_) => Err(Error::InvalidArgument(
                "BufferingHints: SizeInMBs and IntervalInSeconds must both be specified, or neither."
                    .into(),
            )),
        }
    }

    /// Refuses what hydrant does not do.
    fn refuse(&self) -> Result<(), Error> {
        if let Some(format) = &self.compression_format
            && !matches!(format.as_str(), "UNCOMPRESSED" | "GZIP")
        {
            return Err(unsupported("CompressionFormat", format, "Use UNCOMPRESSED or GZIP."));
        }
        if let Some(block) = &self.encryption_configuration
            && given(block).any(|(member, _)| member != "NoEncryptionConfig")
        {
            let what = "KMSEncryptionConfig";
            return Err(unsupported("EncryptionConfiguration", what, "Use NoEncryptionConfig."));
        }
        if self.s3_backup_mode.as_deref() == Some("Enabled") {
            return Err(unsupported("S3BackupMode", "Enabled", "Use Disabled."));
        }
        for (member, block) in [
            ("S3BackupConfiguration", &self.s3_backup_configuration),
            ("S3BackupUpdate", &self.s3_backup_update),
        ] {
            if block.as_ref().is_some_and(|b| given(b).next().is_some()) {
                return Err(unsupported(member, "a backup", "Leave it out."));
            }
        }
        for (member, block) in self.blocks() {
            let Some(block) = block else { continue };
            // Format conversion is the one block AWS takes as switched on when it does not say.
            let unsaid =
                member == "DataFormatConversionConfiguration" || given(block).next().is_some();
            let enabled = block.get("Enabled").and_then(Value::as_bool);
            if !enabled.map_or(!unsaid, |enabled| !enabled) {
                let hint = "Leave it out, or set Enabled to false.";
                return Err(unsupported(member, "enabled", hint));
            }
        }
        Ok(())
    }

    fn blocks(&self) -> [(&'static str, &Option<Value>); 4] {
        [
            ("CloudWatchLoggingOptions", &self.cloud_watch_logging_options),
            ("ProcessingConfiguration", &self.processing_configuration),
            ("DataFormatConversionConfiguration", &self.data_format_conversion_configuration),
            ("DynamicPartitioningConfiguration", &self.dynamic_partitioning_configuration),
        ]
    }

    fn shown(&self, mut shown: BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, Error> {
        for (member, block) in self.blocks() {
            let Some(block) = block else { continue };
            if block.to_string().len() > SHOWN_BLOCK_BYTES_MAX {
                return Err(Error::InvalidArgument(format!("{member} is too large.")));
            }
            shown.insert(member.to_owned(), block.clone());
        }
        Ok(shown)
    }
}

/// The members of a block that are not null.
fn given(block: &Value) -> impl Iterator<Item = (&String, &Value)> {
    block.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null())
}

/// The refusal of something AWS has and hydrant has not.
pub(crate) fn unsupported(member: &str, what: &str, hint: &str) -> Error {
    Error::InvalidArgument(format!("hydrant does not support {member} ({what}). {hint}"))
}

/// AWS's pattern of a role's ARN.
pub(crate) const ROLE_ARN: &str = "arn:.*:iam::\\d{12}:role/[a-zA-Z_0-9+=,.@\\-_/]+";
const BUCKET_ARN: &str = "arn:.*:s3:::[\\w\\.\\-]{1,255}";

/// Whether the text matches [`ROLE_ARN`].
pub(crate) fn is_role_arn(text: &str) -> bool {
    let Some((head, role)) = text.rsplit_once(":role/") else { return false };
    let Some((head, account)) = head.rsplit_once(":iam::") else { return false };
    let named = role.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@-_/".contains(&b));
    let account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    head.starts_with("arn:") && account && named && !role.is_empty()
}

fn is_bucket_arn(text: &str) -> bool {
    let Some((head, bucket)) = text.rsplit_once(":s3:::") else { return false };
    head.starts_with("arn:")
        && (1..=255).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_file_extension(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!-_.*'()".contains(&b);
    text.is_empty() || (text.len() > 1 && text.starts_with('.') && text.bytes().all(allowed))
}
