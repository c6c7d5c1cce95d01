//! hydrant bucket.
