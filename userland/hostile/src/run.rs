//! Children with time limits, the witness, and `hostile all`.
use std::io::Write;
use std::time::{Duration, Instant};

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Exit(i32),
    Signal(i32),
    /// It had to be killed.
    Hung,
}

/// Prints progress that is visible even if the kernel dies in the next moment.
pub fn say(text: &str) {
    println!("# {text}");
    let _ = std::io::stdout().flush();
}

pub fn errno() -> i32 {
    unsafe { *libc::__errno_location() }
}

/// Waits for `pid` at most `limit`, then kills it.
pub fn wait(pid: i32, limit: Duration) -> End {
    let start = Instant::now();
    let mut step = Duration::from_micros(50);
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
        if start.elapsed() > limit {
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, &mut s, 0);
            }
            return End::Hung;
        }
        std::thread::sleep(step);
        step = (step * 2).min(Duration::from_millis(10));
    }
}

/// Runs `f` in a child; `None` where there is no process to be had.
pub fn child(limit: Duration, f: impl FnOnce()) -> Option<End> {
    let _ = std::io::stdout().flush();
    match unsafe { libc::fork() } {
        -1 => None,
        0 => {
            // What outlives its parent would hold its output open and go on unseen.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
            f();
            unsafe { libc::_exit(0) }
        }
        pid => Some(wait(pid, limit)),
    }
}

/// Counts of endings, for one line at the end of an attack.
#[derive(Default)]
pub struct Tally(std::collections::BTreeMap<String, usize>);

impl Tally {
    pub fn add(&mut self, e: Option<End>) {
        let key = e.map_or("no process".to_owned(), |e| format!("{e:?}"));
        *self.0.entry(key).or_default() += 1;
    }

    pub fn print(&self, what: &str) {
        let parts: Vec<String> = self.0.iter().map(|(k, n)| format!("{n} {k}")).collect();
        say(&format!("{what}: {}", parts.join(", ")));
    }
}

/// The witness: sums over memory and a pipe of its own for ever; a mismatch is exit status 3. Counts its rounds in `rounds`.
fn witness(rounds: *mut u64) -> ! {
    unsafe {
        // Nobody's signal groups or terminals: only what it may not be able to escape should reach it.
        libc::setsid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let len = 64 << 10;
        let mut seed = 1u64;
        let mut memory = vec![0u64; len];
        let mut p = [0; 2];
        if libc::pipe(p.as_mut_ptr()) < 0 {
            libc::_exit(4);
        }
        loop {
            let mut want = 0u64;
            for (i, m) in memory.iter_mut().enumerate() {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *m = seed ^ i as u64;
                want = want.wrapping_add(*m);
            }
            let sent = want.to_le_bytes();
            let mut back = [0u8; 8];
            let w = libc::write(p[1], sent.as_ptr().cast(), 8);
            libc::sched_yield();
            let got = std::hint::black_box(&memory).iter().fold(0u64, |a, b| a.wrapping_add(*b));
            let r = libc::read(p[0], back.as_mut_ptr().cast(), 8);
            if got != want || back != sent || w != 8 || r != 8 {
                libc::_exit(3);
            }
            rounds.write_volatile(rounds.read_volatile() + 1);
            let rest = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            libc::nanosleep(&rest, std::ptr::null_mut());
        }
    }
}

/// Each attack in a process of its own beside one witness; exit status 1 if one hung or the witness was disturbed.
pub fn all(attacks: &[super::Attack]) -> i32 {
    let page = unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
    };
    if page == libc::MAP_FAILED {
        eprintln!("hostile: no shared page for the witness: {}", std::io::Error::last_os_error());
        return 2;
    }
    let rounds = page.cast::<u64>();
    let _ = std::io::stdout().flush();
    let w = unsafe { libc::fork() };
    if w == 0 {
        witness(rounds);
    }
    let mut bad = 0;
    for (name, _, f) in attacks {
        say(&format!("attack {name}"));
        let before = unsafe { rounds.read_volatile() };
        let t = Instant::now();
        let end = child(Duration::from_secs(120), || unsafe {
            libc::setsid();
            libc::munmap(page, 4096);
            f(&[]);
        });
        // The witness must still make progress, and soon.
        let since = Instant::now();
        let at_end = unsafe { rounds.read_volatile() };
        while unsafe { rounds.read_volatile() } == at_end && since.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let after = unsafe { rounds.read_volatile() };
        let mut s = 0;
        let gone = unsafe { libc::waitpid(w, &mut s, libc::WNOHANG) } == w;
        // An attack may end by its own fault; it may not need to be killed.
        let ok = !gone && after > at_end && matches!(end, Some(End::Exit(0) | End::Signal(_)));
        bad += i32::from(!ok);
        let word = if ok { "ok" } else { "not ok" };
        println!(
            "{word} {name}: {} in {:.1} s, witness {} rounds{}",
            end.map_or("no process".into(), |e| format!("{e:?}")),
            t.elapsed().as_secs_f64(),
            after - before,
            if gone { format!(", WITNESS GONE with status {s:#x}") } else { String::new() }
        );
        if gone {
            println!("hostile: the witness was disturbed");
            return 1;
        }
    }
    unsafe { libc::kill(w, libc::SIGKILL) };
    let end = wait(w, Duration::from_secs(10));
    let undisturbed = end == End::Signal(libc::SIGKILL);
    println!(
        "hostile: {bad} attacks did harm, witness {}",
        if undisturbed { "undisturbed" } else { "DISTURBED" }
    );
    i32::from(bad > 0 || !undisturbed)
}
