//! hydrant testkit.
