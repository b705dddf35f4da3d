//! The `strace` boot option: a line in the log for each system call.

use super::SyscallArgs;
use super::table::describe;
use crate::Result;
use crate::task::Task;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);

/// Switches tracing on for the life of the kernel.
pub fn enable() {
    ON.store(true, Ordering::Relaxed);
}

/// Runs `call` and logs it if tracing is on.
pub async fn traced(task: &Task, call: &SyscallArgs, run: impl Future<Output = Result<u64>>) -> Result<u64> {
    let result = run.await;
    if ON.load(Ordering::Relaxed) {
        line(task, call, result.map_or_else(|e| format!("-1 {e:?}"), |v| format!("{v:#x}")));
    }
    result
}

/// As [`traced`], for a call that does not return a number.
pub async fn traced_exec<T>(
    task: &Task,
    call: &SyscallArgs,
    run: impl Future<Output = Result<T>>,
) -> Result<T> {
    let result = run.await;
    if ON.load(Ordering::Relaxed) {
        line(task, call, result.as_ref().err().map_or_else(|| "0".into(), |e| format!("-1 {e:?}")));
    }
    result
}

fn line(task: &Task, call: &SyscallArgs, result: String) {
    let mut s = format!("{} ", task.tid());
    match u32::try_from(call.nr).ok().and_then(describe) {
        Some((name, args)) => {
            s.push_str(name);
            s.push('(');
            for (i, ((arg, kind), value)) in args.iter().zip(call.args).enumerate() {
                if i > 0 {
                    s.push_str(", ");
                }
                // Small numbers in decimal, as people read them; the rest in hex.
                match *kind {
                    "Fd" | "i32" => write!(s, "{arg}={}", value as u32 as i32).ok(),
                    _ if value < 4096 => write!(s, "{arg}={value}").ok(),
                    _ => write!(s, "{arg}={value:#x}").ok(),
                };
            }
            s.push(')');
        }
        None => {
            write!(s, "call_{}({:#x}, {:#x}, {:#x})", call.nr, call.args[0], call.args[1], call.args[2]).ok();
        }
    }
    log::info!(target: "strace", "{s} = {result}");
}
