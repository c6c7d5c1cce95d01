//! The places a delivery stream delivers to. Each is a module with the same files: `config` checks
//! the settings, `encode` makes bytes of a batch, `error` says what a failure means, `mod` delivers.

pub mod s3;
