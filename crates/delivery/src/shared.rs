//! What every worker and operation of the process shares.

use std::collections::HashMap;
use std::sync::Arc;

use hydrant_core::capture::Capture;
use hydrant_core::catalog::StreamCatalog;
use hydrant_core::clock::Clock;
use hydrant_core::control::ControlStore;
use hydrant_core::destination::MakeDestination;
use hydrant_core::log::{LogEngine, ShardUid};
use hydrant_core::random::Random;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::catalog::DeliveryCatalog;
use crate::worker::Signals;
use crate::{Options, Ports};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) struct Shared {
    pub(crate) log: Arc<dyn LogEngine>,
    pub(crate) control: Arc<dyn ControlStore>,
    pub(crate) streams: Arc<StreamCatalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<Random>,
    pub(crate) make_destination: MakeDestination,
    pub(crate) capture: Option<Arc<dyn Capture>>,
    pub(crate) options: Options,
    pub(crate) catalog: DeliveryCatalog,
    /// One permit for each MiB of batches in memory.
    pub(crate) in_flight: Semaphore,
    pub(crate) signals: Mutex<HashMap<ShardUid, Arc<Signals>>>,
}

impl Shared {
    pub(crate) fn new(ports: Ports, options: Options, catalog: DeliveryCatalog) -> Self {
        let Ports { log, control, streams, clock, random, make_destination, capture } = ports;
        let mibs = mibs_max(&options);
        Self {
            log,
            control,
            streams,
            clock,
            random,
            make_destination,
            capture,
            options,
            catalog,
            in_flight: Semaphore::new(mibs as usize),
            signals: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn mibs_in_flight_max(&self) -> u64 {
        mibs_max(&self.options)
    }
}

/// At least one batch of any size must fit, so a larger one counts as all there is.
fn mibs_max(options: &Options) -> u64 {
    (options.bytes_in_flight_max / MIB).clamp(1, u64::from(u32::MAX))
}
