//! A power cut at every operation of the disk.

use super::*;

/// A few shards, written, read, resharded and trimmed for a while, with a power cut tried at every
/// operation of the disk, those of the start included.
pub(super) fn scenario(sim: &Rc<Sim>) {
    if !sim.start() {
        return;
    }
    (0..3).for_each(|_| sim.spawn(clients::create()));
    sim.live();
    for _ in 0..4 {
        for _ in 0..3 {
            sim.spawn(clients::produce(8));
        }
        let me = sim.clients.borrow().len();
        sim.spawn(clients::read(me, 12));
        sim.spawn(clients::administer(6));
        if sim.draw.chance(2) {
            let full = Fault::Error(io::ErrorKind::StorageFull);
            sim.disk().fail_at(1 + sim.draw.below(60), full);
        }
        sim.live();
        if sim.violation.borrow().is_some() {
            return;
        }
        // The next process finds it as this one leaves it, and is cut off in its recovery too.
        sim.crash(sim.draw.chance(2));
        if !sim.start() {
            return;
        }
    }
}

#[test]
fn a_power_cut_at_every_operation_loses_nothing() {
    let wanted = setting("HYDRANT_CRASHES", 200_000);
    let first = setting("HYDRANT_SEED_FIRST", 1);
    let (mut crashes, mut seed) = (0, first);
    while crashes < wanted {
        let plan = Plan { images: 3, ..Plan::of(seed) };
        let (sim, outcome) = Sim::run(plan, scenario);
        outcome.unwrap();
        crashes += sim.crashes.get();
        seed += 1;
    }
    println!("{crashes} power cuts in {} scenarios", seed - first);
}
