//! `CreateDeliveryStream`.

use std::collections::BTreeMap;
use std::time::Duration;

use hydrant_core::arn::Arn;
use hydrant_core::control::ControlError;
use hydrant_core::limits::RETENTION_HOURS_MIN;
use hydrant_core::names::{DeliveryStreamName, Scope, StreamName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::tags::{Tag, checked_tags};
use crate::Delivery;
use crate::attach::check_free;
use crate::checks::{Checks, checked_name, read};
use crate::configuration::{ROLE_ARN, S3Configuration, is_role_arn, unsupported};
use crate::database::{Database, DatabaseConfiguration, Stage};
use crate::error::Error;
use crate::stream::{DeliveryStream, Destination, Source, State};

/// Most delivery streams in one account and region (AWS).
const DELIVERY_STREAMS_MAX: usize = 5_000;
/// How long a direct put is kept for delivery (AWS: 24 hours).
const DIRECT_PUT_RETENTION: Duration = Duration::from_secs(RETENTION_HOURS_MIN as u64 * 3600);
const TYPES: &[&str] = &["DirectPut", "KinesisStreamAsSource", "MSKAsSource", "DatabaseAsSource"];
const STREAM_ARN: &str = "arn:.*:kinesis:[a-zA-Z0-9\\-]+:\\d{12}:stream/[a-zA-Z0-9_.-]+";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Input {
    delivery_stream_name: Option<String>,
    delivery_stream_type: Option<String>,
    kinesis_stream_source_configuration: Option<KinesisSource>,
    database_source_configuration: Option<DatabaseConfiguration>,
    #[serde(rename = "S3DestinationConfiguration")]
    s3: Option<S3Configuration>,
    #[serde(rename = "ExtendedS3DestinationConfiguration")]
    extended_s3: Option<S3Configuration>,
    tags: Option<Vec<Tag>>,
    /// Every other member: AWS's other sources and destinations, and encryption.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct KinesisSource {
    #[serde(rename = "KinesisStreamARN")]
    stream_arn: Option<String>,
    #[serde(rename = "RoleARN")]
    role_arn: Option<String>,
}

pub(super) async fn run(delivery: &Delivery, scope: &Scope, body: &[u8]) -> Result<Value, Error> {
    let input: Input = read(body)?;
    let mut checks = Checks::default();
    let name = checks.name("deliveryStreamName", input.delivery_stream_name);
    let kind = input.delivery_stream_type.unwrap_or_else(|| "DirectPut".to_owned());
    checks.one_of("deliveryStreamType", &kind, TYPES);
    let tags = input.tags.map(|tags| checked_tags(&mut checks, tags)).unwrap_or_default();
    checks.done()?;
    let name = checked_name(Some(name))?;
    refuse_others(&input.others)?;
    let (kinesis, database) =
        (input.kinesis_stream_source_configuration, input.database_source_configuration);
    let source = checked_source(delivery, scope, &name, &kind, kinesis, database).await?;
    let destination = checked_destination(delivery, input.s3, input.extended_s3)?;
    create(delivery, scope, name, source, destination, tags).await
}

fn refuse_others(others: &BTreeMap<String, Value>) -> Result<(), Error> {
    match others.iter().find(|(_, value)| !value.is_null()) {
        None => Ok(()),
        Some((member, _)) => {
            let member: String = member.chars().take(100).collect();
            let (what, hint) = if member.contains("Destination") {
                (
                    "a destination",
                    "Use S3DestinationConfiguration or ExtendedS3DestinationConfiguration.",
                )
            } else if member.contains("Source") {
                ("a source", "Use DirectPut without it, KinesisStreamAsSource or DatabaseAsSource.")
            } else {
                ("a setting", "Leave it out.")
            };
            Err(unsupported(&member, what, hint))
        }
    }
}

async fn checked_source(
    delivery: &Delivery,
    scope: &Scope,
    name: &DeliveryStreamName,
    kind: &str,
    kinesis: Option<KinesisSource>,
    database: Option<DatabaseConfiguration>,
) -> Result<Source, Error> {
    let invalid = |text: &str| Err(Error::InvalidArgument(text.to_owned()));
    match (kind, kinesis, database) {
        ("MSKAsSource", ..) => {
            let hint = "Use DirectPut, KinesisStreamAsSource or DatabaseAsSource.";
            Err(unsupported("DeliveryStreamType", kind, hint))
        }
        ("DirectPut" | "DatabaseAsSource", Some(_), _) => invalid(
            "KinesisSourceStreamConfig is only applicable for KinesisStreamAsSource stream type.",
        ),
        ("DirectPut" | "KinesisStreamAsSource", _, Some(_)) => invalid(
            "DatabaseSourceConfiguration is only applicable for DatabaseAsSource stream type.",
        ),
        ("KinesisStreamAsSource", Some(kinesis), None) => kinesis_source(delivery, scope, kinesis),
        ("KinesisStreamAsSource", None, None) => {
            invalid("KinesisSourceStreamConfig is required for KinesisStreamAsSource stream type.")
        }
        ("DatabaseAsSource", None, Some(database)) => {
            database_source(delivery, scope, name, database).await
        }
        ("DatabaseAsSource", None, None) => {
            invalid("DatabaseSourceConfiguration is required for DatabaseAsSource stream type.")
        }
        _ => Ok(Source::DirectPut),
    }
}

async fn database_source(
    delivery: &Delivery,
    scope: &Scope,
    name: &DeliveryStreamName,
    mut configuration: DatabaseConfiguration,
) -> Result<Source, Error> {
    let shared = &delivery.shared;
    let Some(capture) = shared.capture.as_deref() else {
        let hint = "This process captures no changes. Use DirectPut or KinesisStreamAsSource.";
        return Err(unsupported("DeliveryStreamType", "DatabaseAsSource", hint));
    };
    let plan = configuration.plan(scope, &capture.secrets().await?)?;
    // Every name of a delivery stream is one of a stream too.
    let stream: StreamName = name.as_str().parse().map_err(|e| Error::Internal(format!("{e}")))?;
    if shared.catalog.get(scope, name).is_none() {
        check_free(capture, shared, scope, &stream).await?;
    }
    Ok(Source::Database(Box::new(Database { plan, stream, stage: Stage::Pending, configuration })))
}

fn kinesis_source(
    delivery: &Delivery,
    scope: &Scope,
    input: KinesisSource,
) -> Result<Source, Error> {
    let at = "kinesisStreamSourceConfiguration";
    let mut checks = Checks::default();
    let stream_arn = checks.required(&format!("{at}.kinesisStreamARN"), input.stream_arn);
    let role_arn = checks.required(&format!("{at}.roleARN"), input.role_arn);
    let arn: Option<Arn> = stream_arn.parse().ok();
    let stream: Option<StreamName> = arn
        .as_ref()
        .filter(|a| a.service == "kinesis")
        .and_then(|a| a.name_of("stream")?.parse().ok());
    if !stream_arn.is_empty() {
        checks.pattern(
            &format!("{at}.kinesisStreamARN"),
            &stream_arn,
            stream.is_some(),
            STREAM_ARN,
        );
    }
    if !role_arn.is_empty() {
        checks.length(&format!("{at}.roleARN"), &role_arn, 1, 512);
        checks.pattern(&format!("{at}.roleARN"), &role_arn, is_role_arn(&role_arn), ROLE_ARN);
    }
    checks.done()?;
    let (Some(arn), Some(stream)) = (arn, stream) else {
        return Err(Error::InvalidArgument(
            "The source stream and its role must not be empty.".into(),
        ));
    };
    if arn.scope != *scope {
        return Err(unsupported(
            "KinesisStreamARN",
            "a stream of another account or region",
            "Name a stream of the account and region of this request.",
        ));
    }
    let now = delivery.shared.clock.now();
    let found = delivery.shared.streams.get(scope, &stream);
    if found.is_none_or(|held| held.stream.status(now).is_none()) {
        let account = &scope.account;
        return Err(Error::InvalidArgument(format!(
            "Stream {stream} under account {account} not found."
        )));
    }
    Ok(Source::Kinesis { stream, role_arn, start: now })
}

fn checked_destination(
    delivery: &Delivery,
    s3: Option<S3Configuration>,
    extended_s3: Option<S3Configuration>,
) -> Result<Destination, Error> {
    let (at, configuration) = match (s3, extended_s3) {
        (Some(s3), None) => ("s3DestinationConfiguration", s3),
        (None, Some(s3)) => ("extendedS3DestinationConfiguration", s3),
        _ => {
            return Err(Error::InvalidArgument(
                "Exactly one destination configuration is supported for a Firehose".into(),
            ));
        }
    };
    let destination = configuration.into_destination(at, None)?;
    // Made for its checks alone; the worker makes its own.
    (delivery.shared.make_destination)(&destination.settings).map_err(Error::InvalidArgument)?;
    Ok(destination)
}

async fn create(
    delivery: &Delivery,
    scope: &Scope,
    name: DeliveryStreamName,
    source: Source,
    destination: Destination,
    tags: BTreeMap<String, String>,
) -> Result<Value, Error> {
    let shared = &delivery.shared;
    let exists = || {
        let account = &scope.account;
        Error::InUse(format!("Firehose {name} under account {account} already exists."))
    };
    if shared.catalog.get(scope, &name).is_some() {
        return Err(exists());
    }
    if shared.catalog.count(scope) >= DELIVERY_STREAMS_MAX {
        return Err(Error::LimitExceeded(format!(
            "You have already consumed your firehose quota of {DELIVERY_STREAMS_MAX} hoses."
        )));
    }
    let uid = shared.streams.allocate_shards(1).await?.pop();
    let uid = uid.ok_or_else(|| Error::Internal("no shard was allocated".into()))?;
    let direct = source == Source::DirectPut;
    if direct {
        shared.log.create(uid, DIRECT_PUT_RETENTION).await?;
    }
    let now = shared.clock.now();
    let stream = DeliveryStream {
        scope: scope.clone(),
        name: name.clone(),
        uid,
        created: now,
        updated: None,
        state: State::Creating(now.plus(shared.options.create_delay)),
        source,
        version: 1,
        destination,
        tags,
    };
    let arn = stream.arn().to_string();
    match shared.catalog.put(stream, None).await {
        Ok(held) => delivery.spawn(held),
        Err(ControlError::Conflict { .. }) => {
            if direct {
                shared.log.drop_shard(uid).await?;
            }
            return Err(exists());
        }
        Err(e) => return Err(e.into()),
    }
    Ok(json!({ "DeliveryStreamARN": arn }))
}
