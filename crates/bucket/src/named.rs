//! Which data files a control store names, for whoever copies them.

use hydrant_core::control::{ControlError, ControlStore, Entry};
use hydrant_core::limits::SCAN_ROWS_MAX;

use crate::files::FileId;
use crate::index::{Data, LAYOUTS, OBJECTS, ObjectRow, PARTS, PartRow, Segment};

/// The files that the rows of `control` name, from the bucket's directory (`data/ab/cd…`), in no order.
///
/// Each was complete before its row was there, and is never changed; it is removed only once no row
/// names it any more. So a copy of the rows, and of these files after it, is whole, unless one is
/// missing by then. Reads every row of an object; memory: about 60 bytes a file.
pub async fn named_files(control: &dyn ControlStore) -> Result<Vec<String>, ControlError> {
    let mut named = Vec::new();
    each(control, PARTS, |key, entry| {
        named.push(path(entry.json::<PartRow>(key)?.file));
        Ok(())
    })
    .await?;
    each(control, LAYOUTS, |key, entry| {
        let segments: Vec<Segment> = entry.json(key)?;
        named.extend(segments.into_iter().map(|segment| path(segment.file)));
        Ok(())
    })
    .await?;
    each(control, OBJECTS, |key, entry| {
        if let Data::File(file) = entry.json::<ObjectRow>(key)?.data {
            named.push(path(file));
        }
        Ok(())
    })
    .await?;
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

fn path(file: FileId) -> String {
    let name = file.to_string();
    format!("data/{}/{}", &name[..2], &name[2..])
}

/// Shows every row under `prefix`, page by page.
pub(crate) async fn each(
    control: &dyn ControlStore,
    prefix: &str,
    mut visit: impl FnMut(&str, &Entry) -> Result<(), ControlError>,
) -> Result<(), ControlError> {
    let mut after: Option<String> = None;
    loop {
        let rows = control.scan(prefix, after.as_deref(), SCAN_ROWS_MAX / 10).await?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, entry) in &rows {
            visit(key, entry)?;
        }
    }
}
