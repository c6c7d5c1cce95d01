//! An everyday use of the AWS SDK for Rust: streams, records, consumers and a pushed subscription
//! across a split. Tells as JSON what it saw. Arguments: the endpoint, a name to use for a stream,
//! and, where the endpoint speaks TLS, the file of its certificate authority.

use std::error::Error;
use std::time::Duration;

use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{Credentials, Region, SharedHttpClient};
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::operation::RequestId;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    ConsumerStatus, PutRecordsRequestEntry, ShardIteratorType, StartingPosition, StreamStatus,
    SubscribeToShardEventStream,
};
use aws_sdk_kinesis::{Client, Config};
use aws_smithy_http_client::{Builder, tls};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const RECORDS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the upper half of all hash keys begins.
const HALF: &str = "170141183460469231731687303715884105728";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, name, authority @ ..] = arguments.as_slice() else {
        return Err("everyday ENDPOINT NAME [AUTHORITY]".into());
    };
    let client = Client::from_conf(
        Config::builder()
            .endpoint_url(endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "everyday"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(PATIENCE).build())
            .http_client(http(authority.first())?)
            .build(),
    );
    let told = tokio::time::timeout(4 * PATIENCE, everyday(&client, name)).await??;
    println!("{told}");
    Ok(())
}

fn http(authority: Option<&String>) -> Result<SharedHttpClient> {
    let Some(file) = authority else {
        return Ok(Builder::new().build_http());
    };
    let trust = tls::TrustStore::empty().with_pem_certificate(std::fs::read(file)?);
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    Ok(Builder::new()
        .tls_provider(ring)
        .tls_context(tls::TlsContext::builder().with_trust_store(trust).build()?)
        .build_https())
}

async fn everyday(client: &Client, name: &str) -> Result<Value> {
    client.create_stream().stream_name(name).shard_count(1).send().await?;
    let arn = active(client, name).await?;
    let shards = client.list_shards().stream_name(name).send().await?;
    let shard = shards.shards().first().ok_or("no shard")?.shard_id().to_owned();

    let entry = |n: usize| {
        let data = Blob::new(format!("record {n}"));
        PutRecordsRequestEntry::builder().partition_key("k").data(data).build()
    };
    let entries = (0..RECORDS).map(entry).collect::<std::result::Result<Vec<_>, _>>()?;
    let put = client.put_records().stream_arn(&arn).set_records(Some(entries)).send().await?;
    let bytes: Vec<u8> = (0..=255).collect();
    let one = client.put_record().stream_name(name).partition_key("k");
    one.data(Blob::new(bytes.clone())).send().await?;
    let (read, binary) = read(client, name, &shard).await?;

    let missing = client.describe_stream_summary().stream_name("nowhere").send().await;
    let missing = missing.err().ok_or("a stream that is not there was described")?;
    let request = missing.request_id().is_some();
    let missing = missing.into_service_error();
    let iterator = client.get_records().shard_iterator("not an iterator").send().await;
    let iterator = iterator.err().ok_or("records of no iterator")?.into_service_error();

    let mut pages = client.list_streams().limit(1).into_paginator().send();
    let mut listed = false;
    while let Some(page) = pages.next().await {
        listed |= page?.stream_names().iter().any(|one| one == name);
    }
    let subscription = subscribe(client, &arn, &shard).await?;
    client.delete_stream().stream_name(name).enforce_consumer_deletion(true).send().await?;
    Ok(json!({
        "failed": put.failed_record_count(),
        "records": read,
        "bytesCameBack": binary == bytes,
        "listed": listed,
        "missing": {
            "typed": missing.is_resource_not_found_exception(),
            "message": missing.message(),
            "request": request,
        },
        "iterator": { "typed": iterator.is_invalid_argument_exception() },
        "subscription": subscription,
    }))
}

/// Waits for the stream; its ARN.
async fn active(client: &Client, name: &str) -> Result<String> {
    for _ in 0..200 {
        let told = client.describe_stream_summary().stream_name(name).send().await?;
        let summary = told.stream_description_summary().ok_or("no summary")?;
        if *summary.stream_status() == StreamStatus::Active {
            return Ok(summary.stream_arn().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the stream does not become ACTIVE".into())
}

/// The texts of the first records of the shard, and the bytes of the one after them.
async fn read(client: &Client, name: &str, shard: &str) -> Result<(Vec<String>, Vec<u8>)> {
    let start = client.get_shard_iterator().stream_name(name).shard_id(shard);
    let start = start.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
    let mut next = start.shard_iterator().map(str::to_owned);
    let mut texts = Vec::new();
    while let Some(iterator) = next {
        let page = client.get_records().shard_iterator(iterator).limit(3).send().await?;
        for record in page.records() {
            record.approximate_arrival_timestamp().ok_or("no arrival")?;
            if texts.len() == RECORDS {
                return Ok((texts, record.data().as_ref().to_owned()));
            }
            texts.push(String::from_utf8(record.data().as_ref().to_owned())?);
        }
        next = page.next_shard_iterator().map(str::to_owned);
    }
    Err("the shard ended".into())
}

/// What a consumer is pushed: what was there, what comes, and the shard's end.
async fn subscribe(client: &Client, arn: &str, shard: &str) -> Result<Value> {
    let registered =
        client.register_stream_consumer().stream_arn(arn).consumer_name("everyday").send().await?;
    let consumer = registered.consumer().ok_or("no consumer")?.consumer_arn().to_owned();
    for _ in 0..200 {
        let told = client.describe_stream_consumer().consumer_arn(&consumer).send().await?;
        let status = told.consumer_description().map(|it| it.consumer_status().clone());
        if status == Some(ConsumerStatus::Active) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let from = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
    let call = client.subscribe_to_shard().consumer_arn(&consumer).shard_id(shard);
    let mut stream = call.starting_position(from).send().await?.event_stream;
    let (mut pushed, mut children, mut split) = (0, Vec::new(), false);
    while let Some(frame) = stream.recv().await? {
        let SubscribeToShardEventStream::SubscribeToShardEvent(some) = frame else {
            return Err(format!("unknown frame {frame:?}").into());
        };
        pushed += some.records().len();
        children.extend(some.child_shards().iter().map(|child| child.shard_id().to_owned()));
        if pushed == RECORDS + 1 {
            let one = client.put_record().stream_arn(arn).partition_key("k");
            one.data(Blob::new("pushed")).send().await?;
        } else if pushed > RECORDS + 1 && !split {
            split = true;
            let half = client.split_shard().stream_arn(arn).shard_to_split(shard);
            half.new_starting_hash_key(HALF).send().await?;
        }
    }
    Ok(json!({ "records": pushed, "children": children }))
}
