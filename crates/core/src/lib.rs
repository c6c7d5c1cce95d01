//! The nouns of hydrant and the ports its services meet at. No sockets, no disk.
//!
//! Services (`kinesis`, `delivery`, `bucket`, `warehouse`, `cdc`) never import each other: what one
//! leaves for another is a record in the log ([`log`]), a row in the control store ([`control`]) or
//! an object in a bucket, and the shape of each of those is written down here.

pub mod arn;
pub mod bucket;
pub mod capture;
pub mod catalog;
pub mod clock;
pub mod control;
pub mod destination;
pub mod encryption;
pub mod hash;
pub mod limits;
pub mod log;
pub mod monitoring;
pub mod names;
pub mod notify;
pub mod policy;
pub mod random;
pub mod record;
pub mod sequence;
pub mod warehouse;

pub use clock::{Clock, SystemClock, Timestamp};
pub use random::Random;
