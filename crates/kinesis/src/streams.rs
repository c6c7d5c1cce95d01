//! Finding the stream that a request names.

use std::sync::Arc;

use hydrant_core::arn::Arn;
use hydrant_core::catalog::{Held, Stream, StreamStatus};
use hydrant_core::log::LogError;
use hydrant_core::names::{Scope, StreamName};
use hydrant_wire::Call;
use hydrant_wire::shape::{Seconds, Text};

use crate::Kinesis;
use crate::error::Error;

/// A stream that is there, and its status.
pub(crate) struct Found {
    pub(crate) held: Held,
    pub(crate) status: StreamStatus,
}

/// Which stream a request means: by name, by ARN, by id, or by several of them that agree.
#[derive(Clone, Copy)]
pub(crate) struct Named<'r, 'a> {
    pub(crate) name: Option<&'r Text<'a>>,
    pub(crate) arn: Option<&'r Text<'a>>,
    pub(crate) id: Option<&'r Text<'a>>,
}

impl<'r, 'a> Named<'r, 'a> {
    /// Whether any of them is there.
    pub(crate) fn is_given(&self) -> bool {
        self.name.is_some() || self.arn.is_some() || self.id.is_some()
    }

    /// Of the three members that most operations have.
    pub(crate) fn by(
        name: &'r Option<Text<'a>>,
        arn: &'r Option<Text<'a>>,
        id: &'r Option<Text<'a>>,
    ) -> Self {
        Self { name: name.as_ref(), arn: arn.as_ref(), id: id.as_ref() }
    }
}

/// A stream's account, region and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamKey {
    pub(crate) scope: Scope,
    pub(crate) name: StreamName,
}

impl StreamKey {
    /// AWS's text for a stream that is not there.
    pub(crate) fn not_found(&self) -> Error {
        not_found(self.name.as_str(), &self.scope)
    }
}

/// A stream's name.
pub(crate) fn parse_name(text: &str) -> Result<StreamName, Error> {
    text.parse().map_err(|e| Error::InvalidArgument(format!("{e}")))
}

/// The stream of an ARN, of whatever account and region.
fn of_arn(text: &str) -> Result<StreamKey, Error> {
    let invalid = || Error::InvalidArgument(format!("{text} is not the ARN of a stream."));
    let arn: Arn = text.parse().map_err(|_| invalid())?;
    let name = arn.name_of("stream").ok_or_else(invalid)?;
    check_service(&arn, text)?;
    Ok(StreamKey { name: parse_name(name)?, scope: arn.scope })
}

/// Refuses the ARN of something that is not Kinesis's.
pub(crate) fn check_service(arn: &Arn, text: &str) -> Result<(), Error> {
    if arn.service == "kinesis" {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("{text} is not an ARN of kinesis.")))
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
    /// The stream that a request means, if the caller may call the operation on it, and once more now.
    /// The caller's duty: what names it has passed the model's constraints. Whether there is such a
    /// stream is only known for one that is named by id, or that is another account's.
    pub(crate) fn named(&self, call: &Call, by: &Named<'_, '_>) -> Result<StreamKey, Error> {
        let id = self.resolve(call, by)?;
        self.allow_call(call, Some(&id))?;
        Ok(id)
    }

    /// The stream that a request means, however often the operation is called.
    pub(crate) fn resolve(&self, call: &Call, by: &Named<'_, '_>) -> Result<StreamKey, Error> {
        let differ = |a: &str, b: &str| {
            Error::InvalidArgument(format!("{a} and {b} do not name the same stream."))
        };
        let mut found: Option<(StreamKey, &str)> = None;
        let mut agree = |id: StreamKey, text| match &found {
            Some((other, shown)) if *other != id => Err(differ(shown, text)),
            Some(_) => Ok(()),
            None => {
                found = Some((id, text));
                Ok(())
            }
        };
        let own = |name: StreamName| StreamKey { scope: call.scope().clone(), name };
        if let Some(text) = by.name {
            agree(own(parse_name(text)?), text)?;
        }
        if let Some(text) = by.arn {
            let id = of_arn(text)?;
            self.allow_stream(call, &id, Some(text))?;
            if id.scope.region != call.scope().region {
                return Err(id.not_found());
            }
            agree(id, text)?;
        }
        if let Some(text) = by.id {
            agree(own(self.of_id(call.scope(), text)?), text)?;
        }
        let missing = || Error::InvalidArgument("No stream is named.".to_owned());
        let (id, _) = found.ok_or_else(missing)?;
        if by.arn.is_none() {
            self.allow_stream(call, &id, None)?;
        }
        Ok(id)
    }

    /// The name of the stream with this id.
    fn of_id(&self, scope: &Scope, id: &str) -> Result<StreamName, Error> {
        let name = self.catalog.name_of(scope, id);
        name.ok_or_else(|| not_found(id, scope))
    }

    /// The stream, whatever it is doing.
    pub(crate) fn find(&self, id: &StreamKey) -> Result<Found, Error> {
        let held = self.catalog.get(&id.scope, &id.name);
        let found = held.and_then(|held| {
            let status = held.stream.status(self.clock.now())?;
            Some(Found { held, status })
        });
        found.ok_or_else(|| id.not_found())
    }

    /// The stream, if records may be put into it and read from it. One that is being made is not
    /// found yet, one that is being deleted is not found any more.
    pub(crate) fn usable(&self, id: &StreamKey) -> Result<Held, Error> {
        match self.find(id)? {
            Found { held, status: StreamStatus::Active | StreamStatus::Updating } => Ok(held),
            _ => Err(id.not_found()),
        }
    }

    /// The stream, if it can be changed now.
    pub(crate) fn active(&self, id: &StreamKey) -> Result<Held, Error> {
        let Found { held, status } = self.find(id)?;
        if status == StreamStatus::Active {
            return Ok(held);
        }
        Err(not_active(&held, status))
    }
}

/// Refuses a request that means the stream of this name that was made at another time
/// (`StreamCreationTimestamp`): that one is not there.
pub(crate) fn check_created(stream: &Stream, asked: Option<Seconds>) -> Result<(), Error> {
    // As the API showed it, or cut to seconds, as some SDKs send it.
    let is_it = |Seconds(at): Seconds| at.floor() == stream.created.as_secs_f64().floor();
    if asked.is_none_or(is_it) {
        return Ok(());
    }
    Err(not_found(stream.name.as_str(), &stream.scope))
}

/// Refuses a change of a stream that is not active.
pub(crate) fn check_active(Found { held, status }: &Found) -> Result<(), Error> {
    match status {
        StreamStatus::Active => Ok(()),
        other => Err(not_active(held, *other)),
    }
}

pub(crate) fn not_active(held: &Held, status: StreamStatus) -> Error {
    let (name, account) = (&held.stream.name, &held.stream.scope.account);
    let status = status.as_str();
    Error::ResourceInUse(format!(
        "Stream {name} under account {account} not ACTIVE, instead in state {status}"
    ))
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
