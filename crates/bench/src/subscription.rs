//! One consumer's subscription to one shard, renewed as often as it ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hydrant_wire::event_stream;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{BenchError, Place, lost, refusal};
use crate::get::data_bytes;
use crate::load;
use crate::measure::{Tally, Watch};

/// What a SubscribeToShardEvent holds.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(borrow)]
    records: Vec<Record<'a>>,
    continuation_sequence_number: Option<String>,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(rename = "Data", borrow)]
    data: &'a str,
}

/// What every subscription of a measurement shares.
pub(crate) struct Shared {
    pub(crate) place: Place,
    pub(crate) watch: Watch,
    /// Records that came, to all of them.
    pub(crate) delivered: AtomicU64,
    /// Subscriptions that were answered once.
    pub(crate) standing: AtomicU64,
}

/// One consumer and one shard.
pub(crate) struct Subscription {
    pub(crate) sender: http2::SendRequest<Full<Bytes>>,
    pub(crate) consumer_arn: String,
    pub(crate) shard: String,
    from: Value,
    standing: bool,
    tally: Tally,
}

impl Subscription {
    pub(crate) fn new(
        sender: http2::SendRequest<Full<Bytes>>,
        consumer_arn: String,
        shard: String,
    ) -> Self {
        let from = json!({"Type": "LATEST"});
        Self { sender, consumer_arn, shard, from, standing: false, tally: Tally::new() }
    }

    /// Reads until it is `told` to stop, and gives what it counted.
    pub(crate) async fn run(
        mut self,
        shared: &Shared,
        mut told: tokio::sync::watch::Receiver<bool>,
    ) -> Result<Tally, BenchError> {
        loop {
            tokio::select! {
                _ = told.wait_for(|stop| *stop) => return Ok(self.tally),
                ended = self.subscribe(shared) => ended?,
            }
        }
    }

    /// One life of the subscription, of five minutes in AWS.
    async fn subscribe(&mut self, shared: &Shared) -> Result<(), BenchError> {
        let body = json!({"ConsumerARN": self.consumer_arn, "ShardId": self.shard,
            "StartingPosition": self.from});
        let mut request = shared.place.signed("SubscribeToShard", body.to_string().into());
        // In HTTP/2 the host is the request's authority.
        request.headers_mut().remove(http::header::HOST);
        self.sender.ready().await.map_err(lost)?;
        let response = self.sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        if !status.is_success() {
            let error = refusal("SubscribeToShard", status, response.into_body()).await;
            // One life may overlap the next by a moment.
            if self.standing && error.is("ResourceInUseException") {
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Ok(());
            }
            return Err(error);
        }
        if !self.standing {
            self.standing = true;
            shared.standing.fetch_add(1, Ordering::SeqCst);
        }
        self.read(response.into_body(), shared).await
    }

    async fn read(&mut self, mut body: Incoming, shared: &Shared) -> Result<(), BenchError> {
        let mut buffer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(lost)?.into_data() else { continue };
            buffer.extend_from_slice(&data);
            let left = self.frames(&buffer, shared)?;
            let taken = buffer.len() - left;
            drop(buffer.split_to(taken));
        }
        Ok(())
    }

    /// Takes the whole frames of `bytes`; gives how many bytes are left.
    fn frames(&mut self, mut bytes: &[u8], shared: &Shared) -> Result<usize, BenchError> {
        let wrong = |text: String| BenchError::Answer(format!("SubscribeToShard: {text}"));
        while let Some((frame, rest)) =
            event_stream::decode(bytes).map_err(|error| wrong(error.to_string()))?
        {
            bytes = rest;
            if frame.header(":message-type") == Some("exception") {
                return Err(wrong(String::from_utf8_lossy(frame.payload).into_owned()));
            }
            if frame.header(":event-type") == Some("SubscribeToShardEvent") {
                let event: Event<'_> =
                    serde_json::from_slice(frame.payload).map_err(|e| wrong(e.to_string()))?;
                self.event(event, shared);
            }
        }
        Ok(bytes.len())
    }

    fn event(&mut self, event: Event<'_>, shared: &Shared) {
        let now = shared.watch.micros();
        for record in &event.records {
            self.tally.bytes += data_bytes(record.data);
            let put = load::moment(record.data).unwrap_or(now);
            self.tally.time(Duration::from_micros(now.saturating_sub(put)));
        }
        let count = event.records.len() as u64;
        self.tally.records += count;
        shared.delivered.fetch_add(count, Ordering::SeqCst);
        if let Some(number) = event.continuation_sequence_number {
            self.from = json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number});
        }
    }
}
