//! What the fuzzer calls: for every decoder that reads what strangers send, a function that takes any
//! bytes and panics when a promise is broken.
//!
//! Everything is reached through the crates' public names; none has a door for the fuzzer. What
//! stands behind a MAC is reached by planting the key in the control store, where the service looks
//! for it. The corpus in `fuzz/corpus` began with requests of real SDKs; the test of this crate
//! replays it, and `cargo xtask fuzz` goes on from it.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a finding")]

mod capture;
mod frames;
mod json;
mod leases;
mod operations;
mod puts;
mod sequence;
mod signature;
mod tokens;
mod world;

/// One decoder.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Takes any bytes; panics if there is something to report.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "cbor", run: json::run_cbor },
    Target { name: "frames", run: frames::run },
    Target { name: "json", run: json::run },
    Target { name: "leases", run: leases::run },
    Target { name: "operations", run: operations::run },
    Target { name: "pgoutput", run: capture::run },
    Target { name: "puts", run: puts::run },
    Target { name: "sequence", run: sequence::run },
    Target { name: "signature", run: signature::run },
    Target { name: "tokens", run: tokens::run },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Most bytes of the whole corpus: a clone should not notice it.
    const CORPUS_BYTES_MAX: u64 = 1 << 20;

    #[test]
    fn the_corpus_has_no_findings() {
        // At run time: in a target directory that clones share, this may have been compiled in another.
        let package = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        let corpus = Path::new(&package).join("corpus");
        let mut bytes = 0;
        for target in TARGETS {
            let folder = corpus.join(target.name);
            let mut files: Vec<_> =
                std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            assert!(!files.is_empty(), "{}: no seeds", folder.display());
            for file in files {
                let input = std::fs::read(&file).unwrap();
                bytes += input.len() as u64;
                // Shown by the test when the next line panics.
                println!("{}", file.display());
                (target.run)(&input);
            }
        }
        assert!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes");
    }
}
