//! Finding and changing the consumer that a request names.

use hydrant_core::Timestamp;
use hydrant_core::arn::Arn;
use hydrant_core::catalog::{Consumer, ConsumerStatus, Held, Stream, StreamMode};
use hydrant_wire::Call;
use hydrant_wire::shape::{Epoch, Text};
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::error::Error;
use crate::streams::{Named, StreamKey, check_service, parse_name};
use crate::validate::{CONSUMER_ARN, CONSUMER_NAME, Checks};

/// Most consumers of one stream (AWS),
const CONSUMERS_MAX: usize = 20;
/// and of an on-demand one, once the account has committed to a minimum throughput.
const CONSUMERS_COMMITTED_MAX: usize = 50;

/// `Consumer` and `ConsumerDescription` of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConsumerReply {
    consumer_name: String,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: String,
    consumer_status: &'static str,
    consumer_creation_timestamp: Epoch,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream_arn: Option<String>,
}

impl ConsumerReply {
    /// A consumer of the stream, without its ARN.
    pub(crate) fn of(stream: &Stream, consumer: &Consumer, status: ConsumerStatus) -> Self {
        Self {
            consumer_name: consumer.name.clone(),
            consumer_arn: consumer.arn(stream).to_string(),
            consumer_status: status.as_str(),
            consumer_creation_timestamp: Epoch(consumer.created),
            stream_arn: None,
        }
    }

    /// A consumer with the ARN of its stream.
    pub(crate) fn described(stream: &Stream, consumer: &Consumer, status: ConsumerStatus) -> Self {
        let stream_arn = Some(stream.arn().to_string());
        Self { stream_arn, ..Self::of(stream, consumer, status) }
    }
}

/// Which consumer a request means: by its ARN, by its name and its stream, or by all that agree. All
/// that `DescribeStreamConsumer` and `DeregisterStreamConsumer` ask for.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NamedConsumer<'a> {
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    consumer_name: Option<Text<'a>>,
    #[serde(borrow, rename = "ConsumerARN")]
    consumer_arn: Option<Text<'a>>,
}

/// A consumer's stream and name, and of those with that name the one of an ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerKey {
    pub(crate) stream: StreamKey,
    pub(crate) name: String,
    /// When it was registered, in seconds since the epoch, if it was named by its ARN.
    pub(crate) created_s: Option<u64>,
}

impl ConsumerKey {
    /// How AWS's errors name the consumer.
    pub(crate) fn words(&self) -> String {
        let ConsumerKey { stream: StreamKey { scope, name: stream }, name, created_s } = self;
        let account = &scope.account;
        let created = created_s.map(|s| format!(" with creation timestamp {s}"));
        let created = created.unwrap_or_default();
        format!("Consumer {name}{created} under stream: {stream}, account {account}")
    }

    /// AWS's text for a consumer that is not there.
    pub(crate) fn not_found(&self) -> Error {
        Error::ResourceNotFound(format!("{} not found.", self.words()))
    }

    /// The consumer in its stream, with its status. `None` if it is gone.
    pub(crate) fn look_up<'s>(
        &self,
        stream: &'s Stream,
        now: Timestamp,
    ) -> Option<(&'s Consumer, ConsumerStatus)> {
        let found = stream.consumer(&self.name, now);
        found.filter(|(c, _)| self.created_s.is_none_or(|s| c.created.as_secs() == s))
    }
}

/// A consumer that is there.
pub(crate) struct FoundConsumer {
    pub(crate) held: Held,
    pub(crate) consumer: Consumer,
    pub(crate) status: ConsumerStatus,
}

/// The consumer of an ARN, `…:stream/NAME/consumer/CONSUMER:SECONDS`.
fn read(arn: &Arn) -> Option<ConsumerKey> {
    let (stream, consumer) = arn.name_of("stream")?.split_once("/consumer/")?;
    let (name, created) = consumer.split_once(':')?;
    let stream = StreamKey { scope: arn.scope.clone(), name: parse_name(stream).ok()? };
    Some(ConsumerKey { stream, name: name.to_owned(), created_s: Some(created.parse().ok()?) })
}

impl Kinesis {
    /// Most consumers that a stream may have.
    pub(crate) async fn consumers_max(&self, stream: &Stream) -> Result<usize, Error> {
        let more = stream.mode == StreamMode::OnDemand && self.is_committed(&stream.scope).await?;
        Ok(if more { CONSUMERS_COMMITTED_MAX } else { CONSUMERS_MAX })
    }

    /// The consumer that an ARN means. The caller's duty: the text follows [`CONSUMER_ARN`].
    pub(crate) fn consumer_key(&self, call: &Call, text: &str) -> Result<ConsumerKey, Error> {
        let invalid = || Error::InvalidArgument(format!("{text} is not the ARN of a consumer."));
        let arn: Arn = text.parse().map_err(|_| invalid())?;
        let key = read(&arn).ok_or_else(invalid)?;
        check_service(&arn, text)?;
        self.allow_consumer(call, &key, Some(text))?;
        if key.stream.scope.region != call.scope().region {
            return Err(key.not_found());
        }
        Ok(key)
    }

    /// The consumer that a request means, which has no other members. Whether there is such a consumer
    /// is not known yet.
    pub(crate) fn named_consumer(&self, call: &Call) -> Result<ConsumerKey, Error> {
        let by: NamedConsumer<'_> = call.read()?;
        let named = Named::by(&None, &by.stream_arn, &by.stream_id);
        let mut checks = Checks::new();
        checks.stream_if_given(&named);
        checks.text("consumerName", by.consumer_name.as_ref(), &CONSUMER_NAME);
        checks.text("consumerARN", by.consumer_arn.as_ref(), &CONSUMER_ARN);
        checks.finish()?;
        let stream = named.is_given().then(|| self.named(call, &named)).transpose()?;
        let name = by.consumer_name.as_ref();
        let Some(arn) = &by.consumer_arn else {
            let (Some(stream), Some(name)) = (stream, name) else {
                return Err(Error::InvalidArgument(
                    "Must specify either ConsumerARN, or both StreamARN and ConsumerName."
                        .to_owned(),
                ));
            };
            let key = ConsumerKey { stream, name: name.to_string(), created_s: None };
            self.allow_consumer(call, &key, None)?;
            return Ok(key);
        };
        let key = self.consumer_key(call, arn)?;
        if stream.is_none() {
            self.allow_call(call, Some(&key.stream))?;
        }
        let (same_stream, same_name) =
            (stream.is_none_or(|s| s == key.stream), name.is_none_or(|n| **n == key.name));
        if same_stream && same_name {
            return Ok(key);
        }
        let arn = &**arn;
        Err(Error::InvalidArgument(format!(
            "{arn} is not the ARN of the consumer that StreamARN and ConsumerName name."
        )))
    }

    /// The consumer, whatever it is doing.
    pub(crate) fn consumer(&self, key: &ConsumerKey) -> Result<FoundConsumer, Error> {
        let held = self.find(&key.stream)?.held;
        let found = key.look_up(&held.stream, self.clock.now());
        let (consumer, status) = found.ok_or_else(|| key.not_found())?;
        Ok(FoundConsumer { consumer: consumer.clone(), status, held })
    }

    /// Changes a consumer, whatever else changes its stream meanwhile. What `change` leaves as it was
    /// is not written.
    pub(crate) async fn change_consumer(
        &self,
        key: &ConsumerKey,
        change: impl Fn(&mut Consumer, ConsumerStatus) -> Result<(), Error> + Send + Sync,
    ) -> Result<(), Error> {
        let decide = || {
            let FoundConsumer { held, mut consumer, status } = self.consumer(key)?;
            let before = consumer.clone();
            change(&mut consumer, status)?;
            if consumer == before {
                return Ok(None);
            }
            let mut next = Stream::clone(&held.stream);
            let place = next.consumers.iter_mut().find(|c| c.name == before.name);
            *place.ok_or_else(|| key.not_found())? = consumer;
            Ok(Some((next, held.version)))
        };
        self.change(decide).await
    }
}
