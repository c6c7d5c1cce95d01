//! What the log's shards are called by the streams they are of.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use hydrant_core::Timestamp;
use hydrant_core::catalog::{STREAM_ROWS, ShardId, Stream};
use hydrant_core::log::ShardUid;
use hydrant_core::sequence::{RecordIndex, SequenceNumber};
use hydrant_storage::{ControlReader, Loss};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What a shard is of.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// Name of the stream, or of the delivery stream.
    pub(super) stream: String,
    arn: Option<String>,
    /// Its number in the stream and when it was made; none of a delivery stream's own records.
    pub(super) shard: Option<(ShardId, Timestamp)>,
}

/// What is needed of a delivery stream's row.
#[derive(Deserialize)]
struct Delivery {
    name: String,
    uid: ShardUid,
}

/// Every shard's name.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<ShardUid, Named>);

impl Names {
    /// Reads the rows of the streams and the delivery streams.
    pub(super) fn read(rows: &ControlReader) -> Result<Self> {
        let mut names = HashMap::new();
        let streams = rows.each(STREAM_ROWS, |key, row| {
            let stream: Stream = row.json(key)?;
            for shard in &stream.shards {
                names.insert(
                    shard.uid,
                    Named {
                        stream: stream.name.to_string(),
                        arn: Some(stream.arn().to_string()),
                        shard: Some((shard.id, shard.created)),
                    },
                );
            }
            Ok(())
        });
        streams.context("reading the streams in hydrant.db")?;
        let delivery = rows.each(hydrant_delivery::STREAM_ROWS, |key, row| {
            let Delivery { name, uid } = row.json(key)?;
            names.insert(uid, Named { stream: name, arn: None, shard: None });
            Ok(())
        });
        delivery.context("reading the delivery streams in hydrant.db")?;
        Ok(Self(names))
    }

    /// What a shard is of, if it was not dropped.
    pub(super) fn of(&self, shard: ShardUid) -> Option<&Named> {
        self.0.get(&shard)
    }

    /// The shards of the one stream with this name or ARN.
    pub(super) fn shards_of(&self, stream: &str) -> Result<Vec<ShardUid>> {
        let is_it = |named: &Named| match &named.arn {
            Some(arn) => arn == stream || named.stream == stream,
            None => named.stream == stream,
        };
        let found: Vec<_> = self.0.iter().filter(|(_, named)| is_it(named)).collect();
        let Some((_, first)) = found.first() else {
            bail!("no stream or delivery stream is called {stream}");
        };
        if found.iter().any(|(_, named)| named.arn != first.arn) {
            bail!("several streams are called {stream}: give the ARN of one, or --shard");
        }
        Ok(found.into_iter().map(|(shard, _)| *shard).collect())
    }

    /// A shard in words.
    pub(super) fn shard(&self, shard: ShardUid) -> String {
        match self.of(shard) {
            Some(Named { stream, shard: Some((id, _)), .. }) => format!("{stream}/{id}"),
            Some(Named { stream, shard: None, .. }) => format!("delivery stream {stream}"),
            None => format!("dropped shard {}", shard.0),
        }
    }

    /// The sequence number of a record, as AWS would show it; the log's own where there is no stream
    /// that says when the shard was made.
    pub(super) fn sequence_number(&self, shard: ShardUid, index: RecordIndex) -> String {
        match self.of(shard).and_then(|named| named.shard) {
            Some((id, created)) => SequenceNumber::of(id.0, created, index).to_string(),
            None => index.0.to_string(),
        }
    }

    /// Lost records in words.
    pub(super) fn loss(&self, loss: &Loss) -> String {
        let count = match loss.records {
            Some(n) => format!("{n} records"),
            None => "an unknown number of records".to_owned(),
        };
        let until = match loss.end {
            RecordIndex::MAX => "an unknown time".to_owned(),
            _ => last(loss).time().to_string(),
        };
        let arrived = format!("that arrived from {} to {until}", loss.first.time());
        let Some(shard) = loss.shard else {
            return format!("{count}, nothing tells of which shards, {arrived}");
        };
        format!(
            "{count} of {}, sequence numbers {} to {}, {arrived}",
            self.shard(shard),
            self.sequence_number(shard, loss.first),
            self.sequence_number(shard, last(loss)),
        )
    }

    /// Lost records for programs; what nothing tells is left out.
    pub(super) fn loss_json(&self, loss: &Loss) -> Value {
        let mut told = Map::new();
        let mut tell = |name: &str, value: Value| told.insert(name.to_owned(), value);
        if let Some(records) = loss.records {
            tell("records", records.into());
        }
        tell("from", loss.first.time().to_string().into());
        if loss.end < RecordIndex::MAX {
            tell("to", last(loss).time().to_string().into());
        }
        if let Some(shard) = loss.shard {
            tell("first_sequence_number", self.sequence_number(shard, loss.first).into());
            tell("last_sequence_number", self.sequence_number(shard, last(loss)).into());
            told.append(&mut self.json(shard));
        }
        Value::Object(told)
    }

    /// What a shard is of, for programs.
    pub(super) fn json(&self, shard: ShardUid) -> Map<String, Value> {
        let mut told = Map::new();
        told.insert("shard".to_owned(), json!(shard.0));
        if let Some(named) = self.of(shard) {
            match named.shard {
                Some((id, _)) => {
                    told.insert("stream".to_owned(), named.stream.clone().into());
                    told.insert("shard_id".to_owned(), id.to_string().into());
                }
                None => {
                    told.insert("delivery_stream".to_owned(), named.stream.clone().into());
                }
            }
        }
        told
    }
}

/// The last of the lost records.
fn last(loss: &Loss) -> RecordIndex {
    RecordIndex(loss.end.0.saturating_sub(1).max(loss.first.0))
}
