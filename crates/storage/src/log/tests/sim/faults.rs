//! A disk that is full, that fails, or that forgets a bit, at every point of a run.

use super::*;

/// Points of a run at which the disk is full.
const POINTS: u64 = 200;

fn busy(sim: &Sim) {
    for _ in 0..3 {
        sim.spawn(clients::produce(20));
    }
    let me = sim.clients.borrow().len();
    sim.spawn(clients::read(me, 40));
    sim.spawn(clients::administer(4));
}

/// Starts a world with a few shards in it.
fn begin(sim: &Rc<Sim>) -> bool {
    let started = sim.start();
    if started {
        (0..3).for_each(|_| sim.spawn(clients::create()));
        sim.live();
    }
    started
}

/// Room comes back: writes go on in the same process, and the next one finds all of it.
fn recover(sim: &Rc<Sim>) {
    sim.disk().heal();
    let before = sim.model.borrow().acknowledged;
    busy(sim);
    sim.live();
    if sim.model.borrow().acknowledged == before {
        sim.broken("nothing is written though there is room".to_owned());
    }
    sim.crash(true);
    if !sim.start() {
        sim.broken("no start".to_owned());
    }
}

#[test]
fn a_disk_that_is_full_at_any_point_is_got_over() {
    let mut refusals = 0;
    for point in 0..POINTS {
        let plan = Plan { segment_bytes: 20 << 10, ..Plan::of(point) };
        let (sim, outcome) = Sim::run(plan, |sim| {
            if !begin(sim) {
                return;
            }
            // Full is full: neither a new file nor, from some operation on, a byte in an old one.
            sim.disk().set_capacity(sim.disk().used() + point * 577);
            sim.disk().fail_at(1 + point, Fault::Error(io::ErrorKind::StorageFull));
            busy(sim);
            sim.live();
            // A sync that fails for want of room ends the process like any other.
            if sim.is_over() {
                sim.crash(point % 2 == 0);
                if !sim.start() {
                    return;
                }
            }
            recover(sim);
        });
        outcome.unwrap();
        refusals += sim.model.borrow().refusals;
    }
    assert!(refusals > POINTS, "{refusals} batches were refused");
}

#[test]
fn an_error_of_any_operation_loses_nothing() {
    let mut ended = 0;
    for n in 1..300 {
        let (_, outcome) = Sim::run(Plan::of(n), |sim| {
            if !begin(sim) {
                return;
            }
            sim.disk().fail_at(n, Fault::Error(io::ErrorKind::Other));
            busy(sim);
            sim.live();
            ended += u64::from(sim.is_over());
            // The kernel shows the next process what the sync did not write.
            sim.crash(n % 3 == 0);
            if sim.start() {
                recover(sim);
            } else {
                sim.broken("no start".to_owned());
            }
        });
        outcome.unwrap();
    }
    assert!(ended > 50, "{ended} processes ended");
}

#[test]
fn a_flipped_bit_is_never_served() {
    let (mut refused, mut damaged) = (0, 0);
    for seed in 0..300 {
        let (_, outcome) = Sim::run(Plan { cache_bytes: 0, ..Plan::of(seed) }, |sim| {
            if !begin(sim) {
                return;
            }
            busy(sim);
            sim.live();
            // All is covered, so that nothing can be taken for a torn write.
            let disk = sim.disk().image(sim.draw.fork());
            let flipped = disk.flip(&sim.draw);
            let found = sim.open_image(&disk, &sim.control.borrow().image());
            match found {
                Err(_) => refused += 1,
                Ok((log, _)) => match sim.model.borrow().check(&log) {
                    Ok(_) => {}
                    Err(what) if what.contains("damaged") => damaged += 1,
                    Err(what) => sim.broken(format!("{flipped:?}: {what}")),
                },
            }
        });
        outcome.unwrap();
    }
    assert!(refused > 20 && damaged > 20, "{refused} refused, {damaged} damaged");
}
