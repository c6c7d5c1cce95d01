//! Randomness, always from one seeded generator, so that a failing test can be replayed.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A seeded, cryptographically strong generator that every part of the process shares.
///
/// The same seed and the same order of calls give the same values.
pub struct Random {
    rng: Mutex<StdRng>,
}

impl Random {
    /// A generator that repeats itself for the same `seed`: tests and simulations.
    pub fn from_seed(seed: u64) -> Self {
        Self { rng: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// A generator seeded with 32 bytes of the caller's entropy: production (made in `server`).
    pub fn from_entropy(seed: [u8; 32]) -> Self {
        Self { rng: Mutex::new(StdRng::from_seed(seed)) }
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.rng.lock().fill_bytes(bytes);
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}
