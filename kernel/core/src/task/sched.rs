//! Where tasks run, and the border to user mode: kicks, placement, scheduling calls.

use super::task::Task;
use crate::Result;
use arch::user::UserThread;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A kicked thread answers within this, or its process is ended: only a guest that tampers with its signal frames can
/// stay away from its handler.
pub const KICK_PATIENCE: Duration = Duration::from_secs(2);

/// sched_yield(2).
pub async fn sys_sched_yield(_cur: &Arc<Task>) -> Result<u64> {
    executor::yield_now().await;
    Ok(0)
}

/// Ties a task to the host thread that runs its code, and that thread to the task's core.
pub fn bind(task: &Task, user: &UserThread) {
    let (pid, tid) = user.kick_handle();
    task.host_pid.store(pid as u32, Ordering::SeqCst);
    task.host_tid.store(tid as u32, Ordering::SeqCst);
    if let Some(core) = executor::host_cpu(task.cpu.load(Ordering::Relaxed) as usize) {
        arch::host::thread::pin_thread_to(tid, core).ok();
    }
}

/// Marks the task as running user code, unless a signal is pending (false: handle it first). Pairs with
/// `signal_wake_up`: either it sees the mark and kicks, or we see the signal.
pub fn enter_user(task: &Task) -> bool {
    task.in_user.store(true, Ordering::SeqCst);
    if task.sig_pending.load(Ordering::SeqCst) {
        task.in_user.store(false, Ordering::SeqCst);
        return false;
    }
    let cpu = task.cpu.load(Ordering::Relaxed) as usize;
    let load = executor::load_add(cpu, 1);
    super::balance::entered(load);
    task.acct.enter_user();
    true
}

/// The opposite, at each trap.
pub fn leave_user(task: &Task) {
    if task.in_user.swap(false, Ordering::SeqCst) {
        task.acct.enter_kernel();
        executor::load_add(task.cpu.load(Ordering::Relaxed) as usize, -1);
        task.traps.fetch_add(1, Ordering::Relaxed);
    }
}

/// Moves the running task and its host thread to the CPU that `balance` or sched_setaffinity(2) chose.
pub async fn migrate(task: &Task, user: &UserThread) {
    let to = task.move_to.swap(0, Ordering::SeqCst);
    if to == 0 || to as usize > executor::nr_cpus() {
        return;
    }
    task.cpu.store(to - 1, Ordering::Relaxed);
    bind(task, user);
    executor::migrate_to(to as usize - 1).await;
}

/// Makes a thread that runs guest code trap, so that it sees its pending signals.
pub fn kick(task: &Task) {
    let (pid, tid) = (task.host_pid.load(Ordering::SeqCst), task.host_tid.load(Ordering::SeqCst));
    arch::user::kick(pid as i32, tid as i32);
    watch(task);
}

/// Sees to it that a kick is answered.
fn watch(task: &Task) {
    let Some(mm) = task.try_mm() else { return };
    let space = Arc::clone(&mm.space);
    let Some(task) = super::pid::find_task(task.tid()) else { return };
    if task.watched.swap(true, Ordering::SeqCst) {
        return;
    }
    let seen = task.traps.load(Ordering::Relaxed);
    executor::spawn(async move {
        executor::time::sleep(KICK_PATIENCE).await;
        task.watched.store(false, Ordering::SeqCst);
        if task.in_user.load(Ordering::SeqCst)
            && task.sig_pending.load(Ordering::SeqCst)
            && task.traps.load(Ordering::Relaxed) == seen
        {
            log::warn!(target: "task", "{}: does not answer its kick: killed", task.tid());
            space.kill();
        }
    });
}

/// The CPU for a new task of `parent`: its own, where a hand-over is cheap. `balance` moves the busy ones.
pub fn place(parent: &Task) -> usize {
    parent.cpu.load(Ordering::Relaxed) as usize
}
