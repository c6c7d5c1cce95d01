//! libFuzzer on the target that `HYDRANT_FUZZ_TARGET` names. `cargo xtask fuzz` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use hydrant_fuzz::{Target, target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("HYDRANT_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("HYDRANT_FUZZ_TARGET={name}: no such target"))
});

fuzz_target!(|input: &[u8]| (TARGET.run)(input));
