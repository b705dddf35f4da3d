//! Writes over everything that is not its own memory while siblings clone and map.
//!
//! A scribbler that meets a live register frame kills its own process within a few rounds, which is its right. So the rounds are
//! counted in a page that all processes share and a new process takes over where one has died. Each process first leaves alone
//! the places where frames lie, for a number of rounds that differs from process to process, and then writes everywhere: the
//! rounds are reached in long stretches, and dozens of processes die by their own frames on the way.
use crate::run::{End, Tally, errno, say};
use crate::{BLOCK_LEN, BLOCKS, STUB};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Rounds of cloning and mapping unless told otherwise.
const ROUNDS: u64 = 10_000;
/// Time for all of them.
const LIMIT: Duration = Duration::from_secs(110);
/// A process without a round for so long has led its own threads astray: its turn is over.
const STALLED: Duration = Duration::from_secs(3);
/// How long a scribbler writes over what it has found before it searches again.
const HOT: Duration = Duration::from_millis(10);
/// Place in a block that no frame lies on.
const MIDDLE: u64 = 0x3800;
/// Rounds for which a process leaves frames alone, in turn.
const SPARED: [u64; 8] = [0, 300, 20, 1000, 0, 100, 600, 50];

static STOP: AtomicBool = AtomicBool::new(false);
/// Whether the scribblers leave the places of frames alone.
static SPARE: AtomicBool = AtomicBool::new(false);

/// What all processes of a run count together.
#[derive(Default)]
struct Shared {
    /// Rounds begun, so that no two cloners do the same one.
    begun: AtomicU64,
    /// Rounds done.
    rounds: AtomicU64,
    /// Words written outside of the writers' own memory.
    writes: AtomicU64,
    /// Those among them written while frames were no longer spared.
    wild: AtomicU64,
}

extern "C" fn step_over(_: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        let g = &mut (*uc.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        // The access in `poke` keeps the address to go on at in r9 and its result in r8.
        if g[libc::REG_R10 as usize] as u64 == MAGIC {
            g[libc::REG_RIP as usize] = g[libc::REG_R9 as usize];
            g[libc::REG_R8 as usize] = 1;
        } else {
            libc::_exit(100);
        }
    }
}

const MAGIC: u64 = 0x5c21_bb1e_5c21_bb1e;

/// Stores `value` at `a`; whether it went through.
unsafe fn poke(a: u64, value: u64) -> bool {
    let failed: u64;
    std::arch::asm!(
        "lea r9, [rip + 2f]", "xor r8d, r8d", "mov qword ptr [{a}], {v}", "2:",
        a = in(reg) a, v = in(reg) value, in("r10") MAGIC, out("r8") failed, out("r9") _,
    );
    failed == 0
}

unsafe fn guard() {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let p = libc::mmap(std::ptr::null_mut(), 65536, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    let ss = libc::stack_t { ss_sp: p, ss_flags: 0, ss_size: 65536 };
    libc::sigaltstack(&ss, std::ptr::null_mut());
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = step_over as *const () as usize;
    sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    libc::sigaction(libc::SIGSEGV, &sa, std::ptr::null_mut());
    libc::sigaction(libc::SIGBUS, &sa, std::ptr::null_mut());
}

/// The process's own mappings as /proc tells them; what lies outside and can be written is the stub's.
fn own() -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let range = |l: &str| {
        let (s, e) = l.split_whitespace().next()?.split_once('-')?;
        Some((u64::from_str_radix(s, 16).ok()?, u64::from_str_radix(e, 16).ok()?))
    };
    maps.lines().filter_map(range).collect()
}

/// Addresses to try: the stub's pages, the thread blocks, and a coarse scan of everything else above the program's own half.
fn targets() -> Vec<u64> {
    let mut v: Vec<u64> = (0..0x400).map(|i| STUB + i * 0x1000).collect();
    for n in 0..2048 {
        let b = BLOCKS + n * BLOCK_LEN;
        v.extend([
            b - 8,
            b,
            b + 0x1000,
            b + BLOCK_LEN / 2,
            b + BLOCK_LEN - 0x1000,
            b + BLOCK_LEN - 0x400,
            b + BLOCK_LEN - 8,
        ]);
    }
    v.extend((0..0x1000).map(|i| STUB + (i << 28)));
    v.extend((0..0x800u64).map(|i| i << 36));
    let own = own();
    v.retain(|a| !own.iter().any(|(s, e)| s <= &(a + 8) && a < e));
    v
}

/// Whether the word at `a` lies where register frames of a block do: at its top, where the host lays them, and at the
/// places of a thread's first frame and its vector state.
fn in_frame(a: u64) -> bool {
    a >= BLOCKS && !matches!((a - BLOCKS) % BLOCK_LEN, 0x3000..0x4000 | 0x4800..0x5000)
}

/// Writes to all of the page of `a`; how many words went through.
unsafe fn flood(a: u64, value: u64, spare: bool) -> u64 {
    let page = a & !0xfff;
    let mut n = 0;
    for at in (page..page + 4096).step_by(8) {
        if spare && in_frame(at) {
            continue;
        }
        if !poke(at, value.wrapping_add(at)) {
            break;
        }
        n += 1;
    }
    n
}

/// Looks everywhere for what can be written, and writes over what was found many times before it looks again.
fn scribbler(seed: u64, shared: &Shared) {
    unsafe { guard() };
    let targets = targets();
    // The blocks of this process's threads are most likely among the first ones, so these are tried again and again and all
    // other places in turn: a try that fails costs a trap and a signal.
    let near: Vec<u64> = (0..48).map(|n| BLOCKS + n * BLOCK_LEN + MIDDLE).collect();
    let mut value = seed;
    let mut far = targets.chunks(100).cycle();
    while !STOP.load(Relaxed) {
        let mut found = Vec::new();
        write_over(&near, &mut value, shared, |a| {
            found.extend((0..BLOCK_LEN).step_by(4096).map(|page| a - MIDDLE + page));
        });
        write_over(far.next().unwrap_or(&[]), &mut value, shared, |_| ());
        let since = Instant::now();
        while since.elapsed() < HOT && !STOP.load(Relaxed) {
            write_over(&found, &mut value, shared, |_| ());
        }
    }
}

/// Tries each of `places` and floods the page of those that can be written, which `hit` is told.
fn write_over(places: &[u64], value: &mut u64, shared: &Shared, mut hit: impl FnMut(u64)) {
    for &a in places {
        if STOP.load(Relaxed) {
            return;
        }
        *value = value.wrapping_mul(6364136223846793005).wrapping_add(1);
        // Values that look like addresses, numbers of calls and small integers in turn.
        let v = [*value, STUB + (*value & 0xf_ffff), *value & 0xff, 0][(*value >> 33) as usize % 4];
        let spare = SPARE.load(Relaxed);
        // While frames are spared a block is looked for by a word that no frame has.
        let probe = if spare && in_frame(a) { a - (a - BLOCKS) % BLOCK_LEN + MIDDLE } else { a };
        if unsafe { poke(probe, v) } {
            let n = 1 + unsafe { flood(probe, v, spare) };
            shared.writes.fetch_add(n, Relaxed);
            if !spare {
                shared.wild.fetch_add(n, Relaxed);
            }
            hit(a);
        }
    }
}

extern "C" fn nothing(_: *mut libc::c_void) -> i32 {
    0
}

/// Does rounds until all processes together have done `n`; from the round `wild_from` of the whole run on, frames are no
/// longer spared.
unsafe fn clones_and_maps(n: u64, wild_from: u64, shared: &Shared) {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let stack = libc::mmap(std::ptr::null_mut(), 65536, prot, anon, -1, 0).cast::<u8>();
    while shared.rounds.load(Relaxed) < n {
        let i = shared.begun.fetch_add(1, Relaxed);
        let p = libc::mmap(std::ptr::null_mut(), 16384, prot, anon, -1, 0);
        if p == libc::MAP_FAILED {
            continue;
        }
        p.cast::<u8>().write_volatile(1);
        libc::mprotect(p, 4096, libc::PROT_READ);
        libc::munmap(p, 16384);
        let pid = libc::clone(
            nothing,
            stack.add(65536).cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            std::ptr::null_mut(),
        );
        if pid < 0 || libc::waitpid(pid, std::ptr::null_mut(), 0) != pid {
            continue;
        }
        if i.is_multiple_of(10) {
            let thread = std::thread::Builder::new().stack_size(32768).spawn(|| {});
            if thread.map(std::thread::JoinHandle::join).is_err() {
                continue;
            }
        }
        if shared.rounds.fetch_add(1, Relaxed) + 1 >= wild_from {
            SPARE.store(false, Relaxed);
        }
    }
}

/// One process of the run: two scribblers and two cloners.
fn process(n: u64, wild_from: u64, shared: &'static Shared) -> ! {
    unsafe { guard() };
    SPARE.store(shared.rounds.load(Relaxed) < wild_from, Relaxed);
    for seed in 0..2 {
        std::thread::spawn(move || scribbler(seed + 77, shared));
    }
    let sibling = std::thread::spawn(move || unsafe {
        guard();
        clones_and_maps(n, wild_from, shared);
    });
    unsafe { clones_and_maps(n, wild_from, shared) };
    let _ = sibling.join();
    STOP.store(true, Relaxed);
    unsafe { libc::_exit(0) }
}

/// Waits for `pid` while its rounds go on and `deadline` has not come.
fn attend(pid: i32, deadline: Instant, shared: &Shared) -> End {
    let mut last = (shared.rounds.load(Relaxed), Instant::now());
    loop {
        let mut s = 0;
        let r = unsafe { libc::waitpid(pid, &mut s, libc::WNOHANG) };
        if r == pid {
            return if libc::WIFSIGNALED(s) {
                End::Signal(libc::WTERMSIG(s))
            } else {
                End::Exit(libc::WEXITSTATUS(s))
            };
        }
        if r < 0 && errno() != libc::EINTR {
            return End::Exit(-1);
        }
        let rounds = shared.rounds.load(Relaxed);
        if rounds != last.0 {
            last = (rounds, Instant::now());
        }
        if last.1.elapsed() > STALLED || Instant::now() > deadline {
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, &mut s, 0);
            }
            return End::Hung;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `scribble [N]`: exit status 1 if the rounds were not reached in time.
pub fn run(args: &[String]) {
    let n: u64 = args.first().and_then(|a| a.parse().ok()).unwrap_or(ROUNDS);
    let page = unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
    };
    if page == libc::MAP_FAILED {
        eprintln!("hostile: no shared page for the counts: {}", std::io::Error::last_os_error());
        std::process::exit(1);
    }
    // A new mapping is zero, which is a sound `Shared`, and it stays for good.
    let shared: &'static Shared = unsafe { &*page.cast::<Shared>() };
    let mut tally = Tally::default();
    let start = Instant::now();
    let deadline = start + LIMIT;
    let mut processes = 0usize;
    while shared.rounds.load(Relaxed) < n && Instant::now() < deadline {
        let spared = SPARED[processes % SPARED.len()];
        let wild_from = shared.rounds.load(Relaxed) + spared;
        let _ = std::io::stdout().flush();
        let end = match unsafe { libc::fork() } {
            -1 => None,
            0 => {
                // What outlives its parent would hold its output open and go on unseen.
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::setrlimit(libc::RLIMIT_CORE, &none);
                }
                process(n, wild_from, shared)
            }
            pid => Some(attend(pid, deadline, shared)),
        };
        if end.is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        tally.add(end);
        processes += 1;
    }
    let rounds = shared.rounds.load(Relaxed);
    tally.print("scribblers");
    say(&format!(
        "{rounds} of {n} rounds of cloning and mapping in {processes} processes and {:.1} s; {} words written outside, {} of them with frames not spared",
        start.elapsed().as_secs_f64(),
        shared.writes.load(Relaxed),
        shared.wild.load(Relaxed)
    ));
    if rounds < n {
        std::process::exit(1);
    }
}
