//! Writes over everything that is not its own memory while siblings clone and map.
use crate::run::{Tally, child, say};
use crate::{BLOCK_LEN, BLOCKS, STUB};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

static STOP: AtomicBool = AtomicBool::new(false);
static WRITES: AtomicU64 = AtomicU64::new(0);

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

/// Fills a whole page where one store went through.
unsafe fn flood(a: u64, value: u64) {
    let page = a & !0xfff;
    for w in 0..512 {
        if !poke(page + w * 8, value.wrapping_add(w)) {
            break;
        }
        WRITES.fetch_add(1, Relaxed);
    }
}

fn scribbler(seed: u64) {
    unsafe { guard() };
    let targets = targets();
    let mut value = seed;
    while !STOP.load(Relaxed) {
        for a in &targets {
            value = value.wrapping_mul(6364136223846793005).wrapping_add(1);
            // Values that look like addresses, numbers of calls and small integers in turn.
            let v = [value, STUB + (value & 0xf_ffff), value & 0xff, 0][(value >> 33) as usize % 4];
            unsafe {
                if poke(*a, v) {
                    WRITES.fetch_add(1, Relaxed);
                    flood(*a, v);
                }
            }
            if STOP.load(Relaxed) {
                return;
            }
        }
    }
}

extern "C" fn nothing(_: *mut libc::c_void) -> i32 {
    0
}

unsafe fn clones_and_maps(n: usize) {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let stack = libc::mmap(std::ptr::null_mut(), 65536, prot, anon, -1, 0).cast::<u8>();
    for i in 0..n {
        let p = libc::mmap(std::ptr::null_mut(), 16384, prot, anon, -1, 0);
        if p != libc::MAP_FAILED {
            p.cast::<u8>().write_volatile(1);
            libc::mprotect(p, 4096, libc::PROT_READ);
            libc::munmap(p, 16384);
        }
        let pid = libc::clone(
            nothing,
            stack.add(65536).cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            std::ptr::null_mut(),
        );
        if pid > 0 {
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
        if i % 10 == 0 {
            let _ =
                std::thread::Builder::new().stack_size(32768).spawn(|| {}).map(std::thread::JoinHandle::join);
        }
    }
}

/// `scribble [N]`.
pub fn run(args: &[String]) {
    let n: usize = args.first().and_then(|a| a.parse().ok()).unwrap_or(10_000);
    let mut tally = Tally::default();
    let start = Instant::now();
    let mut done = 0;
    // A scribbler may well kill its own process: then the next one goes on until all rounds were done or five have died.
    for round in 0..5 {
        let share = if round == 0 { n } else { n / 4 };
        let end = child(Duration::from_secs(90), || {
            unsafe { guard() };
            for seed in 0..2 {
                std::thread::spawn(move || scribbler(seed + 77));
            }
            unsafe { clones_and_maps(share) };
            STOP.store(true, Relaxed);
            say(&format!("{share} clones and maps, {} words written outside", WRITES.load(Relaxed)));
            unsafe { libc::_exit(0) };
        });
        tally.add(end);
        done += usize::from(end == Some(crate::run::End::Exit(0)));
        if done == 1 || start.elapsed() > Duration::from_secs(100) {
            break;
        }
    }
    tally.print("scribblers");
}
