//! The operations, one file each, named as AWS names them.

mod create_table;
mod delete_item;
mod delete_table;
mod describe_continuous_backups;
mod describe_table;
mod describe_time_to_live;
mod description;
mod get_item;
mod list_tables;
mod list_tags_of_resource;
mod put_item;
mod query;
mod scan;
mod schema;
mod tag_resource;
mod transact_write_items;
mod untag_resource;
mod update_continuous_backups;
mod update_item;
mod update_table;
mod update_time_to_live;
mod whole_item;
mod write;

use hydrant_core::control::{ControlError, Write};
use hydrant_core::names::Scope;
use hydrant_wire::{Call, Reply};

use crate::Leases;
use crate::error::Error;
use crate::rows;
use crate::table::Table;

/// What the API has (as of November 2026) beyond the operations of this crate.
const UNSUPPORTED: [&str; 36] = [
    "BatchExecuteStatement",
    "BatchGetItem",
    "BatchWriteItem",
    "CreateBackup",
    "CreateGlobalTable",
    "DeleteBackup",
    "DeleteResourcePolicy",
    "DescribeBackup",
    "DescribeContributorInsights",
    "DescribeEndpoints",
    "DescribeExport",
    "DescribeGlobalTable",
    "DescribeGlobalTableSettings",
    "DescribeImport",
    "DescribeKinesisStreamingDestination",
    "DescribeLimits",
    "DescribeTableReplicaAutoScaling",
    "DisableKinesisStreamingDestination",
    "EnableKinesisStreamingDestination",
    "ExecuteStatement",
    "ExecuteTransaction",
    "ExportTableToPointInTime",
    "GetResourcePolicy",
    "ImportTable",
    "ListBackups",
    "ListContributorInsights",
    "ListExports",
    "ListGlobalTables",
    "ListImports",
    "PutResourcePolicy",
    "RestoreTableFromBackup",
    "RestoreTableToPointInTime",
    "TransactGetItems",
    "UpdateContributorInsights",
    "UpdateKinesisStreamingDestination",
    "UpdateTableReplicaAutoScaling",
];

/// Runs the operation of that name.
pub(crate) async fn run(leases: &Leases, call: &Call) -> Result<Reply, Error> {
    let whole = match call.operation.as_str() {
        "UpdateItem" => update_item::run(leases, call).await,
        "GetItem" => get_item::run(leases, call).await,
        "PutItem" => put_item::run(leases, call).await,
        "CreateTable" => create_table::run(leases, call).await,
        "DeleteItem" => delete_item::run(leases, call).await,
        "DeleteTable" => delete_table::run(leases, call).await,
        "DescribeContinuousBackups" => describe_continuous_backups::run(leases, call).await,
        "DescribeTable" => describe_table::run(leases, call).await,
        "DescribeTimeToLive" => describe_time_to_live::run(leases, call).await,
        "ListTables" => list_tables::run(leases, call).await,
        "ListTagsOfResource" => list_tags_of_resource::run(leases, call).await,
        "Query" => query::run(leases, call).await,
        "Scan" => scan::run(leases, call).await,
        "TagResource" => tag_resource::run(leases, call).await,
        "TransactWriteItems" => transact_write_items::run(leases, call).await,
        "UntagResource" => untag_resource::run(leases, call).await,
        "UpdateContinuousBackups" => update_continuous_backups::run(leases, call).await,
        "UpdateTable" => update_table::run(leases, call).await,
        "UpdateTimeToLive" => update_time_to_live::run(leases, call).await,
        other if UNSUPPORTED.contains(&other) => Err(Error::UnsupportedOperation(format!(
            "hydrant does not support {other}: its tables are for leases."
        ))),
        _ => Err(Error::UnknownOperation),
    };
    whole.map(Reply::from)
}

/// Times that a change of a table's row is decided on again because another was faster.
const ATTEMPTS_MAX: usize = 32;

/// No table of this name, for an operation on tables.
fn no_table(name: &str) -> Error {
    Error::ResourceNotFound(format!("Requested resource not found: Table: {name} not found"))
}

/// Changes a table's row to what `decide` makes of it as it is now, and answers with that.
async fn change_table(
    leases: &Leases,
    scope: &Scope,
    name: &str,
    decide: impl Fn(&mut Table) -> Result<(), Error> + Send + Sync,
) -> Result<Table, Error> {
    for _ in 0..ATTEMPTS_MAX {
        let found = leases.table(scope, name).await?;
        let (mut table, version) = found.ok_or_else(|| no_table(name))?;
        let before = table.clone();
        decide(&mut table)?;
        if table == before {
            return Ok(table);
        }
        let write = Write::update(rows::table(scope, name), version, &table);
        match leases.control.commit(vec![write]).await {
            Ok(_) => return Ok(table),
            Err(ControlError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Internal(format!("{name} was changed by others {ATTEMPTS_MAX} times in a row")))
}
