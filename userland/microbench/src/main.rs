//! Costs of single kernel operations: `microbench [NAME...]` prints `name value unit` lines, each bounded to about a second.
#![allow(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    missing_docs
)]

use std::ffi::CStr;
use std::io::Write;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

type Bench = (&'static str, &'static str, unsafe fn() -> Option<f64>);

const ALL: &[Bench] = &[
    ("null_getppid", "us", null_call),
    ("fork_exec_wait_static", "us", || unsafe { fork_exec(c"/proc/self/exe", 0) }),
    ("fork_exec_wait_dynamic", "us", || unsafe { fork_exec(c"/bin/true", 0) }),
    ("fork_exec_wait_200mib", "us", || unsafe { fork_exec(c"/proc/self/exe", 200) }),
    ("spawn_vfork", "us", spawn),
    ("touch_seq", "ns", || unsafe { touch(4096, 16 << 20) }),
    ("touch_mib", "ns", || unsafe { touch(1 << 20, 256 << 20) }),
    ("pipe_pingpong", "us", pingpong),
    ("thread_create_join", "us", || per(|| std::thread::spawn(|| {}).join().is_ok())),
    ("futex_switch", "us", switch),
    ("busy_serial", "s", || busy(false)),
    ("busy_parallel", "s", || busy(true)),
    ("mmap_munmap", "us", map),
    ("open_close", "us", || unsafe { per(|| libc::close(libc::open(c"/proc/self/exe".as_ptr(), 0)) == 0) }),
    ("stat", "us", || unsafe {
        per(|| libc::stat(c"/proc/self/exe".as_ptr(), &mut std::mem::zeroed()) == 0)
    }),
    ("read_4k_cached", "us", read4k),
    ("signal_delivery", "us", signal),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "exit") {
        return;
    }
    for (name, unit, f) in ALL {
        if args.is_empty() || args.iter().any(|a| name.contains(a.as_str())) {
            match unsafe { f() } {
                Some(v) => println!("{name} {v:.3} {unit}"),
                None => eprintln!("# {name}: not possible here"),
            }
            let _ = std::io::stdout().flush();
        }
    }
}

/// Microseconds per call of `f`, over about half a second; `None` if one failed.
fn per(mut f: impl FnMut() -> bool) -> Option<f64> {
    let (start, mut n) = (Instant::now(), 0u64);
    f();
    let first = start.elapsed().max(Duration::from_nanos(100));
    // Batches of about 10 ms, so that the clock costs nothing.
    let batch = (10_000_000 / first.as_nanos() as u64).clamp(1, 10_000);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        for _ in 0..batch {
            if !f() {
                return None;
            }
        }
        n += batch;
    }
    Some(start.elapsed().as_secs_f64() * 1e6 / n as f64)
}

unsafe fn null_call() -> Option<f64> {
    per(|| libc::syscall(libc::SYS_getppid) >= 0)
}

unsafe fn anon(len: usize) -> Option<*mut u8> {
    let p = libc::mmap(null_mut(), len, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    (p != libc::MAP_FAILED).then_some(p.cast())
}

unsafe fn done(pid: i32) -> bool {
    let mut s = 0;
    pid > 0 && libc::waitpid(pid, &mut s, 0) == pid && s == 0
}

unsafe fn fork_exec(path: &CStr, mib: usize) -> Option<f64> {
    let len = mib << 20;
    let p = if len > 0 { Some(anon(len)?) } else { None };
    for i in (0..len).step_by(4096) {
        p?.add(i).write_volatile(1);
    }
    let argv = [path.as_ptr(), c"exit".as_ptr(), null()];
    let r = per(|| {
        let pid = libc::fork();
        if pid == 0 {
            libc::execv(path.as_ptr(), argv.as_ptr());
            libc::_exit(1);
        }
        done(pid)
    });
    if let Some(p) = p {
        libc::munmap(p.cast(), len);
    }
    r
}

unsafe fn spawn() -> Option<f64> {
    let argv = [c"x".as_ptr().cast_mut(), c"exit".as_ptr().cast_mut(), null_mut()];
    let env = [null_mut()];
    per(|| {
        let mut pid = 0;
        let r = libc::posix_spawn(
            &mut pid,
            c"/proc/self/exe".as_ptr(),
            null(),
            null(),
            argv.as_ptr(),
            env.as_ptr(),
        );
        r == 0 && done(pid)
    })
}

/// Nanoseconds per first-touched page, one page every `step` bytes of `len`.
unsafe fn touch(step: usize, len: usize) -> Option<f64> {
    let (mut spent, mut pages) = (Duration::ZERO, 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(700) {
        let p = anon(len)?;
        libc::madvise(p.cast(), len, libc::MADV_NOHUGEPAGE);
        let t = Instant::now();
        for i in (0..len).step_by(step) {
            p.add(i).write_volatile(1);
        }
        spent += t.elapsed();
        pages += len / step;
        libc::munmap(p.cast(), len);
    }
    Some(spent.as_nanos() as f64 / pages as f64)
}

unsafe fn pingpong() -> Option<f64> {
    let (mut a, mut b) = ([0; 2], [0; 2]);
    if libc::pipe(a.as_mut_ptr()) < 0 || libc::pipe(b.as_mut_ptr()) < 0 {
        return None;
    }
    let mut c = 0u8;
    let c = &raw mut c;
    let pid = libc::fork();
    if pid == 0 {
        libc::close(a[1]);
        while libc::read(a[0], c.cast(), 1) == 1 && libc::write(b[1], c.cast(), 1) == 1 {}
        libc::_exit(0);
    }
    let r = per(|| libc::write(a[1], c.cast(), 1) == 1 && libc::read(b[0], c.cast(), 1) == 1);
    [a[0], a[1], b[0], b[1]].iter().for_each(|f| assert_eq!(libc::close(*f), 0));
    done(pid);
    r
}

/// A hand-over between two threads by futex (half a round trip).
unsafe fn switch() -> Option<f64> {
    static W: AtomicU32 = AtomicU32::new(0);
    fn pass(mine: u32) -> bool {
        while W.load(SeqCst) != mine {
            let v = W.load(SeqCst);
            if v == 2 {
                return false;
            }
            if v != mine {
                unsafe { libc::syscall(libc::SYS_futex, W.as_ptr(), 128, v, 0, 0, 0) };
            }
        }
        let won = W.compare_exchange(mine, 1 - mine, SeqCst, SeqCst).is_ok();
        unsafe { libc::syscall(libc::SYS_futex, W.as_ptr(), 129, 1, 0, 0, 0) };
        won
    }
    let t = std::thread::spawn(|| while pass(1) {});
    let r = per(|| pass(0));
    W.store(2, SeqCst);
    libc::syscall(libc::SYS_futex, W.as_ptr(), 129, 9, 0, 0, 0);
    t.join().ok()?;
    r.map(|v| v / 2.0)
}

/// Two loops of fixed work in two processes, one after the other or both at once: seconds in all.
fn busy(parallel: bool) -> Option<f64> {
    let one = || unsafe {
        let pid = libc::fork();
        if pid == 0 {
            (0..150_000_000u64).fold(1u64, |x, _| std::hint::black_box(x.wrapping_mul(3) + 1));
            libc::_exit(0);
        }
        pid
    };
    let t = Instant::now();
    let a = one();
    let fine = unsafe {
        if parallel {
            let b = one();
            done(a) & done(b)
        } else {
            done(a) && done(one())
        }
    };
    fine.then(|| t.elapsed().as_secs_f64())
}

unsafe fn map() -> Option<f64> {
    per(|| anon(65536).is_some_and(|p| libc::munmap(p.cast(), 65536) == 0))
}

unsafe fn read4k() -> Option<f64> {
    let f = libc::open(c"/proc/self/exe".as_ptr(), 0);
    let mut b = [0u8; 4096];
    let r = per(|| libc::pread(f, b.as_mut_ptr().cast(), 4096, 4096) == 4096);
    libc::close(f);
    r
}

extern "C" fn nothing(_: i32) {}

unsafe fn signal() -> Option<f64> {
    libc::signal(libc::SIGUSR1, nothing as *const () as usize);
    let me = libc::getpid();
    per(|| libc::kill(me, libc::SIGUSR1) == 0)
}
