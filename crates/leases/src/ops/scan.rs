//! `Scan`: every item of a table or an index, whole or one of several parts at a time.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Integer;

use crate::Leases;
use crate::checks;
use crate::error::Error;
use crate::page::{self, PAGE_BYTES_MAX};
use crate::rows::{self, Pages};
use crate::table::{Index, Table};
use crate::value::{Item, item_bytes};

/// Most parts of a parallel scan (AWS).
const SEGMENTS_MAX: i64 = 1_000_000;

/// The part of a table, by the numbers that its items' places begin with.
struct Part {
    first: u64,
    end: u64,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: page::Request<'_> = call.read()?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let part = part(request.segment, request.total_segments)?;
    let asked = page::read(request)?;
    if asked.key_condition.is_some() {
        return Err(Error::validation(
            "KeyConditionExpression is a parameter of Query, not of Scan",
        ));
    }
    let table = leases.usable(call.scope(), &name).await?;
    let index = asked.index(&table, leases.clock.now())?;
    let after = match asked.start(&table, index)? {
        Some(start) => {
            let row = rows::item(&table, &table.key_of(start));
            check_in_part(&table, &row, &part)?;
            row
        }
        None => rows::segment_start(&table, u32::try_from(part.first).unwrap_or(u32::MAX)),
    };
    let (items, more) = collect(leases, &table, index, after, &part, asked.limit).await?;
    Ok(call.write(&asked.reply(&table, index, items, more))?)
}

async fn collect(
    leases: &Leases,
    table: &Table,
    index: Option<&Index>,
    after: String,
    part: &Part,
    limit: usize,
) -> Result<(Vec<Item>, bool), Error> {
    let mut pages = Pages::new(leases.control.as_ref(), rows::items(table), Some(after));
    let (mut items, mut bytes) = (Vec::new(), 0);
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return Ok((items, false));
        }
        for (key, row) in &page {
            if rows::segment_of(table, key).is_none_or(|n| u64::from(n) >= part.end) {
                return Ok((items, false));
            }
            let item = rows::read(key, row)?;
            if !page::is_in(index, &item) {
                continue;
            }
            bytes += item_bytes(&item);
            items.push(item);
            if items.len() >= limit || bytes >= PAGE_BYTES_MAX {
                return Ok((items, true));
            }
        }
    }
}

fn part(segment: Option<Integer>, total: Option<Integer>) -> Result<Part, Error> {
    let total_segments = checks::number(total, "totalSegments", 1, SEGMENTS_MAX)?;
    let segment = checks::number(segment, "segment", 0, SEGMENTS_MAX - 1)?;
    let (n, of) = match (segment, total_segments) {
        (None, None) => (0, 1),
        (Some(_), None) => {
            return Err(Error::validation(
                "The TotalSegments parameter is required but was not present in the request when \
                 Segment parameter is present",
            ));
        }
        (None, Some(_)) => {
            return Err(Error::validation(
                "The Segment parameter is required but was not present in the request when parameter \
                 TotalSegments is present",
            ));
        }
        (Some(n), Some(of)) if n >= of => {
            return Err(Error::validation(format!(
                "The Segment parameter is zero-based and must be less than parameter TotalSegments: \
                 Segment: {n} is not less than TotalSegments: {of}"
            )));
        }
        (Some(n), Some(of)) => (n, of),
    };
    let edge = |n: u64| (n << 32) / of;
    Ok(Part { first: edge(n), end: edge(n + 1) })
}

fn check_in_part(table: &Table, row: &str, part: &Part) -> Result<(), Error> {
    let inside = rows::segment_of(table, row)
        .is_some_and(|n| (part.first..part.end).contains(&u64::from(n)));
    if inside {
        return Ok(());
    }
    Err(Error::validation(
        "The provided Exclusive start key is not within the segment that is scanned",
    ))
}
