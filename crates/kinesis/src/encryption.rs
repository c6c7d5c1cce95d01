//! Encryption at rest, as two operations change it: which data key new records are encrypted with.
//!
//! A stream's row holds its data keys, wrapped; the vault holds them unwrapped. A key is in the vault
//! before a row names it, so whoever sees the row finds the key.

use std::collections::BTreeMap;
use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::catalog::{Held, Stream, StreamCatalog, StreamState};
use hydrant_core::control::ControlError;
use hydrant_core::encryption::{DataKeyId, Encryption, KeyUse};
use hydrant_core::limits::RETENTION_HOURS_MAX;
use hydrant_vault::Vault;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::Deserialize;

use crate::Kinesis;
use crate::change::{ATTEMPTS_MAX, crowded_out};
use crate::error::Error;
use crate::lifecycle::NOT_YET;
use crate::streams::{Named, StreamKey};
use crate::validate::{Checks, KEY_ID};

/// Most data keys of one stream that some record may still be encrypted with.
const DATA_KEYS_MAX: usize = 1_000;
const TYPES: [&str; 2] = ["NONE", "KMS"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow)]
    encryption_type: Option<Text<'a>>,
    #[serde(borrow)]
    key_id: Option<Text<'a>>,
}

/// Has the data keys of every stream at hand. A key that cannot be unwrapped fails the reads and
/// writes that need it; the log says so here, once a reason.
pub(crate) fn load(vault: &Vault, catalog: &StreamCatalog) {
    let mut failures = BTreeMap::<String, (usize, String)>::new();
    for stream in catalog.which(|stream| stream.settings.encryption.is_some()) {
        let Some(encryption) = &stream.settings.encryption else { continue };
        for (key, _) in &encryption.keys {
            if let Err(e) = vault.load(key, &stream.scope, &stream.id) {
                let arn = || stream.arn().to_string();
                failures.entry(e.to_string()).or_insert_with(|| (0, arn())).0 += 1;
            }
        }
    }
    for (error, (keys, stream)) in failures {
        tracing::error!(keys, stream, error, "encrypted records can be neither read nor written");
    }
}

/// What a request asks for, checked: the stream and `KeyId`.
fn read<'a>(kinesis: &Kinesis, call: &'a Call) -> Result<(StreamKey, Text<'a>), Error> {
    let request: Request<'a> = call.read()?;
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    let mut checks = Checks::new();
    checks.required("encryptionType", request.encryption_type.as_ref());
    checks.one_of("encryptionType", request.encryption_type.as_ref(), &TYPES);
    checks.required("keyId", request.key_id.as_ref());
    checks.text("keyId", request.key_id.as_ref(), &KEY_ID);
    checks.stream(&named);
    checks.finish()?;
    let id = kinesis.named(call, &named)?;
    if request.encryption_type.as_deref() != Some("KMS") {
        return Err(Error::InvalidArgument(
            "Invalid EncryptionType. The only valid EncryptionType is KMS.".to_owned(),
        ));
    }
    let missing = || Error::InvalidArgument("No KeyId is given.".to_owned());
    Ok((id, request.key_id.ok_or_else(missing)?))
}

/// Times that encryption may be started in a day, and stopped (AWS).
const CHANGES_MAX: usize = 25;

/// Runs `StartStreamEncryption`: new records are encrypted with a new data key. UPDATING ends once all
/// of them are: [`Kinesis::begin_encryption`] goes on from here.
pub(crate) async fn start(kinesis: &Kinesis, call: &Call) -> Result<(), Error> {
    let (id, key_id) = read(kinesis, call)?;
    for _ in 0..ATTEMPTS_MAX {
        let held = kinesis.active(&id)?;
        let stream = &held.stream;
        let known = stream.settings.encryption.as_ref().map_or(0, |e| e.keys.len());
        let (mut next, gone) = changed(kinesis, &held);
        next.state = StreamState::Updating(NOT_YET);
        let starts = &mut next.settings.encryption_starts;
        kinesis.allow_change(&call.operation, &id, starts, CHANGES_MAX)?;
        if known - gone.len() >= DATA_KEYS_MAX {
            return Err(Error::LimitExceeded(format!(
                "Stream {} has {DATA_KEYS_MAX} data keys that records may still be encrypted with. \
                 Stop and start its encryption less often.",
                id.name
            )));
        }
        let drawn = kinesis.vault.draw(&key_id, &stream.scope, &stream.id).map_err(Error::Key)?;
        let new = drawn.id;
        if let Some(encryption) = &mut next.settings.encryption {
            encryption.with = Some(KeyUse { key_id: key_id.to_string(), data_key: new });
            encryption.keys.push((drawn, Timestamp::MAX));
        }
        match kinesis.put(next, Some(held.version)).await {
            Ok(_) => {
                gone.into_iter().for_each(|key| kinesis.vault.forget(key));
                return Ok(());
            }
            Err(ControlError::Conflict { .. }) => kinesis.vault.forget(new),
            // The row may name it all the same.
            Err(e) => return Err(e.into()),
        }
    }
    Err(crowded_out(&id.name))
}

/// Runs `StopStreamEncryption`: new records are not encrypted, from the end of UPDATING on. Those that
/// are stay readable. A stream that is not encrypted is fine already.
pub(crate) async fn stop(kinesis: &Kinesis, call: &Call) -> Result<(), Error> {
    let (id, key_id) = read(kinesis, call)?;
    let decide = || {
        let held = kinesis.active(&id)?;
        let stream = &held.stream;
        let Some(now) = stream.encryption(Timestamp::MAX) else { return Ok(None) };
        if !kinesis.vault.same_key(&key_id, &now.key_id, &stream.scope) {
            return Err(Error::InvalidArgument(format!(
                "Stream {} under account {} is encrypted with key {}, not with {}.",
                stream.name, stream.scope.account, now.key_id, &*key_id
            )));
        }
        let mut next = changed(kinesis, &held).0;
        let stops = &mut next.settings.encryption_stops;
        kinesis.allow_change(&call.operation, &id, stops, CHANGES_MAX)?;
        Ok(Some((next, held.version)))
    };
    kinesis.change(decide).await
}

/// The stream, UPDATING and not encrypted after that, and the keys that it has no more: no record is
/// kept as long as they have not been used.
fn changed(kinesis: &Kinesis, held: &Held) -> (Stream, Vec<DataKeyId>) {
    let now = kinesis.clock.now();
    let from = now.plus(kinesis.options.update_delay);
    let mut next = Stream { state: StreamState::Updating(from), ..Stream::clone(&held.stream) };
    let before = next.encryption(now).cloned();
    let mut keys = next.settings.encryption.take().map_or_else(Vec::new, |e| e.keys);
    for (_, until) in &mut keys {
        *until = from.min(*until);
    }
    let kept_s = u64::from(RETENTION_HOURS_MAX) * 3_600;
    let is_kept = |until: Timestamp| until.as_secs().saturating_add(kept_s) >= now.as_secs();
    let gone = keys.iter().filter(|(_, until)| !is_kept(*until)).map(|(key, _)| key.id).collect();
    keys.retain(|(_, until)| is_kept(*until));
    next.settings.encryption = Some(Box::new(Encryption { from, with: None, before, keys }));
    (next, gone)
}

/// Pause between two looks at whether the puts that are waited for have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Kinesis {
    /// Goes on with a stream whose encryption was started. When its time has come, puts to come
    /// encrypt, whatever the clock does then; when those begun before have ended, the stream is
    /// ACTIVE. So nothing is stored plain in a stream that was seen ACTIVE and encrypted.
    pub(crate) async fn begin_encryption(
        &self,
        mut held: Held,
    ) -> Result<Option<Timestamp>, Error> {
        let now = self.clock.now();
        let from = held.stream.settings.encryption.as_ref().map_or(Timestamp::ZERO, |e| e.from);
        // Not even a clock that was set back makes it wait longer than a delay.
        if now < from && from <= now.plus(self.options.update_delay) {
            return Ok(Some(from));
        }
        if from > Timestamp::ZERO {
            let mut next = Stream::clone(&held.stream);
            if let Some(encryption) = &mut next.settings.encryption {
                encryption.from = Timestamp::ZERO;
            }
            held = match self.catalog.put(next, Some(held.version)).await {
                Ok(held) => held,
                Err(ControlError::Conflict { .. }) => return Ok(Some(now)),
                Err(e) => return Err(e.into()),
            };
        }
        let key = held.stream.encryption(now).map(|with| with.data_key);
        if let Some(key) = key {
            let mut beginning = self.beginning.lock();
            let earlier = beginning.entry(key).or_insert_with(|| self.puts.before_now());
            if !earlier.have_ended() {
                return Ok(Some(now.plus(LOOK_AGAIN)));
            }
            beginning.remove(&key);
        }
        let next = Stream { state: StreamState::Active, ..Stream::clone(&held.stream) };
        match self.catalog.put(next, Some(held.version)).await {
            Ok(_) | Err(ControlError::Conflict { .. }) => Ok(Some(now)),
            Err(e) => Err(e.into()),
        }
    }

    /// The key that records put into the stream now are encrypted with, if they are. A key that cannot
    /// be used is one of the KMS exceptions.
    pub(crate) fn data_key(&self, stream: &Stream) -> Result<Option<DataKeyId>, Error> {
        // Most streams never were: no need to ask for the time.
        if stream.settings.encryption.is_none() {
            return Ok(None);
        }
        let Some(key) = stream.encryption(self.clock.now()) else { return Ok(None) };
        self.vault.check(key.data_key).map_err(Error::Key)?;
        Ok(Some(key.data_key))
    }

    /// `EncryptionType` and `KeyId` as descriptions show them.
    pub(crate) fn encryption_shown(&self, stream: &Stream) -> (&'static str, Option<String>) {
        match stream.encryption(self.clock.now()) {
            Some(key) => ("KMS", Some(key.key_id.clone())),
            None => ("NONE", None),
        }
    }

    /// Forgets the keys of a stream that is gone.
    pub(crate) fn forget_keys(&self, gone: &Stream) {
        let keys = gone.settings.encryption.iter().flat_map(|e| &e.keys);
        for (key, _) in keys {
            self.beginning.lock().remove(&key.id);
            self.vault.forget(key.id);
        }
    }
}
