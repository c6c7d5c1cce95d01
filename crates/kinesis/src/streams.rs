//! Finding the stream that a request names.

use std::sync::Arc;

use hydrant_core::arn::Arn;
use hydrant_core::catalog::{Held, Stream, StreamStatus};
use hydrant_core::log::LogError;
use hydrant_core::names::{Scope, StreamName};
use hydrant_wire::Principal;
use hydrant_wire::shape::Text;

use crate::Kinesis;
use crate::error::Error;

/// A stream that is there, and its status.
pub(crate) struct Found {
    pub(crate) held: Held,
    pub(crate) status: StreamStatus,
}

/// The name of the stream that a request gives by name, by ARN or by both. The caller's duty: both
/// have passed the model's constraints.
pub(crate) fn name_of(
    who: &Principal,
    operation: &str,
    name: Option<&Text<'_>>,
    arn: Option<&Text<'_>>,
) -> Result<StreamName, Error> {
    let of_arn = arn.map(|text| in_scope(who, operation, text)).transpose()?;
    let given = name.map(|text| parse(text)).transpose()?;
    match (given, of_arn) {
        (Some(given), Some(named)) if given != named => Err(Error::InvalidArgument(format!(
            "StreamName {given} and StreamARN {} do not name the same stream.",
            arn.map_or("", |text| text)
        ))),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Err(Error::InvalidArgument("No stream is named.".to_owned())),
    }
}

fn parse(text: &str) -> Result<StreamName, Error> {
    text.parse().map_err(|e| Error::InvalidArgument(format!("{e}")))
}

/// The stream of an ARN, if it lies in the caller's account and region.
fn in_scope(who: &Principal, operation: &str, text: &str) -> Result<StreamName, Error> {
    let invalid = || Error::InvalidArgument(format!("{text} is not the ARN of a stream."));
    let arn: Arn = text.parse().map_err(|_| invalid())?;
    let name = arn.name_of("stream").ok_or_else(invalid)?;
    if arn.service != "kinesis" {
        return Err(invalid());
    }
    let Scope { account, region } = who.scope();
    if arn.scope.account != *account {
        return Err(Error::AccessDenied(format!(
            "User: arn:aws:iam::{account}:root is not authorized to perform: kinesis:{operation} on \
             resource: {text} because no resource-based policy allows the kinesis:{operation} action"
        )));
    }
    if arn.scope.region != *region {
        return Err(not_found(name, &arn.scope));
    }
    parse(name)
}

/// What the log could not do for a stream that was there when it was looked up.
pub(crate) fn from_log(error: LogError, stream: &Stream) -> Error {
    match error {
        // Deleted meanwhile.
        LogError::NotFound => not_found(stream.name.as_str(), &stream.scope),
        other => other.into(),
    }
}

pub(crate) fn not_found(name: &str, scope: &Scope) -> Error {
    let account = &scope.account;
    Error::ResourceNotFound(format!("Stream {name} under account {account} not found."))
}

impl Kinesis {
    /// The stream, whatever it is doing.
    pub(crate) fn find(&self, who: &Principal, name: &StreamName) -> Result<Found, Error> {
        let held = self.catalog.get(who.scope(), name);
        let found = held.and_then(|held| {
            let status = held.stream.status(self.clock.now())?;
            Some(Found { held, status })
        });
        found.ok_or_else(|| not_found(name.as_str(), who.scope()))
    }

    /// The stream, if records may be put into it and read from it. One that is being made is not
    /// found yet, one that is being deleted is not found any more.
    pub(crate) fn usable(&self, who: &Principal, name: &StreamName) -> Result<Held, Error> {
        match self.find(who, name)? {
            Found { held, status: StreamStatus::Active | StreamStatus::Updating } => Ok(held),
            _ => Err(not_found(name.as_str(), who.scope())),
        }
    }

    /// The stream, if it can be changed now.
    pub(crate) fn active(&self, who: &Principal, name: &StreamName) -> Result<Held, Error> {
        let Found { held, status } = self.find(who, name)?;
        if status == StreamStatus::Active {
            return Ok(held);
        }
        Err(not_active(&held, status))
    }
}

pub(crate) fn not_active(held: &Held, status: StreamStatus) -> Error {
    let (name, account) = (&held.stream.name, &held.stream.scope.account);
    let status = status.as_str();
    Error::ResourceInUse(format!(
        "Stream {name} under account {account} not ACTIVE, instead in state {status}"
    ))
}

/// Members that AWS has and hydrant has not: refused, rather than ignored.
pub(crate) fn refuse(members: &[(&str, bool)]) -> Result<(), Error> {
    match members.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::UnsupportedOperation(format!(
            "hydrant does not support {name}. Leave it out of the request."
        ))),
        None => Ok(()),
    }
}

impl Kinesis {
    /// Every stream of an account and region that is not gone.
    pub(crate) fn streams(&self, scope: &Scope) -> Vec<Arc<Stream>> {
        let now = self.clock.now();
        let mut streams = self.catalog.list(scope, None, usize::MAX);
        streams.retain(|s| s.status(now).is_some());
        streams
    }

    /// Open shards of an account and region.
    pub(crate) fn open_shards(&self, scope: &Scope) -> u32 {
        let streams = self.streams(scope);
        let open = streams.iter().flat_map(|s| &s.shards).filter(|s| s.is_open()).count();
        u32::try_from(open).unwrap_or(u32::MAX)
    }
}
