//! A disk that loses its power: of what was not synced, any part may survive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::IoSlice;

use super::*;
use crate::disk::DiskFile;

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
struct SimFile {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

type Names = BTreeMap<String, u64>;

#[derive(Default)]
struct State {
    files: HashMap<u64, SimFile>,
    names: Names,
    /// What the directory was, from the last sync on; any of it may be what it is after the cut.
    history: Vec<Names>,
    files_made: u64,
    operations_left: u64,
}

impl State {
    /// Counts an operation. The one that the power fails in takes effect, as far as anything that
    /// is not synced does, and answers with an error, like all after it.
    fn step(&mut self) -> io::Result<()> {
        self.operations_left = self.operations_left.saturating_sub(1);
        if self.operations_left == 0 {
            return Err(io::Error::other("power cut"));
        }
        Ok(())
    }

    fn rename(&mut self, change: impl FnOnce(&mut Names)) {
        change(&mut self.names);
        self.history.push(self.names.clone());
    }
}

#[derive(Clone)]
struct SimDisk(Arc<SyncMutex<State>>);

struct Handle(SimDisk, u64);

impl SimDisk {
    fn new() -> Self {
        let state = State { history: vec![Names::new()], ..State::default() };
        Self(Arc::new(SyncMutex::new(state)))
    }

    /// The disk as it is when the power is back.
    fn after_power_cut(&self, random: &Random) -> Self {
        let below = |n: usize| (random.next_u64() % n as u64) as usize;
        let state = self.0.lock();
        let names = state.history[below(state.history.len())].clone();
        let mut files = HashMap::new();
        for (&inode, file) in &state.files {
            let len = match below(2) {
                0 => file.durable.len(),
                _ => file.now.len(),
            };
            let mut found = file.durable.clone();
            found.resize(len, 0);
            for &sector in &file.dirty {
                let end = ((sector + 1) * SECTOR_BYTES).min(len).min(file.now.len());
                let start = sector * SECTOR_BYTES;
                if start < end && below(2) == 0 {
                    found[start..end].copy_from_slice(&file.now[start..end]);
                }
            }
            let file = SimFile { now: found.clone(), durable: found, dirty: BTreeSet::new() };
            files.insert(inode, file);
        }
        let history = vec![names.clone()];
        let files_made = state.files_made;
        Self(Arc::new(SyncMutex::new(State {
            files,
            names,
            history,
            files_made,
            operations_left: 0,
        })))
    }

    fn cut_after(&self, operations: u64) {
        self.0.lock().operations_left = operations;
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        state.files_made += 1;
        let inode = state.files_made;
        state.files.insert(inode, SimFile::default());
        state.rename(|names| {
            names.insert(name_of(path), inode);
        });
        Ok(Arc::new(Handle(self.clone(), inode)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.0.lock().names.get(&name_of(path)).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle(self.clone(), inode)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.rename(|names| {
            if let Some(inode) = names.remove(&name_of(from)) {
                names.insert(name_of(to), inode);
            }
        });
        state.step()
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.rename(|names| {
            names.remove(&name_of(path));
        });
        state.step()
    }
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.history = vec![state.names.clone()];
        Ok(())
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl Handle {
    fn with<T>(&self, act: impl FnOnce(&mut SimFile) -> T) -> T {
        act(self.0.0.lock().files.get_mut(&self.1).unwrap())
    }
}

impl DiskFile for Handle {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|file| {
            let found = file.now.get(at as usize..).unwrap_or_default();
            let len = found.len().min(into.len());
            into[..len].copy_from_slice(&found[..len]);
            Ok(len)
        })
    }
    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let bytes: Vec<u8> = buffers.iter().flat_map(|b| b.to_vec()).collect();
        self.with(|file| {
            let (start, end) = (at as usize, at as usize + bytes.len());
            if file.now.len() < end {
                file.now.resize(end, 0);
            }
            file.now[start..end].copy_from_slice(&bytes);
            file.dirty.extend(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        });
        self.0.0.lock().step()
    }
    fn sync(&self) -> io::Result<()> {
        self.0.0.lock().step()?;
        self.with(|file| {
            file.durable = file.now.clone();
            file.dirty.clear();
        });
        Ok(())
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.truncate(len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|file| file.now.resize(len as usize, 0));
        self.0.0.lock().step()
    }
    fn size(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.now.len() as u64))
    }
}

/// Appends from several tasks until the power fails; returns what was acknowledged.
async fn append_until_cut(log: &Arc<Log>, round: usize) -> Vec<(ShardUid, String)> {
    let producers: Vec<_> = (0..4u64)
        .map(|producer| {
            let log = log.clone();
            tokio::spawn(async move {
                let (mut acked, shard) = (Vec::new(), ShardUid(1 + producer % 2));
                for n in 0.. {
                    let text = format!("{round}/{producer}/{n} {}", "x".repeat(n * 37 % 900));
                    match log.append(shard, batch(&[&text, &text])).await {
                        Ok(_) => acked.push((shard, text)),
                        Err(e) => {
                            assert!(matches!(e, LogError::Unavailable(_)), "{e}");
                            break;
                        }
                    }
                }
                acked
            })
        })
        .collect();
    let mut acked = Vec::new();
    for producer in producers {
        acked.extend(producer.await.unwrap());
    }
    acked
}

/// Everything acknowledged or ever seen is there, once, in order; a batch is whole or absent.
async fn check(log: &Log, known: &mut Vec<(ShardUid, String)>, case: &str) {
    for shard in [A, B] {
        let found = data(log, shard).await.unwrap();
        let firsts: Vec<_> = found.chunks(2).map(|pair| pair[0].clone()).collect();
        let seconds: Vec<_> = found.chunks(2).map(|pair| pair[pair.len() - 1].clone()).collect();
        assert_eq!(firsts, seconds, "{case}: a batch is whole or absent");
        assert!(found.len().is_multiple_of(2), "{case}: a batch is whole or absent");
        let mut last: HashMap<&str, Vec<usize>> = HashMap::new();
        for text in &firsts {
            let (place, _) = text.split_once(' ').unwrap();
            let numbers: Vec<usize> = place.split('/').map(|n| n.parse().unwrap()).collect();
            let producer = place.split('/').nth(1).unwrap();
            let now = vec![numbers[0], numbers[2]];
            let before = last.insert(producer, now.clone());
            assert!(before.is_none_or(|b| b < now), "{case}: {place} is out of order or repeated");
        }
        for (_, text) in known.iter().filter(|(of, _)| *of == shard) {
            assert!(firsts.contains(text), "{case}: lost {text}");
        }
        known.retain(|(of, _)| *of != shard);
        known.extend(firsts.into_iter().map(|text| (shard, text)));
    }
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_acknowledged_or_seen() {
    for seed in 0..200 {
        let random = Random::from_seed(seed);
        let bench = Bench::new();
        let mut disk = SimDisk::new();
        let mut known = Vec::new();
        for round in 0..6 {
            let case = format!("seed {seed}, round {round}");
            disk.cut_after(1 + random.next_u64() % if round == 0 { 80 } else { 120 });
            let fatal: Fatal = Arc::new(|_| {});
            match bench.open_on(Arc::new(disk.clone()), options(16 << 10), fatal) {
                Ok(log) => {
                    for shard in [A, B] {
                        log.create(shard, DAY).await.unwrap();
                    }
                    check(&log, &mut known, &case).await;
                    known.extend(append_until_cut(&log, round).await);
                    close(log).await;
                }
                Err(OpenError::Io { source, .. }) if source.to_string() == "power cut" => {}
                Err(e) => panic!("{case}: {e}"),
            }
            // A process that was only killed leaves what it wrote in the page cache: the next one
            // sees it, and must not rely on it before it has synced it.
            if random.next_u64().is_multiple_of(2) {
                disk = disk.after_power_cut(&random);
            }
        }
        disk.cut_after(u64::MAX);
        let log = bench.open_on(Arc::new(disk.clone()), options(16 << 10), no_fatal()).unwrap();
        check(&log, &mut known, &format!("seed {seed}, at the end")).await;
        close(log).await;
    }
}
