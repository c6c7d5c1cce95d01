//! What a process has used, as the kernel counts it.

use crate::measure::Side;

/// Processor time of a process up to a moment.
pub(crate) struct Usage {
    pid: Option<u32>,
    ticks: Option<u64>,
}

impl Usage {
    /// Of the process `pid`; its peak of memory is counted from here on where the kernel allows it.
    pub(crate) fn of(pid: Option<u32>) -> Self {
        if let Some(pid) = pid {
            // Not ours to reset where another user runs it: then the peak is that of its whole life.
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Self { pid, ticks: pid.and_then(ticks) }
    }

    /// What it has used since.
    pub(crate) fn since(&self) -> Side {
        let now = self.pid.and_then(ticks);
        let used = now.zip(self.ticks).map(|(now, before)| now.saturating_sub(before));
        Side {
            cpu_seconds: used.zip(ticks_a_second()).map(|(used, second)| used as f64 / second),
            peak_mib: self.pid.and_then(peak_kib).map(|kib| kib as f64 / 1024.0),
        }
    }
}

/// Ticks in user and kernel mode: the 14th and 15th field of /proc/PID/stat (proc(5)).
fn ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, which comes second, may have spaces and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Ticks in a second, which the kernel tells every process: entry 17 of its auxiliary vector
/// (getauxval(3), AT_CLKTCK).
fn ticks_a_second() -> Option<f64> {
    const WORD_BYTES: usize = size_of::<usize>();
    const TICKS: usize = 17;
    let vector = std::fs::read("/proc/self/auxv").ok()?;
    let word = |at: &[u8]| Some(usize::from_ne_bytes(at.try_into().ok()?));
    let mut entries = vector.chunks_exact(2 * WORD_BYTES).map(|entry| entry.split_at(WORD_BYTES));
    let (_, ticks) = entries.find(|(kind, _)| word(kind) == Some(TICKS))?;
    word(ticks).filter(|ticks| *ticks > 0).map(|ticks| ticks as f64)
}

fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_counted() {
        let used = Usage::of(Some(std::process::id())).since();
        assert!(ticks_a_second().is_some_and(|ticks| (24.0..=10_000.0).contains(&ticks)));
        assert!(used.cpu_seconds.is_some_and(|seconds| seconds < 60.0));
        assert!(used.peak_mib.is_some_and(|mib| mib > 0.5));
    }

    #[test]
    fn a_process_that_is_not_known_is_not_counted() {
        let used = Usage::of(None).since();
        assert!(used.cpu_seconds.is_none() && used.peak_mib.is_none());
    }
}
