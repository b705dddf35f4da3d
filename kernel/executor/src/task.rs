//! Tasks: futures in async-task cells, queued on their home CPU when woken.

use crate::machine::{Machine, expect_machine, with_local};
use async_task::{Builder, Runnable, ScheduleInfo, WithInfo};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

/// Where a task lives.
pub(crate) struct Home {
    cpu: AtomicUsize,
    machine: Arc<Machine>,
}

/// Queues a woken task. Called by wakers on any thread, and at the end of a poll during which it was woken.
fn schedule(task: Runnable<Home>, info: ScheduleInfo) {
    with_local(|local| {
        let home = task.metadata();
        let local = local.filter(|l| Arc::ptr_eq(&l.machine, &home.machine));
        if info.woken_while_running {
            // Always on the thread that has just polled it, so `migrate` is this task's wish if it is anyone's.
            if let Some(cpu) = local.and_then(|l| l.migrate.take()) {
                home.cpu.store(cpu, Ordering::Relaxed);
            }
        }
        let cpu = home.cpu.load(Ordering::Relaxed);
        match local {
            Some(l) if l.id == cpu => l.runq.borrow_mut().push_back(task),
            _ => {
                let machine = Arc::clone(&home.machine);
                machine.cpu(cpu).push_remote(task);
            }
        }
    });
}

/// Starts a task on this CPU (on CPU 0 if called from a foreign thread). Panics if the executor does not run.
pub fn spawn(f: impl Future<Output = ()> + Send + 'static) {
    spawn_on(crate::try_this_cpu().unwrap_or(0), f);
}

/// Starts a task with `cpu` as its home; a number that does not exist means CPU 0.
pub fn spawn_on(cpu: usize, f: impl Future<Output = ()> + Send + 'static) {
    let machine = expect_machine();
    let cpu = if cpu < machine.cpus.len() { cpu } else { 0 };
    let home = Home { cpu: AtomicUsize::new(cpu), machine };
    let (runnable, task) = Builder::new().metadata(home).spawn(move |_| f, WithInfo(schedule));
    task.detach();
    runnable.schedule();
}

/// Lets everything else that is runnable on this CPU go first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Moves the current task to another CPU, where it goes on; a number that does not exist means CPU 0.
pub async fn migrate_to(cpu: usize) {
    poll_fn(|cx| {
        with_local(|local| {
            let Some(l) = local else { return Poll::Ready(()) };
            let cpu = if cpu < l.machine.cpus.len() { cpu } else { 0 };
            if l.id == cpu {
                return Poll::Ready(());
            }
            l.migrate.set(Some(cpu));
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    })
    .await;
}
