//! `DeliveryStreamDescription`, as `DescribeDeliveryStream` shows it.

use hydrant_core::arn::Arn;
use hydrant_core::capture::{CapturedTable, SourceReport, SourceState, TableState};
use hydrant_core::clock::Timestamp;
use hydrant_core::destination::{Compression, DestinationSettings};
use serde_json::{Map, Value, json};

use crate::database::{Database, Stage};
use crate::stream::{DESTINATION_ID, DeliveryStream, Destination, Source};

/// Longest `Details` of a failure, in characters (AWS).
const DETAILS_CHARS_MAX: usize = 1024;

/// The description, with the destination left out if the caller has seen it. `captured` is the
/// source of a delivery stream that reads a database.
pub(crate) fn describe(
    stream: &DeliveryStream,
    captured: Option<&SourceReport>,
    now: Timestamp,
    destinations: bool,
) -> Value {
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
    if let Source::Database(database) = &stream.source {
        let described = describe_database(stream, database, captured);
        out["Source"] = json!({ "DatabaseSourceDescription": described });
        if let Some(failed) = failure_of(database, captured) {
            out["FailureDescription"] = failed;
        }
    }
    out
}

/// `DatabaseSourceDescription`: what was given, and the snapshot of each table.
fn describe_database(
    stream: &DeliveryStream,
    database: &Database,
    captured: Option<&SourceReport>,
) -> Value {
    let mut out = json!(database.configuration);
    if let Some(source) = captured.filter(|source| !source.tables.is_empty()) {
        let tables = source.tables.iter();
        let tables: Vec<Value> = tables.map(|table| snapshot_info(stream, source, table)).collect();
        out["SnapshotInfo"] = json!(tables);
    }
    out
}

/// `DatabaseSnapshotInfo`. A snapshot is taken for the delivery stream when it is made; when a
/// later one was asked for is not kept.
fn snapshot_info(stream: &DeliveryStream, source: &SourceReport, table: &CapturedTable) -> Value {
    let stands = matches!(source.state, SourceState::Paused | SourceState::Failed(_));
    let status = match table.state {
        TableState::Live => "COMPLETE",
        TableState::Errored => "SUSPENDED",
        TableState::Pending | TableState::Snapshotting if stands => "SUSPENDED",
        TableState::Pending | TableState::Snapshotting => "IN_PROGRESS",
    };
    let mut out = json!({
        "Id": format!("{}-{}", source.epoch, table.oid),
        "Table": table.table.to_string(),
        "RequestTimestamp": stream.created.as_secs_f64(),
        "RequestedBy": "FIREHOSE",
        "Status": status,
    });
    if table.state == TableState::Errored {
        let reason = table.reason.as_deref().unwrap_or_default();
        out["FailureDescription"] = failure(reason, "the table is stopped");
    }
    out
}

/// Why the database is not read, if it is not.
fn failure_of(database: &Database, captured: Option<&SourceReport>) -> Option<Value> {
    if let Stage::Failed(reason) = &database.stage {
        return Some(failure(reason, "the source cannot be made"));
    }
    let source = captured.filter(|source| matches!(source.state, SourceState::Failed(_)))?;
    Some(failure(&source.reason, &source.state.name()))
}

/// `FailureDescription`, in one line of text as AWS's pattern has it.
fn failure(reason: &str, otherwise: &str) -> Value {
    let reason = if reason.trim().is_empty() { otherwise } else { reason };
    let line = |c: char| if c.is_control() { ' ' } else { c };
    let details: String = reason.chars().map(line).take(DETAILS_CHARS_MAX).collect();
    json!({ "Type": "UNKNOWN_ERROR", "Details": details })
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
