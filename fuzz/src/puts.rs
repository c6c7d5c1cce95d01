//! `PutRecords` read the short way and the long way: the same reply, and the same records in the shards.

use bytes::Bytes;
use hydrant_wire::ApiError;
use serde_json::{Value, json};

use crate::world::{World, block_on};

pub(crate) fn run(input: &[u8]) {
    let Some(longer) = with_unknown_member(input) else { return };
    block_on(async {
        let short = outcome(Bytes::copy_from_slice(input)).await;
        assert_eq!(short, outcome(longer.into()).await);
    });
}

/// The same request with a member that nobody knows: it is not ordinary, and means the same.
fn with_unknown_member(request: &[u8]) -> Option<Vec<u8>> {
    let start = request.trim_ascii_start().strip_prefix(b"{")?;
    start.trim_ascii_start().starts_with(b"\"").then(|| [b"{\"-\":0,", start].concat())
}

async fn outcome(request: Bytes) -> (Result<Value, ApiError>, Vec<Value>) {
    let world = World::new().await;
    let reply = world.call("PutRecords", request).await;
    let mut records = Vec::new();
    for shard in ["0", "1"] {
        let from =
            json!({ "StreamName": "s", "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
        let from = world.call("GetShardIterator", from.to_string().into()).await.unwrap();
        let read = world.call("GetRecords", from.to_string().into()).await.unwrap();
        records.push(read["Records"].clone());
    }
    (reply, records)
}
