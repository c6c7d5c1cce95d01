//! TLS on the HTTP port: the certificate that was given, or one made for development, and its renewal.

mod development;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use hydrant_core::{Clock, Timestamp};
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::development::Development;
use crate::config::Settings;

/// How often the files are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Largest file of certificates or of a key.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Where the certificate is from.
pub(crate) enum Source {
    /// Files of the operator's.
    Given {
        /// The certificate, and those that lead from it to an authority (PEM).
        cert: PathBuf,
        /// Its private key (PEM).
        key: PathBuf,
    },
    /// An authority of this data directory, and a certificate for these names that it signs.
    Development {
        /// Where both are kept.
        dir: PathBuf,
        /// Host names and addresses.
        names: Vec<String>,
    },
}

impl Source {
    /// Where the certificate of the HTTP port is from. One of our own is for every name that a client may
    /// use, and for the hosts of buckets below those with a dot; no client takes `*.localhost`.
    pub(crate) fn of(settings: &Settings) -> Self {
        if let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key) {
            return Self::Given { cert: cert.clone(), key: key.clone() };
        }
        let own = ["localhost", "127.0.0.1", "::1"];
        let mut names: Vec<String> = own.map(String::from).into();
        let listen = settings.listen.ip();
        let listen = (!listen.is_unspecified()).then(|| listen.to_string());
        for name in settings.allow_hosts.iter().cloned().chain(listen) {
            let name = name.trim_matches(['[', ']']);
            if name.is_empty() {
                continue;
            }
            if name.contains('.') && name.parse::<std::net::IpAddr>().is_err() {
                names.push(format!("*.{name}"));
            }
            names.push(name.to_owned());
        }
        names.sort();
        names.dedup();
        Self::Development { dir: settings.data_dir.join("tls"), names }
    }
}

/// What the port answers TLS with. New connections take the newest; those that are open keep theirs.
pub(crate) struct Tls {
    source: Source,
    clock: Arc<dyn Clock>,
    config: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Seen>,
    /// Why the last look kept the certificate as it was, so that the log says it once.
    refused: Mutex<Option<String>>,
}

/// What the newest look at the files found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// When the files were written last, and their lengths.
    Files([Option<(SystemTime, u64)>; 2]),
    /// When the certificate made for development is to be replaced.
    Until(Timestamp),
}

impl Tls {
    /// Reads the certificate, or makes one. The error says which file is wrong, and how.
    pub(crate) fn open(source: Source, clock: Arc<dyn Clock>) -> Result<Self> {
        let (config, seen) = load(&source, clock.now())?;
        let (config, seen, refused) = (RwLock::new(config), Mutex::new(seen), Mutex::default());
        Ok(Self { source, clock, config, seen, refused })
    }

    /// The certificate of the authority that clients have to trust, where we made it.
    pub(crate) fn own_authority(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Given { .. } => None,
            Source::Development { dir, .. } => Some(development::authority(dir)),
        }
    }

    /// What the next connection is answered with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config.read()))
    }

    /// Looks every few seconds whether the certificate has changed or runs out, until `ending`. One
    /// that cannot be read is said in the log, once, and the one before stays.
    pub(crate) async fn keep(&self, ending: CancellationToken) {
        loop {
            tokio::select! {
                () = ending.cancelled() => return,
                () = tokio::time::sleep(CHECK_EVERY) => self.look(),
            }
        }
    }

    fn look(&self) {
        let before = *self.seen.lock();
        let now = match (&self.source, before) {
            (Source::Given { cert, key }, _) => Seen::Files(stamps(cert, key)),
            (Source::Development { .. }, Seen::Until(end)) if self.clock.now() < end => before,
            (Source::Development { .. }, _) => Seen::Until(Timestamp::ZERO),
        };
        if now == before {
            return;
        }
        match load(&self.source, self.clock.now()) {
            Ok((config, seen)) => {
                *self.config.write() = config;
                *self.seen.lock() = seen;
                *self.refused.lock() = None;
                tracing::info!("the TLS certificate was replaced");
            }
            Err(error) => {
                // Looked at again each time: a file may become readable without becoming another.
                let why = format!("{error:#}");
                if self.refused.lock().replace(why.clone()).as_ref() != Some(&why) {
                    tracing::warn!(error = why, "the TLS certificate stays as it was");
                }
            }
        }
    }
}

fn load(source: &Source, now: Timestamp) -> Result<(Arc<ServerConfig>, Seen)> {
    match source {
        Source::Given { cert, key } => {
            // First the stamps: a file that changes while it is read is read again.
            let seen = Seen::Files(stamps(cert, key));
            Ok((read(cert, key)?, seen))
        }
        Source::Development { dir, names } => {
            let made = Development::ready(dir, names, now)?;
            let config = read(&made.pair, &made.pair).or_else(|_| {
                // Whatever happened to the files, they are ours to make.
                let made = Development::anew(dir, names, now)?;
                read(&made.pair, &made.pair)
            })?;
            Ok((config, Seen::Until(made.renew)))
        }
    }
}

fn stamps(cert: &Path, key: &Path) -> [Option<(SystemTime, u64)>; 2] {
    [cert, key].map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    })
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let text = read_pem(cert)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not PEM", cert.display()))?;
    if chain.is_empty() {
        bail!("{} has no certificate (a PEM block CERTIFICATE)", cert.display());
    }
    let text = read_pem(key)?;
    let secret = PrivateKeyDer::from_pem_slice(&text)
        .with_context(|| format!("{} has no private key in PEM", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| {
            format!("the certificate in {} and the key in {}", cert.display(), key.display())
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let found = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if found.len() > PEM_BYTES_MAX {
        bail!("{} has more than {PEM_BYTES_MAX} bytes", path.display());
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests;
