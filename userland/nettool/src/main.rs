//! Network load and latency from inside a guest.
fn main() {}
