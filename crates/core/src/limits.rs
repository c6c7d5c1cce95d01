//! Every bound that is not one service's own affair. Units come last in each name.
//!
//! The numbers that AWS documents are from "Quotas and limits" in the Kinesis Data Streams and the
//! Data Firehose developer guides; the others are hydrant's.

use std::time::Duration;

/// Largest data blob of a record, before base64, with the default record size (AWS: 1 MiB).
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Largest data blob a stream can be told to take (AWS: `UpdateMaxRecordSize`, 10,240 KiB).
pub const RECORD_BYTES_CEILING: usize = 10 << 20;
/// Longest partition key, in Unicode characters (AWS).
pub const PARTITION_KEY_CHARS_MAX: usize = 256;
/// Most records in one `PutRecords` (AWS).
pub const PUT_RECORDS_MAX: usize = 500;
/// Most bytes in one `PutRecords`, partition keys included (AWS: 10 MiB).
pub const PUT_RECORDS_BYTES_MAX: usize = 10 << 20;
/// Most records one `GetRecords` returns (AWS).
pub const GET_RECORDS_MAX: usize = 10_000;
/// Most data bytes one `GetRecords` returns (AWS: 10 MiB).
pub const GET_RECORDS_BYTES_MAX: usize = 10 << 20;
/// Room for one `GetRecords` reply: the most data in base64, with the names around 10,000 records.
pub const GET_RECORDS_REPLY_BYTES_MAX: usize = 20 << 20;
/// Most bytes of `GetRecords` replies in memory at once, from before they are read until they are
/// written; further calls wait for room.
pub const GET_RECORDS_BYTES_IN_FLIGHT_MAX: usize = 320 << 20;
/// How long a shard iterator is good for (AWS: five minutes).
pub const ITERATOR_LIFE: Duration = Duration::from_secs(300);
/// Shortest retention (AWS: 24 hours), and the default.
pub const RETENTION_HOURS_MIN: u32 = 24;
/// Longest retention (AWS: 8,760 hours).
pub const RETENTION_HOURS_MAX: u32 = 8_760;
/// Longest name of a stream (AWS).
pub const STREAM_NAME_BYTES_MAX: usize = 128;
/// Length of a stream's id (the model's pattern).
pub const STREAM_ID_BYTES: usize = 24;
/// Most tags on one resource (AWS).
pub const TAGS_MAX: usize = 50;

/// Largest record of a direct put to a delivery stream, before base64 (AWS: 1,000 KiB).
pub const DELIVERY_RECORD_BYTES_MAX: usize = 1_000 << 10;
/// Most records in one `PutRecordBatch` (AWS).
pub const PUT_RECORD_BATCH_MAX: usize = 500;
/// Most bytes in one `PutRecordBatch` (AWS: 4 MiB).
pub const PUT_RECORD_BATCH_BYTES_MAX: usize = 4 << 20;

/// Largest body of a JSON request: the largest `PutRecords` in base64, with room for its names.
pub const JSON_BODY_BYTES_MAX: usize = 16 << 20;
/// Most bytes of JSON requests in memory at once; further ones wait for room before they are read.
pub const JSON_BYTES_IN_FLIGHT_MAX: usize = 256 << 20;
/// Most bytes of JSON requests that came compressed, once they are unpacked, in memory at once; further
/// ones wait.
pub const JSON_UNPACKED_BYTES_IN_FLIGHT_MAX: usize = 64 << 20;
/// Deepest nesting of a JSON request: an item of a lease table that is nested as deep as one may be.
pub const JSON_DEPTH_MAX: usize = 80;
/// Largest batch of one append, as encoded: the largest `PutRecords` with its framing.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Most records in one append: as many as one millisecond of a shard can number.
pub const FRAME_RECORDS_MAX: usize = 1 << 20;
/// Most bytes of appends waiting for the disk before further ones wait their turn.
pub const APPEND_BYTES_IN_FLIGHT_MAX: usize = 64 << 20;
/// Most rows one `ControlStore::scan` returns, whatever was asked.
pub const SCAN_ROWS_MAX: usize = 10_000;
/// Most writes in one `ControlStore::commit`.
pub const COMMIT_WRITES_MAX: usize = 10_000;
/// Longest key of a row in the control store.
pub const CONTROL_KEY_BYTES_MAX: usize = 2_048;
/// Largest value of a row in the control store.
pub const CONTROL_VALUE_BYTES_MAX: usize = 16 << 20;
