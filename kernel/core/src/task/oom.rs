//! The OOM killer: `mem=` is full, nothing can be reclaimed, and a fault needs a page.

use super::task::Task;
use super::{exit, pid};
use crate::mm::frames::frames;
use crate::signal::send;
use klib::ktime::Ktime;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use uapi::raw::general as c;

/// How often a waiter looks whether memory has come back.
const STEP: Duration = Duration::from_millis(10);
/// After this the next victim is chosen although the one before has not given its memory back.
const VICTIM_PATIENCE: Duration = Duration::from_secs(1);
/// A fault that finds no page for so long ends its process.
const PATIENCE: Duration = Duration::from_secs(20);

/// Until when nobody else is killed: the last victim is still dying.
static DYING_UNTIL: Mutex<Option<Ktime>> = Mutex::new(None);

/// Waits until a fault of `task` may find memory, killing the largest process if nobody is dying already. False: `task`
/// is to end.
pub async fn make_room(task: &Arc<Task>) -> bool {
    let give_up = executor::time::now() + PATIENCE;
    // The first look is for those that a victim has just made room for.
    let enough = frames().total_pages() / 64;
    loop {
        if task.exiting.load(Ordering::SeqCst) || task.sig_pending.load(Ordering::SeqCst) {
            // A signal is handled first; if it is not the end of the task, the fault comes again.
            return true;
        }
        if frames().free_pages() > enough {
            return true;
        }
        if executor::time::now() > give_up {
            log::error!(target: "mm", "out of memory: process {} ({}) found none and is killed", task.tgid(), name(task));
            exit::group_exit(task, c::SIGKILL as i32);
            return false;
        }
        if begin() {
            match choose() {
                Some((victim, pages)) => {
                    log::error!(
                        target: "mm",
                        "Out of memory: Killed process {} ({}) rss:{}kB",
                        victim.tgid(),
                        name(&victim),
                        pages * 4
                    );
                    send::send_sig(&victim, c::SIGKILL);
                }
                None => log::error!(target: "mm", "out of memory and no process that may be killed"),
            }
            continue;
        }
        executor::time::sleep(STEP).await;
    }
}

fn name(task: &Task) -> String {
    String::from_utf8_lossy(&task.comm_bytes()).into_owned()
}

/// True for the one that chooses the next victim.
fn begin() -> bool {
    let now = executor::time::now();
    let mut until = DYING_UNTIL.lock();
    if until.is_some_and(|u| now < u) {
        return false;
    }
    *until = Some(now + VICTIM_PATIENCE);
    true
}

/// The process with most resident pages, moved by its oom_score_adj; never init.
fn choose() -> Option<(Arc<Task>, u64)> {
    let tasks: Vec<Arc<Task>> = pid::read().tasks().cloned().collect();
    let mut seen = HashSet::new();
    let total = frames().total_pages() as i64;
    tasks
        .into_iter()
        .filter(|t| t.tgid() != 1 && !t.exiting.load(Ordering::SeqCst))
        .filter_map(|t| {
            let mm = t.try_mm()?;
            let adj = i64::from(t.group.oom_score_adj.load(Ordering::Relaxed));
            if adj <= -1000 || !seen.insert(t.tgid()) {
                return None;
            }
            let pages = mm.resident_pages();
            Some((pages as i64 + adj * total / 1000, t, pages))
        })
        .max_by_key(|(score, ..)| *score)
        .map(|(_, t, pages)| (t, pages))
}
