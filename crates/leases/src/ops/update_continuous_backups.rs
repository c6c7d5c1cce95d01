//! `UpdateContinuousBackups`: they can be kept off, not switched on.

use bytes::Bytes;
use hydrant_wire::Call;
use hydrant_wire::shape::{Flag, Integer, Structure, Text};
use serde::Deserialize;

use super::describe_continuous_backups::answer;
use crate::Leases;
use crate::checks;
use crate::error::Error;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    table_name: Option<Text<'a>>,
    point_in_time_recovery_specification: Option<Structure<Specification>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Specification {
    point_in_time_recovery_enabled: Option<Flag>,
    recovery_period_in_days: Option<Integer>,
}

pub(super) async fn run(leases: &Leases, call: &Call) -> Result<Bytes, Error> {
    let request: Request<'_> = call.read()?;
    let at = "pointInTimeRecoverySpecification";
    let wanted = checks::required(request.point_in_time_recovery_specification, at)?.0;
    checks::number(wanted.recovery_period_in_days, "recoveryPeriodInDays", 1, 35)?;
    let at = "pointInTimeRecoverySpecification.pointInTimeRecoveryEnabled";
    if checks::required(wanted.point_in_time_recovery_enabled, at)?.0 {
        return Err(Error::validation(
            "hydrant keeps no backups of a table that could be restored to a point in time: leave \
             PointInTimeRecoveryEnabled false (KCL: leaseTablePitrEnabled and pointInTimeRecoveryEnabled).",
        ));
    }
    answer(leases, call, request.table_name.as_ref()).await
}
