//! Cutting tables into ranges of pages that several connections read at once.

use std::collections::BTreeMap;

use hydrant_core::capture::PgTable;

use super::super::error::During;
use super::super::quote::{identifier, literal, table as quoted};
use super::super::tables::{Heap, PublishedTable};
use super::super::{Server, ServerError};

/// Pages of a range; 128 MiB of a table with the usual pages.
const RANGE_PAGES: u64 = 16_384;
/// Most ranges that a heap is cut into.
const RANGES_PER_HEAP_MAX: u64 = 1_024;
/// Heaps whose size is asked for at once.
const HEAPS_PER_QUESTION: usize = 1_000;

/// What one connection reads in one go.
#[derive(Clone, Debug)]
pub(super) struct Range {
    /// Place of its table in the source's list.
    pub(super) table: usize,
    /// Its name.
    pub(super) name: PgTable,
    /// Begins a savepoint, locks, and answers whether the rows are still those of the snapshot.
    pub(super) lock: String,
    /// The COPY.
    pub(super) copy: String,
    pages: u64,
}

/// The ranges of all tables, the largest first.
pub(super) async fn ranges(
    server: &mut Server,
    tables: &[PublishedTable],
) -> Result<Vec<Range>, ServerError> {
    let heaps = tables.iter().flat_map(|table| &table.heaps);
    let oids: Vec<u32> = heaps.filter(|heap| !heap.foreign).map(|heap| heap.oid).collect();
    let mut pages = BTreeMap::new();
    for batch in oids.chunks(HEAPS_PER_QUESTION) {
        let list: Vec<String> = batch.iter().map(u32::to_string).collect();
        // A heap that is gone has no size, and its range finds out that it is gone.
        let sql = format!(
            "SELECT h, coalesce(pg_catalog.pg_relation_size(h), 0) \
               / current_setting('block_size')::int8 FROM unnest('{{{}}}'::oid[]) h",
            list.join(",")
        );
        for row in server.ask(&sql, During::Snapshot).await? {
            pages.insert(row.need::<u32>(0)?, row.need::<u64>(1)?);
        }
    }
    let mut ranges = Vec::new();
    for (place, table) in tables.iter().enumerate() {
        table_ranges(place, table, &pages, &mut ranges);
    }
    ranges.sort_by_key(|range| std::cmp::Reverse(range.pages));
    Ok(ranges)
}

fn table_ranges(
    place: usize,
    table: &PublishedTable,
    pages: &BTreeMap<u32, u64>,
    ranges: &mut Vec<Range>,
) {
    let heaps: Vec<&Heap> = table.heaps.iter().filter(|heap| !heap.foreign).collect();
    let size = |heap: &Heap| pages.get(&heap.oid).copied().unwrap_or(0);
    if heaps.is_empty() {
        return;
    }
    // The role may read the table and not its leaves, or only some columns, which hide `ctid`.
    if heaps.iter().any(|heap| !heap.direct) {
        let name = &table.captured.table;
        let only = if table.partitioned { "" } else { "ONLY " };
        let foreign: Vec<String> = table
            .heaps
            .iter()
            .filter(|heap| heap.foreign)
            .map(|heap| format!("tableoid <> {}", heap.oid))
            .collect();
        ranges.push(Range {
            table: place,
            name: name.clone(),
            lock: lock(table, only, name, table.captured.oid, &heaps),
            copy: copy(table, only, name, foreign),
            pages: heaps.iter().map(|heap| size(heap)).sum(),
        });
        return;
    }
    for heap in heaps {
        for (from, to) in cuts(size(heap)) {
            let mut conditions = Vec::new();
            if from > 0 {
                conditions.push(format!("ctid >= '({from},0)'::tid"));
            }
            if let Some(to) = to {
                conditions.push(format!("ctid < '({to},0)'::tid"));
            }
            ranges.push(Range {
                table: place,
                name: heap.table.clone(),
                lock: lock(table, "ONLY ", &heap.table, heap.oid, &[heap]),
                copy: copy(table, "ONLY ", &heap.table, conditions),
                pages: to.unwrap_or(size(heap)).saturating_sub(from),
            });
        }
    }
}

/// Pages from and to, the last without an end: a heap may have grown since it was measured, though
/// not by rows that the snapshot sees.
fn cuts(pages: u64) -> Vec<(u64, Option<u64>)> {
    let step = RANGE_PAGES.max(pages.div_ceil(RANGES_PER_HEAP_MAX));
    let mut cuts = Vec::new();
    let mut from = 0;
    while pages > from + step {
        cuts.push((from, Some(from + step)));
        from += step;
    }
    cuts.push((from, None));
    cuts
}

/// The snapshot sees rows of the file that a table had when it was taken. One that has another file
/// now was truncated or rewritten, and shows the snapshot nothing or everything; one whose name now
/// belongs to another table was replaced.
///
/// A question that wants no row locks as LOCK does, and needs no right to more than the columns.
fn lock(table: &PublishedTable, only: &str, name: &PgTable, oid: u32, heaps: &[&Heap]) -> String {
    let column = table.captured.columns.first().map(|column| identifier(&column.name));
    let files: Vec<String> = heaps.iter().map(|heap| heap.oid.to_string()).collect();
    format!(
        "SAVEPOINT range; SELECT {} FROM {only}{name} LIMIT 0; \
         SELECT coalesce(pg_catalog.to_regclass({literal})::oid = {oid}, false) AND count(*) = {} \
           AND bool_and(c.relfilenode IS NOT DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid)) \
         FROM pg_catalog.pg_class c WHERE c.oid IN ({})",
        column.unwrap_or_default(),
        heaps.len(),
        files.join(","),
        name = quoted(name),
        literal = literal(&quoted(name)),
    )
}

fn copy(table: &PublishedTable, only: &str, name: &PgTable, mut conditions: Vec<String>) -> String {
    let columns: Vec<String> =
        table.captured.columns.iter().map(|column| identifier(&column.name)).collect();
    if !table.filters.is_empty() {
        let filters: Vec<String> =
            table.filters.iter().map(|filter| format!("({filter})")).collect();
        conditions.push(format!("({})", filters.join(" OR ")));
    }
    let wanted = match conditions.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conditions.join(" AND ")),
    };
    format!("COPY (SELECT {} FROM {only}{}{wanted}) TO STDOUT", columns.join(", "), quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_leave_no_page_out() {
        for pages in [0, 1, RANGE_PAGES, RANGE_PAGES + 1, 100_000, u64::from(u32::MAX)] {
            let cuts = cuts(pages);
            assert!(cuts.len() as u64 <= RANGES_PER_HEAP_MAX, "{pages}");
            assert_eq!(cuts[0].0, 0);
            assert_eq!(cuts.last().unwrap().1, None);
            for pair in cuts.windows(2) {
                assert_eq!(pair[0].1, Some(pair[1].0));
            }
        }
    }
}
