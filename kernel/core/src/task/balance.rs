//! Spreading busy threads over the CPUs.
//!
//! Tasks are born on the CPU of their parent, where hand-overs are cheap, and most stay there. Only when two threads
//! have been in user mode on one CPU for a while, and another CPU has none, one of them is moved. Nothing ticks: the
//! watch is set by the thread that makes a CPU crowded and ends when none is.

use super::pid;
use super::sched;
use super::task::Task;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A thread that has been in user mode for this long without a trap is busy.
const BUSY: Duration = Duration::from_millis(2);

static WATCHING: AtomicBool = AtomicBool::new(false);

/// Called when a thread enters user mode on `cpu`.
pub fn entered(cpu: usize) {
    if executor::load_of(cpu) >= 2 && !WATCHING.load(Ordering::Relaxed) && idle_cpu().is_some() {
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
        while let (Some(from), Some(to)) = (crowded_cpu(), idle_cpu()) {
            let before: Vec<(Arc<Task>, u64)> =
                running_on(from).map(|t| (Arc::clone(&t), traps(&t))).collect();
            executor::time::sleep(BUSY).await;
            if executor::load_of(to) > 0 {
                continue;
            }
            // The last one: the longest there keep their caches.
            let busy = before.iter().rev().find(|(t, n)| t.in_user.load(Ordering::SeqCst) && traps(t) == *n);
            if let Some((task, _)) = busy
                && allowed(task, to)
            {
                task.move_to.store(to as u32 + 1, Ordering::SeqCst);
                sched::kick(task);
            }
        }
        WATCHING.store(false, Ordering::Release);
    });
}

fn traps(task: &Task) -> u64 {
    task.traps.load(Ordering::Relaxed)
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
