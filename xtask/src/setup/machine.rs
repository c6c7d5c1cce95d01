//! What tests of power cuts, failing syncs and clocks need of the system beside its kernel.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Clients, apt_install};

/// Debian's package, what it brings, and a file system that it is for.
const NEEDED: [(&str, &str, Option<&str>); 3] = [
    ("xfsprogs", "mkfs.xfs", Some("xfs")),
    ("libeatmydata1", "libeatmydata.so", None),
    ("libfaketime", "faketime/libfaketime.so.1", None),
];

/// Installs what is missing. Tests without it are skipped, with the reason.
pub(super) fn install(clients: &mut Clients) {
    let kernel = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for (package, brings, file_system) in NEEDED {
        let useful = file_system.is_none_or(|name| kernel.split_whitespace().any(|n| n == name));
        if !useful || is_there(brings) {
            continue;
        }
        if let Err(error) = apt_install(package) {
            clients.miss(package, format!("{error:#}"));
        }
    }
}

/// Whether a program is where root's are, or a library, maybe with a version behind its name, where
/// Debian's are.
fn is_there(name: &str) -> bool {
    if !name.contains(".so") {
        return ["/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(name).exists());
    }
    let (below, file) = name.rsplit_once('/').unwrap_or(("", name));
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut files = folders
        .flat_map(|folder| fs::read_dir(folder.path().join(below)))
        .flatten()
        .flatten()
        .map(|entry| PathBuf::from(entry.file_name()));
    files.any(|found| found.to_string_lossy().starts_with(file))
}
