//! `DeliveryStreamDescription`, as `DescribeDeliveryStream` shows it.

use hydrant_core::arn::Arn;
use hydrant_core::clock::Timestamp;
use hydrant_core::destination::{Compression, DestinationSettings};
use serde_json::{Map, Value, json};

use crate::stream::{DESTINATION_ID, DeliveryStream, Destination, Source};

/// The description, with the destination left out if the caller has seen it.
pub(crate) fn describe(stream: &DeliveryStream, now: Timestamp, destinations: bool) -> Value {
    let mut out = json!({
        "DeliveryStreamName": stream.name,
        "DeliveryStreamARN": stream.arn().to_string(),
        "DeliveryStreamStatus": stream.status(now).as_str(),
        "DeliveryStreamType": stream.source.type_name(),
        "VersionId": stream.version.to_string(),
        "CreateTimestamp": stream.created.as_secs_f64(),
        "Destinations": if destinations { vec![describe_destination(&stream.destination)] } else { vec![] },
        "HasMoreDestinations": false,
    });
    if let Some(updated) = stream.updated {
        out["LastUpdateTimestamp"] = json!(updated.as_secs_f64());
    }
    if let Source::Kinesis { stream: source, role_arn, start } = &stream.source {
        let arn = Arn::new("kinesis", &stream.scope, format!("stream/{source}"));
        out["Source"] = json!({ "KinesisStreamSourceDescription": {
            "KinesisStreamARN": arn.to_string(),
            "RoleARN": role_arn,
            "DeliveryStartTimestamp": start.as_secs_f64(),
        }});
    }
    out
}

/// AWS shows an S3 destination twice, in the old form and in the extended one.
fn describe_destination(destination: &Destination) -> Value {
    let DestinationSettings::S3(settings) = &destination.settings;
    let mut plain = Map::new();
    plain.insert("RoleARN".into(), json!(destination.role_arn));
    plain.insert("BucketARN".into(), json!(destination.bucket_arn));
    insert_text(&mut plain, "Prefix", &settings.prefix);
    insert_text(&mut plain, "ErrorOutputPrefix", &settings.error_output_prefix);
    let hints = json!({
        "SizeInMBs": destination.hints.size_mbs,
        "IntervalInSeconds": destination.hints.interval_seconds,
    });
    plain.insert("BufferingHints".into(), hints);
    let compression = match settings.compression {
        Compression::Uncompressed => "UNCOMPRESSED",
        Compression::Gzip => "GZIP",
    };
    plain.insert("CompressionFormat".into(), json!(compression));
    let encryption = json!({ "NoEncryptionConfig": "NoEncryption" });
    plain.insert("EncryptionConfiguration".into(), encryption);
    let logging = destination.shown.get("CloudWatchLoggingOptions").cloned();
    let logging = logging.unwrap_or_else(|| json!({ "Enabled": false }));
    plain.insert("CloudWatchLoggingOptions".into(), logging);

    let mut extended = plain.clone();
    extended.insert("S3BackupMode".into(), json!("Disabled"));
    insert_text(&mut extended, "FileExtension", &settings.file_extension);
    insert_text(&mut extended, "CustomTimeZone", &settings.time_zone);
    for (member, block) in &destination.shown {
        extended.insert(member.clone(), block.clone());
    }
    json!({
        "DestinationId": DESTINATION_ID,
        "S3DestinationDescription": plain,
        "ExtendedS3DestinationDescription": extended,
    })
}

fn insert_text(out: &mut Map<String, Value>, member: &str, text: &str) {
    if !text.is_empty() {
        out.insert(member.to_owned(), json!(text));
    }
}
