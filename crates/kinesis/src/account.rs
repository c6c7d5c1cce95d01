//! What is set for an account and region: the commitment to a minimum throughput.
//!
//! hydrant bills nobody. What the commitment is good for, on AWS and here, is what it unlocks: warm
//! throughput and more fan-out consumers a stream.

use hydrant_core::Timestamp;
use hydrant_core::control::{ControlError, Entry, Write};
use hydrant_core::names::Scope;
use hydrant_wire::shape::Epoch;
use serde::{Deserialize, Serialize};

use crate::Kinesis;
use crate::change::{ATTEMPTS_MAX, crowded_out};
use crate::error::Error;
use crate::throttle::DAY;

const PREFIX: &str = "kinesis/account-settings/";

/// A commitment: one row of the control store, there since it was first enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commitment {
    /// When it was last enabled.
    started: Timestamp,
    /// When it ends or ended, if somebody said that it shall.
    ends: Option<Timestamp>,
}

/// `MinimumThroughputBillingCommitmentOutput` of the API.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CommitmentReply {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest_allowed_end_at: Option<Epoch>,
}

impl Commitment {
    /// A commitment lasts a day at least (AWS).
    fn earliest_end(self) -> Timestamp {
        self.started.plus(DAY)
    }

    fn is_on(self, now: Timestamp) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}

/// What becomes of a commitment that is to be on or off from now on.
fn changed(seen: Option<Commitment>, on: bool, now: Timestamp) -> Option<Commitment> {
    match seen.filter(|c| c.is_on(now)) {
        None if on => Some(Commitment { started: now, ends: None }),
        None => seen,
        // Also takes back an end that is still to come.
        Some(running) if on => Some(Commitment { ends: None, ..running }),
        Some(running) => {
            let ends = running.ends.unwrap_or_else(|| running.earliest_end().max(now));
            Some(Commitment { ends: Some(ends), ..running })
        }
    }
}

impl CommitmentReply {
    pub(crate) fn of(commitment: Option<Commitment>, now: Timestamp) -> Self {
        let running = commitment.filter(|c| c.is_on(now));
        let status = match running {
            Some(Commitment { ends: None, .. }) => "ENABLED",
            Some(_) => "ENABLED_UNTIL_EARLIEST_ALLOWED_END",
            None => "DISABLED",
        };
        let ended = commitment.and_then(|c| c.ends).filter(|_| running.is_none());
        Self {
            status,
            started_at: commitment.map(|c| Epoch(c.started)),
            ended_at: ended.map(Epoch),
            earliest_allowed_end_at: running.map(|c| Epoch(c.earliest_end())),
        }
    }
}

impl Kinesis {
    /// The commitment of an account and region, if there ever was one.
    pub(crate) async fn commitment(&self, scope: &Scope) -> Result<Option<Commitment>, Error> {
        let (_, commitment) = self.commitment_row(scope).await?;
        Ok(commitment)
    }

    /// Refuses what only a commitment unlocks, to an account and region without one.
    pub(crate) async fn check_committed(&self, scope: &Scope) -> Result<(), Error> {
        if self.is_committed(scope).await? {
            return Ok(());
        }
        Err(Error::Validation(format!(
            "Account {} is not enabled for minimum throughput billing commitment. Enable it with \
             UpdateAccountSettings.",
            scope.account
        )))
    }

    /// Whether what a commitment unlocks is unlocked now.
    pub(crate) async fn is_committed(&self, scope: &Scope) -> Result<bool, Error> {
        let commitment = self.commitment(scope).await?;
        Ok(commitment.is_some_and(|c| c.is_on(self.clock.now())))
    }

    /// Turns the commitment on, or off as soon as it may end. Durable on return; doing it twice is
    /// doing it once.
    pub(crate) async fn commit(
        &self,
        scope: &Scope,
        on: bool,
    ) -> Result<Option<Commitment>, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let (row, seen) = self.commitment_row(scope).await?;
            let next = changed(seen, on, self.clock.now());
            let Some(commitment) = next.filter(|_| next != seen) else { return Ok(next) };
            let write = Write::put(row_key(scope), row.as_ref(), &commitment);
            match self.control.commit(vec![write]).await {
                Ok(_) => return Ok(next),
                Err(ControlError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(crowded_out(&scope))
    }

    async fn commitment_row(
        &self,
        scope: &Scope,
    ) -> Result<(Option<Entry>, Option<Commitment>), Error> {
        let key = row_key(scope);
        let row = self.control.get(&key).await?;
        let commitment = row.as_ref().map(|entry| entry.json(&key)).transpose()?;
        Ok((row, commitment))
    }
}

fn row_key(scope: &Scope) -> String {
    format!("{PREFIX}{scope}")
}
