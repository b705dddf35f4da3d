//! Costs of single kernel operations, as `name value unit` lines.
fn main() {}
