//! Shard iterators and pagination tokens: any text, and any payload under a good MAC.
//!
//! The first byte of the input chooses: 0 the rest is the text itself; 1, 2 and 3 the rest is what
//! stands behind the MAC, of an iterator, a token of ListStreams or one of ListShards.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::world::{KEY, World, block_on, scope};

const HEAD: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
const BLOCK_BYTES: usize = 16;

pub(crate) fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let text = match kind {
        1..=3 => sealed(*kind, rest),
        _ => String::from_utf8_lossy(rest).into_owned(),
    };
    block_on(async {
        let world = World::new().await;
        let own = [
            ("GetRecords", json!({ "ShardIterator": text })),
            ("ListStreams", json!({ "NextToken": text })),
            ("ListShards", json!({ "NextToken": text })),
        ];
        for (n, (operation, request)) in own.into_iter().enumerate() {
            let reply = world.call(operation, request.to_string().into()).await;
            // One kind of text is never taken for another.
            let own = usize::from(*kind) == n + 1;
            assert!(own || reply.is_err(), "{operation} took {text} of kind {kind}");
        }
    });
}

/// As the service would have given it out.
fn sealed(kind: u8, payload: &[u8]) -> String {
    let mut bytes = HEAD.to_vec();
    bytes.extend(payload);
    bytes.resize(HEAD.len() + payload.len().next_multiple_of(BLOCK_BYTES), 0);
    let mut block = [0; 64];
    block[..KEY.len()].copy_from_slice(&KEY);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    let scope = scope();
    mac.update(&[kind]);
    mac.update(scope.account.as_str().as_bytes());
    mac.update(&[0]);
    mac.update(scope.region.as_str().as_bytes());
    mac.update(&[0]);
    mac.update(&bytes);
    let full: [u8; 32] = mac.finalize().into_bytes().into();
    bytes.extend(&full[..BLOCK_BYTES]);
    STANDARD.encode(bytes)
}
