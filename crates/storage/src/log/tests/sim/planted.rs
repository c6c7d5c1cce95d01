//! Bugs planted on purpose: a simulation that does not find them proves nothing.

use super::*;
use crate::planted::{Bug, plant};

/// Seeds that a bug has time for.
const SEEDS_MAX: u64 = 1_000;

const BUGS: [Bug; 18] = [
    Bug::SkipSync,
    Bug::AckBeforeSync,
    Bug::PublishBeforeSync,
    Bug::SkipDirSync,
    Bug::RetrySync,
    Bug::StaleFrames,
    Bug::NoCutBack,
    Bug::TrimBack,
    Bug::SealNotStored,
    Bug::LostWakeUp,
    Bug::NumberByClock,
    Bug::FreeEarly,
    Bug::BodyUnchecked,
    Bug::RecoverUnsynced,
    Bug::SpareTwice,
    Bug::EndsForgotten,
    Bug::MergeUnsynced,
    Bug::FollowLeap,
];

/// How many seeds it takes to find the bug, and what is found.
fn hunt(bug: Bug) -> Option<(u64, Violation)> {
    plant(Some(bug));
    let found = (1..=SEEDS_MAX).find_map(|seed| {
        let run = || {
            Sim::run(seeds::plan(seed), seeds::lives).1?;
            let plan = Plan { images: u64::from(seed % 4 == 0), ..Plan::of(seed) };
            Sim::run(plan, crashes::scenario).1
        };
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let outcome = found.unwrap_or_else(|_| Err("the log panicked".to_owned()));
        outcome.err().map(|what| (seed, what))
    });
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found() {
    let missed: Vec<_> = BUGS
        .into_iter()
        .filter(|&bug| match hunt(bug) {
            Some((seed, what)) => {
                println!("{bug:?} after {seed} seeds: {what}");
                false
            }
            None => true,
        })
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
