//! What a source follows: a stream of changes, and the catalog that it is read with.

use hydrant_core::capture::{CapturedTable, Lsn};
use hydrant_postgres::{Arrival, Replication, Server, ServerError};

use crate::relation::Relation;
use crate::source::columns::{self, Columns};

/// A stream of changes, and the catalog behind it.
pub(crate) trait Feed: Send {
    /// What comes next. Cancelling loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Arrival, ServerError>> + Send;

    /// Tells what arrived and what is stored.
    fn confirm(
        &mut self,
        received: Lsn,
        flushed: Lsn,
        reply: bool,
    ) -> impl Future<Output = Result<(), ServerError>> + Send;

    /// A table's columns as `relation` tells them, with what only the catalog knows.
    fn columns(
        &mut self,
        relation: &Relation,
        known: &CapturedTable,
    ) -> impl Future<Output = Result<Columns, ServerError>> + Send;

    /// What the catalog has of a table now and the stream does not tell; `None` if the publications
    /// do not have the table any more.
    fn catalog(
        &mut self,
        oid: u32,
    ) -> impl Future<Output = Result<Option<Catalog>, ServerError>> + Send;
}

/// What only the catalog knows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    /// Columns of the primary key, in its order.
    pub(crate) key: Vec<String>,
    /// By which rows of the catalog the table is published.
    pub(crate) memberships: Vec<u32>,
}

/// The feed of a server.
pub(crate) struct Live {
    pub(crate) replication: Replication,
    pub(crate) server: Server,
    pub(crate) publications: Vec<String>,
}

impl Feed for Live {
    async fn next(&mut self) -> Result<Arrival, ServerError> {
        self.replication.next().await
    }

    async fn confirm(
        &mut self,
        received: Lsn,
        flushed: Lsn,
        reply: bool,
    ) -> Result<(), ServerError> {
        self.replication.confirm(received, flushed, reply).await
    }

    async fn columns(
        &mut self,
        relation: &Relation,
        known: &CapturedTable,
    ) -> Result<Columns, ServerError> {
        let catalog = hydrant_postgres::table_columns(&mut self.server, relation.oid).await?;
        let mut told = columns::told(relation, known, &catalog);
        for column in told.columns.iter_mut().filter(|c| c.type_name.is_empty()) {
            // One that the catalog has another type for by now.
            let (oid, modifier) = (column.type_oid, column.type_modifier);
            let sql = format!("SELECT pg_catalog.format_type({oid}::oid, {modifier})");
            let rows = self.server.query(&sql).await?;
            let name = rows.first().and_then(|row| row.text(0));
            column.type_name = name.unwrap_or_default().to_owned();
        }
        Ok(told)
    }

    async fn catalog(&mut self, oid: u32) -> Result<Option<Catalog>, ServerError> {
        let memberships =
            hydrant_postgres::memberships(&mut self.server, &self.publications, oid).await?;
        if memberships.is_empty() {
            return Ok(None);
        }
        let key = hydrant_postgres::primary_key(&mut self.server, oid).await?;
        Ok(Some(Catalog { key, memberships }))
    }
}
