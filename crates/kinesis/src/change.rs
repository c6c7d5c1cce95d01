//! Writing a stream's row.

use std::sync::Arc;

use hydrant_core::catalog::{Held, Stream};
use hydrant_core::control::ControlError;

use crate::Kinesis;
use crate::error::Error;

/// Times that a change is decided on again because another was faster.
pub(crate) const ATTEMPTS_MAX: usize = 32;

/// The answer when others were faster each time. Clients repeat the call after a pause.
pub(crate) fn crowded_out(stream: &impl std::fmt::Display) -> Error {
    Error::Internal(format!("{stream} was changed by others {ATTEMPTS_MAX} times in a row"))
}

impl Kinesis {
    /// Writes a stream's row as the catalog does, and has [`Kinesis::run`] look at the stream once it
    /// is known what the row says. Both happen even if the caller goes away meanwhile.
    pub(crate) async fn put(
        &self,
        stream: Stream,
        seen: Option<u64>,
    ) -> Result<Held, ControlError> {
        let (catalog, attention) = (Arc::clone(&self.catalog), Arc::clone(&self.attention));
        let written = tokio::spawn(async move {
            let id = (stream.scope.clone(), stream.name.clone());
            let written = catalog.put(stream, seen).await;
            // Also after an error: the write may have taken effect all the same.
            attention.add(id);
            written
        });
        written.await.unwrap_or_else(|e| Err(ControlError::Unavailable(e.to_string())))
    }

    /// Changes a stream to what `decide` makes of it as it is now; with `None`, it is fine already.
    pub(crate) async fn change(
        &self,
        decide: impl Fn() -> Result<Option<(Stream, u64)>, Error> + Send + Sync,
    ) -> Result<(), Error> {
        self.change_and_tell(|| Ok(((), decide()?))).await
    }

    /// As [`Kinesis::change`]; returns what `decide` tells of the change that was made.
    pub(crate) async fn change_and_tell<T: Send>(
        &self,
        decide: impl Fn() -> Result<(T, Option<(Stream, u64)>), Error> + Send + Sync,
    ) -> Result<T, Error> {
        let mut name = None;
        for _ in 0..ATTEMPTS_MAX {
            let (told, next) = decide()?;
            let Some((next, seen)) = next else { return Ok(told) };
            name = Some(next.name.clone());
            match self.put(next, Some(seen)).await {
                Ok(_) => return Ok(told),
                Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(crowded_out(&name.map_or(String::new(), |name| name.to_string())))
    }
}
