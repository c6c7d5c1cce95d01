//! The master key, from the file or the variable that holds it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use hydrant_vault::MasterKey;
use zeroize::Zeroizing;

use crate::config::Settings;

/// A variable and no flag: what a flag says, everybody on the machine can read.
const VARIABLE: &str = "HYDRANT_MASTER_KEY";

/// The key, if one is given. The error says where it was looked for, and never what was found there.
pub(crate) fn read(settings: &Settings) -> Result<Option<MasterKey>> {
    let variable = std::env::var_os(VARIABLE).filter(|text| !text.is_empty());
    match (&settings.master_key_file, variable) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => bail!("both --master-key-file and {VARIABLE} are set; give one"),
        (Some(file), None) => {
            let text = std::fs::read_to_string(file).map(Zeroizing::new);
            let text =
                text.with_context(|| format!("cannot read the master key in {}", file.display()))?;
            warn_if_shared(file);
            let key = MasterKey::parse(&text);
            key.map(Some).with_context(|| format!("--master-key-file {}", file.display()))
        }
        (None, Some(text)) => {
            let key = MasterKey::parse(text.to_str().unwrap_or_default());
            key.map(Some).context(VARIABLE)
        }
    }
}

#[cfg(unix)]
fn warn_if_shared(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).map_or(0, |m| m.permissions().mode());
    if mode & 0o077 != 0 {
        let file = file.display();
        tracing::warn!("{file} can be read by others; `chmod 600` it");
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_: &Path) {}
