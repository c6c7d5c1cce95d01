//! hydrant destinations.
