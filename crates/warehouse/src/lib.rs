//! hydrant warehouse.
