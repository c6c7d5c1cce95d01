//! A disk in memory that does what a real one may: it loses what was not synced, in any order and in
//! part, runs full, and fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Draw;
use crate::disk::{BlockFile, Disk, DiskFile};

/// What a disk writes whole or not at all, when it keeps its word.
const SECTOR_BYTES: usize = 512;
/// What a file that is appended to is written in.
const BLOCK_BYTES: usize = 4_096;

/// What is told to whoever watches the disk, before the operation takes effect.
pub(super) type Watch = fn(&'static str);

#[derive(Clone, Default)]
struct File {
    /// What a reader sees.
    now: Arc<Vec<u8>>,
    /// What is surely there after a power cut.
    durable: Arc<Vec<u8>>,
    /// Sectors of `now` that are not in `durable`, and that a sync will write.
    dirty: BTreeSet<usize>,
    /// Sectors that a sync failed to write: the kernel takes them for clean.
    dropped: BTreeSet<usize>,
    /// The length was changed and not synced.
    resized: bool,
    /// This process was told that a sync failed.
    sync_failed: bool,
    /// Room taken on the disk, in bytes.
    room: u64,
}

/// A change of the directory that is not synced yet.
#[derive(Clone)]
enum Change {
    Put(String, u64),
    Move(String, String, u64),
    Remove(String),
}

type Names = BTreeMap<String, u64>;

fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Put(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Change::Move(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

/// What goes wrong, and when, counted in operations from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log::tests) enum Fault {
    /// The operation fails and takes no effect, or, a write, in part.
    Error(io::ErrorKind),
    /// The power is gone from here on.
    Cut,
}

#[derive(Clone)]
struct State {
    files: BTreeMap<u64, File>,
    names: Names,
    /// The directory as last synced, and what was done to it since.
    durable_names: Names,
    changes: Vec<Change>,
    files_made: u64,
    capacity: u64,
    faults: BTreeMap<u64, Fault>,
    operations: u64,
    /// A sync that failed was tried again by the same process.
    retried: bool,
    dead: bool,
    draw: Draw,
    /// Every operation in words, for whoever wants to compare two runs.
    trace: Option<String>,
    watch: Option<Watch>,
}

/// The disk. A clone is the same one; [`SimDisk::fork`] makes another.
#[derive(Clone)]
pub(in crate::log::tests) struct SimDisk(Arc<Mutex<State>>);

struct Handle(SimDisk, u64);

fn no_power() -> io::Error {
    io::Error::other("no power")
}

impl State {
    fn used(&self) -> u64 {
        self.files.values().map(|f| f.room).sum()
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "disk {} {what}", self.operations);
        }
    }

    /// Counts an operation. Returns what goes wrong with it.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(no_power());
        }
        self.operations += 1;
        let fault = self.faults.remove(&self.operations);
        if fault == Some(Fault::Cut) {
            self.dead = true;
        }
        Ok(fault)
    }

    /// Counts an operation that takes effect or does not.
    fn simple(&mut self, effect: impl FnOnce(&mut Self)) -> io::Result<()> {
        match self.step()? {
            Some(Fault::Error(kind)) => Err(kind.into()),
            Some(Fault::Cut) => {
                // It may have got that far; whether it survives is another question.
                if self.draw.chance(2) {
                    effect(self);
                }
                Err(no_power())
            }
            None => {
                effect(self);
                Ok(())
            }
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
        let kept: BTreeSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        let pending: BTreeSet<u64> = self
            .changes
            .iter()
            .filter_map(|c| match c {
                Change::Put(_, inode) | Change::Move(_, _, inode) => Some(*inode),
                Change::Remove(_) => None,
            })
            .collect();
        self.files.retain(|inode, _| kept.contains(inode) || pending.contains(inode));
    }

    fn write(&mut self, inode: u64, bytes: &[u8], at: usize) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        let now = Arc::make_mut(&mut file.now);
        if now.len() < at + bytes.len() {
            now.resize(at + bytes.len(), 0);
            file.resized = true;
        }
        now[at..at + bytes.len()].copy_from_slice(bytes);
        for sector in at / SECTOR_BYTES..(at + bytes.len()).div_ceil(SECTOR_BYTES) {
            file.dirty.insert(sector);
            file.dropped.remove(&sector);
        }
        file.room = file.room.max(now.len() as u64);
    }
}

impl SimDisk {
    /// An empty disk with room for `capacity` bytes.
    pub(in crate::log::tests) fn new(draw: Draw, capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            names: Names::new(),
            durable_names: Names::new(),
            changes: Vec::new(),
            files_made: 0,
            capacity,
            faults: BTreeMap::new(),
            operations: 0,
            retried: false,
            dead: false,
            draw,
            trace: None,
            watch: None,
        })))
    }

    /// Calls `watch` before each operation.
    pub(super) fn watch(&self, watch: Watch) {
        self.0.lock().watch = Some(watch);
    }

    /// Writes down each operation from now on.
    pub(super) fn start_trace(&self) {
        self.0.lock().trace = Some(String::new());
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.0.lock().trace {
            let _ = writeln!(trace, "{what}");
        }
    }

    /// What was written down.
    pub(super) fn trace(&self) -> String {
        self.0.lock().trace.clone().unwrap_or_default()
    }

    /// Lets something go wrong with the `n`-th operation from now on.
    pub(in crate::log::tests) fn fail_at(&self, n: u64, fault: Fault) {
        let mut state = self.0.lock();
        let at = state.operations + n;
        state.faults.insert(at, fault);
    }

    /// Operations so far.
    pub(super) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Takes the disk away from the process, which is gone.
    pub(super) fn kill(&self) {
        self.0.lock().dead = true;
    }

    /// Whether the process has lost the disk.
    pub(in crate::log::tests) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// Whether a process tried a failed sync again.
    pub(super) fn has_retried(&self) -> bool {
        self.0.lock().retried
    }

    /// Changes the room on the disk.
    pub(super) fn set_capacity(&self, capacity: u64) {
        self.0.lock().capacity = capacity;
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&self) {
        let mut state = self.0.lock();
        state.faults.clear();
        state.capacity = u64::MAX >> 1;
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// The disk as the next process finds it. After a power cut any part of what was not synced may
    /// be gone; after a kill all of it is there, and still not synced.
    pub(in crate::log::tests) fn after(&self, power_cut: bool, draw: Draw) -> Self {
        let mut state = self.0.lock().clone();
        state.dead = false;
        state.files.values_mut().for_each(|file| file.sync_failed = false);
        state.faults.clear();
        state.draw = draw;
        if power_cut {
            lose(&mut state);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// Another disk, as this one is after a power cut at this moment, that nobody watches.
    pub(super) fn image(&self, draw: Draw) -> Self {
        let (watch, trace) = {
            let mut state = self.0.lock();
            (state.watch.take(), state.trace.take())
        };
        let image = self.after(true, draw);
        let mut state = self.0.lock();
        (state.watch, state.trace) = (watch, trace);
        image
    }

    /// Flips a bit of some file, and says of which one and where.
    pub(super) fn flip(&self, draw: &Draw) -> Option<(String, usize)> {
        let mut state = self.0.lock();
        let names: Vec<_> = state.names.iter().map(|(n, i)| (n.clone(), *i)).collect();
        let (name, inode) = names.get(draw.below(names.len() as u64) as usize)?.clone();
        let file = state.files.get_mut(&inode)?;
        let used = file.now.iter().rposition(|b| *b != 0)? + 1;
        let at = draw.below(used as u64) as usize;
        Arc::make_mut(&mut file.now)[at] ^= 1 << draw.below(8);
        file.durable = file.now.clone();
        Some((name, at))
    }

    fn op(&self, what: &'static str) {
        // Not under the lock: whoever watches may use the disk.
        let watch = self.0.lock().watch;
        if let Some(watch) = watch {
            watch(what);
        }
    }
}

/// Takes away what a power cut takes.
fn lose(state: &mut State) {
    let State { files, durable_names, changes, draw, names, .. } = state;
    // A journal keeps the order of changes; the port does not promise even that.
    let in_order = !draw.chance(4);
    let survivors = draw.below(changes.len() as u64 + 1) as usize;
    let mut found = durable_names.clone();
    for (n, change) in changes.iter().enumerate() {
        if if in_order { n < survivors } else { draw.chance(2) } {
            apply(&mut found, change);
        }
    }
    changes.clear();
    *names = found.clone();
    *durable_names = found;
    files.retain(|inode, _| names.values().any(|named| named == inode));
    for file in files.values_mut() {
        if file.dirty.is_empty() && file.dropped.is_empty() && !file.resized {
            continue;
        }
        let len = match file.resized && draw.chance(2) {
            true => file.durable.len(),
            false => file.now.len(),
        };
        // All, none, or a share of them: each finds bugs that the others do not.
        let share = draw.below(5);
        let mut durable = (*file.durable).clone();
        durable.resize(len, 0);
        for &sector in file.dirty.iter().chain(&file.dropped) {
            let start = sector * SECTOR_BYTES;
            let mut end = (start + SECTOR_BYTES).min(len).min(file.now.len());
            if start >= end || draw.below(4) >= share {
                continue;
            }
            if draw.chance(16) {
                end = start + draw.below((end - start) as u64) as usize;
            }
            durable[start..end].copy_from_slice(&file.now[start..end]);
        }
        let durable = Arc::new(durable);
        let room = file.room;
        *file = File { now: durable.clone(), durable, room, ..File::default() };
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.op("create");
        let mut state = self.0.lock();
        let name = name_of(path);
        state.say(format_args!("create {name}"));
        let mut inode = 0;
        state.simple(|state| match state.names.get(&name) {
            Some(&found) => {
                // Emptied, as `O_TRUNC` does it.
                inode = found;
                let file = state.files.entry(found).or_default();
                file.now = Arc::default();
                file.resized = true;
                file.dirty.clear();
                file.dropped.clear();
                // All of it is written anew.
                file.sync_failed = false;
                file.room = 0;
            }
            None => {
                state.files_made += 1;
                inode = state.files_made;
                state.files.insert(inode, File::default());
                state.change(Change::Put(name.clone(), inode));
            }
        })?;
        Ok(Arc::new(Handle(self.clone(), inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        if state.dead {
            return Err(no_power());
        }
        let inode = state.names.get(&name_of(path)).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle(self.clone(), inode)))
    }

    fn open_to_append(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.open(path)?;
        let inode = self.0.lock().names.get(&name_of(path)).copied();
        // Half of the files are on a file system that takes no blocks.
        Ok(match inode.is_some_and(|inode| inode % 2 == 0) {
            true => Arc::new(BlockFile::new(file.clone(), file, BLOCK_BYTES)?),
            false => file,
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op("rename");
        let mut state = self.0.lock();
        let (from, to) = (name_of(from), name_of(to));
        state.say(format_args!("rename {from} {to}"));
        let inode = state.names.get(&from).copied().ok_or(io::ErrorKind::NotFound)?;
        state.simple(|state| state.change(Change::Move(from, to, inode)))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op("link");
        let mut state = self.0.lock();
        let (from, to) = (name_of(from), name_of(to));
        state.say(format_args!("link {from} {to}"));
        if state.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.names.get(&from).copied().ok_or(io::ErrorKind::NotFound)?;
        state.simple(|state| state.change(Change::Put(to, inode)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.op("remove");
        let mut state = self.0.lock();
        let name = name_of(path);
        state.say(format_args!("remove {name}"));
        if !state.names.contains_key(&name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.simple(|state| state.change(Change::Remove(name)))
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        if state.dead {
            return Err(no_power());
        }
        Ok(state.names.keys().cloned().collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.op("sync_dir");
        let mut state = self.0.lock();
        state.say(format_args!("sync_dir"));
        match state.step()? {
            None => {
                state.durable_names = state.names.clone();
                state.changes.clear();
                Ok(())
            }
            Some(Fault::Error(kind)) => Err(kind.into()),
            Some(Fault::Cut) => Err(no_power()),
        }
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.capacity.saturating_sub(state.used()))
    }
}

impl DiskFile for Handle {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.0.0.lock();
        if state.dead {
            return Err(no_power());
        }
        let file = state.files.get(&self.1).ok_or(io::ErrorKind::NotFound)?;
        let found = file.now.get(at as usize..).unwrap_or_default();
        let len = found.len().min(into.len());
        into[..len].copy_from_slice(&found[..len]);
        Ok(len)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.0.op("write");
        let bytes: Vec<u8> = buffers.iter().flat_map(|b| b.iter().copied()).collect();
        let mut state = self.0.0.lock();
        let (inode, start) = (self.1, at as usize);
        state.say(format_args!("write {inode} {at}+{}", bytes.len()));
        let fault = state.step()?;
        let owned = state.files.get(&inode).map_or(0, |f| f.room);
        let free = state.capacity.saturating_sub(state.used());
        let fits = (owned + free).saturating_sub(at).min(bytes.len() as u64) as usize;
        let draw = state.draw.clone();
        let some = |most: usize| draw.below(most as u64 + 1) as usize;
        match fault {
            // What is full shows first as a short write.
            None if fits < bytes.len() => {
                state.write(inode, &bytes[..fits], start);
                Err(io::ErrorKind::StorageFull.into())
            }
            None => {
                state.write(inode, &bytes, start);
                Ok(())
            }
            Some(fault) => {
                let part = match draw.below(3) {
                    0 if fault == Fault::Cut => 0,
                    0 => fits,
                    _ => some(fits),
                };
                state.write(inode, &bytes[..part], start);
                match fault {
                    Fault::Error(kind) => Err(kind.into()),
                    Fault::Cut => Err(no_power()),
                }
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.op("sync");
        let mut state = self.0.0.lock();
        let inode = self.1;
        state.say(format_args!("sync {inode}"));
        let fault = state.step()?;
        let Some(file) = state.files.get_mut(&inode) else { return Ok(()) };
        let retried = file.sync_failed;
        state.retried |= retried;
        let Some(file) = state.files.get_mut(&inode) else { return Ok(()) };
        match fault {
            None => {
                let mut durable = file.now.clone();
                if !file.dropped.is_empty() {
                    let bytes = Arc::make_mut(&mut durable);
                    for sector in &file.dropped {
                        let start = (sector * SECTOR_BYTES).min(bytes.len());
                        let end = (start + SECTOR_BYTES).min(bytes.len());
                        let kept = file.durable.len().clamp(start, end);
                        let old = file.durable.get(start..kept).unwrap_or_default();
                        bytes[start..start + old.len()].copy_from_slice(old);
                        bytes[kept..end].fill(0);
                    }
                }
                file.durable = durable;
                file.dirty.clear();
                file.resized = false;
                Ok(())
            }
            Some(Fault::Error(kind)) => {
                let dirty = std::mem::take(&mut file.dirty);
                file.dropped.extend(dirty);
                file.sync_failed = true;
                Err(kind.into())
            }
            Some(Fault::Cut) => Err(no_power()),
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.op("allocate");
        let mut state = self.0.0.lock();
        let inode = self.1;
        state.say(format_args!("allocate {inode} {len}"));
        let owned = state.files.get(&inode).map_or(0, |f| f.room);
        let full = state.capacity.saturating_sub(state.used()) + owned < len;
        if full {
            state.step()?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.simple(|state| {
            let Some(file) = state.files.get_mut(&inode) else { return };
            if (file.now.len() as u64) < len {
                Arc::make_mut(&mut file.now).resize(len as usize, 0);
                file.resized = true;
            }
            file.room = file.room.max(len);
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.op("truncate");
        let mut state = self.0.0.lock();
        let inode = self.1;
        state.say(format_args!("truncate {inode} {len}"));
        state.simple(|state| {
            let Some(file) = state.files.get_mut(&inode) else { return };
            Arc::make_mut(&mut file.now).resize(len as usize, 0);
            file.resized = true;
            file.room = len;
            let past = (len as usize).div_ceil(SECTOR_BYTES);
            file.dirty.retain(|sector| *sector < past);
        })
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.0.0.lock();
        let file = state.files.get(&self.1).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.now.len() as u64)
    }
}
