//! Hostile guest programs: every attack that a guest thread can try against its own stub and the kernel.
fn main() {}
