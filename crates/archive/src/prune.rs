//! Letting go of points, and of the bytes that none names any more.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use hydrant_core::Timestamp;
use object_store::{ObjectStoreExt, path::Path};

use crate::manifest::{DATA, Manifest, Sum};
use crate::point::Keep;
use crate::{ArchiveError, Target};

/// Objects that are removed at a time.
const REMOVED_MAX: usize = 8;

/// The points of an archive, and what they name.
#[derive(Default)]
pub(crate) struct Kept {
    /// Number and moment.
    points: BTreeMap<u64, Timestamp>,
    /// The newest point that names each object.
    named: HashMap<Sum, u64>,
    /// Whether what crashes left behind was looked for since the start.
    swept: bool,
}

impl Kept {
    /// Adds a point. The caller's duty: in the order of their numbers.
    pub(crate) fn add(&mut self, manifest: &Manifest) {
        self.points.insert(manifest.number, Timestamp::from_millis(manifest.at_ms));
        self.named.extend(manifest.sums().map(|sum| (sum, manifest.number)));
    }

    /// Adds a point that names nothing that can be read.
    pub(crate) fn add_unreadable(&mut self, number: u64) {
        self.points.insert(number, Timestamp::ZERO);
    }

    /// The number of the newest.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.points.last_key_value().map(|(number, _)| *number)
    }

    /// The number of the oldest point that stays.
    fn first_kept(&self, keep: Keep, now: Timestamp) -> u64 {
        let newest = self.newest().unwrap_or(0);
        let stays = |at: &Timestamp| keep.age.is_none_or(|age| *at >= now.minus(age));
        let kept = self.points.iter().rev().take(keep.points.max(1));
        let kept = kept.take_while(|(number, at)| **number == newest || stays(at));
        kept.last().map_or(newest, |(number, _)| *number)
    }

    /// Whether a point should go.
    pub(crate) fn is_due(&self, keep: Keep, now: Timestamp) -> bool {
        let first = self.first_kept(keep, now);
        self.points.keys().next().is_some_and(|oldest| *oldest < first)
    }

    /// Removes points that do not stay, then what only they named; once, also what no point ever
    /// named. The caller's duty: to have claimed the newest point just now. What cannot be removed is
    /// left to the next start.
    pub(crate) async fn prune(&mut self, target: &Target, keep: Keep, now: Timestamp) {
        if let Err(error) = self.try_prune(target, keep, now).await {
            metrics::counter!("hydrant_archive_failures_total").increment(1);
            tracing::warn!(%error, "removing from the archive what no point needs any more");
            self.swept = false;
        }
    }

    async fn try_prune(
        &mut self,
        target: &Target,
        keep: Keep,
        now: Timestamp,
    ) -> Result<(), ArchiveError> {
        let first = self.first_kept(keep, now);
        let gone: Vec<u64> = self.points.range(..first).map(|(number, _)| *number).collect();
        // The manifest before what it names, so that each that is there is whole.
        remove(target, gone.iter().map(|number| Manifest::object(*number)).collect()).await?;
        self.points.retain(|number, _| *number >= first);
        let mut unnamed = Vec::new();
        self.named.retain(|sum, number| {
            let stays = *number >= first;
            if !stays {
                unnamed.push(sum.object());
            }
            stays
        });
        remove(target, unnamed).await?;
        if !self.swept {
            self.swept = true;
            self.sweep(target).await?;
        }
        Ok(())
    }

    /// Removes objects that no point names: what crashes between two steps left.
    async fn sweep(&self, target: &Target) -> Result<(), ArchiveError> {
        let listed = target.store.list(Some(&DATA.into()));
        let unnamed = listed.try_filter_map(|object| async move {
            let sum = Sum::of_object(&object.location);
            let is_named = sum.is_none_or(|sum| self.named.contains_key(&sum));
            Ok((!is_named).then_some(object.location))
        });
        let unnamed: Vec<Path> = unnamed.try_collect().await?;
        remove(target, unnamed).await
    }
}

async fn remove(target: &Target, objects: Vec<Path>) -> Result<(), ArchiveError> {
    let removals = stream::iter(objects).map(|object| async move {
        match target.store.delete(&object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(ArchiveError::from(e)),
        }
    });
    removals.buffer_unordered(REMOVED_MAX).try_collect().await
}
