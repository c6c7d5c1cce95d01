//! `CreateTable`: a row that says CREATING until a moment to come.

use std::collections::BTreeSet;

use bytes::Bytes;
use hydrant_core::control::{ControlError, Write, scan_all};
use hydrant_core::names::Scope;
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, List, Structure, Text};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::description::{Described, TableDescription};
use super::schema::{
    self, AttributeDefinitions, INDEXES_MAX, Keys, NewIndex, ProvisionedThroughput,
};
use crate::Leases;
use crate::checks::{self, Tags};
use crate::error::Error;
use crate::rows;
use crate::store::Count;
use crate::table::{State, Table};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    #[serde(borrow)]
    attribute_definitions: Option<AttributeDefinitions<'a>>,
    #[serde(borrow)]
    key_schema: Option<Keys<'a>>,
    #[serde(borrow)]
    billing_mode: Option<Text<'a>>,
    provisioned_throughput: Option<Structure<ProvisionedThroughput>>,
    #[serde(borrow)]
    global_secondary_indexes: Option<List<Structure<NewIndex<'a>>>>,
    deletion_protection_enabled: Option<Flag>,
    #[serde(borrow)]
    tags: Option<Tags<'a>>,
    #[serde(borrow)]
    table_class: Option<Text<'a>>,
    stream_specification: Option<Structure<StreamSpecification>>,
    #[serde(rename = "SSESpecification")]
    sse_specification: Option<IgnoredAny>,
    local_secondary_indexes: Option<IgnoredAny>,
    on_demand_throughput: Option<IgnoredAny>,
    warm_throughput: Option<IgnoredAny>,
    resource_policy: Option<IgnoredAny>,
    global_table_settings_replication_mode: Option<IgnoredAny>,
    global_table_source_arn: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StreamSpecification {
    stream_enabled: Option<Flag>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let scope = call.scope();
    let table = new_table(leases, scope, &request)?;
    let key = rows::table(scope, &table.name);
    // From counting the tables to writing the new one's row.
    let _alone = leases.writing.write().await;
    for _ in 0..super::ATTEMPTS_MAX {
        if leases.table(scope, &table.name).await?.is_some() {
            return Err(Error::ResourceInUse(format!("Table already exists: {}", table.name)));
        }
        check_room(leases, scope).await?;
        match leases.control.commit(vec![Write::insert(&key, &table)]).await {
            Ok(_) => {
                let now = leases.clock.now();
                let table_description = TableDescription::of(&table, Count::default(), now);
                return Ok(call.write(&Described { table_description })?);
            }
            Err(ControlError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Internal(format!("{key} comes and goes")))
}

async fn check_room(leases: &Leases, scope: &Scope) -> Result<(), Error> {
    let max = leases.options.tables_max;
    if scan_all(leases.control.as_ref(), &rows::tables(scope)).await?.len() < max {
        return Ok(());
    }
    Err(Error::LimitExceeded(format!(
        "Subscriber limit exceeded: There is a limit of {max} tables per subscriber"
    )))
}

fn new_table(leases: &Leases, scope: &Scope, request: &Request<'_>) -> Result<Table, Error> {
    checks::refuse(&[
        ("SSESpecification", &request.sse_specification),
        ("LocalSecondaryIndexes", &request.local_secondary_indexes),
        ("OnDemandThroughput", &request.on_demand_throughput),
        ("WarmThroughput", &request.warm_throughput),
        ("ResourcePolicy", &request.resource_policy),
        ("GlobalTableSettingsReplicationMode", &request.global_table_settings_replication_mode),
        ("GlobalTableSourceArn", &request.global_table_source_arn),
    ])?;
    let classes = ["STANDARD", "STANDARD_INFREQUENT_ACCESS"];
    if checks::one_of(request.table_class.as_ref(), "tableClass", &classes)? != "STANDARD" {
        return Err(Error::unsupported("TableClass STANDARD_INFREQUENT_ACCESS"));
    }
    let stream = request.stream_specification.as_ref();
    if stream.is_some_and(|stream| checks::flag(stream.0.stream_enabled)) {
        return Err(Error::unsupported("StreamSpecification"));
    }
    let name = checks::table_name(request.table_name.as_ref(), scope)?;
    let attributes = schema::attributes(request.attribute_definitions.as_ref())?;
    let keys = schema::keys(request.key_schema.as_ref(), &attributes)?;
    let modes = ["PROVISIONED", "PAY_PER_REQUEST"];
    let on_demand =
        checks::one_of(request.billing_mode.as_ref(), "billingMode", &modes)? == "PAY_PER_REQUEST";
    let throughput = schema::throughput(request.provisioned_throughput.as_ref())?;
    schema::check_billing(on_demand, throughput, None)?;
    let now = leases.clock.now();
    let until = now.plus(leases.options.create_delay);
    let mut indexes = Vec::new();
    for one in request.global_secondary_indexes.iter().flat_map(|list| &list.0) {
        indexes.push(schema::index(&one.0, &attributes, on_demand, State::Creating(until))?);
    }
    let names: BTreeSet<&String> = indexes.iter().map(|index| &index.name).collect();
    if names.len() < indexes.len() {
        return Err(Error::invalid("Duplicate index name"));
    }
    if indexes.len() > INDEXES_MAX {
        return Err(Error::invalid("GlobalSecondaryIndex count exceeds the per-table limit of 20"));
    }
    schema::check_all_used(&attributes, &keys, &indexes)?;
    let mut table = Table {
        scope: scope.clone(),
        name,
        id: uuid::Builder::from_random_bytes(leases.random.bytes()).into_uuid().to_string(),
        created: now,
        state: State::Creating(until),
        keys,
        attributes,
        throughput,
        on_demand_since: on_demand.then_some(now),
        indexes,
        tags: Default::default(),
        deletion_protection: checks::flag(request.deletion_protection_enabled),
        expiry: None,
    };
    checks::add_tags(&mut table.tags, request.tags.as_ref())?;
    Ok(table)
}
