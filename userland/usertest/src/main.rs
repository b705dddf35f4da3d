//! ABI tests of the guest: one static binary, many named tests, each in a forked child with a time limit.
//!
//! `usertest list`, `usertest run [FILTER...]` (TAP on stdout, exit 1 if one fails), `usertest one NAME` (no fork, for
//! bringing a kernel up). The same binary must pass on the host's Linux before its word counts about ours.
//! A guest program speaks to the kernel through raw libc calls, so `unsafe` is the subject here and not an exception.
#![allow(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![allow(clippy::missing_safety_doc, clippy::manual_dangling_ptr, missing_docs)]

#[macro_use]
mod check;
mod badptr;
mod cow;
mod cred;
mod dir;
mod exec;
mod file;
mod fpu;
mod futex;
mod genetlink;
mod memory;
mod memory_file;
mod pipes;
mod poll;
mod process;
mod procfs;
mod signal;
mod signal_more;
mod sockdiag;
mod socket;
mod socket_udp;
mod thread;
mod time;
mod unix;

use check::{Outcome, Test};
use std::io::Write;

/// Every family in the order in which a young kernel should learn them.
fn all() -> Vec<(&'static str, &'static Test)> {
    let families: &[(&str, &[Test])] = &[
        ("process", process::TESTS),
        ("pipes", pipes::TESTS),
        ("exec", exec::TESTS),
        ("memory", memory::TESTS),
        ("memory_file", memory_file::TESTS),
        ("cow", cow::TESTS),
        ("signal", signal::TESTS),
        ("signal_more", signal_more::TESTS),
        ("fpu", fpu::TESTS),
        ("thread", thread::TESTS),
        ("futex", futex::TESTS),
        ("file", file::TESTS),
        ("dir", dir::TESTS),
        ("poll", poll::TESTS),
        ("time", time::TESTS),
        ("cred", cred::TESTS),
        ("sockdiag", sockdiag::TESTS),
        ("socket", socket::TESTS),
        ("socket_udp", socket_udp::TESTS),
        ("genetlink", genetlink::TESTS),
        ("unix", unix::TESTS),
        ("procfs", procfs::TESTS),
        ("badptr", badptr::TESTS),
    ];
    families.iter().flat_map(|(f, ts)| ts.iter().map(move |t| (*f, t))).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("list") => {
            for (family, t) in all() {
                println!("{family}/{}", t.name);
            }
        }
        Some("run") | None => {
            let mut limit_s = 20;
            let mut filters = Vec::new();
            for a in args.iter().skip(2) {
                match a.strip_prefix("--limit=") {
                    Some(v) => limit_s = v.parse().expect("--limit=SECONDS"),
                    None => filters.push(a.clone()),
                }
            }
            std::process::exit(run(&filters, limit_s));
        }
        Some("one") => {
            let want = args.get(2).expect("usertest one FAMILY/NAME");
            let (_, t) = all()
                .into_iter()
                .find(|(f, t)| format!("{f}/{}", t.name) == *want)
                .expect("no test of that name");
            check::enter_scratch();
            unsafe { (t.run)() };
            check::leave_scratch();
            println!("ok");
        }
        Some("helper") => std::process::exit(exec::helper(&args[2..])),
        Some(other) => {
            eprintln!("usertest: unknown command {other:?}: expected list, run [FILTER...] or one NAME");
            std::process::exit(2);
        }
    }
}

fn run(filters: &[String], limit_s: u64) -> i32 {
    let tests: Vec<_> = all()
        .into_iter()
        .map(|(f, t)| (format!("{f}/{}", t.name), t))
        .filter(|(n, _)| filters.is_empty() || filters.iter().any(|x| n.contains(x.as_str())))
        .collect();
    println!("TAP version 13\n1..{}", tests.len());
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (i, (name, t)) in tests.iter().enumerate() {
        let n = i + 1;
        // What is on its way must be visible if the kernel dies under it.
        print!("# {name}\r\n");
        let _ = std::io::stdout().flush();
        match check::run_forked(t, limit_s) {
            Outcome::Pass => {
                passed += 1;
                println!("ok {n} {name}");
            }
            Outcome::Skip => {
                skipped += 1;
                println!("ok {n} {name} # SKIP");
            }
            Outcome::Fail(why) => {
                failed += 1;
                println!("not ok {n} {name} # {why}");
            }
        }
    }
    println!("# usertest: {passed} passed, {failed} failed, {skipped} skipped");
    i32::from(failed > 0)
}
