//! Hostile guest programs: what a guest thread may try against its own stub and the kernel (docs/security.md).
//!
//! `hostile ATTACK` runs one attack, `hostile [all]` each of them beside a witness process that computes and checks a sum all the
//! time and must end undisturbed. Whatever an attack does to itself (SIGSEGV, SIGSYS in its children) is fine; harm to the witness,
//! a hang or a dead kernel is not. On the host's Linux every attack ends without harm as well.
//! Files: `run` (children, time limits, witness), `jump`, `scribble`, `frames`, `hide`, `calls`, `entry`, `thieves`.
#![allow(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    missing_docs
)]
#![allow(clippy::missing_safety_doc)]

mod calls;
mod entry;
mod frames;
mod hide;
mod jump;
mod run;
mod scribble;
mod thieves;

/// Where Kibble's stubs have their text and their thread blocks unless told otherwise (arch::user::layout).
pub const STUB: u64 = 0x7ff0_0000_0000;
/// First thread block and the distance between two.
pub const BLOCKS: u64 = STUB + 0x1000_0000;
pub const BLOCK_LEN: u64 = 0x8000;

type Attack = (&'static str, &'static str, fn(&[String]));

const ATTACKS: &[Attack] = &[
    ("jump", "[FROM TO]: jumps to every byte of a range (hex), each in its own child", jump::run),
    (
        "scribble",
        "[N]: writes over all memory that is not its own while siblings clone and map N times",
        scribble::run,
    ),
    ("sigreturn", "rt_sigreturn with hostile frames, masks, segments and vector state", frames::run),
    ("altstack", "signals on stacks that lead nowhere, into the stub or into each other", frames::altstacks),
    ("hide", "threads that block the host's signals through the stub's own sigreturn", hide::run),
    ("closefds", "closes all descriptors and goes on", thieves::close_all),
    ("killtids", "signals to the thread ids 1..65535 of its own group", thieves::kill_tids),
    ("calls", "bad pointers to every call in the table, from many threads", calls::run),
    ("entry", "int 0x80, x32 numbers, sysenter, the vsyscall page, odd arch_prctl", entry::run),
    ("mapover", "maps, unmaps and protects over the stub's own pages", thieves::map_over),
    ("filters", "seccomp filters and ptrace against its own supervision", thieves::filters),
    ("exhaust", "threads, descriptors, mappings and processes until refused", thieves::exhaust),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = args.first().map_or("all", String::as_str);
    let rest = args.get(1..).unwrap_or(&[]);
    if name == "all" {
        std::process::exit(run::all(ATTACKS));
    }
    match ATTACKS.iter().find(|a| a.0 == name) {
        Some((_, _, f)) => f(rest),
        None => {
            eprintln!("hostile: unknown attack {name:?}; there are:");
            ATTACKS.iter().for_each(|(n, t, _)| eprintln!("  {n:10} {t}"));
            std::process::exit(2);
        }
    }
}
