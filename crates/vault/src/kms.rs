//! KMS keys: the names that callers give as `KeyId`, and whether they may be used.
//!
//! There is one master key. A KMS key is a name that an operator allowed; what is wrapped under one
//! name cannot be unwrapped under another.

use std::str::FromStr;

use hydrant_core::arn::Arn;
use hydrant_core::log::KeyError;
use hydrant_core::names::Scope;

/// The key that is always there once there is a master key: AWS's own for Kinesis.
pub const AWS_KINESIS: &str = "alias/aws/kinesis";
const NAME_BYTES_MAX: usize = 2_048;

/// Whether a KMS key may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It may.
    Enabled,
    /// Not until it is enabled again: `KMSDisabledException`.
    Disabled,
    /// Not until its deletion is cancelled: `KMSInvalidStateException`.
    PendingDeletion,
}

/// A KMS key that an operator allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsKey {
    /// `alias/NAME`, a key id, or an ARN of either.
    pub name: String,
    /// Whether it may be used.
    pub state: KeyState,
}

/// The text does not name a KMS key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no KMS key: want alias/NAME, a key id (a UUID) or an ARN of either, and behind it \
     nothing, =disabled or =pending-deletion"
)]
pub struct InvalidKmsKey(String);

impl FromStr for KmsKey {
    type Err = InvalidKmsKey;

    fn from_str(text: &str) -> Result<Self, InvalidKmsKey> {
        let (name, state) = match text.split_once('=') {
            None => (text, KeyState::Enabled),
            Some((name, "disabled")) => (name, KeyState::Disabled),
            Some((name, "pending-deletion")) => (name, KeyState::PendingDeletion),
            Some(_) => return Err(InvalidKmsKey(text.to_owned())),
        };
        let known = match name.parse::<Arn>() {
            Ok(arn) => arn.service == "kms" && is_resource(&arn.resource),
            Err(_) => is_name(name),
        };
        if known && name.len() <= NAME_BYTES_MAX {
            Ok(Self { name: name.to_owned(), state })
        } else {
            Err(InvalidKmsKey(text.to_owned()))
        }
    }
}

fn is_alias(text: &str) -> bool {
    let name = text.strip_prefix("alias/");
    name.is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
    })
}

/// A UUID, or the id of a key for several regions.
fn is_key_id(text: &str) -> bool {
    let is_hex = |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(rest) = text.strip_prefix("mrk-") {
        return is_hex(rest, 32);
    }
    let mut parts = text.split('-');
    [8, 4, 4, 4, 12].iter().all(|len| parts.next().is_some_and(|p| is_hex(p, *len)))
        && parts.next().is_none()
}

fn is_name(text: &str) -> bool {
    is_alias(text) || is_key_id(text)
}

/// What an ARN names: `alias/NAME`, or `key/` and an id.
fn is_resource(text: &str) -> bool {
    is_alias(text) || text.strip_prefix("key/").is_some_and(is_key_id)
}

/// Which of the keys a `KeyId` means, for a stream of this account and region.
pub(crate) fn find<'k>(
    keys: &'k [KmsKey],
    key_id: &str,
    scope: &Scope,
) -> Result<&'k KmsKey, KeyError> {
    let by_name = |name: &str| keys.iter().find(|key| key.name == name);
    let invalid = || KeyError::NotFound(format!("Invalid keyId '{key_id}'"));
    let arn = match key_id.parse::<Arn>() {
        Ok(arn) if arn.service != "kms" || !is_resource(&arn.resource) => return Err(invalid()),
        Ok(arn) if arn.scope.region != scope.region => {
            return Err(KeyError::NotFound(format!("Invalid arn {}", arn.scope.region)));
        }
        Ok(arn) => arn,
        Err(_) if is_alias(key_id) => Arn::new("kms", scope, key_id.to_owned()),
        Err(_) if is_key_id(key_id) => Arn::new("kms", scope, format!("key/{key_id}")),
        Err(_) => return Err(invalid()),
    };
    let short = arn.resource.strip_prefix("key/").unwrap_or(&arn.resource);
    let own = (arn.scope == *scope).then(|| by_name(short)).flatten();
    own.or_else(|| by_name(&arn.to_string())).ok_or_else(|| {
        let text = if is_alias(short) {
            format!("Alias {arn} is not found.")
        } else {
            format!("Key '{arn}' does not exist")
        };
        KeyError::NotFound(format!("{text} (hydrant knows the keys of --kms-key)"))
    })
}

/// Refuses a key that may not be used, in the words of KMS.
pub(crate) fn check(key: &KmsKey) -> Result<(), KeyError> {
    let name = &key.name;
    match key.state {
        KeyState::Enabled => Ok(()),
        KeyState::Disabled => Err(KeyError::Disabled(format!("{name} is disabled."))),
        KeyState::PendingDeletion => {
            Err(KeyError::InvalidState(format!("{name} is pending deletion.")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12345678-1234-1234-1234-123456789012";

    fn scope() -> Scope {
        let account = "000000000000".parse().unwrap();
        Scope { account, region: "us-east-1".parse().unwrap() }
    }

    #[test]
    fn a_setting_names_a_key_and_its_state() {
        let parse = |text: &str| text.parse::<KmsKey>().map(|key| key.state);
        assert_eq!(parse("alias/orders"), Ok(KeyState::Enabled));
        assert_eq!(parse(&format!("{ID}=disabled")), Ok(KeyState::Disabled));
        let arn = format!("arn:aws:kms:us-east-1:111111111111:key/{ID}=pending-deletion");
        assert_eq!(parse(&arn), Ok(KeyState::PendingDeletion));
        for bad in [
            "",
            "orders",
            "alias/",
            "alias/a b",
            "alias/x=off",
            "12345678-1234",
            "arn:aws:kinesis:us-east-1:111111111111:stream/x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_form_of_a_key_id_finds_its_key() {
        let theirs = "arn:aws:kms:us-east-1:111111111111:alias/theirs";
        let keys: Vec<KmsKey> =
            ["alias/ours", ID, theirs].iter().map(|name| name.parse().unwrap()).collect();
        let found = |key_id: &str| find(&keys, key_id, &scope()).map(|key| key.name.clone());
        let own = "arn:aws:kms:us-east-1:000000000000";
        for (key_id, name) in [
            ("alias/ours".to_owned(), "alias/ours"),
            (format!("{own}:alias/ours"), "alias/ours"),
            (ID.to_owned(), ID),
            (format!("{own}:key/{ID}"), ID),
            (theirs.to_owned(), theirs),
        ] {
            assert_eq!(found(&key_id).unwrap(), name);
        }
        for unknown in [
            "alias/theirs",
            "ours",
            "alias/other",
            "arn:aws:kms:us-east-1:111111111111:alias/ours",
            "arn:aws:kms:eu-west-1:000000000000:alias/ours",
            "87654321-1234-1234-1234-123456789012",
        ] {
            assert!(matches!(found(unknown), Err(KeyError::NotFound(_))), "{unknown}");
        }
    }
}
