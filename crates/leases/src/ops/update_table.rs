//! `UpdateTable`: billing, deletion protection, and indexes made, changed and deleted.

use bytes::Bytes;
use hydrant_core::Timestamp;
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, List, Structure, Text};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::description::{Described, TableDescription};
use super::schema::{self, AttributeDefinitions, INDEXES_MAX, NewIndex, ProvisionedThroughput};
use crate::checks;
use crate::error::Error;
use crate::table::{KeyKind, State, Table};
use crate::{Leases, Options};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(borrow)]
    attribute_definitions: Option<AttributeDefinitions<'a>>,
    #[serde(borrow)]
    billing_mode: Option<Text<'a>>,
    provisioned_throughput: Option<Structure<ProvisionedThroughput>>,
    #[serde(borrow)]
    global_secondary_index_updates: Option<List<Structure<IndexUpdate<'a>>>>,
    deletion_protection_enabled: Option<Flag>,
    stream_specification: Option<IgnoredAny>,
    #[serde(rename = "SSESpecification")]
    sse_specification: Option<IgnoredAny>,
    replica_updates: Option<IgnoredAny>,
    table_class: Option<IgnoredAny>,
    multi_region_consistency: Option<IgnoredAny>,
    global_table_witness_updates: Option<IgnoredAny>,
    on_demand_throughput: Option<IgnoredAny>,
    warm_throughput: Option<IgnoredAny>,
    global_table_settings_replication_mode: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IndexUpdate<'a> {
    #[serde(borrow)]
    create: Option<Structure<NewIndex<'a>>>,
    #[serde(borrow)]
    update: Option<Structure<ThroughputUpdate<'a>>>,
    #[serde(borrow)]
    delete: Option<Structure<Deletion<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ThroughputUpdate<'a> {
    #[serde(borrow)]
    index_name: Option<Text<'a>>,
    provisioned_throughput: Option<Structure<ProvisionedThroughput>>,
    on_demand_throughput: Option<IgnoredAny>,
    warm_throughput: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deletion<'a> {
    #[serde(borrow)]
    index_name: Option<Text<'a>>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    checks::refuse(&[
        ("StreamSpecification", &request.stream_specification),
        ("SSESpecification", &request.sse_specification),
        ("ReplicaUpdates", &request.replica_updates),
        ("TableClass", &request.table_class),
        ("MultiRegionConsistency", &request.multi_region_consistency),
        ("GlobalTableWitnessUpdates", &request.global_table_witness_updates),
        ("OnDemandThroughput", &request.on_demand_throughput),
        ("WarmThroughput", &request.warm_throughput),
        ("GlobalTableSettingsReplicationMode", &request.global_table_settings_replication_mode),
    ])?;
    let name = checks::table_name(request.table_name.as_ref(), call.scope())?;
    let asks = request.billing_mode.is_some()
        || request.provisioned_throughput.is_some()
        || request.global_secondary_index_updates.is_some()
        || request.deletion_protection_enabled.is_some();
    if !asks {
        return Err(Error::validation(
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, \
             GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required",
        ));
    }
    let now = leases.clock.now();
    let table = super::change_table(leases, call.scope(), &name, |table| {
        change(table, &request, &leases.options, now)
    });
    let table = table.await?;
    leases.wake.notify_one();
    let count = leases.count(&table).await?;
    let table_description = TableDescription::of(&table, count, now);
    Ok(call.write(&Described { table_description })?)
}

fn change(
    table: &mut Table,
    request: &Request<'_>,
    options: &Options,
    now: Timestamp,
) -> Result<(), Error> {
    let doing = match table.state.status(now) {
        "CREATING" => Some("created"),
        "DELETING" => Some("deleted"),
        "UPDATING" => Some("updated"),
        _ => None,
    };
    if let Some(doing) = doing {
        return Err(Error::ResourceInUse(format!(
            "Attempt to change a resource which is still in use: Table is being {doing}: {}",
            table.name
        )));
    }
    table.forget_indexes(now);
    change_billing(table, request, now)?;
    for (name, kind) in schema::attributes(request.attribute_definitions.as_ref())? {
        define(table, name, kind)?;
    }
    let updates = request.global_secondary_index_updates.iter().flat_map(|list| &list.0);
    for update in updates {
        change_index(table, &update.0, options, now)?;
    }
    if table.indexes.len() > INDEXES_MAX {
        return Err(Error::LimitExceeded(
            "Subscriber limit exceeded: GlobalSecondaryIndex count exceeds the per-table limit of 20"
                .to_owned(),
        ));
    }
    schema::check_all_used(&table.attributes, &table.keys, &table.indexes)?;
    if let Some(Flag(protected)) = request.deletion_protection_enabled {
        table.deletion_protection = protected;
    }
    table.state = State::Updating(now.plus(options.update_delay));
    Ok(())
}

fn define(table: &mut Table, name: String, kind: KeyKind) -> Result<(), Error> {
    match table.attributes.insert(name.clone(), kind) {
        Some(before) if before != kind => Err(Error::invalid(&format!(
            "Attribute definition of {name} cannot be changed while it is a key"
        ))),
        _ => Ok(()),
    }
}

fn change_billing(table: &mut Table, request: &Request<'_>, now: Timestamp) -> Result<(), Error> {
    let given = schema::throughput(request.provisioned_throughput.as_ref())?;
    let modes = ["PROVISIONED", "PAY_PER_REQUEST"];
    let on_demand = match &request.billing_mode {
        None => table.throughput.is_none(),
        mode => checks::one_of(mode.as_ref(), "billingMode", &modes)? == "PAY_PER_REQUEST",
    };
    if on_demand {
        schema::check_billing(true, given, None)?;
        if table.throughput.take().is_some() {
            table.on_demand_since = Some(now);
        }
        for index in &mut table.indexes {
            index.throughput = None;
        }
        return Ok(());
    }
    let was_on_demand = table.throughput.is_none();
    if given.is_some() && given == table.throughput && request.billing_mode.is_none() {
        return Err(Error::validation(
            "The provisioned throughput for the table will not change. The requested value equals the \
             current value.",
        ));
    }
    table.throughput = given.or(table.throughput);
    schema::check_billing(false, table.throughput, None)?;
    if was_on_demand {
        // What an index needs is said in the same request, or is what the table has.
        let throughput = table.throughput;
        for index in &mut table.indexes {
            index.throughput = throughput;
        }
    }
    Ok(())
}

fn change_index(
    table: &mut Table,
    update: &IndexUpdate<'_>,
    options: &Options,
    now: Timestamp,
) -> Result<(), Error> {
    let on_demand = table.throughput.is_none();
    match (&update.create, &update.update, &update.delete) {
        (Some(create), None, None) => {
            let state = State::Creating(now.plus(options.create_delay));
            let index = schema::index(&create.0, &table.attributes, on_demand, state)?;
            if table.indexes.iter().any(|other| other.name == index.name) {
                return Err(Error::validation(format!(
                    "Attempting to create an index which already exists: {}",
                    index.name
                )));
            }
            table.indexes.push(index);
        }
        (None, Some(update), None) => {
            checks::refuse(&[
                ("OnDemandThroughput", &update.0.on_demand_throughput),
                ("WarmThroughput", &update.0.warm_throughput),
            ])?;
            let name = checks::index_name(update.0.index_name.as_ref(), "indexName")?;
            let throughput = schema::throughput(update.0.provisioned_throughput.as_ref())?;
            schema::check_billing(on_demand, throughput, Some(&name))?;
            let index = table.indexes.iter_mut().find(|index| index.name == name);
            let index = index.ok_or_else(|| no_index(&name))?;
            index.throughput = throughput;
            index.state = State::Updating(now.plus(options.update_delay));
        }
        (None, None, Some(delete)) => {
            let name = checks::index_name(delete.0.index_name.as_ref(), "indexName")?;
            let index = table.indexes.iter_mut().find(|index| index.name == name);
            let index = index.ok_or_else(|| no_index(&name))?;
            index.state = State::Deleting(now.plus(options.delete_delay));
        }
        _ => {
            return Err(Error::invalid(
                "Only one of Create, Update or Delete must be given in each \
                 GlobalSecondaryIndexUpdate",
            ));
        }
    }
    Ok(())
}

fn no_index(name: &str) -> Error {
    Error::ResourceNotFound(format!("Requested resource not found: Index: {name} not found"))
}
