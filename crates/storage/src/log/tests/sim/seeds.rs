//! Whole lives from a seed: several processes one after the other on one disk, each ended by a crash,
//! with everything else going wrong that may.

use super::*;

/// Processes of one seed.
const LIVES: u64 = 8;

/// What one process is asked to do.
fn populate(sim: &Sim) {
    for _ in 0..2 + sim.draw.below(4) {
        sim.spawn(clients::produce(5 + sim.draw.below(25)));
    }
    for _ in 0..1 + sim.draw.below(3) {
        let me = sim.clients.borrow().len();
        sim.spawn(clients::read(me, 10 + sim.draw.below(60)));
    }
    sim.spawn(clients::administer(2 + sim.draw.below(12)));
}

/// Several lives, the last one without faults.
pub(super) fn lives(sim: &Rc<Sim>) {
    for life in 0..=LIVES {
        let is_last = life == LIVES;
        let disk = sim.disk();
        sim.control.borrow().doubt((!is_last && sim.draw.chance(3)).then_some(12));
        disk.set_capacity(u64::MAX >> 1);
        if !is_last {
            disk.fail_at(1 + sim.draw.below(260), Fault::Cut);
            match sim.draw.below(6) {
                0 => disk.fail_at(1 + sim.draw.below(200), Fault::Error(io::ErrorKind::Other)),
                // Full just before the power goes, so that nothing is written over what was refused.
                1 => {
                    let at = 20 + sim.draw.below(200);
                    disk.fail_at(at, Fault::Error(io::ErrorKind::StorageFull));
                    disk.fail_at(at + 1 + sim.draw.below(4), Fault::Cut);
                }
                2 => disk.set_capacity(disk.used() + sim.draw.below(4 * sim.plan.segment_bytes)),
                _ => {}
            }
        }
        if sim.start() {
            if sim.model.borrow().shards.is_empty() {
                (0..3).for_each(|_| sim.spawn(clients::create()));
                sim.live();
            }
            populate(sim);
            sim.live();
        }
        if sim.violation.borrow().is_some() {
            return;
        }
        if sim.draw.chance(3) {
            clients::step_clock();
        }
        sim.crash(!sim.draw.chance(3));
    }
    if sim.start() {
        sim.live();
    } else if sim.violation.borrow().is_none() {
        sim.broken("no start on a disk that is well".to_owned());
    }
}

pub(super) fn plan(seed: u64) -> Plan {
    Plan {
        segment_bytes: [20 << 10, 24 << 10, 64 << 10][(seed / 3) as usize % 3],
        ..Plan::of(seed)
    }
}

#[test]
fn nothing_is_lost_whatever_the_seed() {
    let first = setting("HYDRANT_SEED_FIRST", 1);
    let (mut crashes, mut acknowledged) = (0, 0);
    let seeds = setting("HYDRANT_SEEDS", 200);
    for seed in first..first + seeds {
        let (sim, outcome) = Sim::run(plan(seed), lives);
        if let Err(what) = outcome {
            let (sim, _) = Sim::run(Plan { trace: true, ..plan(seed) }, lives);
            let trace = sim.disk().trace();
            let tail: Vec<_> =
                trace.lines().rev().take(setting("HYDRANT_TRACE_LINES", 60) as usize).collect();
            tail.iter().rev().for_each(|line| println!("{line}"));
            panic!("{what}");
        }
        crashes += sim.crashes.get();
        acknowledged += sim.model.borrow().acknowledged;
    }
    println!(
        "{seeds} seeds from {first} on, {crashes} crashes, {acknowledged} batches acknowledged"
    );
}

#[test]
fn the_same_seed_runs_the_same_way() {
    for seed in [1, 2, 3] {
        let run = || Sim::run(Plan { trace: true, ..plan(seed) }, lives).0.disk().trace();
        let (one, other) = (run(), run());
        assert!(one.len() > 10_000, "seed {seed}: {} bytes of trace", one.len());
        assert!(one == other, "seed {seed} does not repeat itself");
    }
}
