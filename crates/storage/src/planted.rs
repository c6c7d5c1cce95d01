//! Bugs planted on purpose, so that a test can require the simulation to find each of them. Outside
//! of this crate's tests none is ever planted, and the compiler removes the question.

/// A bug that a durable log could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Every third group is acknowledged without its sync.
    SkipSync,
    /// The callers are answered before the sync.
    AckBeforeSync,
    /// Readers see a group before its sync.
    PublishBeforeSync,
    /// The name of a new segment is not synced.
    SkipDirSync,
    /// A failed sync is tried again.
    RetrySync,
    /// The frames of a file's earlier life verify.
    StaleFrames,
    /// A group that the full disk refused is left where it lies.
    NoCutBack,
    /// A lower trim undoes a higher one.
    TrimBack,
    /// A seal is answered and not stored.
    SealNotStored,
    /// Of a group's shards only one has its readers woken.
    LostWakeUp,
    /// Records are numbered by the clock alone.
    NumberByClock,
    /// A segment is freed when one of its shards lets go of it.
    FreeEarly,
    /// A recovery does not look at the bodies of frames.
    BodyUnchecked,
    /// A recovery builds on what a killed process left unsynced.
    RecoverUnsynced,
    /// Two spare files get the same name.
    SpareTwice,
    /// A segment's index forgets the shards that are idle.
    EndsForgotten,
    /// A cold segment is not synced before what it stands for goes.
    MergeUnsynced,
    /// A clock that leaps a year ahead is followed at once.
    FollowLeap,
}

/// Whether this bug is planted.
#[cfg(not(test))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted in the present thread.
#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug in the present thread, or none.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
