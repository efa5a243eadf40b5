//! The `ironkeep` binary.
fn main() {}
