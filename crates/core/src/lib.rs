//! hydrant core.
