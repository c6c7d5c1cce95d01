//! Which files a control store names, for whoever copies them.

use hydrant_core::control::{ControlError, ControlStore};
use hydrant_core::limits::SCAN_ROWS_MAX;

use super::{FileRow, Head, file_key, file_prefix};
use crate::state::{Folded, work_key};

/// Where the heads are.
const HEADS: &str = "warehouse/head/";

/// The files of tables that the rows of `control` name, from the warehouse's directory
/// (`tables/<table>/<file>`), in no order. The caller's duty: `control` stands still.
///
/// Each was complete before a row named it, and is never changed; it is removed only once no row names
/// it any more. So a copy of the rows, and of these files after it, is whole, unless one is missing by
/// then. Memory: about 100 bytes a file.
pub async fn named_files(control: &dyn ControlStore) -> Result<Vec<String>, ControlError> {
    let mut named = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let heads = control.scan(HEADS, after.as_deref(), SCAN_ROWS_MAX / 10).await?;
        let Some((last, _)) = heads.last() else { break };
        after = Some(last.clone());
        for (key, entry) in &heads {
            files_of(control, &key[HEADS.len()..], &entry.json(key)?, &mut named).await?;
        }
    }
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

async fn files_of(
    control: &dyn ControlStore,
    uid: &str,
    head: &Head,
    named: &mut Vec<String>,
) -> Result<(), ControlError> {
    let mut name = |file: &str| named.push(format!("tables/{uid}/{file}"));
    let published = head.state.iter().filter_map(|state| state.published.as_ref());
    published.flat_map(Folded::files).for_each(|file| name(&file.name));
    let key = work_key(uid);
    if let Some(entry) = control.get(&key).await? {
        entry.json::<Folded>(&key)?.files().for_each(|file| name(&file.name));
    }
    let (prefix, end) = (file_prefix(uid), file_key(uid, head.next));
    let mut after = head.first.checked_sub(1).map(|n| file_key(uid, n));
    loop {
        let rows = control.scan(&prefix, after.as_deref(), SCAN_ROWS_MAX / 10).await?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, entry) in &rows {
            if *key >= end {
                return Ok(());
            }
            name(&entry.json::<FileRow>(key)?.name);
        }
    }
}
