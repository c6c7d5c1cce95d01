//! hydrant delivery.
