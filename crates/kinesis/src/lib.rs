//! hydrant kinesis.
