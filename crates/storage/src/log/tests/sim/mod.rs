//! The log in a simulation: one thread, whose turn it is decided by a seed, on a disk and a control
//! store that fail as real ones do. What a failure prints replays it.

mod clients;
mod control;
mod crashes;
pub(super) mod disk;
mod faults;
mod model;
mod planted;
mod seeds;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use self::control::SimControl;
use self::disk::{Fault, SimDisk};
use self::model::{Model, Violation};
use super::*;
use crate::log::writer::Writer;

/// Turns within turns: who runs while somebody else waits for the disk.
const DEPTH_MAX: u32 = 3;
/// Turns of one life, so that a log that never comes to rest is noticed.
const TURNS_MAX: u64 = 200_000;
/// Polls of a call that nobody else can delay.
const POLLS_MAX: u64 = 10_000;

/// A stream of numbers from a seed. A clone draws from the same stream.
#[derive(Clone)]
pub(super) struct Draw(Arc<AtomicU64>);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    fn next(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let n = self.0.load(Ordering::Relaxed).wrapping_add(step);
        self.0.store(n, Ordering::Relaxed);
        let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    }

    fn below(&self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True once in `of` times.
    fn chance(&self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn fork(&self) -> Self {
        Self::new(self.next())
    }
}

/// Lets somebody else have a turn.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs a call that waits for nobody but itself.
fn drive<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
    panic!("a call waits for somebody who is not there");
}

/// Set by a wake-up; a client without one is not polled, so that a lost one shows.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Client {
    woken: Arc<Woken>,
    /// `None` while it has its turn.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Writer,
    Upkeep,
    Client(usize),
}

/// How a simulation is run.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    segment_bytes: u64,
    cache_bytes: usize,
    capacity: u64,
    /// Crashes that are tried, beside the run, at every operation of the disk.
    images: u64,
    trace: bool,
}

impl Plan {
    fn of(seed: u64) -> Self {
        Self {
            seed,
            segment_bytes: 24 << 10,
            cache_bytes: [0, 3_000, 64 << 10][seed as usize % 3],
            capacity: u64::MAX >> 1,
            images: 0,
            trace: false,
        }
    }
}

/// One world: what outlives a process, and the process of the moment.
struct Sim {
    plan: Plan,
    draw: Draw,
    /// For the crashes that are tried beside the run, so that they do not change it.
    image_draw: Draw,
    random: Random,
    clock: Arc<SimClock>,
    disk: RefCell<SimDisk>,
    control: RefCell<SimControl>,
    model: RefCell<Model>,
    log: RefCell<Option<Arc<Log>>>,
    writer: RefCell<Option<Writer>>,
    tasks: RefCell<Option<Receiver<Task>>>,
    todo: RefCell<VecDeque<Task>>,
    upkeep_is_busy: Cell<bool>,
    clients: RefCell<Vec<Client>>,
    /// Readers that wait: shard and place.
    waiting: RefCell<Vec<Option<(u64, u64)>>>,
    depth: Cell<u32>,
    violation: RefCell<Option<Violation>>,
    crashes: Cell<u64>,
    next_producer: Cell<u64>,
}

thread_local! {
    static SIM: RefCell<Option<Rc<Sim>>> = const { RefCell::new(None) };
}

/// The world of this thread.
fn sim() -> Rc<Sim> {
    SIM.with_borrow(|sim| sim.clone()).unwrap()
}

/// What the disk calls before each operation.
fn watched(what: &'static str) {
    if let Some(sim) = SIM.with_borrow(|sim| sim.clone()) {
        sim.at_operation(what);
    }
}

impl Sim {
    /// Runs `script` in a world of its own; says what was broken, if something was.
    fn run(plan: Plan, script: impl FnOnce(&Rc<Sim>)) -> (Rc<Sim>, Result<(), Violation>) {
        let draw = Draw::new(plan.seed);
        let disk = SimDisk::new(draw.fork(), plan.capacity);
        if plan.trace {
            disk.start_trace();
        }
        disk.watch(watched);
        let sim = Rc::new(Self {
            plan,
            image_draw: draw.fork(),
            random: Random::from_seed(plan.seed),
            clock: Arc::default(),
            disk: RefCell::new(disk),
            control: RefCell::new(SimControl::new(draw.fork())),
            model: RefCell::default(),
            log: RefCell::default(),
            writer: RefCell::default(),
            tasks: RefCell::default(),
            todo: RefCell::default(),
            upkeep_is_busy: Cell::new(false),
            clients: RefCell::default(),
            waiting: RefCell::default(),
            depth: Cell::new(0),
            violation: RefCell::default(),
            crashes: Cell::new(0),
            next_producer: Cell::new(0),
            draw,
        });
        sim.tell_time();
        SIM.set(Some(sim.clone()));
        script(&sim);
        sim.end_process();
        SIM.set(None);
        let broken = sim.violation.borrow_mut().take();
        let what = broken.map_or(Ok(()), |what| {
            Err(format!(
                "seed {}: {what} (HYDRANT_SEED_FIRST={} HYDRANT_SEEDS=1 replays it)",
                plan.seed, plan.seed
            ))
        });
        (sim, what)
    }

    fn disk(&self) -> SimDisk {
        self.disk.borrow().clone()
    }

    /// Tells the model what time it may be taken for.
    fn tell_time(&self) {
        let (from, to) = self.clock.bounds();
        self.note(format_args!("clock {from} to {to}"));
        self.model.borrow_mut().clock(from, to);
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.disk.borrow().note(what);
    }

    fn broken(&self, what: Violation) {
        self.note(format_args!("broken: {what}"));
        self.violation.borrow_mut().get_or_insert(what);
        // Nothing that comes later is worth looking at.
        self.disk.borrow().kill();
    }

    fn expect(&self, promise: Result<(), Violation>) {
        if let Err(what) = promise {
            self.broken(what);
        }
    }

    fn is_over(&self) -> bool {
        self.disk.borrow().is_dead()
    }

    fn options(&self) -> LogOptions {
        let Plan { segment_bytes, cache_bytes, .. } = self.plan;
        let scattered_bytes = segment_bytes;
        LogOptions { segment_bytes, cache_bytes, free_bytes_min: 0, merged_min: 2, scattered_bytes }
    }

    /// Starts the process. False if the power failed meanwhile, or the disk refused.
    fn start(&self) -> bool {
        let fatal: Fatal = Arc::new(|reason| {
            let sim = sim();
            sim.note(format_args!("fatal: {reason}"));
            sim.disk.borrow().kill();
        });
        let dir = LogDir { disk: Arc::new(self.disk()), path: "log".into() };
        let control = Arc::new(self.control.borrow().clone());
        let opened = Log::assemble(
            None,
            dir,
            self.options(),
            control,
            self.clock.clone(),
            &self.random,
            fatal,
        );
        let (log, machines) = match opened {
            Ok(opened) => opened,
            Err(e) => {
                let expected =
                    self.is_over() || matches!(e, OpenError::Full { .. } | OpenError::Io { .. });
                if !expected {
                    self.broken(format!("refused to start: {e}"));
                }
                self.note(format_args!("no start: {e}"));
                return false;
            }
        };
        *self.log.borrow_mut() = Some(log.clone());
        *self.writer.borrow_mut() = Some(machines.writer);
        *self.tasks.borrow_mut() = Some(machines.tasks);
        let adopted = self.model.borrow_mut().adopt(&log);
        self.expect(adopted);
        !self.is_over()
    }

    fn end_process(&self) {
        let clients = std::mem::take(&mut *self.clients.borrow_mut());
        drop(clients);
        self.waiting.borrow_mut().clear();
        self.todo.borrow_mut().clear();
        self.writer.borrow_mut().take();
        self.tasks.borrow_mut().take();
        self.log.borrow_mut().take();
        self.model.borrow_mut().reclaims = 0;
    }

    /// Ends the process as a crash does, and leaves its disk to the next.
    fn crash(&self, power_cut: bool) {
        self.note(format_args!("crash {power_cut}"));
        // A process has nothing but the clock to believe when it starts.
        self.clock.right();
        self.tell_time();
        if self.disk.borrow().has_retried() {
            self.broken("a failed sync was tried again".to_owned());
        }
        self.end_process();
        self.crashes.set(self.crashes.get() + 1);
        let next = self.disk.borrow().after(power_cut, self.draw.fork());
        *self.disk.borrow_mut() = next;
        if self.violation.borrow().is_some() {
            self.disk.borrow().kill();
        }
    }

    fn log(&self) -> Arc<Log> {
        self.log.borrow().clone().unwrap()
    }

    fn spawn(&self, client: impl Future<Output = ()> + 'static) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.clients.borrow_mut().push(Client { woken, future: Some(Box::pin(client)) });
        self.waiting.borrow_mut().push(None);
    }

    fn ready(&self) -> Vec<Turn> {
        let mut ready = Vec::new();
        if self.writer.borrow().is_some() && self.log().queue.is_filled() {
            ready.push(Turn::Writer);
        }
        if let Some(tasks) = &*self.tasks.borrow() {
            self.todo.borrow_mut().extend(tasks.try_iter());
        }
        if !self.upkeep_is_busy.get() && !self.todo.borrow().is_empty() {
            ready.push(Turn::Upkeep);
        }
        for (n, client) in self.clients.borrow().iter().enumerate() {
            if client.future.is_some() && client.woken.0.load(Ordering::Relaxed) {
                ready.push(Turn::Client(n));
            }
        }
        ready
    }

    fn take_turn(&self, turn: Turn) {
        self.depth.set(self.depth.get() + 1);
        match turn {
            Turn::Writer => {
                let writer = self.writer.borrow_mut().take();
                if let Some(mut writer) = writer {
                    writer.work(self.log().queue.take_queued());
                    *self.writer.borrow_mut() = Some(writer);
                }
            }
            Turn::Upkeep => {
                let task = self.todo.borrow_mut().pop_front();
                if let Some(task) = task {
                    self.upkeep_is_busy.set(true);
                    upkeep::work(&self.log().shared, task);
                    self.upkeep_is_busy.set(false);
                }
            }
            Turn::Client(n) => {
                let (future, woken) = {
                    let client = &mut self.clients.borrow_mut()[n];
                    client.woken.0.store(false, Ordering::Relaxed);
                    (client.future.take(), client.woken.clone())
                };
                if let Some(mut future) = future {
                    let waker = Waker::from(woken);
                    if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                        self.clients.borrow_mut()[n].future = Some(future);
                    }
                }
            }
        }
        self.depth.set(self.depth.get() - 1);
    }

    /// Gives turns until nobody wants one, or the process is over.
    fn live(&self) {
        for _ in 0..TURNS_MAX {
            if self.is_over() {
                return;
            }
            let ready = self.ready();
            match ready.get(self.draw.below(ready.len() as u64) as usize) {
                Some(&turn) => self.take_turn(turn),
                None => {
                    let is_quiet = {
                        let writer = self.writer.borrow_mut().take();
                        let covered = writer.map(|mut writer| {
                            let covered = writer.cover_if_due();
                            *self.writer.borrow_mut() = Some(writer);
                            covered
                        });
                        covered != Some(true)
                    };
                    if is_quiet {
                        self.check_waiting();
                        return;
                    }
                }
            }
        }
        self.broken("the log does not come to rest".to_owned());
    }

    /// Nobody has anything to do: whoever still waits has to wait for something that did not happen.
    fn check_waiting(&self) {
        let model = self.model.borrow();
        for (shard, past) in self.waiting.borrow().iter().flatten() {
            if model.is_due(*shard, *past) {
                self.broken(format!("shard {shard}: nobody woke the reader at {past}"));
            }
        }
        let idle = |n: usize| self.waiting.borrow()[n].is_some();
        for (n, client) in self.clients.borrow().iter().enumerate() {
            if client.future.is_some() && !idle(n) {
                self.broken(format!("client {n} waits for ever"));
            }
        }
    }

    /// The disk is about to do something: whoever else is ready may go first, and the power may fail.
    fn at_operation(&self, _what: &'static str) {
        if self.is_over() {
            return;
        }
        if self.depth.get() < DEPTH_MAX && self.log.borrow().is_some() {
            for _ in 0..self.draw.below(3) {
                let ready = self.ready();
                if let Some(&turn) = ready.get(self.draw.below(ready.len() as u64) as usize) {
                    self.take_turn(turn);
                }
            }
        }
        for _ in 0..self.plan.images {
            if self.is_over() {
                return;
            }
            self.try_crash();
        }
    }

    /// What the next process would find if the power failed now; the run goes on as if nothing were.
    fn try_crash(&self) {
        self.crashes.set(self.crashes.get() + 1);
        let draw = self.image_draw.fork();
        let mut disk = self.disk().image(draw.fork());
        let control = self.control.borrow().image();
        // Once more in the midst of the recovery, now and then.
        if draw.chance(4) {
            disk.fail_at(1 + draw.below(14), Fault::Cut);
            let _ = self.open_image(&disk, &control);
            disk = disk.after(true, draw.fork());
        }
        let found = self.open_image(&disk, &control).and_then(|(log, mut machines)| {
            self.model.borrow().check(&log)?;
            if draw.chance(8) {
                put_one_each(&log, &mut machines.writer, &self.model.borrow())?;
            }
            Ok(())
        });
        if let Err(what) = found {
            self.broken(format!(
                "after a power cut at operation {}: {what}",
                self.disk().operations()
            ));
        }
    }

    fn open_image(
        &self,
        disk: &SimDisk,
        control: &SimControl,
    ) -> Result<(Arc<Log>, Machines), Violation> {
        let dir = LogDir { disk: Arc::new(disk.clone()), path: "log".into() };
        let control = Arc::new(control.clone());
        let random = Random::from_seed(disk.operations());
        let clock = self.clock.righted();
        Log::assemble(None, dir, self.options(), control, clock, &random, Arc::new(|_| {}))
            .map_err(|e| format!("refused to start: {e}"))
    }
}

/// A recovered log takes records, at indices that nobody has.
fn put_one_each(log: &Arc<Log>, writer: &mut Writer, model: &Model) -> Result<(), Violation> {
    for (&shard, state) in &model.shards {
        let uid = ShardUid(shard);
        let Ok(before) = drive(log.tail(uid)) else { continue };
        let mut put = Box::pin(log.append(uid, batch(&["late"])));
        let mut cx = Context::from_waker(Waker::noop());
        let mut answer = Poll::Pending;
        for _ in 0..POLLS_MAX {
            answer = put.as_mut().poll(&mut cx);
            if answer.is_ready() {
                break;
            }
            writer.work(log.queue.take_queued());
        }
        match answer {
            Poll::Ready(Ok(range)) if range.get().first >= before.end => {}
            Poll::Ready(Err(LogError::Sealed)) if state.sealed != model::Done::No => {}
            Poll::Ready(answer) => return Err(format!("shard {shard}, {before:?}: {answer:?}")),
            Poll::Pending => return Err(format!("shard {shard}: a put is never answered")),
        }
    }
    Ok(())
}

/// A clock that is set back and leaps ahead, over a count of time that does neither.
struct SimClock {
    start: Timestamp,
    wall: ManualClock,
    uptime: SyncMutex<Duration>,
    /// What it showed before it leapt.
    leapt: SyncMutex<Option<Timestamp>>,
}

impl Default for SimClock {
    fn default() -> Self {
        let wall = ManualClock::default();
        Self { start: wall.now(), wall, uptime: SyncMutex::default(), leapt: SyncMutex::default() }
    }
}

impl SimClock {
    fn pass(&self, by: Duration) {
        *self.uptime.lock() += by;
        self.wall.advance(by);
    }

    fn leap(&self, by: Duration) {
        *self.leapt.lock() = Some(self.wall.now());
        self.wall.advance(by);
    }

    /// The clock as it was before it leapt.
    fn righted(&self) -> Arc<dyn Clock> {
        let now = self.leapt.lock().unwrap_or_else(|| self.now());
        Arc::new(ManualClock::new(now))
    }

    /// Sets right a clock that leapt.
    fn right(&self) {
        if let Some(before) = self.leapt.lock().take() {
            self.wall.set(before);
        }
    }

    /// The least and the most that a log may take the time for.
    fn bounds(&self) -> (Timestamp, Timestamp) {
        match *self.leapt.lock() {
            Some(before) => (before, self.start.plus(*self.uptime.lock())),
            None => (self.now(), self.now()),
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.wall.now()
    }

    fn uptime(&self) -> Option<Duration> {
        Some(*self.uptime.lock())
    }
}

/// A number from the environment, for longer runs.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
