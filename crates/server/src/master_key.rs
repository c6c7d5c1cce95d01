//! The master key, from the file or the variable that holds it; and the key that a data directory has for
//! itself, so that without a master key no password can be read there either.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hydrant_core::Random;
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

/// Where a data directory keeps its own key.
const OWN: &str = "secrets.key";

/// The data directory's own key. Drawn at the first start without a master key, if `draw` allows; it
/// stays when there is a master key later, for what was encrypted with it. The error says what to do.
pub(crate) fn own(dir: &Path, draw: bool, random: &Random) -> Result<Option<MasterKey>> {
    let file = dir.join(OWN);
    let text = match fs::read_to_string(&file) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !draw => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let key: Zeroizing<[u8; 32]> = Zeroizing::new(random.bytes());
            let text = Zeroizing::new(STANDARD.encode(&key[..]));
            keep(dir, &file, &text).with_context(|| format!("cannot write {}", file.display()))?;
            text
        }
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
    };
    let key = MasterKey::parse(&text);
    key.map(Some).with_context(|| format!("{}: put back a copy of it", file.display()))
}

/// Writes the key whole or not at all, before anything is encrypted with it.
fn keep(dir: &Path, file: &Path, text: &str) -> std::io::Result<()> {
    let draft = file.with_extension("draft");
    let mut options = OpenOptions::new();
    let mut to = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    to.write_all(text.as_bytes())?;
    to.sync_all()?;
    fs::rename(&draft, file)?;
    File::open(dir)?.sync_all()
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
