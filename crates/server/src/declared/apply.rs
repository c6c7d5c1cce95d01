//! Makes what the settings file declares.
//!
//! What is there as the file says stays. A secret or a connection that the file says otherwise is
//! changed, and holds for the next login. A source takes up what it can without losing its slot. What
//! the file says no more stays as it is, and the log says so.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use hydrant_core::Timestamp;
use hydrant_core::capture::{
    AlterSource, Capture, Connection, IfExists, Secret, SourceSettings, SourceTable,
};
use hydrant_core::control::{ControlStore, Write};
use hydrant_core::names::Scope;
use serde::{Deserialize, Serialize};

use super::Declared;
use crate::config::Settings;

/// The row of what the file has declared so far and is still there.
const ROW: &str = "settings/declared";

/// Names by kind.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    secrets: BTreeSet<String>,
    connections: BTreeSet<String>,
    sources: BTreeSet<String>,
}

/// Makes what the settings file declares. The error says what in the file cannot be done, and what to
/// do; what comes before it in the file is done by then, and doing it again is no error.
pub(crate) async fn apply(
    settings: &Settings,
    capture: &dyn Capture,
    control: &dyn ControlStore,
    now: Timestamp,
) -> Result<()> {
    let scope = Scope { account: settings.account_id.clone(), region: settings.region.clone() };
    let Declared { secrets, connections, sources } = &settings.declared;
    let sources = sources.iter().map(|of| {
        let wanted = of.settings(&scope);
        wanted.with_context(|| format!("[[source]] {:?}", of.name))
    });
    let sources = sources.collect::<Result<Vec<_>>>()?;
    let declared = Names {
        secrets: once("secret", secrets.iter().map(|s| &s.name))?,
        connections: once("connection", connections.iter().map(|c| &c.name))?,
        sources: once("source", sources.iter().map(|s| &s.name))?,
    };
    remember(declared, capture, control).await?;
    for wanted in secrets {
        let secret = Secret { created: now, ..wanted.clone() };
        let made = capture.create_secret(secret, IfExists::Replace).await;
        made.with_context(|| format!("[[secret]] {}", wanted.name))?;
    }
    for wanted in connections {
        let connection = Connection { created: now, ..wanted.clone() };
        let made = capture.create_connection(connection, IfExists::Replace).await;
        made.with_context(|| format!("[[connection]] {}", wanted.name))?;
    }
    for wanted in sources {
        let name = wanted.name.clone();
        source(capture, wanted).await.with_context(|| format!("[[source]] {name}"))?;
    }
    Ok(())
}

fn once<'a>(kind: &str, names: impl Iterator<Item = &'a String>) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            bail!("the settings declare [[{kind}]] {name} twice; leave one of them out");
        }
    }
    Ok(seen)
}

/// Says what was declared once, is not any more, and is still there; and stores what to say so of at
/// later starts.
async fn remember(
    declared: Names,
    capture: &dyn Capture,
    control: &dyn ControlStore,
) -> Result<()> {
    let seen = control.get(ROW).await?;
    let before: Names = seen.as_ref().map(|e| e.json(ROW)).transpose()?.unwrap_or_default();
    let mut next = declared;
    let there = capture.secrets().await?.into_iter().map(|s| s.name).collect();
    left("SECRET", &before.secrets, &there, &mut next.secrets);
    let there = capture.connections().await?.into_iter().map(|c| c.name).collect();
    left("CONNECTION", &before.connections, &there, &mut next.connections);
    let there = capture.sources().await?.into_iter().map(|s| s.settings.name).collect();
    left("SOURCE", &before.sources, &there, &mut next.sources);
    if next != before {
        control.commit(vec![Write::put(ROW, seen.as_ref(), &next)]).await?;
    }
    Ok(())
}

fn left(
    kind: &str,
    before: &BTreeSet<String>,
    there: &BTreeSet<String>,
    declared: &mut BTreeSet<String>,
) {
    let left: Vec<_> =
        before.intersection(there).filter(|name| !declared.contains(*name)).cloned().collect();
    for name in left {
        tracing::warn!(
            "the settings file does not declare {kind} {name} any more: it stays as it is; DROP \
             {kind} {name} removes it"
        );
        declared.insert(name);
    }
}

/// Makes a source, or takes up into the one that is there what can be without losing its slot.
async fn source(capture: &dyn Capture, wanted: SourceSettings) -> Result<()> {
    let there = capture.sources().await?;
    let Some(held) = there.into_iter().find(|report| report.settings.name == wanted.name) else {
        let report = capture.create_source(wanted, IfExists::Keep).await?;
        tracing::info!(
            source = report.settings.name,
            state = report.state.name(),
            reason = report.reason,
            "made a source of the settings file"
        );
        return Ok(());
    };
    let (name, held) = (wanted.name.clone(), held.settings);
    check(&held, &wanted)?;
    if let Some(listed) = wanted.tables {
        take_up(capture, &name, &held.tables.unwrap_or_default(), listed).await?;
    }
    if held.comment != wanted.comment {
        capture.alter_source(&name, AlterSource::Comment(wanted.comment)).await?;
    }
    Ok(())
}

/// Refuses what no ALTER SOURCE does: a source that is replaced loses its slot, and with it changes.
fn check(held: &SourceSettings, wanted: &SourceSettings) -> Result<()> {
    for (setting, same) in [
        ("connection", held.connection == wanted.connection),
        ("publications", held.publications == wanted.publications),
        ("slot", held.slot == wanted.slot),
        ("tables", held.tables.is_some() == wanted.tables.is_some()),
        ("stream", (&held.scope, &held.stream) == (&wanted.scope, &wanted.stream)),
        ("shards", held.shards == wanted.shards),
        ("envelope", held.envelope == wanted.envelope),
        ("snapshot", held.snapshot == wanted.snapshot),
        ("oversize", held.oversize == wanted.oversize),
        ("transactions", held.transactions == wanted.transactions),
        ("on_slot_loss", held.on_slot_loss == wanted.on_slot_loss),
    ] {
        if !same {
            bail!(
                "the source is there with another setting of {setting}, and to replace it would drop \
                 its slot; write the setting as the source has it, or start without this [[source]] \
                 and DROP SOURCE {}",
                held.name
            );
        }
    }
    Ok(())
}

/// Adds the tables that the source does not have; those that are not listed any more stay.
async fn take_up(
    capture: &dyn Capture,
    name: &str,
    known: &[SourceTable],
    listed: Vec<SourceTable>,
) -> Result<()> {
    for SourceTable { table, .. } in known {
        if listed.iter().all(|listed| listed.table != *table) {
            tracing::warn!(
                "the settings file does not list table {table} of source {name}: it stays in it; \
                 ALTER SOURCE {name} DROP TABLE {table} leaves it out"
            );
        }
    }
    for table in listed {
        match known.iter().find(|known| known.table == table.table) {
            Some(known) if *known == table => {}
            Some(_) => bail!(
                "partition_by of table {0} is another than the source has; ALTER SOURCE {name} DROP \
                 TABLE {0} first",
                table.table
            ),
            None => {
                capture.alter_source(name, AlterSource::AddTable(table)).await?;
            }
        }
    }
    Ok(())
}
