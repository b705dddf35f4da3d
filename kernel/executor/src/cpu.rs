//! The life of a CPU: start, the loop, idle, the end.

use crate::haltpoll::{self, HaltPoll};
use crate::irq::RingSlot;
use crate::machine::{Cpu, Local, Machine, become_cpu, lock, publish, with_local};
use crate::softirq::Handlers;
use crate::stats::Counters;
use crate::{crash, signal, softirq, time};
use arch::host::{clock, thread};
use arch::irqchip::Ring;
use arch::irqchip::probe::{Features, probe};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Tasks polled in one round before interrupts are looked at again.
const TASK_BUDGET: usize = 64;
/// Tasks polled at least before a raised softirq is run.
const TASK_BATCH: usize = 8;
/// Completions reaped in one round.
const REAP_BUDGET: usize = 256;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of CPUs (at least 1).
    pub ncpus: usize,
    /// Bind each to a host CPU, if there are enough of them.
    pub pin: bool,
}

/// One kernel a process at a time; tests run one after the other.
static RUNNING: Mutex<()> = Mutex::new(());

/// Starts the CPUs, calls `init` on CPU 0, and returns the exit code once [`shutdown`] has been called and all CPUs have
/// stopped. The hooks of [`crash::at_exit`] have run by then. If the host cannot run us, says why on stderr and returns 1.
///
/// SIGWINCH, SIGTERM, SIGINT and SIGHUP are blocked in all threads from now on and come through [`signal`].
pub fn start(cfg: Config, init: impl FnOnce() + Send + 'static) -> i32 {
    let _one = lock(&RUNNING);
    let features = match probe() {
        Ok(f) => f,
        Err(line) => {
            eprintln!("{line}");
            return 1;
        }
    };
    log::info!(target: "irqchip", "{features}");
    let allowed = thread::allowed_cpus();
    let ncpus = cfg.ncpus.max(1);
    let pin = cfg.pin && ncpus <= allowed.len();
    let cpus: klib::Result<Box<[Cpu]>> =
        (0..ncpus).map(|i| Cpu::new(allowed.get(i).copied().filter(|_| pin))).collect();
    let cpus = match cpus {
        Ok(c) => c,
        Err(e) => {
            eprintln!("cannot make a doorbell (eventfd): {}; raise RLIMIT_NOFILE", e.text());
            return 1;
        }
    };
    let machine = Arc::new(Machine {
        cpus,
        softirqs: Handlers::default(),
        stop: AtomicBool::new(false),
        code: AtomicI32::new(0),
    });
    crash::install();
    let unblock = signal::block_all();
    publish(Some(Arc::clone(&machine)));
    let ok = run_threads(&machine, features, init);
    publish(None);
    crash::run_hooks();
    unblock();
    // What is still queued is dropped here; that may queue more.
    let mut rest = VecDeque::new();
    loop {
        for cpu in &machine.cpus {
            cpu.take_inbox(&mut rest);
            drop(cpu.take_calls());
            let timers = std::mem::take(&mut *lock(&cpu.timers));
            drop(timers);
        }
        if rest.is_empty() {
            break;
        }
        rest.clear();
    }
    machine.softirqs.clear();
    if ok { machine.code.load(Ordering::Acquire) } else { 1 }
}

fn run_threads(machine: &Arc<Machine>, features: Features, init: impl FnOnce() + Send + 'static) -> bool {
    let (report, reports) = mpsc::channel::<Result<(), String>>();
    let mut threads = Vec::new();
    let mut init: Option<Box<dyn FnOnce() + Send>> = Some(Box::new(init));
    let gate = Arc::new((Mutex::new(None::<bool>), std::sync::Condvar::new()));
    for id in 0..machine.cpus.len() {
        let (machine, report, gate) = (Arc::clone(machine), report.clone(), Arc::clone(&gate));
        let init = init.take();
        let body = move || cpu_main(id, machine, features, &report, &gate, init);
        match std::thread::Builder::new().name(format!("cpu{id}")).stack_size(8 << 20).spawn(body) {
            Ok(t) => threads.push(t),
            Err(e) => {
                eprintln!("cannot start the thread of CPU {id}: {e}");
                break;
            }
        }
    }
    drop(report);
    let mut ok = threads.len() == machine.cpus.len();
    // One report from each; the timeout only guards against a host that starts no threads.
    for _ in 0..threads.len() {
        match reports.recv_timeout(Duration::from_secs(10)) {
            Ok(Ok(())) => {}
            Ok(Err(line)) => {
                eprintln!("{line}");
                ok = false;
            }
            Err(_) => {
                eprintln!("a CPU thread did not start within 10 s");
                ok = false;
            }
        }
    }
    // All CPUs are there (or not): let them run, or end.
    *lock(&gate.0) = Some(ok);
    gate.1.notify_all();
    for t in threads {
        ok &= t.join().is_ok();
    }
    ok
}

type Gate = (Mutex<Option<bool>>, std::sync::Condvar);

fn cpu_main(
    id: usize,
    machine: Arc<Machine>,
    features: Features,
    report: &mpsc::Sender<Result<(), String>>,
    gate: &Gate,
    init: Option<Box<dyn FnOnce() + Send>>,
) {
    crash::fatal_here();
    thread::exact_timers();
    thread::leave_rseq();
    if let Some(host) = machine.cpu(id).host_cpu
        && let Err(e) = thread::pin_to(host)
    {
        log::warn!(target: "executor", "CPU {id} cannot be bound to host CPU {host}: {}", e.text());
    }
    let ring = Ring::new(features).map(|mut r| {
        r.listen(&machine.cpu(id).doorbell);
        r
    });
    let (ring, outcome) = match ring {
        Ok(r) => (Some(r), Ok(())),
        Err(line) => (None, Err(line)),
    };
    let _ = report.send(outcome);
    let go = {
        let mut state = lock(&gate.0);
        loop {
            if let Some(go) = *state {
                break go;
            }
            state = gate.1.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    };
    if !go {
        return;
    }
    become_cpu(Local {
        id,
        machine,
        runq: RefCell::new(VecDeque::with_capacity(256)),
        ring: RingSlot::new(ring),
        migrate: Cell::new(None),
        clock: Cell::new(clock::monotonic()),
        haltpoll: HaltPoll::default(),
        reaped: Cell::new(Vec::with_capacity(REAP_BUDGET)),
    });
    if let Some(init) = init {
        signal::start();
        init();
    }
    with_local(|local| {
        if let Some(local) = local {
            run(local);
            finish(local);
        }
    });
}

/// Stops all CPUs; [`start`] then returns `code`. From any thread; the first call counts.
pub fn shutdown(code: i32) {
    if let Some(machine) = crate::machine::machine()
        && !machine.stop.swap(true, Ordering::AcqRel)
    {
        machine.code.store(code, Ordering::Release);
        for cpu in &machine.cpus {
            cpu.kick();
        }
    }
}

fn run(local: &Local) {
    let cpu = local.me();
    while !local.machine.stop.load(Ordering::Acquire) {
        Counters::add_own(&cpu.counters.rounds, 1);
        time::run_due(cpu);
        softirq::run(local);
        for call in cpu.take_calls() {
            call();
        }
        run_tasks(local);
        if local.runq.borrow().is_empty() && !cpu.has_work() {
            idle(local, false);
        } else {
            local.ring.with(|ring| {
                if ring.wants_flush() {
                    host_ok(ring.flush());
                }
            });
            local.clock.set(clock::monotonic());
        }
        interrupts(local);
    }
}

/// Takes what has completed and tells whoever waits for it.
fn interrupts(local: &Local) {
    // A handler does not get here again; if it did, it would find an empty list.
    let mut completions = local.reaped.take();
    local.ring.with(|ring| ring.reap(&mut completions, REAP_BUDGET));
    for c in completions.drain(..) {
        if let Some(n) = local.me().counters.completions.get(c.kind as usize) {
            Counters::add_own(n, 1);
        }
        c.deliver();
    }
    local.reaped.set(completions);
}

/// Called by a task that would have to wait now: if nothing else is runnable, sleeps right here until something happens
/// and takes the interrupts, so that the task can go on at once if that was what it waits for. A round through the run
/// queue is saved, which a guest that does one short system call after the other feels.
pub(crate) fn nap(local: &Local) {
    let cpu = local.me();
    if local.runq.borrow().is_empty() && !cpu.has_work() && !local.machine.stop.load(Ordering::Acquire) {
        idle(local, true);
        interrupts(local);
    }
}

fn run_tasks(local: &Local) {
    let cpu = local.me();
    let mut ran = 0;
    cpu.take_inbox(&mut local.runq.borrow_mut());
    // Work stealing belongs here: a CPU that finds its queue empty may take tasks that are marked as not bound to a
    // CPU from the longest inbox. Tasks of guest threads must stay where their host threads are bound.
    while ran < TASK_BUDGET {
        let Some(task) = local.runq.borrow_mut().pop_front() else { break };
        task.run();
        local.migrate.set(None);
        ran += 1;
        if ran >= TASK_BATCH && cpu.softirqs.load(Ordering::Relaxed) != 0 {
            break;
        }
    }
    cpu.queued.store(local.runq.borrow().len(), Ordering::Relaxed);
    Counters::add_own(&cpu.counters.tasks_run, ran as u64);
}

/// Nothing is runnable: submit what is queued and sleep until a completion, a timer or the doorbell. `here`: for a host
/// thread of ours that needs this core to go on.
fn idle(local: &Local, here: bool) {
    let cpu = local.me();
    local.ring.with(|ring| {
        if ring.has_completions() {
            if ring.wants_flush() {
                host_ok(ring.flush());
            }
            return;
        }
        cpu.doorbell.prepare_idle();
        // Look again, now that wakers know: see `Doorbell` for why nothing is missed.
        let next = lock(&cpu.timers).next();
        let timeout = next.map(|t| t.since(crate::time::now()));
        let since = local.clock.get();
        let due = timeout.is_some_and(|t| t.is_zero());
        if due || cpu.has_work() || local.machine.stop.load(Ordering::Acquire) {
            cpu.doorbell.leave_idle();
            if ring.wants_flush() {
                host_ok(ring.flush());
            }
            return;
        }
        // Guest code needs the core, too.
        let here = here || cpu.added_load() > 0;
        if here || !local.haltpoll.wanted() || !host_ok(haltpoll::poll(local, ring, timeout)) {
            host_ok(ring.wait(timeout));
        }
        cpu.doorbell.leave_idle();
        let idle = crate::time::now().since(since);
        if !here {
            local.haltpoll.waited(idle);
        }
        Counters::add_own(&cpu.counters.idle_ns, idle.as_nanos() as u64);
        cpu.counters.store_ring(&ring.counters());
    });
}

/// The calls that drive the ring fail only if we use it wrongly or the host breaks it: there is no going on.
fn host_ok<T>(r: klib::Result<T>) -> T {
    r.unwrap_or_else(|e| panic!("io_uring_enter: {}", e.text()))
}

/// Ends a CPU: drops its tasks while the ring can still cancel what they wait for, then the ring.
fn finish(local: &Local) {
    loop {
        let mut rest = std::mem::take(&mut *local.runq.borrow_mut());
        local.me().take_inbox(&mut rest);
        if rest.is_empty() {
            break;
        }
        drop(rest);
    }
    local.me().counters.store_ring(&local.ring.with(|r| r.counters()).unwrap_or_default());
    drop(local.ring.take());
    drop(std::mem::take(&mut *local.runq.borrow_mut()));
}
