//! A client of PostgreSQL servers: connections, what the server allows, its tables, slots and rows.
//! Nothing here knows a stream.
//!
//! One wire client serves ordinary and replication connections alike, so both log in, encrypt, pin
//! their session and classify errors the same way. A connection has no task of its own: it does
//! something only while somebody awaits it, and dropping it closes its socket.

mod check;
mod connect;
mod error;
mod publications;
mod quote;
mod replication;
mod slot;
mod snapshot;
mod tables;
mod tls;
mod wire;

pub use check::{Facts, Following, Progress, check};
pub use connect::{Access, Server};
pub use error::ServerError;
pub use publications::{members, memberships};
pub use replication::{Arrival, CreatedSlot, Identity, Replication, SlotLifetime};
pub use slot::{SlotRow, Status, drop_slot, gone, lost, release, status, waiting_for};
pub use snapshot::{Piece, READERS_MAX, Reading, Snapshot};
pub use tables::{
    PgType, Published, PublishedTable, TableColumns, TypeKind, primary_key, published,
    table_columns, types,
};
pub use wire::Row;
