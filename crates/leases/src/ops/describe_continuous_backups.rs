//! `DescribeContinuousBackups`: there are none.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::Text;
use serde::{Deserialize, Serialize};

use crate::Leases;
use crate::checks;
use crate::error::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    continuous_backups_description: Description,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    continuous_backups_status: &'static str,
    point_in_time_recovery_description: PointInTimeRecovery,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PointInTimeRecovery {
    point_in_time_recovery_status: &'static str,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    answer(leases, call, request.table_name.as_ref()).await
}

/// What there is to say of a table's backups.
pub(super) async fn answer(
    leases: &Leases,
    call: &Call,
    table: Option<&Text<'_>>,
) -> Result<Bytes, Error> {
    let name = checks::table_name(table, call.scope())?;
    if leases.table(call.scope(), &name).await?.is_none() {
        let text = format!("Table not found: {name}");
        return Err(Error::TableNotFound(text));
    }
    let recovery = PointInTimeRecovery { point_in_time_recovery_status: "DISABLED" };
    Ok(call.write(&Reply {
        continuous_backups_description: Description {
            continuous_backups_status: "DISABLED",
            point_in_time_recovery_description: recovery,
        },
    })?)
}
