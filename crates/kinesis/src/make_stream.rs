//! Streams that change data capture writes to: created as everybody's.

use std::time::Duration;

use async_trait::async_trait;
use hydrant_core::capture::{CaptureError, MakeStream};
use hydrant_core::catalog::{StreamMode, StreamStatus};
use hydrant_core::names::{Scope, StreamName};

use crate::Kinesis;
use crate::error::Error;
use crate::ops::create_stream;
use crate::streams::StreamKey;

/// How long a stream may take to become ready before the caller has to ask again.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at a stream whose state ends by time.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[async_trait]
impl MakeStream for Kinesis {
    async fn make(
        &self,
        scope: &Scope,
        name: &StreamName,
        shards: u32,
    ) -> Result<(), CaptureError> {
        let id = StreamKey { scope: scope.clone(), name: name.clone() };
        let made = create_stream::create(self, &id, StreamMode::Provisioned, shards, |new| new);
        match made.await {
            Ok(()) | Err(Error::ResourceInUse(_)) => {}
            Err(refusal @ (Error::LimitExceeded(_) | Error::InvalidArgument(_))) => {
                return Err(CaptureError::Invalid(refusal.to_string()));
            }
            Err(error) => return Err(CaptureError::Unavailable(error.to_string())),
        }
        let ready = tokio::time::timeout(READY_TIMEOUT, self.ready(&id));
        ready.await.unwrap_or_else(|_| {
            let text = format!("the stream {name} does not become ACTIVE");
            Err(CaptureError::Unavailable(text))
        })
    }
}

impl Kinesis {
    /// Waits until records may be put into the stream.
    async fn ready(&self, id: &StreamKey) -> Result<(), CaptureError> {
        let mut changes = self.catalog.changes();
        loop {
            let held = self.catalog.get(&id.scope, &id.name);
            match held.and_then(|held| held.stream.status(self.clock.now())) {
                Some(StreamStatus::Active | StreamStatus::Updating) => return Ok(()),
                Some(StreamStatus::Creating) => {}
                Some(StreamStatus::Deleting) | None => {
                    let text = format!("the stream {} is being deleted", id.name);
                    return Err(CaptureError::Unavailable(text));
                }
            }
            let _ = tokio::time::timeout(LOOK_INTERVAL, changes.changed()).await;
        }
    }
}
