//! A word to another CPU: run this there, between tasks.

use crate::machine::expect_machine;

pub(crate) type Call = Box<dyn FnOnce() + Send>;

/// Runs `f` on `cpu` soon, between tasks; it must not block. Kicks that CPU if it sleeps.
pub fn call_on(cpu: usize, f: impl FnOnce() + Send + 'static) {
    expect_machine().cpu(cpu).push_call(Box::new(f));
}
