//! A certificate for development: an authority that is made once for a data directory, so that a client
//! has to be told of it once, and a certificate for this server's names that it signs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hydrant_core::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(86_400);
/// Life of the authority.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3_650);
/// Life of a certificate: clients refuse longer ones.
const LIFE: Duration = DAY.saturating_mul(397);
/// How long before its end either is replaced.
const RENEW_BEFORE: Duration = DAY.saturating_mul(30);

const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";
/// Certificate and key in one file, so that neither is ever without the other.
const PAIR: &str = "server.pem";
/// What the files are, written last.
const MADE: &str = "made.json";

/// The authority's certificate, for clients to trust.
pub(super) fn authority(dir: &Path) -> PathBuf {
    dir.join(AUTHORITY)
}

/// What is there.
#[derive(Debug)]
pub(super) struct Development {
    /// The file with certificate and key.
    pub(super) pair: PathBuf,
    /// When to make another.
    pub(super) renew: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct Made {
    names: Vec<String>,
    ends_ms: u64,
    authority_ends_ms: u64,
}

impl Development {
    /// What an earlier start made, if it still holds and is for these names; else a new certificate,
    /// of the same authority where that holds.
    pub(super) fn ready(dir: &Path, names: &[String], now: Timestamp) -> Result<Self> {
        let Some(made) = made(dir) else { return Self::anew(dir, names, now) };
        let renewed = |ends_ms| Timestamp::from_millis(ends_ms).minus(RENEW_BEFORE);
        if now >= renewed(made.authority_ends_ms) {
            return Self::anew(dir, names, now);
        }
        if made.names == names && now < renewed(made.ends_ms) && dir.join(PAIR).exists() {
            return Ok(Self { pair: dir.join(PAIR), renew: renewed(made.ends_ms) });
        }
        let key = fs::read_to_string(dir.join(AUTHORITY_KEY)).ok();
        match key.and_then(|pem| KeyPair::from_pem(&pem).ok()) {
            Some(key) => sign(dir, names, now, key, made.authority_ends_ms),
            None => Self::anew(dir, names, now),
        }
    }

    /// A new authority, and a certificate of it.
    pub(super) fn anew(dir: &Path, names: &[String], now: Timestamp) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        // Until all of it is there, none of it is.
        let _ = fs::remove_file(dir.join(MADE));
        let key = KeyPair::generate()?;
        let ends = now.plus(AUTHORITY_LIFE);
        let authority = authority_params(&key, now, ends)?.self_signed(&key)?;
        write(dir, AUTHORITY_KEY, key.serialize_pem().as_bytes(), true)?;
        write(dir, AUTHORITY, authority.pem().as_bytes(), false)?;
        sign(dir, names, now, key, ends.as_millis())
    }
}

fn made(dir: &Path) -> Option<Made> {
    serde_json::from_slice(&fs::read(dir.join(MADE)).ok()?).ok()
}

fn sign(
    dir: &Path,
    names: &[String],
    now: Timestamp,
    authority_key: KeyPair,
    authority_ends_ms: u64,
) -> Result<Development> {
    let ends = now.plus(LIFE);
    let mut params = CertificateParams::new(names.to_vec()).context("a name of --allow-host")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "hydrant");
    hold(&mut params, now, ends)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let authority_params = authority_params(&authority_key, now, now)?;
    let signed = params.signed_by(&key, &Issuer::new(authority_params, authority_key))?;

    write(dir, PAIR, format!("{}{}", signed.pem(), key.serialize_pem()).as_bytes(), true)?;
    let made = Made { names: names.to_vec(), ends_ms: ends.as_millis(), authority_ends_ms };
    write(dir, MADE, &serde_json::to_vec_pretty(&made)?, false)?;
    Ok(Development { pair: dir.join(PAIR), renew: ends.minus(RENEW_BEFORE) })
}

/// The authority of a key: its name is the key's own, so that no two are taken for each other.
fn authority_params(key: &KeyPair, from: Timestamp, to: Timestamp) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    let id: String =
        key.public_key_raw().iter().skip(1).take(4).map(|b| format!("{b:02x}")).collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("hydrant development CA {id}"));
    hold(&mut params, from, to)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Makes a certificate hold from the day before a moment to the day of another.
fn hold(params: &mut CertificateParams, from: Timestamp, to: Timestamp) -> Result<()> {
    for (place, at) in [(&mut params.not_before, from.minus(DAY)), (&mut params.not_after, to)] {
        let at = jiff::Timestamp::from_millisecond(i64::try_from(at.as_millis())?)?;
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        *place = date_time_ymd(date.year().into(), month, day);
    }
    Ok(())
}

/// Writes a file, whole or not at all; a secret one for its owner only.
fn write(dir: &Path, name: &str, bytes: &[u8], secret: bool) -> Result<()> {
    let (file, draft) = (dir.join(name), dir.join(format!(".{name}")));
    let _ = fs::remove_file(&draft);
    let mode = if secret { 0o600 } else { 0o644 };
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut out| out.write_all(bytes).and_then(|()| out.sync_all()))
        .and_then(|()| fs::rename(&draft, &file));
    written.with_context(|| format!("cannot write {}", file.display()))
}
