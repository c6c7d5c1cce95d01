//! What a source follows: a stream of changes, and the catalog that it is read with.

use hydrant_core::capture::{Lsn, PgColumn};

use crate::relation::Relation;
use crate::server::{self, Arrival, Replication, Server, ServerError};

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
        known: &[PgColumn],
    ) -> impl Future<Output = Result<Vec<PgColumn>, ServerError>> + Send;

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
        known: &[PgColumn],
    ) -> Result<Vec<PgColumn>, ServerError> {
        let key = server::primary_key(&mut self.server, relation.oid).await?;
        let mut columns = columns(relation, known, &key);
        if columns.is_empty() {
            return Ok(columns);
        }
        let asked = columns.iter().enumerate();
        let asked: Vec<String> = asked
            .map(|(n, c)| {
                let (oid, modifier) = (c.type_oid, c.type_modifier);
                format!("({n}, pg_catalog.format_type({oid}::oid, {modifier}))")
            })
            .collect();
        let sql = format!(
            "SELECT v.name, coalesce(a.attnotnull, false) FROM (VALUES {}) v(n, name) \
             LEFT JOIN (VALUES {}) c(n, attname) ON c.n = v.n \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = {}::oid \
             AND a.attname = c.attname AND NOT a.attisdropped ORDER BY v.n",
            asked.join(", "),
            columns
                .iter()
                .enumerate()
                .map(|(n, c)| format!("({n}, {}::name)", server::literal(&c.name)))
                .collect::<Vec<_>>()
                .join(", "),
            relation.oid
        );
        let rows = self.server.query(&sql).await?;
        for (column, row) in columns.iter_mut().zip(&rows) {
            column.type_name = row.text(0).unwrap_or_default().to_owned();
            column.nullable = row.text(1) != Some("t");
        }
        Ok(columns)
    }

    async fn catalog(&mut self, oid: u32) -> Result<Option<Catalog>, ServerError> {
        let memberships = server::memberships(&mut self.server, &self.publications, oid).await?;
        if memberships.is_empty() {
            return Ok(None);
        }
        let key = server::primary_key(&mut self.server, oid).await?;
        Ok(Some(Catalog { key, memberships }))
    }
}

/// Columns as the stream tells them, with the names of types and what else is known from before.
pub(crate) fn columns(relation: &Relation, known: &[PgColumn], key: &[String]) -> Vec<PgColumn> {
    let column = |column: &crate::relation::Column| {
        let before = known.iter().find(|before| before.name == column.name);
        let same = before.filter(|before| before.type_oid == column.type_oid);
        let place = key.iter().position(|name| *name == column.name);
        PgColumn {
            name: column.name.clone(),
            type_oid: column.type_oid,
            type_name: same.map(|before| before.type_name.clone()).unwrap_or_default(),
            type_modifier: column.type_modifier,
            key: place.and_then(|n| u16::try_from(n + 1).ok()),
            nullable: before.is_none_or(|before| before.nullable),
        }
    };
    relation.columns.iter().map(column).collect()
}
