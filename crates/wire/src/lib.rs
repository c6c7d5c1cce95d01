//! hydrant wire.
