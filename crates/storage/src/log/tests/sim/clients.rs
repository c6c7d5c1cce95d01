//! Those who use the log in a simulation.

use super::model::Done;
use super::*;

/// Most shards in one world.
const SHARDS_MAX: u64 = 7;

fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3_600)
}

/// Makes a shard that has not been before.
pub(super) async fn create() {
    let (sim, log) = (sim(), sim().log());
    let shard = sim.model.borrow().shards.len() as u64 + 1;
    let retention = hours(1 + sim.draw.below(100));
    sim.model.borrow_mut().create(shard, retention);
    let done = log.create(ShardUid(shard), retention).await;
    sim.note(format_args!("create {shard}: {done:?}"));
    if done.is_ok() && !sim.is_over() {
        sim.model.borrow_mut().shard(shard).created = Done::Yes;
    }
}

/// Puts `count` batches, one after the other, into whatever shard is open.
pub(super) async fn produce(count: u64) {
    let sim = sim();
    let log = sim.log();
    let producer = sim.next_producer.get();
    sim.next_producer.set(producer + 1);
    for turn in 0..count {
        let open = sim.model.borrow().open_shards();
        let Some(&shard) = open.get(sim.draw.below(open.len() as u64) as usize) else { return };
        let (id, batch) = sim.model.borrow_mut().put(shard, producer, turn, &sim.draw);
        let answer = log.append(ShardUid(shard), batch).await.map(|d| d.into_inner());
        // What a process says after its end nobody hears.
        if sim.is_over() {
            return;
        }
        sim.note(format_args!("put {id} into {shard}: {answer:?}"));
        let promise = sim.model.borrow_mut().answered(shard, id, &answer);
        sim.expect(promise);
        if sim.draw.chance(4) {
            pause().await;
        }
    }
}

/// Reads shards to their ends and waits there, as number `me` of the clients.
pub(super) async fn read(me: usize, calls: u64) {
    let sim = sim();
    let log = sim.log();
    let (mut shard, mut from) = (0, RecordIndex::MIN);
    for _ in 0..calls {
        let live = sim.model.borrow().live_shards();
        if !live.contains(&shard) || sim.draw.chance(9) {
            let Some(&next) = live.get(sim.draw.below(live.len() as u64) as usize) else { return };
            (shard, from) = (next, RecordIndex::MIN);
        }
        let uid = ShardUid(shard);
        let limit = ReadLimit {
            records_max: 1 + sim.draw.below(40) as usize,
            bytes_max: sim.draw.below(6_000) as usize,
        };
        let mark = sim.model.borrow().mark(shard);
        let page = log.read(uid, from, limit).await;
        if sim.is_over() {
            return;
        }
        match page {
            Ok(page) => {
                sim.note(format_args!(
                    "read {shard} from {from:?}: {} to {:?}",
                    page.len(),
                    page.next
                ));
                let promise = sim.model.borrow_mut().shown(shard, from, &page, &mark);
                sim.expect(promise);
                let is_end = page.is_empty();
                from = page.next;
                if is_end && !page.tail.sealed {
                    wait(me, shard, from).await;
                } else if is_end {
                    from = RecordIndex::MIN;
                }
            }
            Err(e) => refused(&format!("reading shard {shard}"), shard, &e),
        }
    }
}

/// Waits for records at or past `past`.
async fn wait(me: usize, shard: u64, past: RecordIndex) {
    let sim = sim();
    let log = sim.log();
    let mark = sim.model.borrow().mark(shard);
    sim.waiting.borrow_mut()[me] = Some((shard, past.0));
    let tail = log.wait(ShardUid(shard), past).await;
    if sim.is_over() {
        return;
    }
    sim.waiting.borrow_mut()[me] = None;
    match tail {
        Ok(tail) => {
            sim.note(format_args!("waited for {past:?} of {shard}: {tail:?}"));
            if tail.end <= past && !tail.sealed {
                sim.broken(format!("shard {shard}: woken at {past:?} for {tail:?}"));
            }
            let promise = sim.model.borrow_mut().told(shard, tail, &mark);
            sim.expect(promise);
        }
        Err(e) => refused(&format!("waiting at shard {shard}"), shard, &e),
    }
}

/// A call that failed had better have a reason.
fn refused(what: &str, shard: u64, error: &LogError) {
    let sim = sim();
    sim.note(format_args!("{what}: {error}"));
    let expected = match error {
        LogError::NotFound => sim.model.borrow().shards[&shard].dropped != Done::No,
        LogError::Unavailable(_) => true,
        LogError::Full => true,
        _ => false,
    };
    if !expected {
        sim.broken(format!("{what}: {error}"));
    }
}

/// Does what an operator's streams do to their shards.
pub(super) async fn administer(calls: u64) {
    for _ in 0..calls {
        let sim = sim();
        match sim.draw.below(16) {
            0..3 => seal().await,
            3..6 => trim().await,
            6..8 => retain().await,
            8..12 => reclaim().await,
            12 => drop_shard().await,
            13 => locate().await,
            _ => step_clock(),
        }
        if sim.is_over() {
            return;
        }
        for _ in 0..sim.draw.below(12) {
            pause().await;
        }
    }
}

fn some_shard() -> Option<u64> {
    let sim = sim();
    let live = sim.model.borrow().live_shards();
    live.get(sim.draw.below(live.len() as u64) as usize).copied()
}

/// A reshard: seals a shard, and makes one that takes its place.
async fn seal() {
    let (sim, Some(shard)) = (sim(), some_shard()) else { return };
    if sim.model.borrow().shards.len() as u64 >= SHARDS_MAX {
        return;
    }
    let mark = sim.model.borrow().mark(shard);
    let log = sim.log();
    if sim.model.borrow().shards[&shard].sealed == Done::No {
        sim.model.borrow_mut().shard(shard).sealed = Done::Maybe;
    }
    let sealed = log.seal(ShardUid(shard)).await;
    if sim.is_over() {
        return;
    }
    sim.note(format_args!("seal {shard}: {sealed:?}"));
    match sealed {
        Ok(tail) if tail.sealed => {
            let promise = sim.model.borrow_mut().told(shard, tail, &mark);
            sim.expect(promise);
        }
        Ok(tail) => sim.broken(format!("shard {shard} was sealed: {tail:?}")),
        Err(e) => refused(&format!("sealing shard {shard}"), shard, &e),
    }
    create().await;
}

async fn trim() {
    let (sim, Some(shard)) = (sim(), some_shard()) else { return };
    let mark = sim.model.borrow().mark(shard);
    let Some(before) = mark.somewhere(&sim.draw) else { return };
    sim.model.borrow_mut().trim(shard, before, Done::Maybe);
    let done = sim.log().trim(ShardUid(shard), RecordIndex(before)).await;
    if sim.is_over() {
        return;
    }
    sim.note(format_args!("trim {shard} at {before}: {done:?}"));
    match done {
        Ok(()) => sim.model.borrow_mut().trim(shard, before, Done::Yes),
        Err(e) => refused(&format!("trimming shard {shard}"), shard, &e),
    }
}

async fn retain() {
    let (sim, Some(shard)) = (sim(), some_shard()) else { return };
    let retention = hours(1 + sim.draw.below(60));
    sim.model.borrow_mut().retain(shard, retention, Done::Maybe);
    let done = sim.log().set_retention(ShardUid(shard), retention).await;
    if sim.is_over() {
        return;
    }
    sim.note(format_args!("retain {shard} for {retention:?}: {done:?}"));
    match done {
        Ok(()) => sim.model.borrow_mut().retain(shard, retention, Done::Yes),
        Err(e) => refused(&format!("retaining shard {shard}"), shard, &e),
    }
}

async fn reclaim() {
    let sim = sim();
    let log = sim.log();
    {
        let mut model = sim.model.borrow_mut();
        model.reclaims += 1;
        model.reclaimed();
    }
    let freed = log.reclaim().await;
    if sim.is_over() {
        return;
    }
    sim.note(format_args!("reclaim: {freed:?}"));
    sim.model.borrow_mut().reclaims -= 1;
    if let Err(e) = freed
        && !matches!(e, LogError::Unavailable(_))
    {
        sim.broken(format!("freeing segments: {e}"));
    }
}

async fn drop_shard() {
    let (sim, Some(shard)) = (sim(), some_shard()) else { return };
    if sim.model.borrow().live_shards().len() < 3 {
        return;
    }
    sim.model.borrow_mut().shard(shard).dropped = Done::Maybe;
    let done = sim.log().drop_shard(ShardUid(shard)).await;
    if sim.is_over() {
        return;
    }
    sim.note(format_args!("drop {shard}: {done:?}"));
    match done {
        Ok(()) => sim.model.borrow_mut().shard(shard).dropped = Done::Yes,
        Err(e) => refused(&format!("dropping shard {shard}"), shard, &e),
    }
}

async fn locate() {
    let (sim, Some(shard)) = (sim(), some_shard()) else { return };
    let time = sim.clock.bounds().0.minus(hours(sim.draw.below(40)));
    let found = sim.log().locate(ShardUid(shard), time).await;
    if sim.is_over() {
        return;
    }
    match found {
        Ok(at) if at >= RecordIndex::at(time) => {}
        Ok(at) => sim.broken(format!("shard {shard}: {time} is at {at:?}")),
        Err(e) => refused(&format!("looking into shard {shard}"), shard, &e),
    }
}

/// The clock goes on, a little or a lot, is set back, or leaps a year ahead until the next time.
pub(super) fn step_clock() {
    let sim = sim();
    let by = Duration::from_millis(sim.draw.below(7_200_000));
    let clock = &sim.clock;
    clock.right();
    // As a server does every minute: it knows of a leap that was undone before the next.
    if let Some(log) = sim.log.borrow().as_ref() {
        log.shared.clock.now();
    }
    match sim.draw.below(10) {
        0 => clock.wall.set(clock.now().minus(hours(24))),
        1 => clock.wall.set(clock.now().minus(by)),
        2 => clock.pass(hours(sim.draw.below(30))),
        3 => clock.leap(hours(24 * 365)),
        _ => clock.pass(by),
    }
    sim.tell_time();
}
