//! Whether a server lets a source work, and what it should know before it begins.

use std::time::Duration;

use hydrant_core::capture::{Failure, Lsn, PgTable, SnapshotMode, SourceSettings};

use super::error::{During, PUBLICATION_ADVICE, WAL_LEVEL_ADVICE};
use super::publications::{self, OPERATIONS, Publication};
use super::quote::{identifier, table as quoted};
use super::replication::Replication;
use super::slot::{self, SlotRow};
use super::tables::{self, Heap, Published, PublishedTable, names};
use super::{Access, Identity, Server, ServerError};

/// The first version that decodes on a standby.
const STANDBY_VERSION_MIN: u32 = 160_000;

/// How far a source is already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The slot of this name is its own: it made or adopted it.
    pub slot_ours: bool,
    /// Its changes are followed from that slot, so the slot has to be there and to be whole.
    pub following: Option<Following>,
}

/// What a source that follows a slot has followed so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    /// System identifier of the server.
    pub system: String,
    /// Its timeline.
    pub timeline: u32,
    /// Up to where.
    pub resume: Lsn,
}

/// What a server is and has.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Which server it is.
    pub identity: Identity,
    /// Whether it is a standby.
    pub standby: bool,
    /// Replication slots that are there.
    pub slots_used: u32,
    /// Replication slots that there can be (`max_replication_slots`).
    pub slots_max: u32,
    /// After which silence it ends a walsender; `None` if never.
    pub wal_sender_timeout: Option<Duration>,
    /// How much log a slot may hold; `None` if there is no limit.
    pub max_slot_wal_keep_bytes: Option<u64>,
    /// The source's slot, if it is there.
    pub slot: Option<SlotRow>,
    /// The tables of its publications.
    pub published: Published,
    /// As [`super::members`] had it before they were looked at.
    pub members: String,
    /// The end of the server's log once they were looked at.
    pub end: Lsn,
    /// What works otherwise than somebody may expect, in words that say what to do.
    pub warnings: Vec<String>,
}

/// Looks whether the source can work. Changes nothing on the server; connects a second time, as a
/// walsender, because only that tells for certain. Every failure says which setting, role, table,
/// slot or publication, and the statement that mends it.
pub async fn check(
    server: &mut Server,
    access: &Access,
    settings: &SourceSettings,
    slot: &str,
    progress: &Progress,
) -> Result<Facts, ServerError> {
    slot::valid_name(slot)?;
    let asked = Asked::read(server).await?;
    asked.standby_can_decode(server.version())?;
    wal_level(server, &asked).await?;

    let mut walsender = Replication::connect(access).await?;
    let identity = walsender.identify().await?;
    walsender.stop().await;
    // Before anything that another server would not have: what is missing there is not lost.
    let status = slot::status(server, slot, &[]).await?;
    if let Some(following) = &progress.following {
        same_server(settings, following, &identity, status.slot.as_ref())?;
    }

    let publications = publications_there(server, settings, progress).await?;
    let members = publications::members(server, &settings.publications).await?;
    let published = tables::published(server, settings).await?;
    if settings.snapshot == SnapshotMode::Initial && progress.following.is_none() {
        readable(access, &published)?;
    }
    let end = slot::log_end(server).await?;
    keys_exist(settings, &published)?;

    slot_usable(access, settings, slot, status.slot.as_ref(), progress)?;
    if status.slot.is_none() && asked.slots_used >= asked.slots_max {
        let text = format!(
            "{} of {} replication slots are in use: drop one that nobody uses with SELECT \
             pg_drop_replication_slot(…), or raise max_replication_slots and restart PostgreSQL",
            asked.slots_used, asked.slots_max
        );
        return Err(ServerError::failed(Failure::SlotsExhausted, text));
    }

    let mut warnings = published.warnings.clone();
    warnings.extend(publication_warnings(&publications, &published));
    warnings.extend(table_warnings(settings, &publications, &published));
    warnings.extend(asked.warnings());
    Ok(Facts {
        identity,
        standby: asked.standby,
        slots_used: asked.slots_used,
        slots_max: asked.slots_max,
        wal_sender_timeout: (asked.wal_sender_timeout_ms > 0)
            .then(|| Duration::from_millis(asked.wal_sender_timeout_ms)),
        max_slot_wal_keep_bytes: u64::try_from(asked.max_slot_wal_keep_mb)
            .ok()
            .map(|mb| mb.saturating_mul(1024 * 1024)),
        slot: status.slot,
        published,
        members,
        end,
        warnings,
    })
}

/// The server's settings.
struct Asked {
    wal_level: String,
    wal_level_pending: bool,
    standby: bool,
    slots_used: u32,
    slots_max: u32,
    wal_sender_timeout_ms: u64,
    max_slot_wal_keep_mb: i64,
    encoding: String,
    /// Seconds after which a slot that nobody reads is invalidated (18 or later).
    idle_slot_timeout: u64,
}

impl Asked {
    async fn read(server: &mut Server) -> Result<Self, ServerError> {
        let setting = |name: &str| {
            format!("(SELECT setting FROM pg_catalog.pg_settings WHERE name = '{name}')")
        };
        let sql = format!(
            "SELECT {}, coalesce((SELECT pending_restart FROM pg_catalog.pg_settings \
               WHERE name = 'wal_level'), false), pg_catalog.pg_is_in_recovery(), \
               (SELECT count(*) FROM pg_catalog.pg_replication_slots), {}, {}, {}, {}, {}",
            setting("wal_level"),
            setting("max_replication_slots"),
            setting("wal_sender_timeout"),
            setting("max_slot_wal_keep_size"),
            setting("server_encoding"),
            setting("idle_replication_slot_timeout"),
        );
        let rows = server.ask(&sql, During::Query).await?;
        let row = rows.first().ok_or_else(|| ServerError::unexpected("no settings"))?;
        Ok(Self {
            wal_level: row.string(0),
            wal_level_pending: row.is(1),
            standby: row.is(2),
            slots_used: row.need(3)?,
            slots_max: row.need(4)?,
            wal_sender_timeout_ms: row.parsed(5).unwrap_or(0),
            max_slot_wal_keep_mb: row.parsed(6).unwrap_or(-1),
            encoding: row.string(7),
            idle_slot_timeout: row.parsed(8).unwrap_or(0),
        })
    }

    fn standby_can_decode(&self, version: u32) -> Result<(), ServerError> {
        if !self.standby || version >= STANDBY_VERSION_MIN {
            return Ok(());
        }
        let text = format!(
            "the server is a standby, and PostgreSQL {} decodes on a primary only: connect to that",
            version / 10_000
        );
        Err(ServerError::failed(Failure::Other, text))
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.encoding == "SQL_ASCII" {
            warnings.push(
                "the database's encoding is SQL_ASCII: the server does not convert texts, and one \
                 that is not UTF-8 will stop the source"
                    .to_owned(),
            );
        }
        if self.idle_slot_timeout > 0 {
            warnings.push(format!(
                "idle_replication_slot_timeout is {} s: a source that is paused for longer loses \
                 its slot",
                self.idle_slot_timeout
            ));
        }
        warnings
    }
}

async fn wal_level(server: &mut Server, asked: &Asked) -> Result<(), ServerError> {
    if asked.wal_level == "logical" {
        return Ok(());
    }
    // The file's view is for superusers; whoever may not look gets the longer advice.
    let sql = "SELECT lower(setting) = 'logical' FROM pg_catalog.pg_file_settings \
               WHERE name = 'wal_level' ORDER BY seqno DESC LIMIT 1";
    let in_file = match server.ask(sql, During::Query).await {
        Ok(rows) => rows.first().is_some_and(|row| row.is(0)),
        Err(ServerError::Failed { .. }) => false,
        Err(error) => return Err(error),
    };
    let level = &asked.wal_level;
    let text = match in_file || asked.wal_level_pending {
        true => format!(
            "wal_level is {level} until PostgreSQL is started anew; its configuration says logical \
             already: restart PostgreSQL"
        ),
        false if asked.standby => {
            format!("wal_level is {level}. {WAL_LEVEL_ADVICE}, primary first")
        }
        false => format!("wal_level is {level}. {WAL_LEVEL_ADVICE}"),
    };
    Err(ServerError::failed(Failure::WalLevel, text))
}

/// Whether the server is the one whose log is followed.
fn same_server(
    settings: &SourceSettings,
    followed: &Following,
    found: &Identity,
    slot: Option<&SlotRow>,
) -> Result<(), ServerError> {
    let name = &settings.name;
    if followed.system != found.system {
        let text = format!(
            "the server has system identifier {}, the source has followed {}: let the connection \
             lead to that one again, or ALTER SOURCE {name} RESNAPSHOT",
            found.system, followed.system
        );
        return Err(ServerError::failed(Failure::SystemChanged, text));
    }
    let carried = slot.is_some_and(|slot| {
        slot.failover && slot.confirmed.is_some_and(|at| at <= followed.resume)
    });
    if followed.timeline != found.timeline && !carried {
        let text = format!(
            "the server is on timeline {}, the source has followed timeline {}: it was promoted or \
             restored, and its slot is no failover slot (PostgreSQL 17 or later) at or before {}: \
             ALTER SOURCE {name} RESNAPSHOT",
            found.timeline, followed.timeline, followed.resume
        );
        return Err(ServerError::failed(Failure::TimelineChanged, text));
    }
    Ok(())
}

async fn publications_there(
    server: &mut Server,
    settings: &SourceSettings,
    progress: &Progress,
) -> Result<Vec<Publication>, ServerError> {
    let there = publications::named(server, &settings.publications).await?;
    let gone = |name: &&String| there.iter().all(|publication| publication.name != **name);
    let Some(missing) = settings.publications.iter().find(gone) else { return Ok(there) };
    let tables = match settings.tables.as_deref() {
        Some(listed) if !listed.is_empty() => {
            let listed: Vec<String> = listed.iter().map(|listed| quoted(&listed.table)).collect();
            format!("FOR TABLE {}", listed.join(", "))
        }
        _ => "FOR ALL TABLES".to_owned(),
    };
    let statement = format!("CREATE PUBLICATION {} {tables};", identifier(missing));
    Err(match progress.following.is_some() {
        true => ServerError::failed(
            Failure::PublicationDropped,
            format!("publication '{missing}' was dropped. {PUBLICATION_ADVICE}: {statement}"),
        ),
        false => ServerError::failed(
            Failure::PublicationMissing,
            format!(
                "database '{}' has no publication '{missing}': run {statement}",
                settings_database(server).await?
            ),
        ),
    })
}

async fn settings_database(server: &mut Server) -> Result<String, ServerError> {
    let rows = server.ask("SELECT current_database()", During::Query).await?;
    Ok(rows.first().map(|row| row.string(0)).unwrap_or_default())
}

/// A snapshot reads every published column of every table.
fn readable(access: &Access, published: &Published) -> Result<(), ServerError> {
    let role = identifier(access.role());
    let denied = |text: String| Err(ServerError::failed(Failure::Permission, text));
    for table in &published.tables {
        let name = &table.captured.table;
        if !table.schema_usable {
            let schema = identifier(&name.schema);
            return denied(format!(
                "role '{}' may not use the schema of table {name}: run GRANT USAGE ON SCHEMA \
                 {schema} TO {role};",
                access.role()
            ));
        }
        if let Some(column) = table.unreadable.first() {
            return denied(format!(
                "role '{}' may not read column '{column}' of table {name}: run GRANT SELECT ON {} \
                 TO {role};",
                access.role(),
                quoted(name)
            ));
        }
        if table.row_security {
            return denied(format!(
                "row security of table {name} hides rows from role '{}': run ALTER ROLE {role} \
                 BYPASSRLS;",
                access.role()
            ));
        }
    }
    Ok(())
}

/// `PARTITION BY` names columns that are published.
fn keys_exist(settings: &SourceSettings, published: &Published) -> Result<(), ServerError> {
    for listed in settings.tables.iter().flatten() {
        let found = published.tables.iter().find(|table| table.captured.table == listed.table);
        let Some(found) = found else { continue };
        let there = |name: &String| found.captured.columns.iter().any(|it| it.name == *name);
        if let Some(missing) = listed.partition_by.iter().find(|name| !there(name)) {
            let text = format!(
                "PARTITION BY names column '{missing}', which table {} does not publish",
                listed.table
            );
            return Err(ServerError::failed(Failure::Other, text));
        }
    }
    Ok(())
}

fn slot_usable(
    access: &Access,
    settings: &SourceSettings,
    name: &str,
    found: Option<&SlotRow>,
    progress: &Progress,
) -> Result<(), ServerError> {
    let failed = |failure, text: String| Err(ServerError::failed(failure, text));
    let Some(found) = found else {
        return match progress.following.is_some() {
            true => failed(Failure::SlotLost, slot::gone(name)),
            false => Ok(()),
        };
    };
    let adopt = settings.slot.as_ref().is_some_and(|slot| slot.adopt);
    if !progress.slot_ours && !adopt {
        let holder = found.active_application.as_deref();
        let holder = holder.map(|name| format!(", which '{name}' reads")).unwrap_or_default();
        return failed(
            Failure::SlotNotOurs,
            format!(
                "the server has a slot '{name}'{holder} that this source did not make: choose \
                 another with SLOT '…', or take this one with SLOT '{name}' ADOPT"
            ),
        );
    }
    // An epoch begins with dropping its own slot of before, whole or not.
    let lost = found.lost.as_ref().filter(|_| !progress.slot_ours || progress.following.is_some());
    let unfit = if found.plugin.as_deref() != Some("pgoutput") {
        format!("its plugin is {}, not pgoutput", found.plugin.as_deref().unwrap_or("none"))
    } else if found.database.as_deref() != Some(access.database()) {
        format!("it is of database '{}'", found.database.as_deref().unwrap_or_default())
    } else if found.temporary {
        "it is temporary".to_owned()
    } else if found.two_phase {
        "it decodes prepared transactions (two_phase)".to_owned()
    } else if found.synced {
        "it is the standby's copy of the primary's, which can be read after a promotion: connect to \
         the primary"
            .to_owned()
    } else if let Some(lost) = lost {
        return failed(Failure::SlotLost, slot::lost(name, lost));
    } else {
        return Ok(());
    };
    failed(Failure::SlotNotOurs, format!("slot '{name}' cannot be used: {unfit}"))
}

fn publication_warnings(publications: &[Publication], published: &Published) -> Vec<String> {
    let mut warnings = Vec::new();
    for publication in publications {
        let name = &publication.name;
        let in_it = |table: &PublishedTable| table.publications.contains(name);
        if !published.tables.iter().any(in_it) && published.missing.is_empty() {
            warnings.push(format!(
                "publication '{name}' has no table: ALTER PUBLICATION {} ADD TABLE …;",
                identifier(name)
            ));
        }
        let lacking = OPERATIONS.iter().zip(publication.operations).filter(|(_, there)| !there);
        let lacking: Vec<&str> = lacking.map(|(operation, _)| *operation).collect();
        if !lacking.is_empty() {
            warnings.push(format!(
                "publication '{name}' does not publish {}: ALTER PUBLICATION {} SET (publish = '{}');",
                lacking.join(", "),
                identifier(name),
                OPERATIONS.join(", ")
            ));
        }
    }
    warnings
}

fn table_warnings(
    settings: &SourceSettings,
    publications: &[Publication],
    published: &Published,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let changes_rows = |table: &PublishedTable| {
        let of = |it: &&Publication| table.publications.contains(&it.name);
        publications.iter().filter(of).any(|it| it.operations[1] || it.operations[2])
    };
    let tables = published.tables.iter().filter(|table| changes_rows(table));
    let heaps: Vec<&Heap> = tables.flat_map(|table| &table.heaps).collect();
    let unidentified = |heap: &&&Heap| !heap.foreign && !heap.identified;
    let unidentified: Vec<&PgTable> =
        heaps.iter().filter(unidentified).map(|heap| &heap.table).collect();
    if let Some(first) = unidentified.first() {
        warnings.push(format!(
            "UPDATE and DELETE on {} will fail in PostgreSQL while it is published, for nothing \
             says which row is meant: ALTER TABLE {} REPLICA IDENTITY FULL;",
            names(unidentified.iter().copied()),
            quoted(first)
        ));
    }
    let keyed = |table: &&PublishedTable| {
        let name = &table.captured.table;
        let chosen = settings.tables.iter().flatten().find(|listed| listed.table == *name);
        table.captured.columns.iter().any(|column| column.key.is_some())
            || chosen.is_some_and(|listed| !listed.partition_by.is_empty())
    };
    let unkeyed = published.tables.iter().filter(|table| !keyed(table));
    let unkeyed: Vec<&PgTable> = unkeyed.map(|table| &table.captured.table).collect();
    if !unkeyed.is_empty() {
        warnings.push(format!(
            "no primary key in {}: all changes of such a table have one partition key, so one shard \
             takes them, in order; PARTITION BY (…) chooses otherwise",
            names(unkeyed.iter().copied())
        ));
    }
    warnings
}
