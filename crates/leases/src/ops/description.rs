//! `TableDescription`: a table as the API shows it.

use hydrant_core::Timestamp;
use hydrant_wire::shape::Epoch;
use serde::Serialize;

use crate::store::Count;
use crate::table::{Index, KeySchema, Projected, Table, Throughput};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TableDescription {
    attribute_definitions: Vec<AttributeDefinition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    billing_mode_summary: Option<BillingModeSummary>,
    creation_date_time: Epoch,
    deletion_protection_enabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    global_secondary_indexes: Vec<IndexDescription>,
    item_count: usize,
    key_schema: Vec<KeySchemaElement>,
    provisioned_throughput: ThroughputDescription,
    table_arn: String,
    table_id: String,
    table_name: String,
    table_size_bytes: usize,
    table_status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AttributeDefinition {
    attribute_name: String,
    attribute_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeySchemaElement {
    attribute_name: String,
    key_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BillingModeSummary {
    billing_mode: &'static str,
    last_update_to_pay_per_request_date_time: Epoch,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ThroughputDescription {
    number_of_decreases_today: u32,
    read_capacity_units: u64,
    write_capacity_units: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Projection {
    #[serde(skip_serializing_if = "Option::is_none")]
    non_key_attributes: Option<Vec<String>>,
    projection_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct IndexDescription {
    #[serde(skip_serializing_if = "Option::is_none")]
    backfilling: Option<bool>,
    index_arn: String,
    index_name: String,
    index_size_bytes: usize,
    index_status: &'static str,
    item_count: usize,
    key_schema: Vec<KeySchemaElement>,
    projection: Projection,
    provisioned_throughput: ThroughputDescription,
}

impl From<Option<Throughput>> for ThroughputDescription {
    fn from(throughput: Option<Throughput>) -> Self {
        let Throughput { read, write } = throughput.unwrap_or(Throughput { read: 0, write: 0 });
        Self {
            number_of_decreases_today: 0,
            read_capacity_units: read,
            write_capacity_units: write,
        }
    }
}

fn key_schema(keys: &KeySchema) -> Vec<KeySchemaElement> {
    let kinds = ["HASH", "RANGE"];
    let elements = keys
        .names()
        .zip(kinds)
        .map(|(name, key_type)| KeySchemaElement { attribute_name: name.clone(), key_type });
    elements.collect()
}

impl TableDescription {
    /// The table at `now`. An index is computed from the table, so its counts are the table's.
    pub(super) fn of(table: &Table, count: Count, now: Timestamp) -> Self {
        let definitions = table.attributes.iter().map(|(name, kind)| AttributeDefinition {
            attribute_name: name.clone(),
            attribute_type: kind.as_str(),
        });
        let indexes = table.indexes.iter().filter(|index| index.exists(now));
        Self {
            attribute_definitions: definitions.collect(),
            billing_mode_summary: table.on_demand_since.map(|since| BillingModeSummary {
                billing_mode: if table.throughput.is_some() {
                    "PROVISIONED"
                } else {
                    "PAY_PER_REQUEST"
                },
                last_update_to_pay_per_request_date_time: Epoch(since),
            }),
            creation_date_time: Epoch(table.created),
            deletion_protection_enabled: table.deletion_protection,
            global_secondary_indexes: indexes.map(|i| describe(i, table, count, now)).collect(),
            item_count: count.items,
            key_schema: key_schema(&table.keys),
            provisioned_throughput: table.throughput.into(),
            table_arn: table.arn().to_string(),
            table_id: table.id.clone(),
            table_name: table.name.clone(),
            table_size_bytes: count.bytes,
            table_status: table.state.status(now),
        }
    }
}

fn describe(index: &Index, table: &Table, count: Count, now: Timestamp) -> IndexDescription {
    let status = index.state.status(now);
    let (projection_type, non_key_attributes) = match &index.projected {
        Projected::All => ("ALL", None),
        Projected::KeysOnly => ("KEYS_ONLY", None),
        Projected::Include(names) => ("INCLUDE", Some(names.clone())),
    };
    IndexDescription {
        backfilling: (status == "CREATING").then_some(true),
        index_arn: format!("{}/index/{}", table.arn(), index.name),
        index_name: index.name.clone(),
        index_size_bytes: count.bytes,
        index_status: status,
        item_count: count.items,
        key_schema: key_schema(&index.keys),
        projection: Projection { non_key_attributes, projection_type },
        provisioned_throughput: index.throughput.into(),
    }
}

/// A reply that holds a table under a name of its own.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Described {
    pub(super) table_description: TableDescription,
}
