//! Where a server answers, and the file that says so.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const FILE: &str = "endpoints.json";

/// Where a server answers. Written to `endpoints.json` in the data directory once it does.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Endpoints {
    /// URL of the AWS APIs and of Snowflake's drivers.
    pub(crate) aws: String,
    /// The same in TLS, on the same port.
    pub(crate) aws_tls: String,
    /// The certificate that clients have to trust for it, where it was made for development.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// Host and port of SQL over the PostgreSQL protocol.
    pub(crate) sql: String,
    /// URL of the admin endpoint.
    pub(crate) admin: String,
    /// This process.
    pub(crate) pid: u32,
}

/// Leaves the endpoints where a script finds them, whole or not at all.
pub(crate) fn announce(dir: &Path, endpoints: &Endpoints) -> Result<()> {
    let (file, draft) = (dir.join(FILE), dir.join(".endpoints.json"));
    std::fs::write(&draft, serde_json::to_vec_pretty(endpoints)?)
        .and_then(|()| std::fs::rename(&draft, &file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Removes them, when nobody answers there any more.
pub(crate) fn withdraw(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(FILE));
}
