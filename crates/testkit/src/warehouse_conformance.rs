//! The promise of [`Warehouse`]: a staged file is in a table once.

use std::pin::Pin;
use std::sync::Arc;

use hydrant_core::warehouse::{
    CopyOptions, FileStatus, LoadError, OnError, StagedFile, TableName, Warehouse,
};

use crate::soon;

type Done<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Stage = dyn Fn(&str, &[u8]) -> Done<StagedFile> + Send + Sync;

/// A warehouse with an empty table, and hands to stage files and look at rows.
pub struct Depot {
    /// What is tested.
    pub warehouse: Arc<dyn Warehouse>,
    /// A table that takes any JSON document as a row.
    pub table: TableName,
    /// Puts a file of this name with these bytes where the warehouse reads from.
    pub stage: Box<Stage>,
    /// The rows of the table as JSON, in any order.
    pub rows: Box<dyn Fn() -> Done<Vec<String>> + Send + Sync>,
}

const SKIP: CopyOptions = CopyOptions { on_error: OnError::SkipFile, force: false };

/// Runs the suite. `make` gives a warehouse with an empty table of its own each time.
pub async fn warehouse_conformance(make: impl AsyncFn() -> Depot) {
    a_file_is_loaded_once(make().await).await;
    copies_at_once_load_a_file_once(make().await).await;
    a_changed_file_is_another_and_force_repeats(make().await).await;
    a_bad_file_does_what_the_options_say(make().await).await;
    a_table_that_is_not_there_is_said(make().await).await;
}

async fn copy(
    depot: &Depot,
    files: &[StagedFile],
    options: CopyOptions,
) -> Result<Vec<(FileStatus, u64)>, LoadError> {
    let loads = soon("copy_into", depot.warehouse.copy_into(&depot.table, files, &options)).await?;
    let urls: Vec<_> = loads.iter().map(|load| &load.url).collect();
    let asked: Vec<_> = files.iter().map(|file| &file.url).collect();
    assert_eq!(urls, asked, "one outcome for each file, in the order given");
    Ok(loads.iter().map(|load| (load.status, load.rows_loaded)).collect())
}

async fn numbers(depot: &Depot) -> Vec<u64> {
    let rows = (depot.rows)().await;
    let mut numbers: Vec<u64> = rows
        .iter()
        .map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap()["n"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

async fn a_file_is_loaded_once(depot: Depot) {
    let a = (depot.stage)("a.json", b"{\"n\":1}\n{\"n\":2}").await;
    let b = (depot.stage)("b.json", b"{\"n\":3}").await;
    let loaded = copy(&depot, &[b.clone(), a.clone()], SKIP).await.unwrap();
    assert_eq!(loaded, [(FileStatus::Loaded, 1), (FileStatus::Loaded, 2)]);
    let c = (depot.stage)("c.json", b"{\"n\":4}").await;
    let again = copy(&depot, &[a, c, b], SKIP).await.unwrap();
    let skipped = (FileStatus::LoadSkipped, 0);
    assert_eq!(again, [skipped, (FileStatus::Loaded, 1), skipped], "only the new file is loaded");
    assert_eq!(numbers(&depot).await, [1, 2, 3, 4]);
}

async fn copies_at_once_load_a_file_once(depot: Depot) {
    let mut files = Vec::new();
    for n in 0..8 {
        let text = format!("{{\"n\":{n}}}");
        files.push((depot.stage)(&format!("{n}.json"), text.as_bytes()).await);
    }
    let (front, back) = (&files[..6], &files[2..]);
    let (a, b) = tokio::join!(copy(&depot, front, SKIP), copy(&depot, back, SKIP));
    // One of the two may have to be told to try again; nothing is doubled meanwhile.
    for (outcome, part) in [(a, front), (b, back)] {
        match outcome {
            Ok(_) => {}
            Err(LoadError::Retry(_)) => drop(copy(&depot, part, SKIP).await.unwrap()),
            Err(e) => panic!("two copies at once: {e}"),
        }
    }
    assert_eq!(numbers(&depot).await, (0..8).collect::<Vec<_>>());
}

async fn a_changed_file_is_another_and_force_repeats(depot: Depot) {
    let first = (depot.stage)("a.json", b"{\"n\":1}").await;
    copy(&depot, std::slice::from_ref(&first), SKIP).await.unwrap();
    let changed = (depot.stage)("a.json", b"{\"n\":10}").await;
    assert_ne!(first.etag, changed.etag);
    let loaded = copy(&depot, std::slice::from_ref(&changed), SKIP).await.unwrap();
    assert_eq!(loaded, [(FileStatus::Loaded, 1)], "a file with another ETag is another file");
    let force = CopyOptions { force: true, ..SKIP };
    copy(&depot, &[changed], force).await.unwrap();
    assert_eq!(numbers(&depot).await, [1, 10, 10], "FORCE loads it again");
}

async fn a_bad_file_does_what_the_options_say(depot: Depot) {
    let good = (depot.stage)("good.json", b"{\"n\":1}").await;
    let bad = (depot.stage)("bad.json", b"{\"n\":2}\n{\"n\":\n{\"n\":3}").await;
    let files = [good, bad];
    let abort = CopyOptions { on_error: OnError::AbortStatement, ..SKIP };
    let aborted = copy(&depot, &files, abort).await;
    assert!(matches!(aborted, Err(LoadError::Aborted(_))), "{aborted:?}");
    assert_eq!(numbers(&depot).await, [0u64; 0], "an aborted copy leaves nothing, of any file");
    let skipped = copy(&depot, &files, SKIP).await.unwrap();
    assert_eq!(skipped, [(FileStatus::Loaded, 1), (FileStatus::LoadFailed, 0)]);
    assert_eq!(numbers(&depot).await, [1]);
    let on = CopyOptions { on_error: OnError::Continue, ..SKIP };
    let partly = copy(&depot, &files, on).await.unwrap();
    assert_eq!(partly[0].0, FileStatus::LoadSkipped);
    assert_eq!(partly[1].0, FileStatus::PartiallyLoaded, "a file that failed may be tried again");
    assert!(numbers(&depot).await.contains(&2), "its good rows are in");
}

async fn a_table_that_is_not_there_is_said(depot: Depot) {
    let file = (depot.stage)("a.json", b"{\"n\":1}").await;
    let nowhere = TableName { table: "NO_SUCH_TABLE".to_owned(), ..depot.table.clone() };
    let outcome = soon("copy_into", depot.warehouse.copy_into(&nowhere, &[file], &SKIP)).await;
    assert!(matches!(outcome, Err(LoadError::NoTable(_))), "{outcome:?}");
    assert_eq!(numbers(&depot).await, [0u64; 0]);
}
