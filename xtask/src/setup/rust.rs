//! The program on the Rust SDK, in `tests/rust`: a package outside the workspace, so that nobody who
//! only builds hydrant builds the SDK.

use std::path::Path;

use anyhow::Result;

use super::{Clients, fingerprint};
use crate::process::{cargo, quietly, root};

/// Builds it. Its target directory is kept for one set of pins.
pub(super) fn build(cache: &Path, clients: &mut Clients) -> Result<()> {
    let source = root().join("tests/rust");
    let pins = ["Cargo.toml", "Cargo.lock"].map(|name| source.join(name));
    let target = cache.join(format!("rust-{}", fingerprint(&pins)?));
    if !target.exists() {
        println!("building the program on the Rust SDK in {}", target.display());
    }
    let mut build = cargo(&["build", "--locked", "--quiet"]);
    build.arg("--manifest-path").arg(&pins[0]).arg("--target-dir").arg(&target);
    match quietly(&mut build) {
        Ok(_) => {
            let name = format!("everyday{}", std::env::consts::EXE_SUFFIX);
            clients.rust = Some(target.join("debug").join(name));
        }
        Err(error) => clients.miss("rust sdk", format!("{error:#}")),
    }
    Ok(())
}
