//! The command line of `party`.
fn main() {}
