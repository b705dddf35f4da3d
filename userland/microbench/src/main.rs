//! Costs of single kernel operations, as lines `name value unit`; each takes about a second. `microbench NAME...` runs
//! those whose names contain one of the words. The same binary runs under every kernel that is compared.

mod memory;
mod process;

use std::time::{Duration, Instant};

/// How long one operation is repeated.
const SPAN: Duration = Duration::from_millis(800);
/// Repetitions at least, however slow the kernel.
const FEWEST: u32 = 5;

/// A measured operation.
type Bench = (&'static str, &'static str, fn() -> Option<f64>);

const BENCHES: &[Bench] = &[
    ("null_syscall", "ns", null_syscall),
    ("pipe_pingpong", "us", process::pipe_pingpong),
    ("fork_exec_static", "us", process::fork_exec_static),
    ("fork_exec_dynamic", "us", process::fork_exec_dynamic),
    ("fork_exec_200mib", "us", process::fork_exec_200mib),
    ("fork_exit", "us", process::fork_exit),
    ("posix_spawn_exec", "us", process::spawn_exec),
    ("thread_create_join", "us", process::thread_create_join),
    ("touch_seq", "ns", memory::touch_seq),
    ("touch_mib", "ns", memory::touch_mib),
    ("mmap_munmap", "ns", memory::mmap_munmap),
    ("open_close", "ns", open_close),
    ("read_4k", "ns", read_4k),
    ("signal", "ns", process::signal_self),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|w| w == "exit") {
        return;
    }
    for (name, unit, f) in BENCHES {
        if words.is_empty() || words.iter().any(|w| name.contains(w.as_str())) {
            match f() {
                Some(ns) => println!("{name} {:.3} {unit}", if *unit == "us" { ns / 1e3 } else { ns }),
                None => println!("# {name} not possible here: {}", std::io::Error::last_os_error()),
            }
        }
    }
}

/// Nanoseconds of one `f`, repeated for [`SPAN`]; the median of ten parts.
fn per_op(mut f: impl FnMut() -> bool) -> Option<f64> {
    let mut parts = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        let mut n = 0u32;
        while n < FEWEST.div_ceil(10) || start.elapsed() < SPAN / 10 {
            // In small batches, so that reading the clock does not count.
            for _ in 0..if n > 100 { 20 } else { 1 } {
                if !f() {
                    return None;
                }
                n += 1;
            }
        }
        parts.push(start.elapsed().as_nanos() as f64 / f64::from(n));
    }
    parts.sort_by(f64::total_cmp);
    Some(parts[parts.len() / 2])
}

fn null_syscall() -> Option<f64> {
    // SAFETY: getppid has no arguments and touches no memory.
    per_op(|| unsafe { libc::syscall(libc::SYS_getppid) } >= 0)
}

fn open_close() -> Option<f64> {
    per_op(|| std::fs::File::open("/").is_ok())
}

fn read_4k() -> Option<f64> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open("/proc/self/exe").or_else(|_| std::fs::File::open("/bin/sh")).ok()?;
    let mut buf = [0u8; 4096];
    per_op(|| file.read_at(&mut buf, 0).is_ok())
}
