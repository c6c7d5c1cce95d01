//! Encryption at rest: a master key, the data keys wrapped under it, and the log that encrypts with
//! them.
//!
//! Each `StartStreamEncryption` draws a data key. It is wrapped under a key made from the master key
//! and the name of the KMS key that the caller asked for, and kept, wrapped, in the stream's row. The
//! data of a record is encrypted with it by AES-256-GCM on its way into the log ([`EncryptedLog`]) and
//! decrypted on its way out; its partition key, its number and its time are not, as with AWS. Readers
//! and writers on either side of that log know nothing of it, except which key they ask for.
//!
//! Texts that rows hold and nobody may read there, such as passwords, are sealed one by one
//! ([`TextSeal`]).

mod kms;
mod log;
mod master;
mod seal;
#[cfg(test)]
mod tests;
mod vault;

pub use crate::kms::{AWS_KINESIS, InvalidKmsKey, KeyState, KmsKey};
pub use crate::log::EncryptedLog;
pub use crate::master::{InvalidMasterKey, MasterKey};
pub use crate::seal::TextSeal;
pub use crate::vault::Vault;
