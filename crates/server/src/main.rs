//! The `hydrant` binary.
fn main() {}
