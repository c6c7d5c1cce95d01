//! `PutRecords`: up to 500 records, each durable or refused by itself when the reply is sent.

mod scan;

use bytes::Bytes;
use futures::future::join_all;
use hydrant_core::catalog::{Held, Shard, Stream};
use hydrant_core::encryption::DataKeyId;
use hydrant_core::hash::HashKey;
use hydrant_core::limits::{PUT_RECORDS_BYTES_MAX, PUT_RECORDS_MAX};
use hydrant_core::log::LogError;
use hydrant_core::record::RecordBatch;
use hydrant_core::sequence::{IndexRange, RecordIndex};
use hydrant_wire::shape::{Blob, Flag, List, Structure, Text};
use hydrant_wire::{Call, Format};
use serde::Deserialize;

use super::put_record::no_shard;
use crate::Kinesis;
use crate::error::Error;
use crate::meter::{Metric, Totals};
use crate::put::{self, Terms};
use crate::rates::rate_exceeded;
use crate::reply::{self, Entry as Told};
use crate::reroute::REROUTES_MAX;
use crate::route::Routes;
use crate::streams::{Named, not_found};
use crate::validate::Checks;

/// What is told of a record that was not put for a reason of ours.
const INTERNAL: (&str, &str) = ("InternalFailure", "Internal service failure.");

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    records: Option<List<Option<Structure<Entry<'a>>>>>,
    #[serde(borrow)]
    stream_name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN")]
    stream_arn: Option<Text<'a>>,
    #[serde(borrow)]
    stream_id: Option<Text<'a>>,
    dry_run: Option<Flag>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    data: Option<Blob<'a>>,
    #[serde(borrow)]
    partition_key: Option<Text<'a>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Text<'a>>,
}

/// The records of one shard, and what became of them.
struct Group {
    shard: Shard,
    batch: RecordBatch,
    /// The bytes of the batch that count, once it is on its way.
    bytes: u64,
    put: Result<IndexRange, LogError>,
}

/// Code and text of a refusal.
type Refusal = (&'static str, String);

/// Where a record went: the group, and its place in the group's batch. It has none if its shard had
/// enough already.
type Routed = (usize, Option<u32>);

/// A request that has nothing against it: its records in the batches of their shards.
struct Ready {
    held: Held,
    data_key: Option<DataKeyId>,
    bytes: usize,
    groups: Vec<Group>,
    routed: Vec<Routed>,
}

pub(super) async fn run(kinesis: &Kinesis, call: &Call) -> Result<Bytes, Error> {
    let _under_way = kinesis.puts.begin();
    let (request, ready) = match ordinary(kinesis, call) {
        Some(known) => known,
        None => {
            call.check_depth()?;
            let request: Request<'_> = call.read()?;
            let ready = prepare(kinesis, call, &request)?;
            (request, ready)
        }
    };
    let Ready { held, data_key, bytes, mut groups, mut routed } = ready;
    append(kinesis, &mut groups, data_key).await;
    put_again(kinesis, &request, &held, &mut groups, &mut routed).await?;
    count(kinesis, &held.stream, &groups, &routed);
    answer(&kinesis.totals, call.format, &held, &groups, &routed, bytes, data_key)
}

/// An ordinary request that has nothing against it, read the short way. Whatever is to be refused goes
/// the long way from the beginning, which finds AWS's words for it.
fn ordinary<'c>(kinesis: &Kinesis, call: &'c Call) -> Option<(Request<'c>, Ready)> {
    // Where rates hold, a record that is tried twice would count twice.
    if call.format != Format::Json || kinesis.limited() {
        return None;
    }
    let request = scan::request(&call.body)?;
    let ready = prepare(kinesis, call, &request).ok()?;
    Some((request, ready))
}

fn prepare(kinesis: &Kinesis, call: &Call, request: &Request<'_>) -> Result<Ready, Error> {
    let entries = request.entries();
    let bytes = entries.iter().map(|e| e.size_bytes()).sum();
    // AWS reads the whole request before it checks any of it or looks for the stream.
    let blobs = || entries.iter().filter_map(|entry| entry.data.as_ref());
    let found = find(kinesis, call, request, &entries, bytes);
    let held = found.map_err(|e| put::unreadable(blobs()).unwrap_or(e))?;
    let data_key = kinesis.data_key(&held.stream)?;
    if request.dry_run.is_some() {
        put::unreadable(blobs()).map_or(Ok(()), Err)?;
        put::dry_run(request.dry_run)?;
    }
    let (groups, routed) = group(kinesis, &entries, &held)?;
    Ok(Ready { held, data_key, bytes, groups, routed })
}

impl Request<'_> {
    fn entries(&self) -> Vec<&Entry<'_>> {
        let records = self.records.as_ref().map_or(&[][..], |List(records)| records);
        records.iter().flatten().map(|entry| &entry.0).collect()
    }
}

/// The stream of a request that may be put into it.
fn find(
    kinesis: &Kinesis,
    call: &Call,
    request: &Request<'_>,
    entries: &[&Entry<'_>],
    bytes: usize,
) -> Result<Held, Error> {
    let named = Named::by(&request.stream_name, &request.stream_arn, &request.stream_id);
    check(request, kinesis.terms(call, &named))?;
    let id = kinesis.named(call, &named)?;
    if bytes > PUT_RECORDS_BYTES_MAX {
        let limit = PUT_RECORDS_BYTES_MAX >> 20;
        return Err(Error::InvalidArgument(format!("Records size exceeds {limit} MB limit")));
    }
    for entry in entries {
        put::hash_key(entry.explicit_hash_key.as_ref())?;
    }
    kinesis.usable(&id)
}

impl Entry<'_> {
    fn key(&self) -> &str {
        self.partition_key.as_deref().unwrap_or_default()
    }

    /// What counts towards the limit of the call.
    fn size_bytes(&self) -> usize {
        self.data_bytes() + self.key().len()
    }

    fn data_bytes(&self) -> usize {
        self.data.as_ref().map_or(0, Blob::decoded_len)
    }
}

fn check(request: &Request<'_>, terms: Terms) -> Result<(), Error> {
    let mut checks = Checks::new();
    checks.required("records", request.records.as_ref());
    if let Some(List(records)) = &request.records {
        if records.is_empty() {
            let constraint = "Member must have length greater than or equal to 1";
            checks.violated("records", Some("[]"), constraint);
        }
        if records.len() > PUT_RECORDS_MAX {
            let constraint =
                format!("Member must have length less than or equal to {PUT_RECORDS_MAX}");
            checks.violated("records", None, &constraint);
        }
        for (n, record) in records.iter().take(PUT_RECORDS_MAX).enumerate() {
            let at = || format!("records.{}.member", n + 1);
            let Some(Structure(entry)) = record else {
                checks.required::<()>(&at(), None);
                continue;
            };
            let (key, explicit) = (entry.partition_key.as_ref(), entry.explicit_hash_key.as_ref());
            put::check(&mut checks, terms, || at() + ".", key, explicit, entry.data.as_ref());
        }
    }
    checks.stream(&Named::by(&request.stream_name, &request.stream_arn, &request.stream_id));
    checks.finish()
}

/// Decodes every record into the batch of its shard.
fn group(
    kinesis: &Kinesis,
    entries: &[&Entry<'_>],
    held: &Held,
) -> Result<(Vec<Group>, Vec<Routed>), Error> {
    let (mut groups, mut routed) = route(kinesis, entries, held)?;
    let limited = kinesis.limited();
    for (entry, (group, nth)) in entries.iter().zip(&mut routed) {
        let Group { shard, batch, .. } = &mut groups[*group];
        if limited {
            // What cannot be read does not count.
            put::unreadable(&entry.data).map_or(Ok(()), Err)?;
            if !kinesis.allow_put(&held.stream, shard, entry.size_bytes()) {
                continue;
            }
        }
        *nth = Some(batch.len() as u32);
        let (key, bytes) = (entry.key().as_bytes(), entry.data_bytes());
        let decode = |out: &mut _| entry.data.iter().try_for_each(|data| data.append_to(out));
        batch.try_push_with(0, key, bytes, decode)?;
    }
    Ok((groups, routed))
}

/// Finds the shard of every record. The groups have room for their records, and none of them yet.
fn route(
    kinesis: &Kinesis,
    entries: &[&Entry<'_>],
    held: &Held,
) -> Result<(Vec<Group>, Vec<Routed>), Error> {
    let routes = Routes::of(held);
    // By shard, one more than the place of its group; 0 is none yet.
    let mut group_of: Vec<u16> = vec![0; routes.len()];
    let mut found: Vec<(&Shard, usize, usize)> = Vec::new();
    let mut routed = Vec::with_capacity(entries.len());
    let spread = held.stream.spreads();
    // From anywhere on, and then one by one.
    let turn = if spread { kinesis.random.next_u64() } else { 0 };
    // The only shard takes every key, and one that takes turns none: then there is nothing to hash.
    let hashed = match spread || routes.len() == 1 {
        true => Vec::new(),
        false => HashKey::of_each(entries.iter().map(|entry| entry.key().as_bytes())),
    };
    for (n, entry) in entries.iter().enumerate() {
        let explicit = put::hash_key(entry.explicit_hash_key.as_ref())?;
        let route = match hashed.get(n) {
            Some(hashed) => routes.by_hash(explicit.unwrap_or(*hashed)),
            None => routes.in_turn(turn.wrapping_add(n as u64)),
        };
        let (place, shard) = route.ok_or_else(|| no_shard(held.stream.name.as_str()))?;
        if group_of[place] == 0 {
            found.push((shard, 0, 0));
            // As many groups as records, at most.
            group_of[place] = found.len() as u16;
        }
        let group = usize::from(group_of[place]) - 1;
        let (_, count, bytes) = &mut found[group];
        (*count, *bytes) = (*count + 1, *bytes + entry.size_bytes());
        routed.push((group, None));
    }
    let group = |(shard, count, bytes): (&Shard, usize, usize)| Group {
        shard: shard.clone(),
        batch: RecordBatch::with_capacity(count, bytes),
        bytes: 0,
        put: Err(LogError::Full),
    };
    Ok((found.into_iter().map(group).collect(), routed))
}

/// Appends each group to its shard, all at once.
async fn append(kinesis: &Kinesis, groups: &mut [Group], data_key: Option<DataKeyId>) {
    // A shard that had enough takes none.
    let mut groups: Vec<_> = groups.iter_mut().filter(|group| !group.batch.is_empty()).collect();
    let append = |group: &mut Group| {
        let batch = std::mem::take(&mut group.batch);
        group.bytes = batch.size_bytes() as u64;
        kinesis.log.append(group.shard.uid, batch.encrypted_with(data_key))
    };
    if let [only] = &mut groups[..] {
        only.put = append(only).await.map(|range| range.into_inner());
        return;
    }
    let puts = join_all(groups.iter_mut().map(|group| append(group))).await;
    for (group, put) in groups.into_iter().zip(puts) {
        group.put = put.map(|range| range.into_inner());
    }
}

/// Puts what met a shard that was closed meanwhile into the shards that follow it.
async fn put_again(
    kinesis: &Kinesis,
    request: &Request<'_>,
    held: &Held,
    groups: &mut Vec<Group>,
    routed: &mut [Routed],
) -> Result<(), Error> {
    let mut from = 0;
    for _ in 0..REROUTES_MAX {
        let is_sealed = |n: usize| n >= from && groups[n].put == Err(LogError::Sealed);
        let sealed: Vec<usize> = (from..groups.len()).filter(|n| is_sealed(*n)).collect();
        if sealed.is_empty() {
            break;
        }
        let again: Vec<usize> = (0..routed.len()).filter(|n| is_sealed(routed[*n].0)).collect();
        let shards: Vec<Shard> = sealed.iter().map(|n| groups[*n].shard.clone()).collect();
        let Ok(Some(held)) = kinesis.rerouted(&held.stream, &shards).await else { break };
        // Encryption may have been started or stopped while they waited.
        let Ok(data_key) = kinesis.data_key(&held.stream) else { break };
        let entries = request.entries();
        let those: Vec<&Entry<'_>> = again.iter().map(|n| entries[*n]).collect();
        let (mut more, moved) = group(kinesis, &those, &held)?;
        append(kinesis, &mut more, data_key).await;
        from = groups.len();
        for (n, (group, nth)) in again.into_iter().zip(moved) {
            routed[n] = (from + group, nth);
        }
        for n in sealed {
            // No record is left in it.
            groups[n].put = Ok(IndexRange { first: RecordIndex::MIN, count: 0 });
        }
        groups.extend(more);
    }
    Ok(())
}

/// Adds what became of the records to the metrics of the stream and its shards.
fn count(kinesis: &Kinesis, stream: &Stream, groups: &[Group], routed: &[Routed]) {
    // A group whose records went on to other shards has none.
    let records = |group: &Group| group.put.as_ref().map_or(0, |range| u64::from(range.count));
    let taken = || groups.iter().map(|g| (g, records(g))).filter(|(_, records)| *records > 0);
    let (mut put, mut bytes) = (0, 0);
    for (group, records) in taken() {
        kinesis.count_load(stream, &group.shard, records, group.bytes);
        (put, bytes) = (put + records, bytes + group.bytes);
    }
    let (mut throttled, mut failed) = (0, 0);
    for (group, nth) in routed {
        match (&groups[*group].put, nth) {
            (_, None) | (Err(LogError::Full), _) => throttled += 1,
            (Err(_), Some(_)) => failed += 1,
            (Ok(_), Some(_)) => {}
        }
    }
    let counts = [
        (Metric::PutRecordsSuccess, u64::from(put > 0)),
        (Metric::PutRecordsBytes, bytes),
        (Metric::PutRecordsTotalRecords, routed.len() as u64),
        (Metric::PutRecordsSuccessfulRecords, put),
        (Metric::PutRecordsThrottledRecords, throttled),
        (Metric::PutRecordsFailedRecords, failed),
    ];
    let taken = taken().map(|(group, records)| (group.shard.id, records, group.bytes));
    kinesis.meters.put(stream, taken, &counts);
}

fn answer(
    totals: &Totals,
    format: Format,
    held: &Held,
    groups: &[Group],
    routed: &[Routed],
    bytes: usize,
    data_key: Option<DataKeyId>,
) -> Result<Bytes, Error> {
    let stream = &held.stream;
    if groups.iter().all(|g| g.put == Err(LogError::NotFound)) {
        // Deleted while this call was under way.
        return Err(not_found(stream.name.as_str(), &stream.scope));
    }
    let refusals: Vec<Option<Refusal>> = groups.iter().map(|g| refusal_of(g, stream)).collect();
    let refused = |(group, nth): &&Routed| nth.is_none() || refusals[*group].is_some();
    let failed = routed.iter().filter(refused).count();
    // For the records that a shard had no room for, whatever became of its others.
    let enough = |group: &Group| rate_exceeded(stream, &group.shard).to_string();
    let full: Vec<String> = match failed {
        0 => Vec::new(),
        _ => groups.iter().map(enough).collect(),
    };
    let entries = routed.iter().map(|(group, nth)| {
        let Group { shard, put, .. } = &groups[*group];
        match (put, nth) {
            (Ok(range), Some(nth)) => {
                let number = shard.sequence_number(range.nth(*nth));
                Told::Put { number, shard: shard.id, group: *group }
            }
            (_, None) => {
                let text = full.get(*group).map_or(INTERNAL.1, String::as_str);
                Told::Refused { code: "ProvisionedThroughputExceededException", text }
            }
            (Err(_), Some(_)) => {
                let told = refusals[*group].as_ref();
                let (code, text) = told.map_or(INTERNAL, |(code, text)| (code, text.as_str()));
                Told::Refused { code, text }
            }
        }
    });
    let reply = reply::put_records(format, failed, entries, data_key.is_some())?;
    totals.records_put.increment((routed.len() - failed) as u64);
    totals.records_refused.increment(failed as u64);
    if failed == 0 {
        totals.bytes_put.increment(bytes as u64);
    }
    Ok(reply)
}

/// Code and text of every record of a group that the log did not take: one of the two codes that AWS
/// gives to single records.
fn refusal_of(group: &Group, stream: &Stream) -> Option<Refusal> {
    let error = group.put.as_ref().err()?.clone();
    let refusal = put::refusal(error, stream, &group.shard);
    let code = refusal.code();
    Some(match refusal {
        Error::ProvisionedThroughputExceeded(text) => (code, text),
        other => {
            tracing::error!(error = %other, "records were not put");
            (INTERNAL.0, INTERNAL.1.to_owned())
        }
    })
}
