//! The connection and the source that change data capture keeps for a delivery stream.
//!
//! Both have the delivery stream's name and say in their comment whose they are. Only what says so
//! is taken for the delivery stream's own, so every step can be repeated after a crash, and nothing
//! that somebody else made is taken over or dropped.

use std::sync::Arc;

use hydrant_core::capture::{
    Capture, CaptureError, Connection, Envelope, IfExists, OnSlotLoss, Oversize, SnapshotMode,
    SourceReport, SourceSettings,
};
use hydrant_core::names::{Scope, StreamName};

use crate::database::{Database, PG_NAME_BYTES_MAX, Plan};
use crate::error::Error;
use crate::shared::Shared;
use crate::stream::DeliveryStream;

/// Shards of the stream that takes the changes: one keeps the order of all of them.
const SHARDS: u32 = 1;

/// Checks that nothing has the names yet that a new delivery stream gives away.
pub(crate) async fn check_free(
    capture: &dyn Capture,
    shared: &Shared,
    scope: &Scope,
    name: &StreamName,
) -> Result<(), Error> {
    let text = name.as_str();
    if text.len() > PG_NAME_BYTES_MAX {
        return Err(Error::InvalidArgument(format!(
            "DeliveryStreamName must have at most {PG_NAME_BYTES_MAX} characters for \
             DatabaseAsSource: the publication in the database has the same name."
        )));
    }
    let now = shared.clock.now();
    let stream = shared.streams.get(scope, name).filter(|held| held.stream.status(now).is_some());
    let taken = if stream.is_some() {
        Some(("Stream", "Delete the stream"))
    } else if source(capture, text).await?.is_some() {
        Some(("Source", "Drop the source"))
    } else if connection(capture, text).await?.is_some() {
        Some(("Connection", "Drop the connection"))
    } else {
        None
    };
    match taken {
        None => Ok(()),
        Some((kind, remedy)) => Err(Error::InUse(format!(
            "{kind} '{text}' already exists, and a delivery stream of type DatabaseAsSource makes \
             one of its own name. {remedy}, or choose another name."
        ))),
    }
}

/// Makes the connection and the source, or finds that they are made. Repeatable.
/// [`CaptureError::Unavailable`] passes; any other error does not.
pub(crate) async fn attach(
    capture: Option<&Arc<dyn Capture>>,
    stream: &DeliveryStream,
    database: &Database,
) -> Result<(), CaptureError> {
    let (capture, name, mark) = (needed(capture)?, stream.name.as_str(), mark(stream));
    match connection(capture, name).await? {
        Some(there) if there.comment == mark => {}
        Some(_) => return Err(not_own("Connection", name)),
        None => {
            let new = new_connection(stream, &database.plan, &mark);
            capture.create_connection(new, IfExists::Fail).await?;
        }
    }
    match source(capture, name).await? {
        Some(there) if there.settings.comment == mark => {}
        Some(_) => return Err(not_own("Source", name)),
        None => {
            capture.create_source(new_source(stream, database, mark), IfExists::Fail).await?;
        }
    }
    Ok(())
}

/// Drops the source and the connection if they are the delivery stream's own. Repeatable.
pub(crate) async fn detach(
    capture: Option<&Arc<dyn Capture>>,
    stream: &DeliveryStream,
) -> Result<(), CaptureError> {
    let (capture, name, mark) = (needed(capture)?, stream.name.as_str(), mark(stream));
    match source(capture, name).await? {
        Some(there) if there.settings.comment == mark => {
            if let Some(told) = capture.drop_source(name).await? {
                tracing::info!(delivery_stream = name, told, "the source is dropped");
            }
        }
        Some(_) => left(name, "source", "its comment was changed"),
        None => {}
    }
    match connection(capture, name).await? {
        Some(there) if there.comment == mark => match capture.drop_connection(name).await {
            Ok(_) => {}
            Err(in_use @ CaptureError::InUse { .. }) => {
                left(name, "connection", &in_use.to_string());
            }
            Err(e) => return Err(e),
        },
        Some(_) => left(name, "connection", "it was replaced"),
        None => {}
    }
    Ok(())
}

/// The delivery stream's own source.
pub(crate) async fn own_source(
    capture: &dyn Capture,
    stream: &DeliveryStream,
) -> Result<Option<SourceReport>, CaptureError> {
    let there = source(capture, stream.name.as_str()).await?;
    Ok(there.filter(|there| there.settings.comment == mark(stream)))
}

async fn source(capture: &dyn Capture, name: &str) -> Result<Option<SourceReport>, CaptureError> {
    Ok(capture.sources().await?.into_iter().find(|source| source.settings.name == name))
}

async fn connection(capture: &dyn Capture, name: &str) -> Result<Option<Connection>, CaptureError> {
    Ok(capture.connections().await?.into_iter().find(|connection| connection.name == name))
}

fn needed(capture: Option<&Arc<dyn Capture>>) -> Result<&dyn Capture, CaptureError> {
    let missing = || CaptureError::Unavailable("this process captures no changes".to_owned());
    capture.map(Arc::as_ref).ok_or_else(missing)
}

/// The comment that says whose they are, unlike that of an earlier delivery stream of the name.
fn mark(stream: &DeliveryStream) -> String {
    format!("Made for {} ({})", stream.arn(), stream.uid.0)
}

fn not_own(kind: &str, name: &str) -> CaptureError {
    CaptureError::Invalid(format!(
        "{kind} '{name}' already exists, and is not this delivery stream's"
    ))
}

fn left(delivery_stream: &str, what: &str, why: &str) {
    tracing::warn!(
        delivery_stream,
        why,
        "the {what} stays: it is no longer the delivery stream's own"
    );
}

fn new_connection(stream: &DeliveryStream, plan: &Plan, mark: &str) -> Connection {
    Connection {
        name: stream.name.as_str().to_owned(),
        host: plan.host.clone(),
        port: plan.port,
        database: plan.database.clone(),
        user: None,
        secret: Some(plan.secret.clone()),
        ssl_mode: plan.ssl_mode,
        ssl_authority: None,
        created: stream.created,
        comment: mark.to_owned(),
    }
}

fn new_source(stream: &DeliveryStream, database: &Database, mark: String) -> SourceSettings {
    let name = stream.name.as_str();
    SourceSettings {
        name: name.to_owned(),
        connection: name.to_owned(),
        publications: vec![name.to_owned()],
        slot: None,
        tables: database.plan.tables.clone(),
        left_out: Vec::new(),
        scope: stream.scope.clone(),
        stream: database.stream.clone(),
        shards: SHARDS,
        envelope: Envelope::Debezium,
        snapshot: SnapshotMode::Initial,
        oversize: Oversize::Fail,
        transactions: false,
        on_slot_loss: OnSlotLoss::Fail,
        comment: mark,
    }
}
