//! Spreading busy threads over the CPUs, and bringing pairs that wake each other together.
//!
//! Tasks are born on the CPU of their parent, where hand-overs are cheap, and most stay there. Only when two threads
//! compute on one CPU for a while, and another CPU has none, one of them is moved. Nothing ticks: the watch is set by
//! the thread that makes a CPU crowded and ends when none is; as long as there is no place to move to it looks rarer
//! and rarer. A task that is woken from another CPU over and over in short time moves to it (downwards only, so that the
//! two of a pair do not swap): a wake across costs the host ten times more than one on the spot.

use super::pid;
use super::sched;
use super::task::Task;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A thread that has been in user mode for this long without a trap, and got its share of the core, is busy.
const BUSY: Duration = Duration::from_millis(4);
/// Longest sleep of the watch while all CPUs have work: what becomes idle meanwhile stays so for no longer.
const RAREST: Duration = Duration::from_millis(64);
/// This many wakes from one other CPU in a row ...
const PAIR_WAKES: u32 = 16;
/// ... within this time make a pair.
const PAIR_SPAN: Duration = Duration::from_millis(8);

static WATCHING: AtomicBool = AtomicBool::new(false);

/// Called when a thread enters user mode on a CPU; `load` of them are there now.
pub fn entered(load: isize) {
    // Another CPU that has a thread now may be idle before any of these traps again: nobody would look then.
    let uneven = |c| executor::load_of(c) < load;
    if load >= 2 && !WATCHING.load(Ordering::Relaxed) && (0..executor::nr_cpus()).any(uneven) {
        watch();
    }
}

/// A CPU without a thread in user mode.
fn idle_cpu() -> Option<usize> {
    (0..executor::nr_cpus()).find(|&c| executor::load_of(c) <= 0)
}

fn crowded_cpu() -> Option<usize> {
    (0..executor::nr_cpus()).find(|&c| executor::load_of(c) >= 2)
}

fn watch() {
    if WATCHING.swap(true, Ordering::AcqRel) {
        return;
    }
    executor::spawn(async {
        loop {
            while let Some(from) = crowded_cpu() {
                relieve(from).await;
            }
            WATCHING.store(false, Ordering::SeqCst);
            // Who made a CPU crowded just now saw the watch still standing.
            if crowded_cpu().is_none() || WATCHING.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    });
}

/// Moves a busy thread of `from` to a CPU that has none, as soon as there is one. Returns early if things change.
async fn relieve(from: usize) {
    let mut rest = BUSY;
    let to = loop {
        match idle_cpu() {
            Some(to) => break to,
            None => executor::time::sleep(rest).await,
        }
        if executor::load_of(from) < 2 {
            return;
        }
        rest = (rest * 2).min(RAREST);
    };
    let before: Vec<(Arc<Task>, u64, u64)> =
        running_on(from).map(|t| (Arc::clone(&t), traps(&t), cpu_ns(&t))).collect();
    executor::time::sleep(BUSY).await;
    if executor::load_of(to) > 0 {
        return;
    }
    // The last one: the longest there keep their caches.
    let least = BUSY.as_nanos() as u64 / 4;
    let busy = before.iter().rev().find(|(t, n, ns)| {
        t.in_user.load(Ordering::SeqCst) && traps(t) == *n && cpu_ns(t).saturating_sub(*ns) >= least
    });
    if let Some((task, ..)) = busy
        && allowed(task, to)
    {
        task.move_to.store(to as u32 + 1, Ordering::SeqCst);
        sched::kick(task);
    }
}

fn traps(task: &Task) -> u64 {
    task.traps.load(Ordering::Relaxed)
}

fn cpu_ns(task: &Task) -> u64 {
    arch::host::clock::process_cpu_ns(task.host_pid.load(Ordering::Relaxed) as i32)
}

/// Called when a wait of `task` is over; `by` is the CPU that ended it.
pub fn woken(task: &Task, by: usize) {
    let here = task.cpu.load(Ordering::Relaxed) as usize;
    if by >= here {
        task.remote_wakes.store(0, Ordering::Relaxed);
        return;
    }
    let n = task.remote_wakes.fetch_add(1, Ordering::Relaxed) + 1;
    let now = executor::time::now();
    if n == 1 {
        task.remote_since.store(now.as_ns(), Ordering::Relaxed);
    } else if n >= PAIR_WAKES {
        task.remote_wakes.store(0, Ordering::Relaxed);
        let since = klib::ktime::Ktime(task.remote_since.load(Ordering::Relaxed));
        if now.since(since) <= PAIR_SPAN && executor::load_of(by) <= 1 && allowed(task, by) {
            task.move_to.store(by as u32 + 1, Ordering::SeqCst);
        }
    }
}

fn allowed(task: &Task, cpu: usize) -> bool {
    task.affinity.load(Ordering::Relaxed) >> (cpu % 64) & 1 != 0
}

/// Tasks in user mode on `cpu`.
fn running_on(cpu: usize) -> impl Iterator<Item = Arc<Task>> {
    let on = |t: &Task| t.in_user.load(Ordering::Relaxed) && t.cpu.load(Ordering::Relaxed) as usize == cpu;
    let tasks: Vec<Arc<Task>> = pid::read().tasks().filter(|t| on(t)).cloned().collect();
    tasks.into_iter()
}
