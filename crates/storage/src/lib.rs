//! hydrant storage.
