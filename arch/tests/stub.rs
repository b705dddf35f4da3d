//! Guest code in a real stub: traps, faults, registers, and what a hostile thread cannot do.

use arch::mm::{MapOp, PhysMem};
use arch::user::{Block, Mapper, StubHost, StubProcess, Trap, UserRegs, UserThread};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const POLLIN: u16 = 1;

/// A running stub with one thread, driven by blocking polls instead of a ring.
struct Guest {
    mem: PhysMem,
    host: Arc<StubHost>,
    stub: StubProcess,
    mapper: Mapper,
    thread: UserThread,
}

/// fork copies the whole test process: one at a time keeps that cheap and the doorbells apart.
static ONE: Mutex<()> = Mutex::new(());

fn until<T>(what: &str, host: &StubHost, mut f: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(v) = f() {
            return v;
        }
        assert!(Instant::now() < end, "waited 5 s for {what}");
        host.doorbell_fd().poll_wait(POLLIN, 50).unwrap();
        host.doorbell().take().ok();
    }
}

fn run_ops(mapper: &mut Mapper, ops: &[MapOp]) {
    mapper.begin(ops).unwrap();
    assert_ne!(mapper.fd().poll_wait(POLLIN, 5000).unwrap(), 0, "waited 5 s for the mapper");
    mapper.finish().unwrap();
}

impl Guest {
    fn new(code: &[u8]) -> Self {
        let mem = PhysMem::new(1 << 20).unwrap();
        let host = StubHost::start(&mem).unwrap();
        let mut stub = host.request_stub().unwrap();
        let mut mapper = until("a stub", &host, || stub.set_up().unwrap());
        assert_ne!(mapper.fd().poll_wait(POLLIN, 5000).unwrap(), 0, "waited 5 s for the first report");
        mapper.finish().unwrap();
        let block: Block = stub.take_block().unwrap();
        mem.write(0, code);
        run_ops(
            &mut mapper,
            &[
                block.map_op(),
                MapOp::Map { va: CODE, len: 4096, mem: 0, prot: 5, populate: true },
                MapOp::Map { va: DATA, len: 4096, mem: 4096, prot: 3, populate: false },
            ],
        );
        stub.request_thread(&block);
        let mut block = Some(block);
        let thread = until("a thread", &host, || match stub.take_thread(block.take().unwrap()) {
            Ok(t) => Some(t),
            Err((b, None)) => {
                block = Some(b);
                None
            }
            Err((_, Some(e))) => panic!("{e}"),
        });
        let mut g = Self { mem, host, stub, mapper, thread };
        assert!(matches!(g.trap(), Trap::Start));
        g
    }

    fn trap(&mut self) -> Trap {
        assert_ne!(self.thread.fd().poll_wait(POLLIN, 5000).unwrap(), 0, "waited 5 s for a trap");
        self.thread.recv().unwrap()
    }

    fn start(&mut self, regs: UserRegs) {
        self.thread.start(&UserRegs { rip: CODE, rsp: DATA + 4096, ..regs }, &[]).unwrap();
    }
}

#[test]
fn calls_faults_and_registers_round_trip() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    // mov eax,39; syscall; mov rbx,rax; mov [DATA+0x1000], rbx (not mapped); mov eax,57; syscall; ud2
    let mut code = vec![0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0x48, 0x89, 0xc3, 0x48, 0x89, 0x1c, 0x25];
    code.extend((DATA as u32 + 0x1000).to_le_bytes());
    code.extend([0xb8, 57, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b]);
    let mut g = Guest::new(&code);
    g.start(UserRegs { r12: 0x1234_5678_9abc, fs_base: 0x7000, ..UserRegs::default() });
    let Trap::Syscall { nr, ip, .. } = g.trap() else { panic!("a system call") };
    assert_eq!((nr, ip), (39, CODE + 7));
    g.thread.finish_syscall(4242).unwrap();
    let t = g.trap();
    let Trap::Fault(f) = t else { panic!("a fault, not {t:?}") };
    assert_eq!((f.addr, f.err & 2), (DATA + 0x1000, 2));
    let r = g.thread.regs().unwrap();
    assert_eq!((r.rbx, r.r12, r.fs_base), (4242, 0x1234_5678_9abc, 0x7000));
    assert!(g.thread.fpu().len() >= 512);
    run_ops(
        &mut g.mapper,
        &[MapOp::Map { va: DATA + 0x1000, len: 4096, mem: 8192, prot: 3, populate: true }],
    );
    g.thread.resume_unchanged().unwrap();
    assert!(matches!(g.trap(), Trap::FullSyscall));
    let mut b = [0; 8];
    g.mem.read(8192, &mut b);
    assert_eq!(u64::from_ne_bytes(b), 4242);
    let mut r = g.thread.regs().unwrap();
    assert_eq!(r.rax, 57);
    r.rax = 7;
    g.thread.resume(&r).unwrap();
    let t = g.trap();
    assert!(matches!(t, Trap::Exception { signal: 4, .. }), "{t:?}");
    assert_eq!(g.thread.regs().unwrap().rax, 7);
    assert!(g.host.vdso().is_some());
}

#[test]
fn a_spinning_thread_is_kicked_and_started_anew() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut g = Guest::new(&[0xeb, 0xfe]); // jmp to itself
    for _ in 0..3 {
        g.start(UserRegs::default());
        g.thread.kick();
        assert!(matches!(g.trap(), Trap::Kicked));
        assert_eq!(g.thread.regs().unwrap().rip, CODE);
    }
    g.thread.exit().unwrap();
    assert_ne!(g.thread.fd().poll_wait(POLLIN, 5000).unwrap() & 0x10, 0, "hang-up after exit");
}

/// What a trap costs on one core; run with `--ignored --nocapture` on a release build.
#[test]
#[ignore = "a measurement"]
fn null_call_cost() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    // 1: mov eax,39; syscall; jmp 1b
    let mut g = Guest::new(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
    g.start(UserRegs::default());
    g.trap();
    arch::host::thread::pin_to(0).unwrap();
    arch::host::thread::pin_thread_to(g.thread.tid(), 0).unwrap();
    let n = 100_000;
    let t = Instant::now();
    for _ in 0..n {
        g.thread.finish_syscall(1).unwrap();
        g.trap();
    }
    println!("null call: {:.2} us", t.elapsed().as_secs_f64() * 1e6 / f64::from(n));
}

#[test]
fn a_thread_that_the_host_refuses_is_known_at_once() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    // Root is not bound by RLIMIT_NPROC. The raw call changes this thread alone, and the zygote takes after it.
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    // SAFETY: integers only.
    if root && unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) } < 0 {
        eprintln!("skipped: cannot become another user, and root has no limit of processes");
        return;
    }
    let g = Guest::new(&[0xeb, 0xfe]);
    let old = process_limit(&g, None);
    let ask = || {
        let block = g.stub.take_block().unwrap();
        let since = Instant::now();
        g.stub.request_thread(&block);
        let mut block = Some(block);
        let r = until("an answer", &g.host, || match g.stub.take_thread(block.take().unwrap()) {
            Ok(t) => Some(Ok(t)),
            Err((b, None)) => {
                block = Some(b);
                None
            }
            Err((_, Some(e))) => Some(Err(e)),
        });
        (r, since.elapsed())
    };
    process_limit(&g, Some(libc::rlimit { rlim_cur: 0, ..old }));
    // More than two: the numbers of the signs are used in turn.
    for _ in 0..5 {
        let (r, took) = ask();
        assert_eq!(r.err(), Some(uapi::Errno::EAGAIN));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    process_limit(&g, Some(old));
    for _ in 0..3 {
        assert!(ask().0.is_ok());
    }
}

/// Sets the RLIMIT_NPROC that the stub's root is bound by; gives the one before.
fn process_limit(g: &Guest, new: Option<libc::rlimit>) -> libc::rlimit {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both point to live structures or are null.
    let r = unsafe { libc::prlimit(g.stub.pid(), libc::RLIMIT_NPROC, new, &raw mut old) };
    assert_eq!(r, 0, "prlimit: {}", std::io::Error::last_os_error());
    old
}
